"""Pictures that are turned, cut, made smaller or put into another order of colours when looked at.

The order is fixed: colours, then turned upright, mirrored, cut, and last made the size they are
stored in. So a crop means the upright picture, and a size is what comes out.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip
from dp_hub.replay.timeline.taken import Taken

Colour = Literal["rgb", "bgr", "rgba", "bgra"]
_AT_ONCE = 32
_CHANNELS = {"bgr": [2, 1, 0], "rgba": [0, 1, 2], "bgra": [2, 1, 0]}


@dataclass(frozen=True)
class PictureEdit:
    """What is done to every picture, in this order.

    Args:
        colour: how the source orders the channels; what comes out is RGB.
        rotate: degrees clockwise, 0, 90, 180 or 270.
        flip: ``vertical`` puts the top row at the bottom, ``horizontal`` the left at the right.
        crop: top, left, height and width in px.
        resize: height and width in px. Where whole blocks of pixels become one it is their mean,
            else Pillow's Lanczos filter, which looks at all pixels under it (antialiasing).
    """

    colour: Colour = "rgb"
    rotate: int = 0
    flip: Literal["vertical", "horizontal"] | None = None
    crop: tuple[int, int, int, int] | None = None
    resize: tuple[int, int] | None = None

    def shape(self, shape: tuple[int, ...], name: str) -> tuple[int, ...]:
        """What becomes of pictures ``(H, W, C)``.

        Raises:
            DataError: the pictures, called ``name``, have other channels, or no such cut.
        """
        height, width, channels = shape
        wanted = len(self.colour)
        if self.colour != "rgb" and channels != wanted:
            raise DataError(f"{name} has {channels} channels, `colour: {self.colour}` {wanted}")
        channels = 3 if wanted == 4 else channels
        if self.rotate in (90, 270):
            height, width = width, height
        if self.crop:
            top, left, high, wide = self.crop
            if top + high > height or left + wide > width:
                raise DataError(
                    f"{name} is {height}x{width}; the crop [{top}, {left}, {high}, {wide}] ends at "
                    f"row {top + high} and column {left + wide}",
                    hint="a crop is [top, left, height, width], of the picture after `rotate`",
                )
            height, width = high, wide
        return (*(self.resize or (height, width)), channels)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """The picture ``(H, W, C)``, uint8, edited."""
        if self.colour in _CHANNELS:
            picture = picture[..., _CHANNELS[self.colour]]
        if self.rotate:
            picture = np.rot90(picture, -self.rotate // 90)
        if self.flip:
            picture = picture[::-1] if self.flip == "vertical" else picture[:, ::-1]
        if self.crop:
            top, left, height, width = self.crop
            picture = picture[top : top + height, left : left + width]
        return _resized(picture, self.resize) if self.resize else picture


class EditedPictures:
    """Pictures ``(T, H, W, C)``, uint8, edited as they are sliced; in memory a few at a time.

    Args:
        pictures: anything with ``shape`` and slices; a `VideoClip` is decoded forwards once.
        edit: what is done to each.
        name: what they are called, for messages.
    Raises:
        DataError: the edit does not fit them.
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, pictures: Any, edit: PictureEdit, name: str) -> None:
        if pictures.ndim != 4 or pictures.dtype != np.uint8:
            raise DataError(
                f"{name} holds {pictures.dtype} {tuple(pictures.shape[1:])}, not pictures",
                hint="colour, rotate, flip, crop and resize are for uint8 (H, W, C)",
            )
        self._edit = edit
        self.shape = (len(pictures), *edit.shape(tuple(pictures.shape[1:]), name))
        forwards = isinstance(pictures, VideoClip)
        self._pictures = Taken(pictures, np.arange(len(pictures))) if forwards else pictures

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        """Edited pictures, uint8 ``(t, H, W, C)``. Raises DataError as the pictures do."""
        start, stop, step = part.indices(len(self))
        count = max(0, stop - start) if step > 0 else 0
        edited = np.empty((count, *self.shape[1:]), np.uint8)
        for low in range(0, count, _AT_ONCE):
            high = min(low + _AT_ONCE, count)
            block = self._pictures[start + low : start + high]
            for i, picture in enumerate(block, low):
                edited[i] = self._edit.apply(picture)
        return edited[::step]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def first_of(pictures: Any, count: int) -> Any:
    """The first ``count`` pictures, still not in memory if they were not."""
    if isinstance(pictures, np.ndarray):
        return pictures[:count]
    if isinstance(pictures, VideoClip):
        return pictures.part(0, count)
    return Taken(pictures, np.arange(count))


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture
    plain = np.ascontiguousarray(picture)
    if plain.shape[2] not in (1, 3):  # Pillow would weigh colours with a fourth
        each = [_resized(plain[..., i : i + 1], size) for i in range(plain.shape[2])]
        return np.concatenate(each, axis=2)
    image = Image.fromarray(plain[..., 0] if plain.shape[2] == 1 else plain)
    if height % size[0] == 0 and width % size[1] == 0:
        image = image.reduce((width // size[1], height // size[0]))  # rounds once
    else:
        image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(*size, plain.shape[2])
