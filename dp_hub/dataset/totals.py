"""What is known of all episodes of a dataset together, merged one by one, exactly."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset import stats as st
from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.episode_table import EpisodeRow, read_stats, unpack_histogram
from dp_hub.dataset.features import INDEX_DTYPES, Column

_ROWS_PER_BLOCK = 50_000  # frames
_SMALL_BYTES = 16_000_000  # of low-dimensional values that may be in memory at once


class Totals:
    """Counts and statistics over episodes.

    Args:
        columns: the dataset's columns.

    Attributes:
        sizes: by feature, in the order statistics lie side by side: number of values n, and
            whether it is a picture.
        n_episodes, n_frames: so far.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        low = [c for c in columns if not c.is_visual]
        self._visuals = [c for c in columns if c.is_visual]
        self.sizes = {c.feature: (c.shape[0], False) for c in low}
        self._n_own = sum(size for size, _ in self.sizes.values())
        self.sizes |= {name: (1, False) for name in INDEX_DTYPES}
        self.n_low = self._n_own + len(INDEX_DTYPES)
        self.sizes |= {c.feature: (c.shape[2], True) for c in self._visuals}
        self.n_episodes = self.n_frames = 0
        self._running = st.Running(self.n_low)
        self._histograms = {c.feature: np.zeros((c.shape[2], 256), np.int64) for c in self._visuals}
        self._n_pictures = dict.fromkeys(self._histograms, 0)

    def with_index(self, own: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Statistics ``(9, D)`` of an episode's features, with those of its index columns in their
        place; ``index`` is float64 ``(T, 5)``."""
        parts = [own[:, : self._n_own], st.matrix_stats(index), own[:, self._n_own :]]
        return np.concatenate(parts, axis=1)

    def counts_of(self, length: int, n_pictures: Mapping[str, int]) -> list[int]:
        """How many values are behind the statistics of each feature of an episode."""
        return [n_pictures[f] if picture else length for f, (_, picture) in self.sizes.items()]

    def add(self, row: EpisodeRow, length: int) -> None:
        """Take one more episode in."""
        n_pictures = dict(zip(self.sizes, row.counts, strict=True))
        self._add(row.stats, length, row.histograms, n_pictures)

    def add_table(self, table: pa.Table) -> None:
        """Take in the episodes of a table of meta/episodes."""
        stats, counts = read_stats(table, self.sizes)
        lengths = vectors(table["length"])[:, 0].tolist()
        packed = {f: table[f"histogram/{f}"].to_pylist() for f in self._histograms}
        for i, length in enumerate(lengths):
            histograms = {f: unpack_histogram(data[i]) for f, data in packed.items()}
            n_pictures = dict(zip(self.sizes, counts[i].tolist(), strict=True))
            self._add(stats[i], length, histograms, n_pictures)

    def _add(
        self,
        stats: np.ndarray,
        length: int,
        histograms: Mapping[str, np.ndarray],
        n_pictures: Mapping[str, int],
    ) -> None:
        self._running.add(stats[:, : self.n_low], length)
        for feature, counts in histograms.items():
            self._histograms[feature] += counts
            self._n_pictures[feature] += n_pictures[feature]
        self.n_episodes += 1
        self.n_frames += length

    def as_json(self, root: Path | None = None) -> tuple[dict[str, Any], dict[str, int]]:
        """The contents of meta/stats.json, and by feature how many frames are not finite.

        Args:
            root: the dataset whose data/ is read for quantiles over all frames; without it there
                are none of numbers.
        """
        run = self._running
        whole = np.stack([run.min, run.max, run.mean, run.std])
        low = {name: size for name, (size, picture) in self.sizes.items() if not picture}
        blocks = None if root is None else self._blocks(root, list(low))
        result: dict[str, Any] = {}
        nonfinite: dict[str, int] = {}
        for feature, part in st.split(whole, low):
            if blocks is None:
                result[feature] = st.as_json(part, run.count, picture=False)
                continue
            column = blocks(feature)
            n_bytes = 8 * part.shape[1] * self.n_frames
            quantiles = st.column_quantiles(column, part[0], part[1], n_bytes)
            exact = np.concatenate([part, quantiles])
            result[feature] = st.as_json(exact, run.count, picture=False)
            if bad := _count_nonfinite(column()):
                nonfinite[feature] = bad
        for feature, counts in self._histograms.items():
            measured = st.picture_stats(counts)
            result[feature] = st.as_json(measured, self._n_pictures[feature], picture=True)
        return result, nonfinite

    def _blocks(
        self, root: Path, features: list[str]
    ) -> Callable[[str], Callable[[], Iterable[np.ndarray]]]:
        """Gives the rows of a feature, ``(T, n)`` at a time. Small tables are read once for all."""
        files = sorted((root / "data").glob("chunk-*/file-*.parquet"))
        if 8 * self.n_low * self.n_frames >= _SMALL_BYTES:
            return lambda feature: lambda: _read_blocks(files, feature)
        table = pa.concat_tables([pq.ParquetFile(path).read(columns=features) for path in files])
        return lambda feature: lambda: [vectors(table[feature])]


def _read_blocks(files: Iterable[Path], feature: str) -> Iterator[np.ndarray]:
    for path in files:
        file = pq.ParquetFile(path)
        groups: list[int] = []
        n_rows = 0
        for group in range(file.num_row_groups):
            groups.append(group)
            n_rows += file.metadata.row_group(group).num_rows
            if n_rows >= _ROWS_PER_BLOCK or group == file.num_row_groups - 1:
                yield vectors(file.read_row_groups(groups, columns=[feature]).column(0))
                groups, n_rows = [], 0


def _count_nonfinite(blocks: Iterable[np.ndarray]) -> int:
    found = 0
    for block in blocks:
        if block.dtype.kind != "f":
            return 0
        with np.errstate(over="ignore", invalid="ignore"):
            if not np.isfinite(block.sum()):
                found += int((~np.isfinite(block).all(axis=1)).sum())
    return found
