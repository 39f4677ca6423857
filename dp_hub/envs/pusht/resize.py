"""OpenCV's bilinear resize of uint8 images, bit for bit, without OpenCV.

The demonstrations' frames, and so the pixels every image policy expects, went through
``cv2.resize(frame, (96, 96))``: two taps an axis (no antialiasing) with 11-bit weights and OpenCV's
own roundings. Only the taps are read, so a part of the result costs only its part of the source.
"""

from typing import NamedTuple

import numpy as np

_WEIGHT_BITS = 11


class Taps(NamedTuple):
    """Where each pixel of an output axis reads: ``image[source[:, k]]`` times ``weight[:, k]``."""

    source: np.ndarray  # int64 (out, 2)
    weight: np.ndarray  # int32 (out, 2), the rows add up to 2048


def taps(source_px: int, target_px: int) -> Taps:
    """The taps that resize an axis of ``source_px`` pixels to ``target_px``."""
    centre = (np.arange(target_px) + 0.5) * (source_px / target_px) - 0.5
    left = np.floor(centre).astype(np.int64)
    share = (centre - left).astype(np.float32)
    share[(left < 0) | (left >= source_px - 1)] = 0
    left = np.clip(left, 0, source_px - 1)
    source = np.stack([left, np.minimum(left + 1, source_px - 1)], axis=1)
    weight = np.rint(np.stack([1 - share, share], axis=1) * 2**_WEIGHT_BITS).astype(np.int32)
    return Taps(source, weight)


def resample(image: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    """The output pixels at ``rows`` x ``columns``.

    Args:
        image: uint8 (H, W, C), or uint32 (H, W) holding four channels a pixel.
    Returns:
        uint8 (len(rows), len(columns), C), as ``cv2.resize`` with INTER_LINEAR computes them.
    """
    n_rows, n_columns = len(rows.source), len(columns.source)
    read = image[rows.source.reshape(-1, 1), columns.source.reshape(1, -1)]
    read = read.view(np.uint8).reshape(2 * n_rows, n_columns, 2, -1).astype(np.int32)
    read *= columns.weight[:, :, None]
    across = (read[:, :, 0] + read[:, :, 1]) >> 4
    across = across.reshape(n_rows, 2, n_columns, -1)
    across *= rows.weight[:, :, None, None]
    across >>= 16
    return ((across[:, 0] + across[:, 1] + 2) >> 2).astype(np.uint8)


def resize(image: np.ndarray, px: int) -> np.ndarray:
    """uint8 (H, W, C) as uint8 (px, px, C)."""
    height, width = image.shape[:2]
    return resample(image, taps(height, px), taps(width, px))
