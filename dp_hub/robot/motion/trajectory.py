"""Way-points at absolute times, and where to be between them. Pure: it knows no clock."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dp_hub.robot.clock import SAME_S
from dp_hub.robot.motion.plan import Plan
from dp_hub.robot.motion.rotation_vectors import slerp
from dp_hub.robot.space import Space

Interpolation = Literal["hold", "linear"]
"""``hold``: the newest point whose time has come, a step. ``linear``: straight between points,
rotation vectors on the sphere, the short way."""


@dataclass(frozen=True)
class Accepted:
    """What became of a plan.

    Args:
        trajectory: with the plan in it.
        late: points of the plan whose time had passed and whose follower's had, too: never used.
        replaced: points of earlier plans that were still to come and went.
    """

    trajectory: "Trajectory"
    late: int
    replaced: int


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Points in time, one at least; before the first and after the last, it stays there.

    Args:
        times_s: float64 (K,), increasing.
        targets: float64 (K, D).
        rotation_at: as in `Space`.
        interpolation: between points.
    """

    times_s: np.ndarray
    targets: np.ndarray
    rotation_at: int | None
    interpolation: Interpolation

    @property
    def end_s(self) -> float:
        """When its last point is due."""
        return float(self.times_s[-1])

    def at(self, time_s: float) -> np.ndarray:
        """Where to be at a time, float64 (D,)."""
        after = int(np.searchsorted(self.times_s, time_s, side="right"))
        if after == 0:
            return self.targets[0].copy()
        if after == len(self.times_s) or self.interpolation == "hold":
            return self.targets[after - 1].copy()
        start_s, end_s = float(self.times_s[after - 1]), float(self.times_s[after])
        share = (time_s - start_s) / (end_s - start_s)
        start, end = self.targets[after - 1], self.targets[after]
        target = start + share * (end - start)
        if self.rotation_at is not None:
            turn = slice(self.rotation_at, self.rotation_at + 3)
            target[turn] = slerp(start[turn], end[turn], share)
        return target

    def accept(self, plan: Plan, now_s: float, here: np.ndarray, here_s: float) -> Accepted:
        """With a plan in it, which holds from its first point on, or from ``replace_from_s``.

        Targets follow the times of points, not the arrival of plans: one that comes late is, from
        now on, what it would be had it come in time.

        Args:
            plan: finite, of increasing times.
            now_s: the time of targets that are asked for now.
            here: float64 (D,), where it is: the line to the plan's first point begins there if
                nothing planned earlier is still to come before it.
            here_s: when it was there, ``now_s`` or a tick earlier.
        """
        past = int(np.searchsorted(plan.times_s, now_s, side="right"))
        cut_s = min(plan.replace_from_s, float(plan.times_s[0]))
        coming = self.times_s > now_s
        kept = coming & (self.times_s < cut_s - SAME_S)
        if past:
            times, targets = plan.times_s[past - 1 :], plan.targets[past - 1 :]
        else:
            first, first_s = (self.at(now_s), now_s) if kept.any() else (here, here_s)
            times = np.concatenate([[first_s], self.times_s[kept], plan.times_s])
            targets = np.concatenate([first[None], self.targets[kept], plan.targets])
        return Accepted(
            Trajectory(times, targets, self.rotation_at, self.interpolation),
            late=max(0, past - 1),
            replaced=int(np.count_nonzero(coming & ~kept)),
        )


def resting(
    position: np.ndarray, now_s: float, space: Space, interpolation: Interpolation
) -> Trajectory:
    """Staying at a position, float64 (D,), until a plan comes."""
    assert position.shape == (space.size,), (position.shape, space)
    times = np.array([now_s])
    return Trajectory(times, position[None].copy(), space.rotation_at, interpolation)
