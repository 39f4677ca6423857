"""How much of an object lies where it should, as a camera sees it.

As the original's ``real_pusht_metrics.py`` does: pixels of the object are those of a range of
colours, in OpenCV's HSV; the score is the intersection of such pixels in the last frame of an
episode and in a reference picture, over their union.
"""

import re
from dataclasses import dataclass

import numpy as np

from dp_hub.errors import ConfigError, DataError


@dataclass(frozen=True)
class ColourRange:
    """Colours in OpenCV's 8-bit HSV: hue 0 to 179, saturation and value 0 to 255; ends included.

    A hue range whose first end is above its second goes through red, at 0.
    """

    hue: tuple[int, int] = (0, 255)
    saturation: tuple[int, int] = (130, 216)
    value: tuple[int, int] = (150, 230)

    def __str__(self) -> str:
        return ",".join(f"{a}-{b}" for a, b in (self.hue, self.saturation, self.value))


REAL_PUSHT = ColourRange()
"""The original's, for a T of a saturated colour on a table."""


def read_range(text: str) -> ColourRange:
    """``0-255,130-216,150-230`` as a range. Raises ConfigError."""
    parts = [re.fullmatch(r"\s*(\d{1,3})-(\d{1,3})\s*", part) for part in text.split(",")]
    ends = [(int(part[1]), int(part[2])) for part in parts if part]
    plain = len(ends) == 3 == len(parts) and all(a <= b for a, b in ends[1:])
    if not plain or max(max(pair) for pair in ends) > 255:
        raise ConfigError(
            f"{text!r} is no range of colours",
            hint=f"it is H-H,S-S,V-V of 0 to 255, such as {REAL_PUSHT}",
        )
    return ColourRange(*ends)


def to_hsv(picture: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) of RGB in OpenCV's 8-bit HSV, uint8 (H, W, 3): hue in steps of 2 degrees."""
    rgb = picture.astype(np.float64)
    value, low = rgb.max(axis=2), rgb.min(axis=2)
    span = value - low
    some = np.where(span > 0, span, 1.0)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    hue = np.where(
        value == red,
        (green - blue) / some,
        np.where(value == green, 2 + (blue - red) / some, 4 + (red - green) / some),
    )
    hue = np.where(span > 0, hue * 30 % 180, 0.0)
    saturation = np.where(value > 0, 255 * span / np.where(value > 0, value, 1.0), 0.0)
    hsv: np.ndarray = np.rint(np.stack([hue, saturation, value], axis=2)).astype(np.uint8)
    hsv[..., 0] %= 180
    return hsv


def mask_of(picture: np.ndarray, colours: ColourRange) -> np.ndarray:
    """bool (H, W): the pixels of a picture uint8 (H, W, 3) whose colours are in the range."""
    hsv = to_hsv(picture)
    low, high = colours.hue
    hue = hsv[..., 0]
    mask = (low <= hue) & (hue <= high) if low <= high else (hue >= low) | (hue <= high)
    for channel, (low, high) in ((1, colours.saturation), (2, colours.value)):
        mask &= (hsv[..., channel] >= low) & (hsv[..., channel] <= high)
    return mask


def overlap(mask: np.ndarray, reference: np.ndarray) -> float:
    """Intersection over union of two masks, bool (H, W).

    Raises:
        DataError: nothing is set in the reference, or their sizes differ.
    """
    if mask.shape != reference.shape:
        raise DataError(
            f"a picture is {mask.shape[0]}x{mask.shape[1]}, the reference "
            f"{reference.shape[0]}x{reference.shape[1]}",
            hint="the reference has to be of the same camera",
        )
    if not reference.any():
        raise DataError(
            "no pixel of the reference is in the range of colours",
            hint="give another range with --hsv",
        )
    return float((mask & reference).sum() / (mask | reference).sum())
