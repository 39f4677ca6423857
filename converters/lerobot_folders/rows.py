"""Rows of LeRobot's Parquet files: where each episode's are, and their values as arrays."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.errors import DataError

AGAIN = "copy or pull the dataset again; if that does not help, it was written wrongly"
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
        raise DataError(f"{path} is damaged: {text}", hint=AGAIN) from None


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file, its footer read. Raises DataError if it is missing, cut short or no Parquet."""
    if not path.exists():
        raise DataError(f"{path} is missing", hint=AGAIN)
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
            raise DataError(f"{path} has no column episode_index", hint=AGAIN)
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
            raise DataError(f"the rows of episode {number} are not together in {path}", hint=AGAIN)
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
        raise DataError(f"{name} in {path} is {column.type}, not a number", hint=AGAIN)
    if flat.dtype.kind == "f" and name != "timestamp":
        if not (np.isfinite(flat).all() and (flat == np.round(flat)).all()):
            raise DataError(f"{name} in {path} is not whole numbers", hint=AGAIN)
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
        raise DataError(f"{name} in {path} has {len(flat)} values in {rows} rows", hint=AGAIN)
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
