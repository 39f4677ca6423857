"""Targets over time: what a plan asks for at any moment, and how two or more of them are mixed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dp_hub.replay.rotations import slerp
from dp_hub.robot.clock import SAME_S
from dp_hub.robot.motion.trajectory import Interpolation


@dataclass(frozen=True, eq=False)
class Timeline:
    """Targets and when they are due.

    Args:
        times_s: float64 (K,), growing; K is at least 1.
        targets: float64 (K, D).
        period_s: how long the last one counts.
        interpolation: ``hold``: a target counts from its time to the next one's. ``linear``: it
            is reached at its time, on a straight way from the one before.
        rotations_at: indices where the three numbers of a rotation vector begin.
    """

    times_s: np.ndarray
    targets: np.ndarray
    period_s: float
    interpolation: Interpolation
    rotations_at: tuple[int, ...] = ()

    @property
    def end_s(self) -> float:
        """From then on there is nothing."""
        last_s = float(self.times_s[-1])
        return last_s + self.period_s if self.interpolation == "hold" else last_s

    def covers(self, at_s: np.ndarray) -> np.ndarray:
        """bool (n,): whether something is asked for at these times, float64 (n,)."""
        begun = at_s >= self.times_s[0] - SAME_S
        if self.interpolation == "hold":
            return begun & (at_s < self.end_s - SAME_S)
        return begun & (at_s <= self.end_s + SAME_S)

    def at(self, at_s: np.ndarray) -> np.ndarray:
        """float64 (n, D): what is asked for at times float64 (n,), which it covers."""
        before = np.searchsorted(self.times_s, at_s + SAME_S, side="right") - 1
        before = np.clip(before, 0, len(self.times_s) - 1)
        if self.interpolation == "hold":
            return self.targets[before]
        after = np.minimum(before + 1, len(self.times_s) - 1)
        gap_s = self.times_s[after] - self.times_s[before]
        way_s = np.clip(at_s - self.times_s[before], 0, None)
        weight = np.divide(way_s, gap_s, out=np.zeros_like(way_s), where=gap_s > 0)
        return mixed(self.targets[before], self.targets[after], weight, self.rotations_at)

    def then(self, later: "Timeline", *, from_s: float, keep_s: float) -> "Timeline":
        """This one before ``from_s`` and ``later`` after it; what is ``keep_s`` older goes."""
        kept = (self.times_s < from_s - SAME_S) & (self.times_s >= from_s - keep_s)
        return Timeline(
            np.concatenate([self.times_s[kept], later.times_s]),
            np.concatenate([self.targets[kept], later.targets]),
            later.period_s,
            later.interpolation,
            later.rotations_at,
        )


def mixed(
    old: np.ndarray, new: np.ndarray, weight: np.ndarray, rotations_at: Sequence[int]
) -> np.ndarray:
    """Between two rows of targets each, rotations on the shortest turn.

    Args:
        old, new: float64 (n, D).
        weight: float64 (n,), of ``new``.
        rotations_at: where rotation vectors begin.
    Returns:
        float64 (n, D).
    """
    result = old + weight[:, None] * (new - old)
    for first in rotations_at:
        turn = slice(first, first + 3)
        result[:, turn] = slerp(old[:, turn], new[:, turn], weight, "rotvec")
    return result


def blended(old: Timeline, new: Timeline) -> tuple[np.ndarray, int]:
    """The new targets, drawn to the old ones where there are such.

    Of m targets in the overlap, the j-th (from 0) has the weight (j + 1) / (m + 1).

    Returns:
        float64 (K, D), and m.
    """
    both = np.flatnonzero(old.covers(new.times_s))
    if not len(both):
        return new.targets, 0
    weight = np.arange(1, len(both) + 1) / (len(both) + 1)
    result = new.targets.copy()
    past = old.at(new.times_s[both])
    result[both] = mixed(past, new.targets[both], weight, new.rotations_at)
    return result, len(both)


def ensembled(earlier: Sequence[Timeline], new: Timeline, m: float) -> tuple[np.ndarray, int]:
    """The mean of all answers for each time (Zhao et al. 2023, algorithm 2).

    Args:
        earlier: answers before, as they were given, the oldest first.
        new: the newest; its times are those of the result.
        m: weights are exp(-m i), i = 0 the oldest answer that covers the time.
    Returns:
        float64 (K, D), and how many targets are of more than one answer.
    """
    result, count = new.targets.copy(), 0
    for k in range(len(new.times_s)):
        at_s = new.times_s[k : k + 1]
        each = [one.at(at_s)[0] for one in earlier if one.covers(at_s)[0]]
        if each:
            result[k] = _mean(np.stack([*each, new.targets[k]]), m, new.rotations_at)
            count += 1
    return result, count


def _mean(rows: np.ndarray, m: float, rotations_at: Sequence[int]) -> np.ndarray:
    weights = np.exp(-m * np.arange(len(rows)))
    result: np.ndarray = weights @ rows / weights.sum()
    for first in rotations_at:
        from scipy.spatial.transform import Rotation

        turns = Rotation.from_rotvec(rows[:, first : first + 3])
        result[first : first + 3] = turns.mean(weights).as_rotvec()
    return result
