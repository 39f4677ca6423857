"""Pixels of pictures as ROS and Foxglove store them: every common encoding to RGB or grey."""

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from dp_hub_converters.shared.encoded_pictures import KNOWN
from PIL import Image

_LARGEST_PX = 1 << 27
_ORDERS = {
    "rgb8": (3, (0, 1, 2)), "bgr8": (3, (2, 1, 0)), "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)), "mono8": (1, (0,)), "8uc1": (1, (0,)), "8uc3": (3, (0, 1, 2)),
    "8uc4": (4, (0, 1, 2)),
}  # fmt: skip
_DEPTHS = {"16uc1": "u2", "mono16": "u2", "16sc1": "i2", "32fc1": "f4", "64fc1": "f8"}
_DEPTHS |= {"32sc1": "i4"}
_YUV = {"yuv422": "uyvy422", "uyvy": "uyvy422", "yuv422_yuy2": "yuyv422", "yuyv": "yuyv422"}
_BAYER = {f"bayer_{pattern}8": pattern for pattern in ("rggb", "bggr", "gbrg", "grbg")}
_VIDEO = {"264": "h264", "avc": "h264", "265": "hevc", "hevc": "hevc", "av1": "av1"}
_VIDEO |= {"vp9": "vp9", "vp8": "vp8"}


@dataclass(frozen=True)
class Picture:
    """One picture of a message.

    Args:
        data: its bytes.
        format: an encoding of pixels (``bgr8``), or how they are compressed (``jpeg``, ``h264``).
        size: height and width of one that is not compressed.
        step: bytes from row to row of such a one.
        big_endian: the order of bytes of such a one.
    """

    data: memoryview
    format: str
    size: tuple[int, int] | None = None
    step: int = 0
    big_endian: bool = False


def video_codec(picture: Picture) -> str | None:
    """The codec, if the picture is a frame of a video."""
    if picture.size is not None:
        return None
    words = picture.format.lower().split(";")[0]
    return next((codec for word, codec in _VIDEO.items() if word in words), None)


def is_depth(picture: Picture) -> bool:
    """Whether the picture is distances, or other numbers of more than 8 bits."""
    name = picture.format.lower()
    if picture.size is not None:
        return name in _DEPTHS
    return "compresseddepth" in name or name.split(";")[0].strip() in _DEPTHS


def told(picture: Picture) -> str:
    """What a picture is, in words, and which colours come out."""
    name = picture.format.lower()
    if is_depth(picture):
        return f"{picture.format}, distances"
    if picture.size is None:
        return f"{picture.format}, decoded to RGB or grey"
    if name in ("8uc3", "8uc4"):
        return f"{picture.format}, which does not say the order of colours: given as it is stored"
    return f"{picture.format} to {'grey' if _ORDERS.get(name, (3,))[0] == 1 else 'RGB'}"


def decode(picture: Picture) -> np.ndarray:
    """The pixels, uint8 ``(H, W, 3)`` or ``(H, W, 1)``; of distances other numbers ``(H, W, 1)``.

    Raises:
        ValueError: the picture is damaged, or of an encoding that is not known.
    """
    if picture.size is not None:
        return _decode_plain(picture, picture.format.lower(), *picture.size)
    if "compresseddepth" in picture.format.lower():
        return _decode_depth(picture)
    return _decode_compressed(picture.data)


def _decode_plain(picture: Picture, name: str, height: int, width: int) -> np.ndarray:
    if not 0 < height * width <= _LARGEST_PX:
        raise ValueError(f"it is of {height}x{width} pixels")
    if name in _ORDERS:
        channels, order = _ORDERS[name]
        rows = _rows(picture, height, width * channels)
        pixels = rows.reshape(height, width, channels)
        return pixels if channels == len(order) and order[0] == 0 else pixels[..., list(order)]
    if name in _DEPTHS:
        kind = np.dtype((">" if picture.big_endian else "<") + _DEPTHS[name])
        rows = np.ascontiguousarray(_rows(picture, height, width * kind.itemsize))
        return rows.view(kind).astype(kind.newbyteorder("="))[..., None]
    if name in _BAYER:
        return demosaic(_rows(picture, height, width), _BAYER[name])
    if name in _YUV:
        return _reformatted(_rows(picture, height, width * 2), _YUV[name], height, width)
    if name in ("nv21", "nv12"):
        rows = _rows(picture, height * 3 // 2, width)
        return _reformatted(rows, name, height, width)
    raise ValueError(f"pixels encoded as {picture.format[:40]!r} cannot be read")


def _rows(picture: Picture, height: int, n_bytes: int) -> np.ndarray:
    """The rows of a picture without what pads them, uint8 ``(height, n_bytes)``."""
    step = picture.step or n_bytes
    data = np.frombuffer(picture.data, np.uint8)
    needed = step * (height - 1) + n_bytes
    if step < n_bytes or len(data) < needed:
        raise ValueError(f"{height} rows of {n_bytes} bytes are not in {len(data)} bytes")
    if len(data) < step * height:  # the last row may go without padding
        data = np.concatenate([data, np.zeros(step * height - len(data), np.uint8)])
    return data[: step * height].reshape(height, step)[:, :n_bytes]


def _reformatted(rows: np.ndarray, pixel_format: str, height: int, width: int) -> np.ndarray:
    import av

    frame = av.VideoFrame(width, height, pixel_format)
    start = 0
    flat = np.ascontiguousarray(rows).reshape(-1)
    for plane in frame.planes:
        length = width * 2 if len(frame.planes) == 1 else width
        n_rows = plane.height
        padded = np.zeros((n_rows, plane.line_size), np.uint8)
        padded[:, :length] = flat[start : start + n_rows * length].reshape(n_rows, length)
        plane.update(padded.tobytes()[: plane.buffer_size])
        start += n_rows * length
    return frame.to_ndarray(format="rgb24")


def demosaic(mosaic: np.ndarray, pattern: str) -> np.ndarray:
    """Colours between the points of a Bayer pattern, bilinear; uint8 ``(H, W, 3)``.

    Args:
        mosaic: uint8 (H, W).
        pattern: colours of the first two rows, such as ``rggb``.
    """
    edge = np.pad(mosaic.astype(np.uint16), 1, mode="reflect")
    middle, up, down = edge[1:-1, 1:-1], edge[:-2, 1:-1], edge[2:, 1:-1]
    left, right = edge[1:-1, :-2], edge[1:-1, 2:]
    corners = edge[:-2, :-2] + edge[:-2, 2:] + edge[2:, :-2] + edge[2:, 2:]
    cross, diagonal = (up + down + left + right + 2) >> 2, (corners + 2) >> 2
    across, along = (left + right + 1) >> 1, (up + down + 1) >> 1
    colours = np.empty((*mosaic.shape, 3), np.uint8)
    for number, colour in enumerate(pattern):
        here = np.s_[number // 2 :: 2, number % 2 :: 2]
        if colour == "g":
            beside = "rb".index(pattern[number ^ 1])  # red or blue in the same row
            colours[..., 1][here] = middle[here]
            colours[..., 2 * beside][here] = across[here]
            colours[..., 2 - 2 * beside][here] = along[here]
        else:
            own = 0 if colour == "r" else 2
            colours[..., own][here] = middle[here]
            colours[..., 1][here] = cross[here]
            colours[..., 2 - own][here] = diagonal[here]
    return colours


def _decode_compressed(data: memoryview) -> np.ndarray:
    return _opened(data, _pixels)


def _opened(data: memoryview, use: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=KNOWN) as image:
                if image.width * image.height > _LARGEST_PX:
                    raise ValueError(f"it is of {image.height}x{image.width} pixels")
                return use(image)
    except (OSError, SyntaxError, LookupError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        return (pixels.astype(np.uint16) if image.mode == "I" else pixels)[..., None]
    if image.mode in ("L", "1", "LA"):
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(image.convert("RGB"))


def _decode_depth(picture: Picture) -> np.ndarray:
    """compressed_depth_image_transport: a header of 12 bytes, then PNG."""
    if len(picture.data) < 12:
        raise ValueError(f"it has {len(picture.data)} bytes")
    _, scale, offset = struct.unpack_from("<iff", picture.data)
    pixels = _decode_compressed(picture.data[12:])
    if not picture.format.lower().startswith("32fc1"):
        return pixels
    depth = np.full(pixels.shape, np.nan, np.float32)
    np.divide(scale, pixels.astype(np.float32) - offset, out=depth, where=pixels > 0)
    return depth
