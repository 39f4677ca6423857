"""Pictures in HDF5 files, read or decoded a few at a time when they are looked at."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import h5py
import numpy as np
from dp_hub_converters.hdf5.damage import damage_told
from dp_hub_converters.hdf5.files import check_readable, check_stored
from dp_hub_converters.hdf5.found import Shown
from dp_hub_converters.hdf5.opened import Opened
from dp_hub_converters.hdf5.walk import Kind
from PIL import Image

from dp_hub.errors import DataError

ImageEncoding = Literal["rgb", "bgr"]
Flip = Literal["none", "vertical", "rotate180"]
_BLOCK_BYTES = 8_000_000
_PICTURES_AT_ONCE = 32


def is_pictures(array: Any) -> bool:
    """Whether rows of an array are pictures."""
    return Shown.of(array).are_pictures


def is_encoded(key: str, array: Any) -> bool:
    """Whether rows are encoded pictures: bytes in one of three ways, in a group of pictures."""
    if "image" not in key.lower():
        return False
    kind, dims = array.dtype.kind, len(array.shape)
    return (array.dtype == np.uint8 and dims == 2) or (kind in "SO" and dims == 1)


class Rows:
    """Rows of an array of a file ``(T, ...)``, read when they are sliced.

    A chunk of several rows is decoded once when they are looked at in order.

    Args:
        opened: the file.
        group: the array's place in it.
        kind: what the array is, which it must be still.
        offset: where its bytes are, as `dp_hub_converters.hdf5.walk.Arrays` has it.
        count: of its rows, from the first; default: all.
        key: what an episode calls it, if not by its name.
    """

    def __init__(
        self,
        opened: Opened,
        group: str,
        kind: Kind,
        offset: int = -1,
        *,
        count: int | None = None,
        key: str = "",
    ) -> None:
        self._file, self._group, self._kind, self._offset = opened, group, kind, offset
        self._name = f"{group}/{kind.key}" if group else kind.key
        self._key = key or kind.key
        self.shape = (kind.shape[0] if count is None else count, *kind.shape[1:])
        self.dtype, self.ndim = kind.dtype, len(kind.shape)
        self._array: h5py.Dataset | None = None
        self._kept: tuple[int, np.ndarray] = (0, np.empty((0,), self.dtype))

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, part: slice) -> np.ndarray:
        """Some rows ``(t, ...)``. Raises DataError if they cannot be read."""
        start, stop, step = part.indices(len(self))
        if self._offset >= 0:
            return self._file.bytes_at(self._group, self._kind, self._offset, start, stop)[::step]
        with damage_told(f"{self._file.path}: {self._name}"):
            array = self._opened()
            rows = self._block_rows(array)
            if rows == 1:
                return np.asarray(array[start : max(start, stop)])[::step]
            read = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
            at = start
            while at < stop:
                first, block = self._block(array, at // rows * rows, rows)
                n = min(stop, first + len(block)) - at
                read[at - start : at - start + n] = block[at - first : at - first + n]
                at += n
        return read[::step]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def _opened(self) -> h5py.Dataset:
        if self._array is None:
            array = self._file.file[self._name]
            where = f"{self._file.path}: {self._name}"
            if array.shape[1:] != self.shape[1:] or len(array) < len(self):
                raise DataError(f"{where} has changed since it was looked at")
            check = check_readable if self.dtype.kind in "biuf" else check_stored
            check(array, where, self._key)
            self._array = array
        return self._array

    def _block_rows(self, array: h5py.Dataset) -> int:
        """How many rows to read at once so that no chunk is decoded twice."""
        if array.chunks is None or array.chunks[0] == 1:
            return 1
        rows = int(array.chunks[0])
        return rows * max(1, _BLOCK_BYTES // max(1, rows * array.nbytes // len(array)))

    def _block(self, array: h5py.Dataset, first: int, rows: int) -> tuple[int, np.ndarray]:
        kept = self._kept
        if kept[0] != first or not len(kept[1]):
            kept = (first, np.asarray(array[first : min(first + rows, len(array))]))
            self._kept = kept
        return kept


class Encoded:
    """Encoded pictures (JPEG, PNG) of an episode, decoded when they are looked at.

    uint8 ``(T, H, W, C)``, all of the size of the first one, which is read to know it.

    Args:
        read: gives the encoded pictures from one row up to another.
        count: of them, T.
        where: for messages.
        swap: red and blue are exchanged in what a decoder gives.
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        read: Callable[[int, int], Sequence[bytes]],
        count: int,
        where: str,
        *,
        swap: bool = False,
    ) -> None:
        self._read, self._where, self._swap = read, where, swap
        self.shape: tuple[int, ...] = (count, 0, 0, 0)
        with self._told(0), _image(read(0, 1)[0]) as image:
            self.shape = (count, *_size(image))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        """Decoded pictures, uint8 ``(t, H, W, C)``. Raises DataError if one is damaged."""
        start, stop, step = part.indices(len(self))
        pictures = np.empty((max(0, stop - start), *self.shape[1:]), np.uint8)
        for low in range(start, stop, _PICTURES_AT_ONCE):
            for row, data in enumerate(self._read(low, min(low + _PICTURES_AT_ONCE, stop)), low):
                pictures[row - start] = self._decode(data, row)
        return pictures[::step]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def first(self, count: int) -> "Encoded":
        """The first of them."""
        return Encoded(self._read, count, self._where, swap=self._swap)

    def _decode(self, data: bytes, frame: int) -> np.ndarray:
        with self._told(frame), _image(data) as image:
            if _size(image) != self.shape[1:]:
                raise ValueError(f"it is {_size(image)}, the first one is {self.shape[1:]}")
            picture = np.asarray(image).reshape(_size(image))
        return picture[..., ::-1] if self._swap else picture

    @contextmanager
    def _told(self, frame: int) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{self._where}, frame {frame}: {error}",
                hint="mend it, or leave out the camera with --drop",
            ) from None


def _image(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"pictures of mode {image.mode} are not read")
    return image


def _size(image: Image.Image) -> tuple[int, int, int]:
    return (image.height, image.width, len(image.getbands()))


def encoded_rows(rows: Rows) -> Callable[[int, int], list[bytes]]:
    """Reads the encoded pictures of an array whose rows are bytes, in whatever way.

    Rows may be of differing lengths (uint8 ``(T,)`` of arrays), padded with zeros (uint8
    ``(T, longest)``) or byte strings ``(T,)``.
    """
    return lambda start, stop: [
        bytes(row) if isinstance(row, bytes) else np.asarray(row, np.uint8).tobytes()
        for row in rows[start:stop]
    ]


class Turned:
    """Pictures the other way up, or with other colours, turned when they are looked at.

    Args:
        pictures: ``(T, H, W, C)`` or ``(T, C, H, W)``: an array, `Rows` or `Encoded`.
        flip: ``vertical`` exchanges up and down, ``rotate180`` left and right too.
        swap: exchange red and blue.
    """

    ndim = 4

    def __init__(self, pictures: Any, *, flip: Flip = "none", swap: bool = False) -> None:
        self._pictures, self._flip, self._swap = pictures, flip, swap
        self.shape, self.dtype = tuple(pictures.shape), pictures.dtype
        last = self.shape[3] in (1, 3)
        self._height, self._width, self._colours = (1, 2, 3) if last else (2, 3, 1)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, part: slice) -> np.ndarray:
        """Some of them, in the same layout."""
        some = np.asarray(self._pictures[part])
        if self._flip != "none":
            some = np.flip(some, self._height)
        if self._flip == "rotate180":
            some = np.flip(some, self._width)
        return np.flip(some, self._colours) if self._swap else some

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)
