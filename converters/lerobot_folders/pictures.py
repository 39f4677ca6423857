"""Pictures of LeRobot datasets that are not in videos: decoded a few at a time, when looked at."""

import io
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from dp_hub_converters.lerobot_folders.rows import (
    AGAIN,
    Rows,
    damage_told,
    open_parquet,
    row_groups,
)
from dp_hub_converters.shared.encoded_pictures import KNOWN
from PIL import Image

from dp_hub.errors import DataError

_PICTURES_AT_ONCE = 32


class PictureReader:
    """Encoded pictures of one column of one file, a few at a time and in order.

    Args:
        path: the data file.
        key: the column: structs of ``bytes`` and ``path``, or bytes, or paths.
        root: the dataset's folder, where files of pictures are.
    """

    def __init__(self, path: Path, key: str, root: Path) -> None:
        self._path, self._key, self._root = path, key, root
        self._lock = threading.Lock()  # the next episode is prepared while this one is read
        self._batches: Iterator[Any] = iter(())
        self._kept: list[bytes | None] = []
        self._next = -1  # row of the first one kept

    def read(self, start: int, stop: int) -> list[bytes]:
        """The encoded pictures of some rows. Raises DataError if there are none."""
        with self._lock, damage_told(self._path):
            if not 0 <= self._next <= start:
                self._seek(start)
            while True:
                passed = min(start - self._next, len(self._kept))
                self._next, self._kept = self._next + passed, self._kept[passed:]
                following = self._next + len(self._kept)
                if following >= stop:
                    break
                batch = next(self._batches, None)
                if batch is None:
                    raise DataError(f"{self._path} ends before row {stop}", hint=AGAIN)
                self._kept += self._encoded(batch.column(self._key), following, start)
            taken = [data for data in self._kept[: stop - start] if data is not None]
        if len(taken) != stop - start:
            raise DataError(
                f"{self._key} is empty in one of the rows {start} to {stop} of {self._path}",
                hint=f"mend it, or leave it out with --drop {self._key}",
            )
        return taken

    def _seek(self, row: int) -> None:
        file = open_parquet(self._path)
        groups, self._next = row_groups(file, row, row + 1)
        rest = list(range(groups[0], file.num_row_groups))
        self._batches = file.iter_batches(_PICTURES_AT_ONCE, row_groups=rest, columns=[self._key])
        self._kept = []

    def _encoded(self, array: Any, first: int, wanted: int) -> list[bytes | None]:
        """The pictures of a batch of rows from ``first`` on; files only from ``wanted`` on."""
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        return [
            self._one(entry) if row >= wanted else None
            for row, entry in enumerate(array.to_pylist(), first)
        ]

    def _one(self, entry: Any) -> bytes | None:
        if isinstance(entry, dict):
            entry = entry.get("bytes") or entry.get("path")
        if isinstance(entry, str):
            return self._file(entry)
        return entry if isinstance(entry, bytes) else None

    def _file(self, name: str) -> bytes:
        """A picture in a file of its own; recorders write its path from here or from there."""
        parts = Path(name).parts
        below = parts[parts.index("images") :] if "images" in parts else parts
        for path in (self._root / name, self._root.joinpath(*below)):
            if path.is_relative_to(self._root) and ".." not in path.parts and path.is_file():
                return path.read_bytes()
        raise DataError(
            f"{self._path}: the picture {name[:200]} of {self._key} is not in the dataset",
            hint=f"copy the folder images/ too, or leave it out with --drop {self._key}",
        )


class PictureFolder:
    """Pictures of an episode that are files of their own, in the order of their names.

    Args:
        files: the files.
        start: row of the first.
    """

    def __init__(self, files: Sequence[Path], start: int) -> None:
        self._files, self._start = files, start

    def read(self, start: int, stop: int) -> list[bytes]:
        """The encoded pictures of some rows. Raises DataError if one cannot be read."""
        read = []
        for path in self._files[start - self._start : stop - self._start]:
            with damage_told(path):
                read.append(path.read_bytes())
        return read


class Pictures:
    """The pictures of an episode, uint8 ``(T, H, W, C)``, decoded when they are looked at.

    Args:
        reader: gives them, encoded.
        rows: of the episode.
        key: of the feature, for messages.
        shape: (H, W, C) of each; default: that of the first one, which is read.
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        reader: PictureReader | PictureFolder,
        rows: Rows,
        key: str,
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        self._reader, self._rows, self._key = reader, rows, key
        self.format, self.shape = "", (rows.count, *(shape or (0, 0, 0)))
        if shape is None:  # that of the first picture
            [first] = reader.read(rows.start, rows.start + 1)
            self.format, picture = self._decode(first, 0)
            self.shape = (rows.count, *picture.shape)

    def __len__(self) -> int:
        return self._rows.count

    def __getitem__(self, part: slice) -> np.ndarray:
        """Decoded pictures, uint8 ``(t, H, W, C)``. Raises DataError if one is damaged."""
        start, stop, step = part.indices(len(self))
        count = max(0, stop - start)
        pictures = np.empty((count, *self.shape[1:]), np.uint8)
        for low in range(0, count, _PICTURES_AT_ONCE):
            first = self._rows.start + start + low
            last = min(first + _PICTURES_AT_ONCE, self._rows.start + stop)
            for i, data in enumerate(self._reader.read(first, last), low):
                pictures[i] = self._decode(data, start + i)[1]
        return pictures[::step]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def _decode(self, data: bytes, frame: int) -> tuple[str, np.ndarray]:
        where = f"{self._key}, frame {frame} of the episode at row {self._rows.start} of "
        where += str(self._rows.path)
        try:
            with Image.open(io.BytesIO(data), formats=KNOWN) as image:
                return str(image.format), self._pixels(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{where}: {error}", hint=f"mend it, or leave it out with --drop {self._key}"
            ) from None

    def _pixels(self, image: Image.Image) -> np.ndarray:
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            raise ValueError(f"pictures of mode {image.mode} are not of 8 bits")
        channels = self.shape[3] or (1 if image.mode in ("1", "L", "LA") else 3)
        picture = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        picture = picture.reshape(*picture.shape[:2], channels)
        if self.shape[3] and picture.shape != self.shape[1:]:
            raise ValueError(f"it is {picture.shape[:2]}, the first one is {self.shape[1:3]}")
        return picture
