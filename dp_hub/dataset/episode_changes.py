"""Which episodes changed between two datasets, and in what, told from their meta/ alone."""

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from dp_hub.dataset.alignment import Alignment, Pair, align
from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.facts import episode_lengths, task_texts
from dp_hub.dataset.located import Located
from dp_hub.dataset.meta import read_meta

_EPISODE_STATS = ("min", "max", "mean", "std")
_TOLERANCE = 1e-5  # of a feature's largest value: other programs round otherwise
Stats = dict[tuple[str, str], np.ndarray]  # by feature and statistic, float64 (E, n)


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


class Half:
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
        self.metadata: list[Any] | None = columns.get("metadata")
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


def episode_changes(
    one: Half, two: Half, features: Sequence[str], *, hashed: bool
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
            if _metadata_differs(one, two, i, j)]  # fmt: skip
    apart = {(change.a, change.b) for change in told}
    same = tuple(pair for pair in found.same if pair not in apart)
    return (
        Alignment(same, found.changed, found.removed, found.added),
        tuple(sorted([*changes, *told], key=lambda change: change.a)),
    )


def _comparable(one: Half, two: Half, features: Sequence[str]) -> tuple[Stats, Stats]:
    """Statistics that both have, with the same number of values."""
    a, b = one.stats(features), two.stats(features)
    shared = [key for key in a if key in b and a[key].shape[1] == b[key].shape[1]]
    return {key: a[key] for key in shared}, {key: b[key] for key in shared}


def _keys(half: Half, stats: Stats) -> list[Hashable]:
    """What stands for an episode's content: length, tasks, and statistics to six digits."""
    parts = [np.float32(values) for values in stats.values()]
    rows = (
        np.concatenate(parts, axis=1) + np.float32(0) if parts else np.zeros((len(half.lengths), 0))
    )
    return [(half.lengths[i], half.tasks[i], row.tobytes()) for i, row in enumerate(rows)]


def _explained(
    one: Half, two: Half, pairs: Sequence[Pair], stats: tuple[Stats, Stats], *, exact: bool
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
                metadata=_metadata_differs(one, two, i, j),
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


def _metadata_differs(one: Half, two: Half, i: int, j: int) -> bool:
    """Whether the facts recorded with an episode differ; no if other programs dropped them."""
    if one.metadata is None or two.metadata is None:
        return False
    return bool(_facts(one.metadata[i]) != _facts(two.metadata[j]))


def _facts(text: Any) -> Any:
    """Metadata of an episode, however its JSON is spelt; no facts are as good as none."""
    try:
        return json.loads(text) if text else {}
    except (TypeError, ValueError):
        return text


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
