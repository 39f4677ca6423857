"""What is different between two datasets, told from their meta/ alone."""

import json
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dp_hub.dataset.alignment import Alignment, Pair, align
from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.facts import episode_lengths, task_texts
from dp_hub.dataset.features import INDEX_DTYPES
from dp_hub.dataset.located import Located, meta_folder
from dp_hub.dataset.meta import Meta, read_meta
from dp_hub.dataset.overview import dimension_labels, stat_values

THRESHOLD = 0.01  # of the range of a dimension; statistics that move less are not reported
_STATS = ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")
_EPISODE_STATS = ("min", "max", "mean", "std")
_TOLERANCE = 1e-5  # of a feature's largest value: other programs round otherwise


@dataclass(frozen=True)
class Side:
    """One of the two datasets. ``revision``: tag or commit, where it is known."""

    name: str
    revision: str | None
    n_episodes: int
    n_frames: int
    fps: float
    robot_type: str | None


@dataclass(frozen=True)
class FeatureChange:
    """A feature of both with another type or shape."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class EpisodeChange:
    """An episode with other content or facts.

    Attributes:
        a, b: its number in A and in B.
        length, task: before and after; None if they are equal.
        statistics: which of its statistics differ, by feature.
        metadata: whether the facts recorded with it differ.
    """

    a: int
    b: int
    length: tuple[int, int] | None = None
    task: tuple[str, str] | None = None
    statistics: tuple[tuple[str, tuple[str, ...]], ...] = ()
    metadata: bool = False

    @property
    def is_visible(self) -> bool:
        """Whether meta/ shows what changed."""
        return bool(self.length or self.task or self.statistics or self.metadata)


@dataclass(frozen=True)
class StatMove:
    """A statistic of the whole dataset that moved. ``share``: by how much of the range, 0..1."""

    feature: str
    stat: str
    dimension: str
    before: float
    after: float
    share: float


@dataclass(frozen=True)
class Difference:
    """What is different from A to B.

    Attributes:
        compared_by: ``sha256``, or ``statistics`` where episodes have no comparable hashes.
        note: what that comparison cannot see; "" for hashes.
        same: equal episodes, (in A, in B).
        changed, removed, added: the others.
        tasks_added, tasks_removed: task texts.
        moves: statistics that moved by more than `THRESHOLD` of the range, in the dimension where
            they moved most.
        largest_share: of the range, by which any statistic moved.
    """

    a: Side
    b: Side
    compared_by: str
    note: str
    same: tuple[Pair, ...]
    changed: tuple[EpisodeChange, ...]
    removed: tuple[int, ...]
    added: tuple[int, ...]
    features_added: tuple[str, ...]
    features_removed: tuple[str, ...]
    features_changed: tuple[FeatureChange, ...]
    tasks_added: tuple[str, ...]
    tasks_removed: tuple[str, ...]
    moves: tuple[StatMove, ...]
    largest_share: float

    @property
    def renumbered(self) -> tuple[Pair, ...]:
        """Equal episodes that have another number."""
        return tuple((i, j) for i, j in self.same if i != j)

    @property
    def equal(self) -> bool:
        """Whether nothing is different."""
        lists = (self.changed, self.removed, self.added, self.renumbered, self.features_added,
                 self.features_removed, self.features_changed, self.tasks_added,
                 self.tasks_removed, self.moves)  # fmt: skip
        a, b = self.a, self.b
        return not any(lists) and (a.fps, a.robot_type) == (b.fps, b.robot_type)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values; renumbered episodes as runs, see `runs`."""
        values = asdict(self)
        values["n_same"] = len(values.pop("same"))
        values["changed"] = [{**entry, "statistics": dict(entry["statistics"])}
                             for entry in values["changed"]]  # fmt: skip
        values["renumbered"] = [
            {"a": [i, i + n - 1], "b": [j, j + n - 1]} for i, j, n in runs(self.renumbered)
        ]
        return {"equal": self.equal, **values, "threshold": THRESHOLD}


def diff(a: str | Path | Located, b: str | Path | Located) -> Difference:
    """Compare two datasets, each a folder or a name on the Hub.

    Episodes are compared by their sha256. Where one dataset has none, or the features differ (which
    the hashes cover), they are compared by length, task and statistics instead.

    Raises:
        DataError: one is no dataset, or its meta/ is damaged.
        HubError: the Hub has no such dataset or revision.
    """
    one, two = _Half(_located(a)), _Half(_located(b))
    shared = [name for name in one.meta.features
              if name in two.meta.features and name not in INDEX_DTYPES]  # fmt: skip
    changes = _feature_changes(one.meta, two.meta)
    added = _only(two.meta.features, one.meta.features)
    removed = _only(one.meta.features, two.meta.features)
    kept = [name for name in shared if name not in {change.name for change in changes}]
    hashed = one.hashed and two.hashed and not (changes or added or removed)
    if not hashed and one.hashed != two.hashed:  # two programs sample pictures differently
        kept = [name for name in kept if not one.meta.features[name].is_visual]
    found, episode_changes = _episodes(one, two, kept, hashed=hashed)
    moves, largest = _stat_moves(one.meta, two.meta, shared)
    tasks = one.task_set, two.task_set
    return Difference(
        a=one.side,
        b=two.side,
        compared_by="sha256" if hashed else "statistics",
        note="" if hashed else _note(one, two),
        same=found.same,
        changed=episode_changes,
        removed=found.removed,
        added=found.added,
        features_added=added,
        features_removed=removed,
        features_changed=changes,
        tasks_added=_only(tasks[1], tasks[0]),
        tasks_removed=_only(tasks[0], tasks[1]),
        moves=moves,
        largest_share=largest,
    )


def runs(pairs: Sequence[Pair]) -> list[tuple[int, int, int]]:
    """Pairs that rise together as ``(first in A, first in B, how many)``."""
    found: list[tuple[int, int, int]] = []
    for i, j in pairs:
        if found and (i, j) == (found[-1][0] + found[-1][2], found[-1][1] + found[-1][2]):
            found[-1] = (*found[-1][:2], found[-1][2] + 1)
        else:
            found.append((i, j, 1))
    return found


class _Half:
    """One dataset, with what the comparison needs of it."""

    def __init__(self, place: Located) -> None:
        self.meta = meta = read_meta(place.folder)
        names = ["length", "dataset_from_index", "dataset_to_index", "tasks", "sha256", "metadata"]
        table = meta.episodes(names)
        columns = {name: table.column(name).to_pylist() for name in table.schema.names}
        self.lengths: list[int] = episode_lengths(columns).tolist()
        nothing = [None] * meta.n_episodes
        self.tasks = task_texts(columns.get("tasks", nothing))
        self.hashes: list[Any] = columns.get("sha256", nothing)
        self.metadata: list[Any] = columns.get("metadata", nothing)
        robot = meta.info.get("robot_type")
        self.side = Side(
            name=place.repo_id or str(place.folder),
            revision=place.tag or place.sha,
            n_episodes=meta.n_episodes,
            n_frames=int(meta.info["total_frames"]),
            fps=meta.fps,
            robot_type=robot if isinstance(robot, str) and robot != "unknown" else None,
        )

    @property
    def hashed(self) -> bool:
        """Whether every episode has a hash."""
        return all(isinstance(value, str) and value for value in self.hashes)

    @cached_property
    def task_set(self) -> dict[str, None]:
        """The tasks, in order of appearance."""
        return dict.fromkeys(task for tasks in self.tasks for task in tasks if task)

    def stats(self, features: Sequence[str]) -> dict[tuple[str, str], np.ndarray]:
        """Statistics of every episode by feature and statistic, float64 (E, n)."""
        names = [f"stats/{feature}/{stat}" for feature in features for stat in _EPISODE_STATS]
        table = self.meta.episodes(names)
        found = {}
        for name in table.schema.names:
            values = _matrix(table.column(name)) if name in names else None
            if values is not None:
                _, feature, stat = name.split("/")
                found[feature, stat] = values
        return found


def _located(place: str | Path | Located) -> Located:
    return place if isinstance(place, Located) else meta_folder(place)


def _matrix(column: pa.ChunkedArray) -> np.ndarray | None:
    """A column of lists of numbers, nested or not, as float64 (E, n); None if it is no such."""
    n_rows, flat = len(column), column.combine_chunks()
    if isinstance(flat, pa.ChunkedArray):
        flat = pa.concat_arrays(flat.chunks)
    while pa.types.is_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
        if flat.null_count:
            return None
        flat = flat.flatten()
    numeric = pa.types.is_floating(flat.type) or pa.types.is_integer(flat.type)
    if not (numeric or pa.types.is_boolean(flat.type)) or flat.null_count or not n_rows:
        return None
    return vectors(flat).astype(np.float64).reshape(n_rows, -1) if len(flat) % n_rows == 0 else None


def _only(these: Any, others: Any) -> tuple[str, ...]:
    return tuple(name for name in these if name not in others)


def _feature_changes(one: Meta, two: Meta) -> tuple[FeatureChange, ...]:
    found = []
    for name, before in one.features.items():
        after = two.features.get(name)
        if after is not None and (before.dtype, before.shape) != (after.dtype, after.shape):
            texts = [f"{f.dtype} {'x'.join(map(str, f.shape))}" for f in (before, after)]
            found.append(FeatureChange(name, *texts))
    return tuple(found)


def _note(one: _Half, two: _Half) -> str:
    without = [half.side.name for half in (one, two) if not half.hashed]
    if not without:
        why = "the features differ, which the episodes' hashes cover"
    else:
        why = f"{' and '.join(without)} {'have' if len(without) > 1 else 'has'} no episode hashes"
    unseen = "" if len(without) != 1 else ", pictures not at all"
    return (
        f"{why}: episodes were compared by length, task and statistics of the features that both "
        f"have{unseen}; a change that leaves these as they were is not seen"
    )


def _episodes(
    one: _Half, two: _Half, features: Sequence[str], *, hashed: bool
) -> tuple[Alignment, tuple[EpisodeChange, ...]]:
    stats = None
    if hashed:
        keys = one.hashes, two.hashes
    else:
        stats = _comparable(one, two, features)
        keys = _keys(one, stats[0]), _keys(two, stats[1])
    found = align(keys[0], keys[1], one.lengths, two.lengths)
    if found.changed and stats is None:
        stats = _comparable(one, two, features)
    changes = _explained(one, two, found.changed, stats, exact=hashed) if stats is not None else []
    if not hashed:  # nothing is known to be different about these
        unseen = [(change.a, change.b) for change in changes if not change.is_visible]
        changes = [change for change in changes if change.is_visible]
        rest = tuple((c.a, c.b) for c in changes)
        found = Alignment(tuple(sorted([*found.same, *unseen])), rest, found.removed, found.added)
    told = [EpisodeChange(i, j, metadata=True) for i, j in found.same
            if _facts(one.metadata[i]) != _facts(two.metadata[j])]  # fmt: skip
    apart = {(change.a, change.b) for change in told}
    same = tuple(pair for pair in found.same if pair not in apart)
    return (
        Alignment(same, found.changed, found.removed, found.added),
        tuple(sorted([*changes, *told], key=lambda change: change.a)),
    )


Stats = dict[tuple[str, str], np.ndarray]


def _comparable(one: _Half, two: _Half, features: Sequence[str]) -> tuple[Stats, Stats]:
    """Statistics that both have, with the same number of values."""
    a, b = one.stats(features), two.stats(features)
    shared = [key for key in a if key in b and a[key].shape[1] == b[key].shape[1]]
    return {key: a[key] for key in shared}, {key: b[key] for key in shared}


def _keys(half: _Half, stats: Stats) -> list[Hashable]:
    """What stands for an episode's content: length, tasks, and statistics to six digits."""
    parts = [np.float32(values) for values in stats.values()]
    rows = (
        np.concatenate(parts, axis=1) + np.float32(0) if parts else np.zeros((len(half.lengths), 0))
    )
    return [(half.lengths[i], half.tasks[i], row.tobytes()) for i, row in enumerate(rows)]


def _explained(
    one: _Half, two: _Half, pairs: Sequence[Pair], stats: tuple[Stats, Stats], *, exact: bool
) -> list[EpisodeChange]:
    differing = _differing(pairs, stats, exact=exact)
    changes = []
    for k, (i, j) in enumerate(pairs):
        lengths, tasks = (one.lengths[i], two.lengths[j]), (one.tasks[i], two.tasks[j])
        by_feature: dict[str, list[str]] = {}
        for (feature, stat), which in differing.items():
            if which[k]:
                by_feature.setdefault(feature, []).append(stat)
        changes.append(
            EpisodeChange(
                a=i,
                b=j,
                length=lengths if lengths[0] != lengths[1] else None,
                task=("; ".join(tasks[0]), "; ".join(tasks[1])) if tasks[0] != tasks[1] else None,
                statistics=tuple((name, tuple(which)) for name, which in by_feature.items()),
                metadata=_facts(one.metadata[i]) != _facts(two.metadata[j]),
            )
        )
    return changes


def _differing(
    pairs: Sequence[Pair], stats: tuple[Stats, Stats], *, exact: bool
) -> dict[tuple[str, str], np.ndarray]:
    """By feature and statistic: in which pairs it differs, bool (P,)."""
    rows_a, rows_b = np.array([i for i, _ in pairs], int), np.array([j for _, j in pairs], int)
    found = {}
    for key, values in stats[0].items():
        a, b = values[rows_a], stats[1][key][rows_b]
        both = np.abs(np.concatenate([a, b]))
        largest = both[np.isfinite(both)].max(initial=0)
        close = np.isclose(a, b, rtol=0, atol=0 if exact else _TOLERANCE * largest, equal_nan=True)
        found[key] = ~close.all(axis=1)
    return found


def _facts(text: Any) -> Any:
    """Metadata of an episode, however its JSON is spelt; no facts are as good as none."""
    try:
        return json.loads(text) if text else {}
    except (TypeError, ValueError):
        return text


def _stat_moves(
    one: Meta, two: Meta, features: Sequence[str]
) -> tuple[tuple[StatMove, ...], float]:
    a, b = one.stats(), two.stats()
    found = []
    for feature in features:
        before, after = a.get(feature), b.get(feature)
        if isinstance(before, dict) and isinstance(after, dict):
            labels = dimension_labels(one.features[feature], len(stat_values(before.get("min"))))
            found += _moves_of(feature, labels, before, after)
    largest = max((move.share for move in found), default=0.0)
    return tuple(move for move in found if move.share > THRESHOLD), largest


def _moves_of(
    feature: str, labels: Sequence[str], before: dict[str, Any], after: dict[str, Any]
) -> list[StatMove]:
    """Every statistic of a feature, in the dimension that moved most."""
    ends = [stat_values(entry.get(name)) for name in ("min", "max") for entry in (before, after)]
    if not labels or any(len(values) != len(labels) for values in ends):
        return []
    span = np.fmax(ends[2], ends[3]) - np.fmin(ends[0], ends[1])
    found = []
    for stat in _STATS:
        old, new = stat_values(before.get(stat)), stat_values(after.get(stat))
        if len(old) == len(new) == len(labels):
            share = np.abs(new - old) / np.where(span > 0, span, 1)
            share = np.where(np.isfinite(share), share, 0)
            d = int(np.argmax(share))
            found.append(
                StatMove(feature, stat, labels[d], float(old[d]), float(new[d]), float(share[d]))
            )
    return found
