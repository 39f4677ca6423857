"""Statistics of chosen episodes from those that meta/episodes has of each: no frame is read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from dp_hub.dataset.columns import batches, open_parquet
from dp_hub.dataset.stats import Running

_STATS = ("min", "max", "mean", "std")


@dataclass(frozen=True)
class Statistics:
    """Of the numbers of a feature over some frames.

    Attributes:
        min, max, mean: float64 (n,).
        std: float64 (n,), with N-1 in the denominator.
        count: N, frames.
    """

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    count: int


def stored_statistics(
    root: Path, sizes: Mapping[str, int], chosen: np.ndarray, lengths: np.ndarray
) -> dict[str, Statistics] | None:
    """Merged from meta/episodes; None where it does not have them of every chosen episode.

    Minimum and maximum are exact; mean and deviation are merged in float64.

    Args:
        root: of the dataset.
        sizes: numbers in a frame of each feature wanted.
        chosen: bool (E,).
        lengths: int (E,), frames of each episode.
    """
    names = [f"stats/{feature}/{stat}" for feature in sizes for stat in _STATS]
    table = _table(root, names)
    if table is None or table.num_rows < len(chosen):
        return None
    result = {}
    for feature, size in sizes.items():
        columns = [table.column(f"stats/{feature}/{stat}") for stat in _STATS]
        values = [_rows(column.slice(0, len(chosen)), size) for column in columns]
        stats = np.stack([rows for rows in values if rows is not None])  # (4, E, n)
        if len(stats) < len(_STATS) or not np.isfinite(stats[:, chosen]).all():
            return None
        result[feature] = merged(
            (stats[:, episode], int(lengths[episode])) for episode in np.flatnonzero(chosen)
        )
    return result


def measured(values: np.ndarray) -> tuple[np.ndarray, int]:
    """What `merged` takes, of the frames (T, n) of an episode: float64 (4, n) and T."""
    wide = values.astype(np.float64)
    stats = np.stack([wide.min(axis=0), wide.max(axis=0), wide.mean(axis=0), wide.std(axis=0)])
    return stats, len(values)


def merged(parts: Iterable[tuple[np.ndarray, int]]) -> Statistics:
    """Of all frames, from (min, max, mean, population deviation) and number of each part."""
    running: Running | None = None
    for stats, count in parts:
        running = running or Running(stats.shape[1])
        running.add(stats, count)
    assert running is not None
    n = running.count
    of_sample = np.sqrt(n / (n - 1)) if n > 1 else 0.0
    return Statistics(running.min, running.max, running.mean, running.std * of_sample, n)


def _table(root: Path, names: Sequence[str]) -> pa.Table | None:
    parts = []
    for path in sorted((root / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
        with open_parquet(path) as file:
            if not set(names) <= set(file.schema_arrow.names):
                return None
            parts.append(pa.Table.from_batches(list(batches(file, path, names))))
    return pa.concat_tables(parts, promote_options="permissive")


def _rows(column: pa.ChunkedArray, size: int) -> np.ndarray | None:
    """float64 (E, n); None if an entry is missing or of another size."""
    if column.null_count:
        return None
    rows = column.to_pylist()
    if any(np.size(row) != size for row in rows):
        return None
    flat = [np.asarray(row, np.float64).ravel() for row in rows]  # None becomes NaN
    return np.stack(flat)
