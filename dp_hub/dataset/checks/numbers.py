"""What the numbers hold: gaps, dead joints, leaps, frozen states, saturation, rotations."""

import math
from collections.abc import Iterator

import numpy as np

from dp_hub.dataset.checks import thresholds as th
from dp_hub.dataset.checks.bounds import Bounds
from dp_hub.dataset.checks.dimensions import Dimensions, at_limits
from dp_hub.dataset.checks.finding import Finding, found, some
from dp_hub.dataset.checks.stats import Totals
from dp_hub.dataset.features import INDEX_DTYPES


def check_finite(totals: Totals, bounds: Bounds) -> Iterator[Finding]:
    """NaN and infinity, by feature."""
    for name in (n for n in totals.sizes if n not in INDEX_DTYPES):
        bad = totals.not_finite[:, totals.slice(name)]
        if bad.any():
            episodes = np.flatnonzero(bad.any(axis=1))
            what = f"{name} has NaN or infinity {int(bad.sum())} times"
            yield found("NUM-001", f"{what} in {len(episodes)} episodes", bounds.number[episodes])


def check_dead(totals: Totals, dims: Dimensions, bounds: Bounds) -> Iterator[Finding]:
    """Dimensions of actions and states that never move, or not in some episodes."""
    own = dims.action | dims.state
    seen = totals.counts.sum() > 1
    dead = own & (totals.range <= th.MIN_LEVELS_RANGE) & np.isfinite(totals.running.min) & seen
    if dead.any():
        names = [dims.labels[d] for d in np.flatnonzero(dead)]
        yield found("NUM-002", f"{len(names)} dimensions never change: {some(names, limit=6)}")
    for name in (n for n, size in totals.sizes.items() if n not in INDEX_DTYPES and size > 1):
        part = totals.slice(name)
        still = (totals.range[part] <= th.MIN_LEVELS_RANGE) & np.isfinite(totals.running.min[part])
        if seen and still.all() and not own[part].any():
            yield found("NUM-002", f"{name} never changes, in none of its {len(still)} dimensions")
    moves = totals.episodes[:, 1] > totals.episodes[:, 0]
    known = totals.counts >= th.MIN_FRAMES
    if known.sum() < th.MIN_FRAMES:
        return
    mostly = moves[known].mean(axis=0) >= th.DEAD_ELSEWHERE
    suspect = own & mostly & dims.continuous & ~dims.gripper
    resting = ~moves & suspect & known[:, None] & np.isfinite(totals.episodes[:, 0])
    if resting.any():
        episodes = np.flatnonzero(resting.any(axis=1))
        names = [dims.labels[d] for d in np.flatnonzero(resting.any(axis=0))]
        what = f"{some(names)} rest through {len(episodes)} episodes and move in the others"
        yield found("NUM-004", what, bounds.number[episodes])


class Motion:
    """Checks that need to know the range of every dimension.

    Args:
        totals: of all data.
        dims: its dimensions.
        bounds: the episodes.
        fps: frames per second; None if unknown, then times are not judged.
    """

    def __init__(self, totals: Totals, dims: Dimensions, bounds: Bounds, fps: float | None) -> None:
        self._totals, self._dims, self._bounds = totals, dims, bounds
        self._frozen_frames = math.inf if fps is None else th.FROZEN_S * fps
        # Counters and rewards may leap.
        judged = dims.continuous & (dims.action | dims.state)
        self._range = np.where(judged, totals.range, np.inf)
        self._std = np.where(judged, totals.whole[3], np.inf)
        self._low = np.zeros(totals.size, np.int64)
        self._high = np.zeros(totals.size, np.int64)
        self._episodes: dict[str, set[int]] = {}
        self._n: dict[str, int] = {}
        self._names: dict[str, set[int]] = {}
        self.wraps = 0
        self.max_step = np.zeros(totals.size)

    def add(self, at: int, matrix: np.ndarray) -> None:
        """Look at one episode, float64 (T, D)."""
        low, high = at_limits(matrix, self._totals)
        self._low += low
        self._high += high
        if len(matrix) < 2:
            return
        steps = np.diff(matrix, axis=0)
        np.nan_to_num(steps, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        self._wraps(at, steps)
        size = np.abs(steps)
        np.maximum(self.max_step, size.max(axis=0), out=self.max_step)
        self._leaps(at, steps, size)
        self._frozen(at, matrix, size)
        self._rotations(at, matrix)

    def _note(self, id: str, at: int, columns: np.ndarray | list[int], n: int) -> None:
        self._episodes.setdefault(id, set()).add(int(self._bounds.number[at]))
        self._n[id] = self._n.get(id, 0) + n
        self._names.setdefault(id, set()).update(int(c) for c in columns)

    def _wraps(self, at: int, steps: np.ndarray) -> None:
        """Counts steps around a turn, and takes the turn out of them."""
        for d in np.flatnonzero(self._dims.wrapping).tolist():
            around = np.abs(steps[:, d]) > math.pi
            if n := int(around.sum()):
                self._note("NUM-007", at, [d], n)
                self.wraps += n
                steps[around, d] -= np.sign(steps[around, d]) * 2 * math.pi

    def _leaps(self, at: int, steps: np.ndarray, size: np.ndarray) -> None:
        far = size > th.SPIKE_SHARE * self._range
        if far.any():
            columns = [
                d for d in np.flatnonzero(far.any(axis=0)).tolist() if not self._is_switch(d)
            ]
            spikes = {d: n for d in columns if (n := _spikes(steps[:, d], self._range[d]))}
            if spikes:
                self._note("NUM-005", at, list(spikes), sum(spikes.values()))
        long = size > th.STEP_STD * self._std
        if long.any():
            columns = [
                d for d in np.flatnonzero(long.any(axis=0)).tolist() if not self._is_switch(d)
            ]
            if columns:
                self._note("NUM-006", at, columns, int(long[:, columns].sum()))

    def _is_switch(self, d: int) -> bool:
        """Grippers and other two-valued dimensions leap by nature."""
        low, high = self._totals.running.min[d], self._totals.running.max[d]
        mean, std = self._totals.whole[2, d], self._totals.whole[3, d]
        # For values at the two extremes only, the variance is (mean - low)(high - mean).
        two_valued = std**2 > th.SWITCH_SHARE * (mean - low) * (high - mean)
        return bool(self._dims.gripper[d] or two_valued)

    def _frozen(self, at: int, matrix: np.ndarray, size: np.ndarray) -> None:
        if len(matrix) <= self._frozen_frames or not self._dims.action.any():
            return
        action = matrix[:, self._dims.action]
        wide = np.maximum(self._totals.range[self._dims.action], th.MIN_LEVELS_RANGE)
        for name in {n for n, own in zip(self._dims.features, self._dims.state, strict=True)
                     if own}:  # fmt: skip
            where = self._totals.slice(name)
            if not (self._totals.range[where] > 0).any():
                continue
            for a, b in still_stretches((size[:, where] == 0).all(axis=1)):
                if b - a <= self._frozen_frames:
                    continue
                moved = (np.ptp(action[a:b], axis=0) > th.MOVING * wide).any()
                if moved:
                    self._note("NUM-003", at, list(range(where.start, where.stop)), b - a)

    def _rotations(self, at: int, matrix: np.ndarray) -> None:
        for d in self._dims.quaternions:
            q = matrix[:, d : d + 4]
            off = np.abs(np.linalg.norm(q, axis=1) - 1) > th.QUATERNION_NORM
            if off.any():
                self._note("NUM-010", at, [d], int(off.sum()))
            flips = (q[1:] * q[:-1]).sum(axis=1) < 0
            if flips.any():
                self._note("NUM-011", at, [d], int(flips.sum()))
        for d in self._dims.matrices:
            det = np.linalg.det(matrix[:, d : d + 9].reshape(-1, 3, 3))
            off = ~(np.abs(det - 1) <= th.ROTATION_DET)
            if off.any():
                self._note("NUM-012", at, [d], int(off.sum()))

    def findings(self) -> Iterator[Finding]:
        """What was seen."""
        texts = {
            "NUM-003": "{names} is bit-identical for {n} frames while the action moves",
            "NUM-005": "{n} spikes in {names}",
            "NUM-006": "{n} steps of {names} are longer than 8 standard deviations",
            "NUM-007": "{names} wraps around {n} times",
            "NUM-010": "the norm of the quaternion at {names} is not 1 in {n} frames",
            "NUM-011": "the quaternion at {names} changes its sign {n} times",
            "NUM-012": "the determinant of {names} is not 1 in {n} frames",
        }
        for id, text in texts.items():
            if id in self._n:
                names = some([self._dims.labels[d] for d in sorted(self._names[id])])
                yield found(id, text.format(names=names, n=self._n[id]), self._episodes[id])
        yield from self._limits()

    def _limits(self) -> Iterator[Finding]:
        n = max(int(self._totals.counts.sum()), 1)
        low, high = self._low / n, self._high / n
        stuck = self._dims.action & self._dims.continuous & ~self._dims.gripper
        stuck &= np.maximum(low, high) > th.SATURATED_SHARE
        stuck &= low + high < th.SWITCH_SHARE
        for d in np.flatnonzero(stuck):
            share, which = max((low[d], "smallest"), (high[d], "largest"))
            what = f"{self._dims.labels[d]} is at its {which} value in {share:.0%} of all frames"
            yield found("NUM-008", what)
        span = np.maximum(np.abs(self._totals.running.min), np.abs(self._totals.running.max))
        degrees = self._dims.angle & (span > th.DEGREES_MIN)
        if degrees.any():
            names = [self._dims.labels[d] for d in np.flatnonzero(degrees)]
            what = f"{some(names)} reach {span[degrees].max():.4g}: degrees, or several turns?"
            yield found("NUM-009", what)


def _spikes(steps: np.ndarray, spread: float) -> int:
    """How often a value leaves by 30 % of its range and is back within 3 frames."""
    n = 0
    gone = np.concatenate([[0.0], np.cumsum(steps)])  # turns are taken out
    skip_to = 0
    for t in np.flatnonzero(np.abs(steps) > th.SPIKE_SHARE * spread).tolist():
        if t < skip_to:
            continue
        for k in range(2, th.SPIKE_FRAMES + 1):
            if t + k < len(gone) and abs(gone[t + k] - gone[t]) < 0.1 * spread:
                n, skip_to = n + 1, t + k
                break
    return n


def still_stretches(same: np.ndarray) -> list[tuple[int, int]]:
    """Rows (first, one past the last) between which nothing changes.

    Args:
        same: bool (T - 1,), whether a row equals the next one.
    """
    if not same.any():
        return []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
    return [(int(a), int(b) + 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
