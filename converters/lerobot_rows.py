"""Rows of LeRobot's Parquet files: where each episode's are, and their values as arrays."""

import io
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dp_hub.errors import DataError

_AGAIN = "copy or pull the dataset again; if that does not help, it was written wrongly"
_PICTURES_AT_ONCE = 32
# What reading a damaged file can end in.
_DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, IndexError)


@dataclass(frozen=True)
class Rows:
    """Where the rows of an episode are, as the rows themselves tell.

    Args:
        start: of the first, in its file.
        tasks: ``task_index`` of its frames, each once, in order of appearance.
        off_s: how far its timestamps are from the grid, at most.
    """

    path: Path
    start: int
    count: int
    tasks: tuple[int, ...]
    off_s: float

    @property
    def stop(self) -> int:
        """One past the last row."""
        return self.start + self.count


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what reading a damaged file ends in into DataError."""
    try:
        yield
    except _DAMAGE as error:
        text = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(f"{path} is damaged: {text}", hint=_AGAIN) from None


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file, its footer read. Raises DataError if it is missing, cut short or no Parquet."""
    if not path.exists():
        raise DataError(f"{path} is missing", hint=_AGAIN)
    with damage_told(path):
        file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        assert isinstance(file.schema_arrow.names, list), path  # or they are no texts
        return file


def read_table(
    file: pq.ParquetFile,
    path: Path,
    *,
    columns: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
) -> pa.Table:
    """Some columns and row groups of an open file; all of them by default. Raises DataError."""
    every = range(file.num_row_groups)
    chosen = None if columns is None else list(columns)
    with damage_told(path):
        return file.read_row_groups(list(every if groups is None else groups), columns=chosen)


def read_rows(
    file: pq.ParquetFile, path: Path, *, columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """The rows of an open file as plain values. Raises DataError if it is damaged."""
    table = read_table(file, path, columns=columns)
    with damage_told(path):
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows


def find_episodes(path: Path, fps: float) -> dict[int, Rows]:
    """Which episodes a data file holds, and where.

    Raises:
        DataError: the file is damaged, the rows of an episode are not together, or its frames are
            not in order.
    """
    wanted = ("episode_index", "frame_index", "timestamp", "task_index")
    with open_parquet(path) as file:
        names = [name for name in wanted if name in file.schema_arrow.names]
        if "episode_index" not in names:
            raise DataError(f"{path} has no column episode_index", hint=_AGAIN)
        table = read_table(file, path, columns=names)
    columns = {name: _plain(table[name], name, path) for name in names}
    episodes = columns["episode_index"]
    bounds = [0, *(np.flatnonzero(np.diff(episodes)) + 1).tolist(), len(episodes)]
    found: dict[int, Rows] = {}
    for start, stop in itertools.pairwise(bounds):
        if start == stop:
            continue
        number = int(episodes[start])
        if number in found:
            raise DataError(f"the rows of episode {number} are not together in {path}", hint=_AGAIN)
        part = {name: values[start:stop] for name, values in columns.items()}
        found[number] = _checked(path, number, start, part, fps)
    return found


def _checked(path: Path, number: int, start: int, part: dict[str, np.ndarray], fps: float) -> Rows:
    count = len(part["episode_index"])
    frames = np.arange(count)
    if "frame_index" in part:
        wrong = np.flatnonzero(part["frame_index"] != frames)
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"{path}: frame {row} of episode {number} has the frame_index "
                f"{part['frame_index'][row]}",
                hint="frames are missing or out of order; write the dataset again",
            )
    off_s = 0.0
    if "timestamp" in part:
        # Written as float32: its own rounding is no deviation.
        times = part["timestamp"].astype(np.float64)
        off = np.abs(times - frames / fps) - np.spacing(np.abs(times).astype(np.float32))
        off_s = float(off.max()) if np.isfinite(off).all() else float("inf")
    tasks = part.get("task_index", np.zeros(0, np.int64))
    each, first = np.unique(tasks, return_index=True)
    return Rows(path, start, count, tuple(each[np.argsort(first)].tolist()), max(off_s, 0.0))


def _plain(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray:
    """A column of plain numbers (n,)."""
    dims, flat = _flattened(column, name, path)
    if any(n != 1 for n in dims) or flat.dtype.kind not in "iuf":
        raise DataError(f"{name} in {path} is {column.type}, not a number", hint=_AGAIN)
    if flat.dtype.kind == "f" and name != "timestamp":
        if not (np.isfinite(flat).all() and (flat == np.round(flat)).all()):
            raise DataError(f"{name} in {path} is not whole numbers", hint=_AGAIN)
        flat = flat.astype(np.int64)
    return flat


def _flattened(
    column: pa.ChunkedArray, name: str, path: Path
) -> tuple[tuple[int, ...], np.ndarray]:
    """Dimensions of one row, and all values one after the other."""
    with damage_told(path):
        array = column.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
        dims: list[int] = []
        while True:
            if isinstance(array, pa.ExtensionArray):
                array = array.storage
            if array.null_count:
                raise DataError(
                    f"{name} in {path} has {array.null_count} empty entries",
                    hint=f"mend the dataset, or leave it out with --drop {name}",
                )
            kind = array.type
            if pa.types.is_fixed_size_list(kind):
                dims.append(kind.list_size)
            elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
                sizes = np.diff(array.offsets.to_numpy(zero_copy_only=False))
                if len(sizes) and sizes.min() != sizes.max():
                    raise DataError(
                        f"{name} in {path} has from {sizes.min()} to {sizes.max()} values a frame",
                        hint=f"a feature has one shape; leave it out with --drop {name}",
                    )
                dims.append(int(sizes[0]) if len(sizes) else 0)
            else:
                return tuple(dims), array.to_numpy(zero_copy_only=False)
            array = array.flatten()


def numbers(column: pa.ChunkedArray, name: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    """A column as ``(T, *shape)``; of plain numbers as ``(T,)``.

    Raises:
        DataError: empty entries, or frames of another shape than ``shape`` (a list of vectors of
            that shape will do).
    """
    dims, flat = _flattened(column, name, path)
    rows = len(column)
    if not dims and shape in ((), (1,)):
        return flat
    size = int(np.prod(dims))
    if size == int(np.prod(shape)):
        dims = shape or dims
    elif shape and dims[-len(shape) :] != shape:
        raise DataError(
            f"{name} in {path} is {list(dims)} per frame; meta/info.json says {list(shape)}",
            hint=f"mend its shape in meta/info.json, or leave it out with --drop {name}",
        )
    if len(flat) != rows * size:
        raise DataError(f"{name} in {path} has {len(flat)} values in {rows} rows", hint=_AGAIN)
    return flat.reshape(rows, *dims)


class Tables:
    """Reads the rows of episodes, in order; keeps the row groups it read last."""

    def __init__(self) -> None:
        self._file: Any = None
        self._key: tuple[Any, ...] = ()
        self._table: Any = None

    def read(self, rows: Rows, columns: Sequence[str]) -> pa.Table:
        """These columns of an episode. Raises DataError if the file is damaged or lacks one."""
        if self._file is None or self._file[0] != rows.path:
            self._file = (rows.path, open_parquet(rows.path))
        file = self._file[1]
        known = set(file.schema_arrow.names)
        if missing := [name for name in columns if name not in known]:
            raise DataError(
                f"{rows.path} has no column {missing[0]}, which meta/info.json lists",
                hint=f"leave it out with --drop {missing[0]}",
            )
        groups, first = row_groups(file, rows.start, rows.stop)
        key = (rows.path, groups, tuple(columns))
        if key != self._key:
            self._table = read_table(file, rows.path, columns=columns, groups=groups)
            self._key = key
        return self._table.slice(rows.start - first, rows.count)


def row_groups(file: pq.ParquetFile, start: int, stop: int) -> tuple[tuple[int, ...], int]:
    """The row groups with these rows, and the first row of the first of them."""
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    ends = np.cumsum(sizes)
    low = int(np.searchsorted(ends, start, side="right"))
    high = int(np.searchsorted(ends, stop, side="left"))
    return tuple(range(low, min(high, len(sizes) - 1) + 1)), int(ends[low] - sizes[low])


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
                    raise DataError(f"{self._path} ends before row {stop}", hint=_AGAIN)
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
            with Image.open(io.BytesIO(data)) as image:
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
