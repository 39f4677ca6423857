"""meta/episodes as the writer makes it: a row for every episode, in numbered files.

While a dataset is being written the newest file is replaced whenever episodes are committed, so
that all of them are listed at any time; `write_rows` puts the rows into files as they stay.
"""

import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.shards import EPISODES_PATH, ParquetShards, numbered
from dp_hub.dataset.stats import NAMES
from dp_hub.dataset.tables import (
    STAT_ORDER,
    blobs,
    lists_of_one,
    numbers,
    stats_columns,
    texts,
)
from dp_hub.errors import DataError
from dp_hub.files import sync_folder, write_draft

ROWS_PER_GROUP = 512
_OPTIONS: dict[str, Any] = {"compression": "snappy"}
_PLACE = ("meta/episodes/chunk_index", "meta/episodes/file_index")


@dataclass(frozen=True)
class EpisodeRow:
    """One row.

    Args:
        facts: number, tasks, length and places, by column, in the order of the columns.
        stats: float64 ``(9, D)``, ordered as `dp_hub.dataset.stats.NAMES`.
        counts: how many values are behind each feature's statistics.
        histograms: by picture feature, int64 ``(C, 256)``.
        sha256: of the episode's content.
        metadata: JSON text.
    """

    facts: Mapping[str, Any]
    stats: np.ndarray
    counts: Sequence[int]
    histograms: Mapping[str, np.ndarray]
    sha256: str
    metadata: str


def rows_table(
    rows: Sequence[EpisodeRow], sizes: Mapping[str, tuple[int, bool]], place: tuple[int, int]
) -> pa.Table:
    """Rows as Arrow.

    Args:
        rows: at least one.
        sizes: by feature, in the order they lie in ``stats``: number of values, is it a picture.
        place: chunk and file index of the file they go to.
    """
    columns: dict[str, Any] = {}
    for name, value in rows[0].facts.items():
        dtype = np.float64 if isinstance(value, float) else np.int64
        columns[name] = (
            lists_of_one(texts([row.facts[name] for row in rows]))
            if isinstance(value, str)
            else numbers(np.array([row.facts[name] for row in rows], dtype))
        )
    stats = np.stack([row.stats for row in rows])
    columns |= stats_columns(sizes, stats, np.array([row.counts for row in rows]))
    for feature in rows[0].histograms:
        packed = [pack_histogram(row.histograms[feature]) for row in rows]
        columns[f"histogram/{feature}"] = blobs(packed, pa.binary())
    for name, value in zip(_PLACE, place, strict=True):
        columns[name] = numbers(np.full(len(rows), value, np.int64))
    columns["sha256"] = texts([row.sha256 for row in rows])
    columns["metadata"] = texts([row.metadata for row in rows])
    return pa.table(columns)


def pack_histogram(counts: np.ndarray) -> bytes:
    """int ``(C, 256)`` as compressed little-endian int32."""
    return zlib.compress(counts.astype("<i4").tobytes())


def unpack_histogram(data: bytes) -> np.ndarray:
    """The inverse of `pack_histogram`, int64 ``(C, 256)``."""
    return np.frombuffer(zlib.decompress(data), "<i4").reshape(-1, 256).astype(np.int64)


def read_stats(
    table: pa.Table, sizes: Mapping[str, tuple[int, bool]]
) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of the statistics in `rows_table`: float64 ``(E, 9, D)``, int64 ``(E, F)``."""
    stats = np.empty((len(table), len(NAMES), sum(size for size, _ in sizes.values())))
    counts = np.empty((len(table), len(sizes)), np.int64)
    start = 0
    for f, (feature, (size, _)) in enumerate(sizes.items()):
        for name in STAT_ORDER:
            flat = _flat(table[f"stats/{feature}/{name}"])
            if name == "count":
                counts[:, f] = flat
            else:
                block = flat.reshape(len(table), size)
                stats[:, NAMES.index(name), start : start + size] = block
        start += size
    return stats, counts


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    parts = []
    for chunk in column.chunks:
        while pa.types.is_list(chunk.type):
            chunk = chunk.flatten()
        parts.append(vectors(chunk)[:, 0])
    return np.concatenate(parts)


class OpenEpisodes:
    """The files of meta/episodes while a dataset is being written.

    Args:
        root: the dataset's folder.
        sizes: as `rows_table`.
        first_number: number of the first file to write.
        rows_per_file: how many rows a file takes; few, if it is replaced after every episode.
        written: rows of the first file that are there already; less than it takes.
    """

    def __init__(
        self,
        root: Path,
        sizes: Mapping[str, tuple[int, bool]],
        *,
        first_number: int,
        rows_per_file: int,
        written: pa.Table | None = None,
    ) -> None:
        self.root = root
        self._sizes, self._per_file = sizes, rows_per_file
        self._number = first_number
        self._written = [] if written is None else [written]
        self.pending: list[EpisodeRow] = []

    def commit(self) -> None:
        """Write the pending rows, durably."""
        while self.pending:
            room = self._per_file - sum(map(len, self._written))
            rows, self.pending = self.pending[:room], self.pending[room:]
            place = divmod(self._number, 1000)
            self._written.append(rows_table(rows, self._sizes, place))
            table = pa.concat_tables(self._written).combine_chunks()
            path = numbered(self.root, EPISODES_PATH, self._number)
            buffer = io.BytesIO()
            pq.write_table(table, buffer, row_group_size=len(table), **_OPTIONS)
            write_draft(path, buffer.getvalue())
            sync_folder(path.parent)
            sync_folder(path.parent.parent)
            if len(table) >= self._per_file:
                self._number += 1
                self._written = []


def write_rows(root: Path, tables: Iterable[pa.Table], *, first_number: int) -> None:
    """Write rows into files from ``first_number`` on, in row groups of `ROWS_PER_GROUP`."""
    shards: ParquetShards | None = None
    for table in _groups(tables):
        if shards is None:
            schema = table.schema
            shards = ParquetShards(root, EPISODES_PATH, schema, _OPTIONS, first_number=first_number)
        chunk, file = shards.next_place()
        for name, value in zip(_PLACE, (chunk, file), strict=True):
            i = table.schema.get_field_index(name)
            table = table.set_column(i, name, numbers(np.full(len(table), value, np.int64)))
        shards.write(table.combine_chunks())
    if shards is not None:
        shards.close()


def _groups(tables: Iterable[pa.Table]) -> Iterable[pa.Table]:
    """The same rows, `ROWS_PER_GROUP` at a time."""
    kept: list[pa.Table] = []
    for table in tables:
        kept.append(table)
        while sum(map(len, kept)) >= ROWS_PER_GROUP:
            whole = pa.concat_tables(kept)
            yield whole.slice(0, ROWS_PER_GROUP)
            kept = [whole.slice(ROWS_PER_GROUP)]
    rest = [table for table in kept if len(table)]
    if rest:
        yield pa.concat_tables(rest)


def read_rows(
    root: Path, n_rows: int, *, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """The first ``n_rows`` rows of meta/episodes, some at a time, each with their file's number.

    Rows beyond are what an interrupted commit left; they do not count.

    Raises:
        DataError: there are fewer rows.
    """
    number = 0
    while n_rows > 0:
        path = numbered(root, EPISODES_PATH, number)
        if not path.exists():
            raise DataError(
                f"{root}/meta/episodes lacks {n_rows} of the episodes that meta/info.json counts",
                hint="copy or pull the dataset again",
            )
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=columns).slice(0, n_rows)
                if len(table):
                    yield number, table
                n_rows -= len(table)
        number += 1
