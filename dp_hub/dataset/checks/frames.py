"""The rows of data/, one episode at a time, as they lie in the files.

Memory holds one batch of rows and one episode.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.checks.bounds import Bounds
from dp_hub.dataset.checks.view import READ_ERRORS, DataPart, View, short
from dp_hub.dataset.columns import Feature, column_values
from dp_hub.errors import DataError

_ROWS_AT_ONCE = 65_536
_PICTURES_AT_ONCE = 128


@dataclass(frozen=True)
class Run:
    """Rows of one episode.

    Attributes:
        at: position among the episodes of `Bounds`.
        columns: (T, n) in the feature's type; for pictures a list of their structs or None.
    """

    at: int
    length: int
    columns: dict[str, Any]


class Frames:
    """Reads episodes; remembers which files and columns could not be read.

    Args:
        view: the dataset.
        bounds: where its episodes begin.
    """

    def __init__(self, view: View, bounds: Bounds) -> None:
        self._view, self._bounds = view, bounds
        self.unreadable: dict[str, str] = dict(bounds.unreadable)
        self.misfits: dict[str, str] = {}
        self.with_nulls: dict[str, int] = {}

    def runs(self, features: Sequence[Feature]) -> Iterator[Run]:
        """Every episode with these features, as far as they can be read."""
        first = 0
        for part in self._view.data:
            if part.schema is None:
                continue
            if part.name not in self.unreadable:
                try:
                    yield from self._of_part(part, first, features)
                except READ_ERRORS as error:
                    self.unreadable[part.name] = short(error)
            first += part.n_rows

    def _of_part(self, part: DataPart, first: int, features: Sequence[Feature]) -> Iterator[Run]:
        by_name = {f.name: f for f in features if f.name in part.schema.names}
        pictures = any(f.dtype == "image" for f in features)
        rows = _PICTURES_AT_ONCE if pictures else _ROWS_AT_ONCE
        starts = self._bounds.starts
        kept: list[dict[str, Any]] = []
        current, at = -1, first
        with pq.ParquetFile(part.path) as file:
            for batch in file.iter_batches(rows, columns=sorted(by_name)):
                columns = self._columns(batch, by_name, part)
                for a, b, run in pieces(starts, at, len(batch)):
                    if kept and run != current:
                        yield self._joined(current, kept)
                        kept = []
                    current = run
                    kept.append({name: values[a:b] for name, values in columns.items()})
                at += len(batch)
        if kept:
            yield self._joined(current, kept)

    def _joined(self, run: int, kept: list[dict[str, Any]]) -> Run:
        names = set(kept[0]).intersection(*kept[1:])
        columns = {name: _concatenated([piece[name] for piece in kept]) for name in names}
        return Run(run, int(self._bounds.lengths[run]), columns)

    def _columns(self, batch: Any, features: dict[str, Feature], part: DataPart) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        for name, feature in features.items():
            array = batch.column(name)
            if feature.dtype == "image":
                columns[name] = _encoded(array)
            elif name in self.misfits or name in self.with_nulls:
                continue
            elif _has_nulls(array):
                self.with_nulls[name] = array.null_count
            else:
                try:
                    values = column_values(array, feature, part.path)
                    columns[name] = values.reshape(len(batch), -1)
                except DataError as error:
                    self.misfits[name] = error.message
        return columns


def _has_nulls(array: Any) -> bool:
    if array.null_count:
        return True
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _has_nulls(array.storage)
    nested = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind)
    return bool(nested and array.values.null_count)


def _encoded(array: Any) -> list[dict[str, Any] | None]:
    return list(array.to_pylist())


def pieces(starts: np.ndarray, at: int, n_rows: int) -> Iterator[tuple[int, int, int]]:
    """(first row, last row, episode) of a batch of rows that begins at row ``at``."""
    run = int(np.searchsorted(starts, at, side="right")) - 1
    row = 0
    while row < n_rows:
        stop = int(starts[run + 1]) - at if run + 1 < len(starts) else n_rows
        yield row, min(stop, n_rows), run
        row, run = stop, run + 1


def _concatenated(pieces: list[Any]) -> Any:
    if len(pieces) == 1:
        return pieces[0]
    if isinstance(pieces[0], list):
        return [item for piece in pieces for item in piece]
    return np.concatenate(pieces)
