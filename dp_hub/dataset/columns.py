"""Columns of Parquet files as contiguous numpy arrays, checked on the way."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.errors import DataError

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Feature:
    """One entry of ``features`` in meta/info.json.

    Attributes:
        name: for example ``observation.state``.
        dtype: a numpy type's name, ``bool``, ``string``, ``image`` or ``video``.
        shape: of one frame; pictures (H, W, C).
        names: of the dimensions, as stored.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: Any = None

    @property
    def is_visual(self) -> bool:
        """Whether the feature holds pictures."""
        return self.dtype in ("image", "video")


@dataclass(frozen=True)
class DataFile:
    """A Parquet file and the frames it holds: ``start`` up to, not including, ``stop``."""

    path: Path
    start: int
    stop: int


@contextmanager
def damage_told(where: Path | str) -> Iterator[None]:
    """Turn what reading a damaged Parquet file ends in into DataError. ``where``: the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{where} is damaged: {error}", hint="copy or pull the dataset again"
        ) from None


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file, its footer read. Raises DataError if it is missing, cut short or no Parquet."""
    try:
        return pq.ParquetFile(path, memory_map=True)
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing", hint="copy or pull the dataset again, it is not complete"
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read as Parquet: {error}",
            hint="it may be cut short; copy or pull the dataset again",
        ) from None


def batches(
    file: pq.ParquetFile, path: Path, columns: Sequence[str], rows_at_once: int = _ROWS_AT_ONCE
) -> Iterator[pa.RecordBatch]:
    """Some columns of an open file, some rows at a time.

    Raises:
        DataError: a column is missing, or the file, which is at ``path``, is damaged.
    """
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise DataError(f"{path} has no column {missing[0]}")
    with damage_told(path):
        yield from file.iter_batches(rows_at_once, columns=list(columns))


def read_column(files: Iterable[DataFile], feature: Feature) -> np.ndarray:
    """A whole column, read-only: (N,) if the shape of a frame is (1,), else (N, *shape).

    Peak memory is the result and some ten thousand rows.

    Raises:
        DataError: the column is missing, has empty entries, or other shapes or types than the
            feature says.
    """
    files = list(files)
    dtype = numpy_dtype(feature)
    shape = () if feature.shape == (1,) else feature.shape
    column = np.empty((files[-1].stop, *shape), dtype)
    for file in files:
        row = file.start
        with open_parquet(file.path) as parquet:
            for batch in batches(parquet, file.path, [feature.name]):
                values = column_values(batch.column(feature.name), feature, file.path)
                column[row : row + len(batch)] = values.reshape(len(batch), *shape)
                row += len(batch)
    column.flags.writeable = False
    return column


def numpy_dtype(feature: Feature) -> np.dtype:
    """The type of a feature's numbers in memory. Raises DataError if numpy knows none."""
    if feature.dtype in ("string", "language"):
        return np.dtype(object)
    try:
        return np.dtype(feature.dtype)
    except TypeError:
        raise DataError(f"{feature.name} is of the unknown type {feature.dtype!r}") from None


def column_values(array: Any, feature: Feature, path: Path) -> np.ndarray:
    """The plain values of an Arrow array, flat, checked to fit the feature. Raises DataError."""
    n_rows = len(array)
    flat = _flattened(array, feature, path)
    if len(flat) != n_rows * prod(feature.shape):
        raise DataError(
            f"{feature.name} in {path} has {len(flat) / n_rows:g} numbers a frame; "
            f"meta/info.json says its shape is {list(feature.shape)}"
        )
    values = _as_numpy(flat)
    dtype = numpy_dtype(feature)
    if not np.can_cast(values.dtype, dtype, "same_kind"):
        raise DataError(
            f"{feature.name} in {path} is {values.dtype}; meta/info.json says {feature.dtype}"
        )
    return values


def _as_numpy(array: Any) -> np.ndarray:
    kind = array.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return vectors(array)[:, 0]
    return np.array(array.to_pylist(), dtype=object)


def _flattened(array: Any, feature: Feature, path: Path) -> Any:
    """The plain values of arrays of lists of any depth, all of one length."""
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if array.null_count:
            raise DataError(f"{feature.name} in {path} has {array.null_count} empty entries")
        if pa.types.is_fixed_size_list(array.type):
            size = array.type.list_size
            array = array.values.slice(array.offset * size, len(array) * size)
        elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            bounds = vectors(array.offsets)[:, 0]
            sizes = np.diff(bounds)
            if sizes.min() != sizes.max():
                raise DataError(
                    f"{feature.name} in {path} has from {sizes.min()} to {sizes.max()} "
                    f"numbers a frame; its shape is {list(feature.shape)}"
                )
            array = array.values.slice(bounds[0], bounds[-1] - bounds[0])
        else:
            return array
