"""Statistics computed anew and compared with those that are stored."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from dp_hub.dataset.checks.bounds import Bounds
from dp_hub.dataset.checks.finding import Finding, found, some
from dp_hub.dataset.checks.frames import Frames, Run
from dp_hub.dataset.checks.thresholds import EXACT, QUANTILE_SHARE
from dp_hub.dataset.checks.view import READ_ERRORS, JsonFile, View, picture_size, short
from dp_hub.dataset.columns import Feature
from dp_hub.dataset.stats import NAMES, QUANTILES, Running, column_quantiles

MOMENTS = ("min", "max", "mean", "std")


class Totals:
    """Exact statistics of numeric features, by episode and over all.

    Args:
        features: numeric ones, in the order of the columns D of the results.
        n_episodes: R.
    """

    def __init__(self, features: Sequence[Feature], n_episodes: int) -> None:
        self.features = list(features)
        self.sizes = {f.name: math.prod(f.shape) for f in features}
        self.size = sum(self.sizes.values())
        self.running = Running(self.size)
        # min, max, mean, std of every episode; NaN for one that could not be read.
        self.episodes = np.full((n_episodes, len(MOMENTS), self.size), np.nan)
        self.counts = np.zeros(n_episodes, np.int64)
        self.not_finite = np.zeros((n_episodes, self.size), np.int64)

    def slice(self, feature: str) -> slice:
        """Where a feature lies among the columns."""
        start = 0
        for name, size in self.sizes.items():
            if name == feature:
                return slice(start, start + size)
            start += size
        raise KeyError(feature)

    def matrix(self, run: Run) -> np.ndarray:
        """All features of an episode side by side, float64 (T, D); NaN where one is missing."""
        matrix = np.full((run.length, self.size), np.nan)
        start = 0
        for name, size in self.sizes.items():
            if name in run.columns and len(run.columns[name]) == run.length:
                matrix[:, start : start + size] = run.columns[name]
            start += size
        return matrix

    def add(self, run: Run, matrix: np.ndarray) -> None:
        """Take one episode in."""
        moments = _moments(matrix)
        bad = ~np.isfinite(matrix)
        if bad.any():
            present = np.repeat([n in run.columns for n in self.sizes], list(self.sizes.values()))
            self.not_finite[run.at] = np.where(present, bad.sum(axis=0), 0)
        self.episodes[run.at] = moments
        self.counts[run.at] = len(matrix)
        filler = np.zeros((len(NAMES) - len(MOMENTS), self.size))
        self.running.add(np.concatenate([moments, filler]), len(matrix))

    @property
    def range(self) -> np.ndarray:
        """Largest minus smallest value, float64 (D,); 0 where nothing was seen."""
        spread = self.running.max - self.running.min
        return np.where(np.isfinite(spread), spread, 0.0)

    @property
    def whole(self) -> np.ndarray:
        """min, max, mean and std over all, float64 (4, D)."""
        run = self.running
        return np.stack([run.min, run.max, run.mean, run.std])


def _moments(matrix: np.ndarray) -> np.ndarray:
    """min, max, mean and std of each column, over finite values, float64 (4, D)."""
    if np.isfinite(matrix).all():
        low, high, mean = matrix.min(axis=0), matrix.max(axis=0), matrix.mean(axis=0)
        return np.stack([low, high, mean, matrix.std(axis=0)])
    result = np.full((len(MOMENTS), matrix.shape[1]), np.nan)
    for d, values in enumerate(matrix.T):
        good = values[np.isfinite(values)]
        if len(good):
            result[:, d] = good.min(), good.max(), good.mean(), good.std()
    return result


def feature_quantiles(
    frames: Frames, view: View, totals: Totals, feature: Feature
) -> np.ndarray | None:
    """Quantiles over all frames, float64 (5, n); None if the column cannot be read."""
    where = totals.slice(feature.name)
    low, high = totals.running.min[where], totals.running.max[where]
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None

    def blocks() -> Iterable[np.ndarray]:
        for run in frames.runs([feature]):
            if feature.name in run.columns:
                yield run.columns[feature.name]

    return column_quantiles(blocks, low, high, 8 * len(low) * view.n_frames)


def all_quantiles(frames: Frames, view: View, totals: Totals) -> Callable[[str], Any]:
    """Gives the quantiles of a feature; small tables are read once for all of them."""
    by_name = {f.name: f for f in totals.features}
    if 8 * totals.size * max(view.n_frames, 1) > 16_000_000:
        return lambda name: feature_quantiles(frames, view, totals, by_name[name])
    parts = [totals.matrix(run) for run in frames.runs(totals.features)]
    if not parts:
        return lambda name: None
    table = np.concatenate(parts)
    with np.errstate(invalid="ignore"):
        ordered = np.sort(table, axis=0)  # NaN goes last
    finite = np.isfinite(table).all(axis=0)
    place = np.array(list(QUANTILES.values())) * (len(table) - 1)
    low = place.astype(np.int64)
    high = np.minimum(low + 1, len(table) - 1)
    weight = (place - low)[:, None]
    levels = ordered[low] * (1 - weight) + ordered[high] * weight

    def of(name: str) -> np.ndarray | None:
        where = totals.slice(name)
        if finite[where].all():
            return levels[:, where]
        return feature_quantiles(frames, view, totals, by_name[name])

    return of


@dataclass(frozen=True)
class _Entry:
    """The stored statistics of one feature that have the right form."""

    values: Mapping[str, np.ndarray]
    faults: list[str]


def check_stats(
    view: View,
    stats: JsonFile,
    totals: Totals,
    quantiles: Callable[[str], Any],
    *,
    complete: bool,
    skip: frozenset[str],
) -> Iterator[Finding]:
    """meta/stats.json against the data.

    Args:
        quantiles: from `all_quantiles`.
        complete: whether all rows were read; else the numbers are not compared.
        skip: features whose numbers are not compared either.
    """
    if stats.error:
        id = "STATS-001" if stats.missing else "STATS-002"
        yield found(id, f"meta/stats.json cannot be used: {stats.error}")
        return
    wrong: list[str] = []
    rough: list[str] = []
    unformed: list[str] = []
    absent: list[str] = []
    without: list[str] = []
    for feature in view.features.values():
        entry = stats.values.get(feature.name)
        visual = feature.dtype in ("image", "video")
        if feature.name not in totals.sizes and not visual:
            continue
        if not isinstance(entry, dict):
            absent.append(feature.name)
            continue
        size = picture_size(feature)[2] if visual else totals.sizes[feature.name]
        parsed = _entry(entry, size)
        unformed += [f"{feature.name}: {fault}" for fault in parsed.faults]
        if any(name not in entry for name in (*MOMENTS, "count")):
            absent.append(feature.name)
        if any(name not in entry for name in QUANTILES):
            without.append(feature.name)
        if visual or not complete or feature.name in skip:
            continue
        wrong += _differences(feature.name, parsed, totals)
        rough += _rough(feature.name, parsed, totals, quantiles)
    if wrong:
        yield found("STATS-003", f"{len(wrong)} statistics are not those of the data: {wrong[0]}")
    if rough:
        yield found("STATS-004", f"{len(rough)} quantiles are not those of all frames: {rough[0]}")
    if absent:
        yield found("STATS-005", f"statistics are missing for {some(absent)}")
    if without:
        yield found("STATS-006", f"quantiles are missing for {some(without)}")
    if unformed:
        yield found("STATS-007", f"statistics have a wrong form: {some(unformed)}")


def _entry(entry: Mapping[str, Any], size: int) -> _Entry:
    values, faults = {}, []
    for name in (*MOMENTS, "count", *QUANTILES):
        if name not in entry:
            continue
        try:
            array = np.asarray(entry[name], np.float64).reshape(-1)
        except (TypeError, ValueError):
            faults.append(f"{name} holds something that is no number")
            continue
        if len(array) != (1 if name == "count" else size):
            faults.append(f"{name} has {len(array)} values")
        elif not np.isfinite(array).all():
            faults.append(f"{name} is not finite")
        else:
            values[name] = array
    if {"min", "max"} <= set(values) and (values["min"] > values["max"]).any():
        faults.append("min is above max")
    return _Entry(values, faults)


def tolerances(totals: Totals, where: slice) -> np.ndarray:
    """How much a statistic may differ by rounding, float64 (n,)."""
    spread = totals.range[where]
    size = np.nan_to_num(np.maximum(np.abs(totals.running.min), np.abs(totals.running.max))[where],
                         posinf=0.0, neginf=0.0)  # fmt: skip
    return EXACT * np.maximum(spread, 1e-6 * size) + 1e-7 * size + 1e-12


def _differences(name: str, entry: _Entry, totals: Totals) -> list[str]:
    where, truth = totals.slice(name), totals.whole
    allowed = tolerances(totals, where)
    texts = []
    for i, moment in enumerate(MOMENTS):
        if moment not in entry.values:
            continue
        off = np.abs(entry.values[moment] - truth[i, where])
        if (off > allowed).any():
            d = int(np.argmax(off - allowed))
            texts.append(
                f"{moment} of {name}[{d}] is {entry.values[moment][d]:g}, the data's is "
                f"{truth[i, where][d]:g}"
            )
    count = entry.values.get("count")
    if count is not None and count[0] != totals.counts.sum():
        texts.append(f"count of {name} is {count[0]:g}, there are {totals.counts.sum()} frames")
    return texts


def _rough(name: str, entry: _Entry, totals: Totals, quantiles: Callable[[str], Any]) -> list[str]:
    stored = [q for q in QUANTILES if q in entry.values]
    truth = quantiles(name) if stored else None
    if truth is None:
        return []
    spread = totals.range[totals.slice(name)]
    texts = []
    for q in stored:
        off = np.abs(entry.values[q] - truth[list(QUANTILES).index(q)])
        if (off > QUANTILE_SHARE * spread + 1e-9).any():
            d = int(np.argmax(off))
            level = truth[list(QUANTILES).index(q)][d]
            texts.append(f"{q} of {name}[{d}] is {entry.values[q][d]:g}, of all frames {level:g}")
    return texts


def check_episode_stats(
    view: View, totals: Totals, bounds: Bounds, *, skip: frozenset[str]
) -> Iterator[Finding]:
    """``stats/*`` in meta/episodes against the rows of each episode."""
    wrong: dict[int, str] = {}
    run_of_row = {int(row): run for run, row in enumerate(bounds.row) if row >= 0}
    first = 0
    for name in view.episodes.files:
        if name in view.episodes.errors:
            continue
        try:
            with pq.ParquetFile(view.root / name) as file:
                n_rows = file.metadata.num_rows
                for group in range(file.num_row_groups):
                    file.read_row_group(group)  # facts and counts too can be damaged
                for feature in (f for f in totals.features if f.name not in skip):
                    _compare_rows(file, feature.name, first, run_of_row, totals, wrong)
        except READ_ERRORS as error:
            yield found("INDEX-001", f"{name} is damaged: {short(error)}")
            continue
        first += n_rows
    if wrong:
        episodes = [int(bounds.number[run]) for run in wrong]
        what = f"statistics of {len(wrong)} episodes in meta/episodes are not those of their rows"
        yield found("STATS-008", f"{what}: {next(iter(wrong.values()))}", episodes)


def _compare_rows(
    file: Any,
    feature: str,
    first: int,
    run_of_row: Mapping[int, int],
    totals: Totals,
    wrong: dict[int, str],
) -> None:
    names = [f"stats/{feature}/{moment}" for moment in MOMENTS]
    here = set(file.schema_arrow.names)
    wanted = [name for name in names if name in here]
    if not wanted:
        return
    table = file.read(columns=wanted)
    rows = [row for row in range(len(table)) if first + row in run_of_row]
    runs = np.array([run_of_row[first + row] for row in rows], np.int64)
    where = totals.slice(feature)
    allowed = tolerances(totals, where)
    for i, name in enumerate(names):
        if name not in wanted or not rows:
            continue
        truth = totals.episodes[runs, i, where]
        stored = _stacked(table.column(name), truth.shape[1], len(table))
        if stored is None:
            wrong.setdefault(int(runs[0]), f"{name} has not the shape of the feature")
            continue
        off = np.abs(stored[rows] - truth) > allowed  # NaN on both sides compares as equal
        off |= np.isnan(stored[rows]) != np.isnan(truth)
        for row in np.flatnonzero(off.any(axis=1)):
            d = int(np.flatnonzero(off[row])[0])
            wrong.setdefault(
                int(runs[row]),
                f"{name}[{d}] of episode {runs[row]} is {stored[rows[row]][d]:g}, its rows give "
                f"{truth[row, d]:g}",
            )


def _stacked(column: Any, width: int, n_rows: int) -> np.ndarray | None:
    """Lists of numbers, however nested, as float64 (E, width); None if they have another form."""
    array = column.combine_chunks()
    while hasattr(array, "flatten") and hasattr(array.type, "value_type"):
        array = array.flatten()
    try:
        values = np.array(array.to_pylist(), np.float64)
    except (TypeError, ValueError):
        return None
    return values.reshape(n_rows, width) if len(values) == n_rows * width else None
