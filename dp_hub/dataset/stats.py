"""Statistics of a dataset: exact where they can be, in memory that does not grow with it.

Per episode everything is exact. Over the dataset, mean, deviation, extremes and count are merged
exactly (Chan's formula); quantiles are taken over all frames from the written files, by sorting if
the column is small, else from a histogram fine enough that the error is below 1/65536 of the range.
(LeRobot only stores bounds on them.) Pictures are sampled as LeRobot does and counted in 256 bins,
so their quantiles are exact over the sample.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", *QUANTILES)
_SORT_BYTES = 16_000_000
_BINS = 65_536
_SAMPLED_PX, _SAMPLED_ROWS = 2_500, 24  # per picture, at least
_KEY_SAMPLES = 16


def matrix_stats(values: np.ndarray) -> np.ndarray:
    """Statistics of each column of float64 ``(T, D)``: float64 ``(9, D)`` in the order of `NAMES`.

    Values that are not finite count as absent; a column with none that is gives NaN.
    """
    if not np.isfinite(values).all():
        parts = [matrix_stats(v[np.isfinite(v)][:, None]) if np.isfinite(v).any() else _NOTHING
                 for v in values.T]  # fmt: skip
        return np.concatenate(parts, axis=1)
    ordered = np.sort(values, axis=0)
    # The same linear interpolation as np.quantile, for all columns and quantiles at once.
    place = np.array(list(QUANTILES.values())) * (len(values) - 1)
    low = place.astype(np.int64)
    high = np.minimum(low + 1, len(values) - 1)
    weight = (place - low)[:, None]
    quantiles = ordered[low] * (1 - weight) + ordered[high] * weight
    mean = values.mean(axis=0)
    std = np.sqrt(np.square(values - mean).mean(axis=0))
    return np.concatenate([ordered[[0, -1]], mean[None], std[None], quantiles])


_NOTHING = np.full((len(NAMES), 1), np.nan)


class Running:
    """Merges per-episode count, mean, deviation and extremes into the dataset's, exactly.

    Args:
        size: number of columns D.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self._mean = np.zeros(size)
        self._m2 = np.zeros(size)
        self._weight = np.zeros(size)
        self.min = np.full(size, np.inf)
        self.max = np.full(size, -np.inf)

    def add(self, stats: np.ndarray, count: int) -> None:
        """Merge ``stats`` (9, D) of ``count`` rows."""
        low, high, mean, std = stats[:4]
        known = np.isfinite(mean)
        n = np.where(known, count, 0)
        total = np.maximum(self._weight + n, 1)
        delta = np.where(known, mean - self._mean, 0)
        self._mean += delta * n / total
        self._m2 += np.where(known, np.square(std) * n, 0) + delta**2 * self._weight * n / total
        self._weight += n
        self.min = np.fmin(self.min, low)
        self.max = np.fmax(self.max, high)
        self.count += count

    @property
    def mean(self) -> np.ndarray:
        """Mean of each column, float64 (D,)."""
        return np.where(self._weight > 0, self._mean, np.nan)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation (of the whole, not of a sample) of each column, float64 (D,)."""
        return np.sqrt(self._m2 / np.maximum(self._weight, 1))


def column_quantiles(
    blocks: Callable[[], Iterable[np.ndarray]], low: np.ndarray, high: np.ndarray, n_bytes: int
) -> np.ndarray:
    """Quantiles of a column over all frames, float64 ``(5, D)``.

    Args:
        blocks: gives the column's rows ``(T, D)``, block by block, from the beginning.
        low: float64 (D,), smallest value of each dimension.
        high: float64 (D,), largest.
        n_bytes: size of the whole column; up to 16 MB it is sorted, beyond that counted.
    """
    if n_bytes <= _SORT_BYTES:
        values = np.concatenate(list(blocks()))
        return np.stack([_finite_quantiles(v) for v in values.T], axis=1)
    counts = np.zeros((len(low), _BINS), np.int64)
    width = np.where(high > low, high - low, 1)
    for block in blocks():
        for d in range(len(low)):
            v = block[:, d].astype(np.float64)
            v = v[np.isfinite(v)]
            place = ((v - low[d]) / width[d] * _BINS).astype(np.int64)
            counts[d] += np.bincount(np.clip(place, 0, _BINS - 1), minlength=_BINS)
    edges = low[:, None] + (np.arange(_BINS) + 0.5) / _BINS * (high - low)[:, None]
    return np.stack([_counted_quantiles(c, e) for c, e in zip(counts, edges, strict=True)], axis=1)


def _finite_quantiles(values: np.ndarray) -> np.ndarray:
    values = values[np.isfinite(values)].astype(np.float64)
    if not len(values):
        return np.full(len(QUANTILES), np.nan)
    return np.quantile(values, list(QUANTILES.values()))


def _counted_quantiles(counts: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantiles of ``levels`` that occur ``counts`` times, float64 (5,)."""
    total = counts.sum()
    if not total:
        return np.full(len(QUANTILES), np.nan)
    upto = np.cumsum(counts)
    place = np.array(list(QUANTILES.values())) * (total - 1)
    low = levels[np.searchsorted(upto, np.floor(place), side="right")]
    high = levels[np.searchsorted(upto, np.ceil(place), side="right")]
    return low + (high - low) * (place - np.floor(place))


def sampled_frames(length: int) -> np.ndarray:
    """The frames LeRobot takes statistics of: length^0.75 of them, 100..10,000, evenly spaced."""
    wanted = min(length, max(100, min(int(length**0.75), 10_000)))
    return np.round(np.linspace(0, length - 1, wanted)).astype(np.int64)


def key_samples(length: int) -> np.ndarray:
    """Which frames of a copied video statistics are taken of, int64 (S,): evenly spaced ones.

    sqrt(length) of them, but at least 16, or all. To decode more would take longer than to copy.
    """
    wanted = min(length, max(_KEY_SAMPLES, round(length**0.5)))
    return np.round(np.linspace(0, length - 1, wanted)).astype(np.int64)


def row_step(height: int, width: int) -> int:
    """Every how many rows of a picture one is looked at."""
    return max(1, height // max(_SAMPLED_ROWS, _SAMPLED_PX // width))


def picture_counts(pictures: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """How often each value occurs in each channel of uint8 ``(T, H, W, C)``: int64 ``(C, 256)``.

    Only ``frames``, int64 (S,), are looked at.

    Of each picture every k-th row is counted, so that some thousand pixels are: whole rows are ten
    times as fast to gather as a grid of pixels.
    """
    return row_counts(pictures[frames, :: row_step(*pictures.shape[1:3])])


def row_counts(rows: np.ndarray) -> np.ndarray:
    """How often each value occurs in each channel of uint8 ``(S, h, W, C)``: int64 ``(C, 256)``."""
    s, h, w, c = rows.shape
    tall = rows.reshape(s * h, w, c)
    image = Image.fromarray(tall[:, :, 0] if c == 1 else tall)
    return np.asarray(image.histogram(), np.int64).reshape(c, 256)


def picture_stats(counts: np.ndarray) -> np.ndarray:
    """Statistics from `picture_counts`, scaled to 0..1: float64 ``(9, C)``, ordered as `NAMES`."""
    levels = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ levels / total
    std = np.sqrt(np.maximum(counts @ levels**2 / total - mean**2, 0))
    low = [levels[np.flatnonzero(c)[0]] for c in counts]
    high = [levels[np.flatnonzero(c)[-1]] for c in counts]
    quantiles = np.stack([_counted_quantiles(c, levels) for c in counts], axis=1)
    return np.concatenate([np.stack([low, high, mean, std]), quantiles])


def as_json(stats: np.ndarray, count: int, *, picture: bool) -> dict[str, Any]:
    """A feature's entry in meta/stats.json from ``(9, D)``, or ``(4, D)`` without quantiles.

    Pictures are given as LeRobot's (C, 1, 1).
    """
    entry: dict[str, Any] = {}
    for name, row in zip(NAMES[: len(stats)], stats, strict=True):
        values = [_finite(v) for v in row.tolist()]
        entry[name] = [[[v]] for v in values] if picture else values
    entry["count"] = [count]
    return entry


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def split(stats: np.ndarray, sizes: Mapping[str, int]) -> Iterator[tuple[str, np.ndarray]]:
    """``(name, (9, n))`` for features laid side by side in ``(9, D)``."""
    start = 0
    for name, size in sizes.items():
        yield name, stats[:, start : start + size]
        start += size


def side_by_side(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Columns ``(T, n)`` of any numeric type as one float64 ``(T, D)``."""
    return np.concatenate([c.reshape(len(c), -1) for c in columns], axis=1, dtype=np.float64)
