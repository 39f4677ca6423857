"""Pictures that are encoded one by one (JPEG, PNG ...), decoded a few at a time when looked at."""

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dp_hub.errors import DataError

_AT_ONCE = 32
# Not all that Pillow knows: for some it starts other programs.
KNOWN = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "JPEG2000", "GIF", "PPM")
# What decoding a damaged picture can end in.
_DAMAGE = (
    *(OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, TypeError, OverflowError),
    *(MemoryError, struct.error, zlib.error, Image.DecompressionBombError),
)
# Of what Pillow calls them, by the type of the numbers.
_MODES = {"uint8": ("1", "L", "LA", "P", "RGB", "RGBA"), "uint16": ("I;16", "I;16B", "I")}
_BY_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


class EncodedPictures:
    """Pictures, ``(T, H, W, C)`` uint8 (or uint16 with one channel), decoded when sliced.

    Args:
        read: gives the encoded pictures of rows ``start:stop``.
        count: how many there are, T.
        where: what they are, for messages.
        shape: (H, W, C) of each; default, or for a zero in it: that of the first, which is read.
        dtype: ``uint8`` or ``uint16``.
    Raises:
        DataError: the first one is needed for the shape and cannot be decoded.
    """

    ndim = 4

    def __init__(
        self,
        read: Callable[[int, int], Sequence[bytes]],
        count: int,
        where: str,
        *,
        shape: tuple[int, int, int] = (0, 0, 0),
        dtype: str = "uint8",
    ) -> None:
        self._read, self._count, self._where = read, count, where
        self.dtype = np.dtype(dtype)
        self.shape = (count, *shape)
        if 0 in shape and count:
            self.shape = (count, *self._decode(read(0, 1)[0], 0).shape)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, part: slice) -> np.ndarray:
        """Decoded pictures ``(t, H, W, C)``. Raises DataError if one is damaged."""
        rows = range(*part.indices(self._count))
        if not rows:
            return np.empty((0, *self.shape[1:]), self.dtype)
        pictures: np.ndarray | None = None
        for first in range(0, len(rows), _AT_ONCE):
            block = rows[first : first + _AT_ONCE]
            low = min(block)
            encoded = self._read(low, max(block) + 1)
            for place, row in enumerate(block, first):
                picture = self._decode(encoded[row - low], row)
                if pictures is None:  # only now: their size may be a mistake of the source
                    pictures = np.empty((len(rows), *picture.shape), self.dtype)
                pictures[place] = picture
        assert pictures is not None, rows
        return pictures

    def first(self, count: int) -> "EncodedPictures":
        """The first ``count`` of them."""
        shape = (self.shape[1], self.shape[2], self.shape[3])
        return EncodedPictures(self._read, count, self._where, shape=shape, dtype=self.dtype.name)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def _decode(self, data: bytes, row: int) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(data), formats=KNOWN) as image:
                return self._pixels(image)
        except _DAMAGE as error:
            raise DataError(
                f"picture {row} of {self._where} cannot be read: {error}",
                hint="mend or copy it again, or leave these pictures out",
            ) from None

    def _pixels(self, image: Image.Image) -> np.ndarray:
        if image.mode not in _MODES[self.dtype.name]:
            raise ValueError(f"its numbers (mode {image.mode}) are not {self.dtype.name}")
        height, width, channels = self.shape[1:]
        if (height and image.height != height) or (width and image.width != width):
            raise ValueError(f"it is {image.height}x{image.width}, not {height}x{width}")
        if not channels:
            channels = 1 if image.mode in ("1", "L", "LA") or self.dtype == np.uint16 else 3
        if self.dtype == np.uint8:
            if channels not in _BY_CHANNELS:
                raise ValueError(f"pictures of {channels} channels are not known")
            picture = np.asarray(image.convert(_BY_CHANNELS[channels]))
        else:
            picture = np.asarray(image).astype(np.uint16)
        return picture.reshape(image.height, image.width, channels)


def type_of(file: Path) -> str:
    """``uint8`` or ``uint16``: what the numbers of a picture are. Raises DataError."""
    try:
        with Image.open(file, formats=KNOWN) as image:
            return "uint16" if image.mode in _MODES["uint16"] else "uint8"
    except _DAMAGE as error:
        raise DataError(f"the picture {file} cannot be read: {error}") from None


def read_files(files: Sequence[Path]) -> Callable[[int, int], list[bytes]]:
    """For `EncodedPictures`: each picture is a file. Reading raises DataError."""

    def read(start: int, stop: int) -> list[bytes]:
        try:
            return [path.read_bytes() for path in files[start:stop]]
        except OSError as error:
            raise DataError(f"a picture cannot be read: {error}") from None

    return read
