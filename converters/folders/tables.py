"""Tables of an episode: npz, npy, csv and Parquet files as named arrays, without pickles."""

import json
import math
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from dp_hub_converters.lerobot_folders.rows import numbers, open_parquet, read_table

from dp_hub.errors import DataError

_LARGEST = 1 << 29  # bytes of one array that is no pictures, which are read at once
_SEPARATORS = (",", ";", "\t")
_NUMBERED = re.compile(r"(?P<stem>.+?)[._ \-]?\[?(?P<number>\d+)\]?")
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
# What reading a damaged table can end in.
_DAMAGE = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, EOFError, MemoryError, OverflowError),
    *(SyntaxError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
    pa.ArrowException,
)


@dataclass(frozen=True)
class Table:
    """What a file holds.

    Args:
        path: of the file.
        columns: arrays ``(n, ...)`` by name; texts as object arrays.
        names: of the numbers of a value, by column.
        facts: single values.
    """

    path: Path
    columns: Mapping[str, Any]
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class ZippedPictures:
    """An array of pictures in an npz file, unpacked picture by picture as it is sliced.

    Args:
        path: of the file.
        name: of the array's file in it.
        shape: ``(n, H, W, C)``.
        begin: where the pictures begin in the array's file.
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], begin: int) -> None:
        self._path, self._name, self._begin = path, name, begin
        self.shape = shape
        self._lock = Lock()
        self._file: Any = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        """Pictures ``(t, H, W, C)``; forwards, each is unpacked once. Raises DataError."""
        start, stop, step = part.indices(len(self))
        pictures = np.empty((max(0, stop - start), *self.shape[1:]), np.uint8)
        size = math.prod(self.shape[1:])
        with self._lock, damage_told(self._path):
            if self._file is None:
                self._file = zipfile.ZipFile(self._path).open(self._name)  # noqa: SIM115
            self._file.seek(self._begin + start * size)
            for picture in pictures:
                picture.reshape(-1)[:] = np.frombuffer(self._file.read(size), np.uint8)
        return pictures[::step]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what reading a damaged table ends in into DataError."""
    try:
        yield
    except _DAMAGE as error:
        text = str(error).strip().split("\n")[0] or type(error).__name__
        pickled = "allow_pickle" in text
        raise DataError(
            f"{path} holds Python objects (a pickle), which are not read"
            if pickled
            else f"{path} cannot be read: {text}",
            hint="save it again as arrays of numbers or texts" if pickled else "copy it again",
        ) from None


def read_any_table(path: Path) -> Table:
    """The table in a file, by its suffix. Raises DataError if it cannot be read."""
    kind = path.suffix.lower()
    with damage_told(path):
        if kind == ".npz":
            return _npz(path)
        if kind == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return _of_arrays(path, {path.stem: array})
        if kind == ".csv":
            return _of_arrow(path, _csv(path))
    file = open_parquet(path)
    claimed = 8 * file.metadata.num_rows * file.metadata.num_columns
    if claimed > 2 * _LARGEST:
        raise DataError(f"{path} is about {claimed / 1e6:,.0f} MB of numbers in one episode")
    return _of_arrow(path, read_table(file, path))


def seconds_of(column: np.ndarray, unit: str | None, where: str) -> np.ndarray:
    """A column of times in s, float64 ``(n,)``.

    Args:
        column: numbers, or dates.
        unit: of the numbers: ``s``, ``ms``, ``us``, ``ns``; None: not told, so seconds.
        where: which column it is, for messages.
    Raises:
        DataError: it holds neither, or numbers that can be no seconds since 1970.
    """
    if column.dtype.kind == "M":
        column, unit = column.astype("datetime64[ns]").astype(np.int64), "ns"
    if column.dtype.kind not in "iuf" or column.ndim != 1:
        raise DataError(f"{where} holds no times but {column.dtype} {list(column.shape[1:])}")
    if unit is None and len(column) and np.abs(column[0]) > 1e11:
        raise DataError(
            f"{where} begins with {column[0]}, which are no seconds",
            hint="say what they are with --option time_unit=ns (or us, ms)",
        )
    times_s = column.astype(np.float64) * _UNITS[unit or "s"]
    wrong = ~np.isfinite(times_s)
    wrong[1:] |= np.diff(times_s) < 0
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{where} goes back or is no number at row {row}: {column[row]}",
            hint="times have to be in order; was a clock set while it was recorded?",
        )
    return times_s


def _npz(path: Path) -> Table:
    arrays: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            key = info.filename.removesuffix(".npy")
            head = _header(archive, info)
            if head.are_pictures:
                arrays[key] = ZippedPictures(path, info.filename, head.shape, head.size)
            elif info.file_size > _LARGEST:
                raise ValueError(f"{key} has {info.file_size / 1e6:,.0f} MB in one episode")
            else:
                arrays[key] = _member(path, key)
    return _of_arrays(path, arrays)


@dataclass(frozen=True)
class _Head:
    """What an array says of itself, and how many bytes it says it in."""

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype
    size: int

    @property
    def are_pictures(self) -> bool:
        return self.dtype == np.uint8 and len(self.shape) == 4 and not self.by_columns


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Head:
    """The head of an array in an archive. Raises ValueError if it does not fit its size."""
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}
        header = read.get(version, np.lib.format.read_array_header_2_0)(file)
        head = _Head(*header, file.tell())
    if head.dtype.hasobject:
        raise ValueError(f"{info.filename} needs allow_pickle")
    if math.prod(head.shape) * head.dtype.itemsize > info.file_size - head.size:
        raise ValueError(f"{info.filename} says it is {head.shape}, which it is too short for")
    return head


def _member(path: Path, key: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        array: np.ndarray = archive[key]
        return array


def _of_arrays(path: Path, arrays: Mapping[str, Any]) -> Table:
    """Arrays are columns, single values are facts."""
    columns: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for key, array in arrays.items():
        if getattr(array.dtype, "names", None):
            columns |= {f"{key}.{name}": array[name] for name in array.dtype.names}
        elif array.ndim:
            columns[key] = array.astype(object) if array.dtype.kind == "U" else array
        elif array.dtype.kind in "biufU":
            facts[key] = array.item()
    return Table(path, columns, facts=facts)


def _csv(path: Path) -> pa.Table:
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline(1_000_000)
    separator = max(_SEPARATORS, key=first.count)
    cells = [cell.strip().strip('"') for cell in first.strip("\r\n").split(separator)]
    if not any(cells) or all(_is_number(cell) for cell in cells):
        raise ValueError("its first line does not name the columns")
    table = pa.csv.read_csv(path, parse_options=pa.csv.ParseOptions(delimiter=separator))
    # The number of the row, as pandas writes it.
    return table.drop_columns([name for name in table.column_names if not name.strip()])


def _of_arrow(path: Path, table: pa.Table) -> Table:
    if len(set(table.column_names)) < table.num_columns:
        raise ValueError("two of its columns have the same name")
    plain = {name.strip(): _column(table[name], name, path) for name in table.column_names}
    columns, names = dict[str, Any](), dict[str, tuple[str, ...]]()
    for stem, members in _joined(plain).items():
        if len(members) > 1:
            columns[stem] = np.stack([plain[name] for name in members], axis=1)
            names[stem] = members
        else:
            columns[stem] = plain[members[0]]
    return Table(path, columns, {**names, **_told_names(table, columns)})


def _told_names(table: pa.Table, columns: Mapping[str, np.ndarray]) -> dict[str, tuple[str, ...]]:
    """Names of the numbers of lists, where the column's metadata has one for each."""
    told: dict[str, tuple[str, ...]] = {}
    for column in table.schema:
        name, text = column.name.strip(), (column.metadata or {}).get(b"names")
        if text is None or name not in columns or columns[name].ndim != 2:
            continue
        found = json.loads(text)
        if isinstance(found, list) and len(found) == columns[name].shape[1]:
            told[name] = tuple(map(str, found))
    return told


def _column(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return np.array(["" if text is None else text for text in column.to_pylist()], object)
    if pa.types.is_temporal(kind):
        return column.to_numpy()
    if pa.types.is_floating(kind) and column.null_count:
        return column.to_numpy()  # empty cells are no numbers
    return numbers(column, name, (), path)


def _joined(columns: Mapping[str, np.ndarray]) -> dict[str, tuple[str, ...]]:
    """Columns ``joint_0``, ``joint_1`` ... become one; by its name, those that it is made of."""
    groups: dict[str, dict[int, str]] = {}
    for name, values in columns.items():
        match = _NUMBERED.fullmatch(name)
        if match and values.ndim == 1 and values.dtype.kind in "biuf":
            groups.setdefault(match["stem"], {})[int(match["number"])] = name
    whole = {
        stem: tuple(members[number] for number in sorted(members))
        for stem, members in groups.items()
        if stem not in columns and len(members) > 1 and _counts(sorted(members))
    }
    member_of = {name: stem for stem, members in whole.items() for name in members}
    return {
        member_of.get(name, name): whole.get(member_of.get(name, ""), (name,)) for name in columns
    }


def _counts(given: Iterable[int]) -> bool:
    """Whether the numbers are 0, 1, 2 ... or 1, 2, 3 ..."""
    found = list(given)
    return found[0] in (0, 1) and found == list(range(found[0], found[0] + len(found)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
