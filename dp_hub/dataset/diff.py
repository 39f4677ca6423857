"""What is different between two datasets, told from their meta/ alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.dataset.alignment import Pair
from dp_hub.dataset.episode_changes import EpisodeChange, Half, Side, episode_changes
from dp_hub.dataset.features import INDEX_DTYPES
from dp_hub.dataset.located import Located, meta_folder
from dp_hub.dataset.meta import Meta
from dp_hub.dataset.overview import dimension_labels, stat_values

THRESHOLD = 0.01  # of the range of a dimension; statistics that move less are not reported
_STATS = ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")


@dataclass(frozen=True)
class FeatureChange:
    """A feature of both with another type or shape."""

    name: str
    before: str
    after: str


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
    one, two = Half(_located(a)), Half(_located(b))
    shared = [name for name in one.meta.features
              if name in two.meta.features and name not in INDEX_DTYPES]  # fmt: skip
    changes = _feature_changes(one.meta, two.meta)
    added = _only(two.meta.features, one.meta.features)
    removed = _only(one.meta.features, two.meta.features)
    kept = [name for name in shared if name not in {change.name for change in changes}]
    hashed = one.hashed and two.hashed and not (changes or added or removed)
    if not hashed and one.hashed != two.hashed:  # two programs sample pictures differently
        kept = [name for name in kept if not one.meta.features[name].is_visual]
    found, changed = episode_changes(one, two, kept, hashed=hashed)
    moves, largest = _stat_moves(one.meta, two.meta, shared)
    tasks = one.task_set, two.task_set
    return Difference(
        a=one.side,
        b=two.side,
        compared_by="sha256" if hashed else "statistics",
        note="" if hashed else _note(one, two),
        same=found.same,
        changed=changed,
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


def _located(place: str | Path | Located) -> Located:
    return place if isinstance(place, Located) else meta_folder(place)


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


def _note(one: Half, two: Half) -> str:
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
            # What is infinite or missing has not moved by any share.
            known = np.isfinite(old) & np.isfinite(new) & np.isfinite(span) & (span > 0)
            share = np.abs(np.where(known, new, 0) - np.where(known, old, 0))
            share /= np.where(known, span, 1)
            d = int(np.argmax(share))
            found.append(
                StatMove(feature, stat, labels[d], float(old[d]), float(new[d]), float(share[d]))
            )
    return found
