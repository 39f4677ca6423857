"""What makes an episode odd among the others: length, copies, idle ends, another lag."""

import hashlib
from collections.abc import Iterator

import numpy as np

from dp_hub.dataset.checks import thresholds as th
from dp_hub.dataset.checks.bounds import Bounds
from dp_hub.dataset.checks.dimensions import Dimensions
from dp_hub.dataset.checks.finding import Finding, found
from dp_hub.dataset.checks.stats import Totals

_COMPARED_DIMENSIONS = 16
_BLOCK = 512


def check_lengths(bounds: Bounds, *, horizon: int, n_obs: int) -> Iterator[Finding]:
    """Episodes too short to learn from, or of an odd length."""
    lengths, numbers = bounds.lengths, bounds.number
    if not len(lengths):
        return
    tiny = lengths < th.MIN_FRAMES
    if tiny.any():
        what = f"{tiny.sum()} episodes have fewer than {th.MIN_FRAMES} frames"
        yield found("EPI-002", f"{what}, the shortest {lengths.min()}", numbers[tiny])
    wanted = horizon + n_obs
    short = (lengths < wanted) & ~tiny
    if short.any():
        what = f"{short.sum()} episodes have fewer than {horizon} + {n_obs} = {wanted} frames"
        yield found("EPI-001", what, numbers[short])
    median = float(np.median(lengths))
    deviation = 1.4826 * float(np.median(np.abs(lengths - median)))
    odd = lengths < th.SHORT_SHARE * median
    if deviation > 0 and len(lengths) >= th.MIN_FRAMES:
        odd |= np.abs(lengths - median) > th.LENGTH_Z * deviation
    odd &= ~tiny & ~short
    if odd.any():
        seen = f"{lengths[odd].min()} to {lengths[odd].max()}"
        what = f"{odd.sum()} episodes have an odd length ({seen} frames; the median is {median:g})"
        yield found("EPI-003", what, numbers[odd])


class Copies:
    """Finds episodes that are the same, or nearly, by their actions and states.

    Args:
        totals: of all data.
        dims: its dimensions.
        bounds: the episodes.
    """

    def __init__(self, totals: Totals, dims: Dimensions, bounds: Bounds) -> None:
        own = (dims.action | dims.state) & (totals.range > th.MIN_LEVELS_RANGE)
        self._columns = np.flatnonzero(own)
        self._few = self._columns[:_COMPARED_DIMENSIONS]
        self._low = totals.running.min[self._columns]
        self._unit = th.ROUNDING * totals.range[self._columns]
        self._mean, std = totals.whole[2, self._few], totals.whole[3, self._few]
        self._std = np.maximum(std, 1e-12)
        self._bounds = bounds
        n = len(bounds.starts)
        self._shapes = np.zeros((n, th.NEAR_STEPS * len(self._few)), np.float32)
        self._by_hash: dict[bytes, list[int]] = {}

    def add(self, at: int, matrix: np.ndarray) -> None:
        """Take one episode in, float64 (T, D)."""
        if not len(self._columns) or not len(matrix):
            return
        values = np.nan_to_num(matrix[:, self._columns], posinf=0.0, neginf=0.0)
        rounded = np.rint((values - self._low) / self._unit).astype(np.int64)
        digest = hashlib.sha256(np.ascontiguousarray(rounded).data).digest()
        self._by_hash.setdefault(digest, []).append(at)
        steps = np.rint(np.linspace(0, len(matrix) - 1, th.NEAR_STEPS)).astype(np.int64)
        few = np.nan_to_num(matrix[np.ix_(steps, self._few)], posinf=0.0, neginf=0.0)
        shape = ((few - self._mean) / self._std).reshape(-1)
        norm = float(np.linalg.norm(shape))
        if norm > 0:
            self._shapes[at] = shape / norm

    def findings(self) -> Iterator[Finding]:
        """Groups of copies."""
        groups = [group for group in self._by_hash.values() if len(group) > 1]
        number = self._bounds.number
        if groups:
            pairs = "; ".join(" = ".join(str(number[i]) for i in g[:4]) for g in groups[:4])
            copies = [number[i] for group in groups for i in group[1:]]
            what = f"{len(copies)} episodes are copies of others: {pairs}"
            yield found("EPI-004", what, copies)
        exact = {i for group in groups for i in group}
        near = [(i, j) for i, j in self._near() if not {i, j} <= exact]
        if near:
            shown = "; ".join(f"{number[i]} ~ {number[j]}" for i, j in near[:4])
            what = f"{len(near)} pairs of episodes are nearly the same: {shown}"
            yield found("EPI-005", what, {number[j] for _, j in near})

    def _near(self) -> Iterator[tuple[int, int]]:
        """Pairs of positions, the earlier first; in blocks of the episodes by length."""
        lengths = self._bounds.lengths
        order = np.argsort(lengths, kind="stable")
        ordered = lengths[order]
        for a in range(0, len(order), _BLOCK):
            b = min(a + _BLOCK, len(order))
            # Only episodes up to the longest that may count as equally long.
            end = int(np.searchsorted(ordered, ordered[b - 1] / th.NEAR_DURATION, side="right"))
            alike = self._shapes[order[a:b]] @ self._shapes[order[a:end]].T > th.NEAR_COSINE
            for i, j in np.argwhere(np.triu(alike, 1)):
                if ordered[a + i] >= th.NEAR_DURATION * ordered[a + j]:
                    one, other = int(order[a + i]), int(order[a + j])
                    yield min(one, other), max(one, other)


class Idle:
    """Finds episodes that begin or end with nothing going on.

    Args:
        totals: of all data.
        dims: its dimensions.
        bounds: the episodes.
    """

    def __init__(self, totals: Totals, dims: Dimensions, bounds: Bounds) -> None:
        own = (dims.action | dims.state) & dims.continuous
        self._columns = np.flatnonzero(own)
        self._limit = th.IDLE_SPEED * totals.range[self._columns]
        self._bounds = bounds
        self.shares = np.zeros(len(bounds.starts))
        self._trims: dict[int, tuple[int, int]] = {}

    def add(self, at: int, matrix: np.ndarray) -> None:
        """Look at one episode, float64 (T, D)."""
        if not len(self._columns) or len(matrix) < 2:
            return
        steps = np.abs(np.diff(matrix[:, self._columns], axis=0))
        moving = np.flatnonzero((steps >= self._limit).any(axis=1))
        first, last = (int(moving[0]), int(moving[-1]) + 2) if len(moving) else (0, 1)
        idle = first + len(matrix) - last if len(moving) else len(matrix)
        self.shares[at] = idle / len(matrix)
        if self.shares[at] > th.IDLE_SHARE:
            self._trims[at] = (first, last)

    def findings(self) -> Iterator[Finding]:
        """Which episodes to trim, and where."""
        if not self._trims:
            return
        number = self._bounds.number
        at, (first, last) = next(iter(self._trims.items()))
        share = max(self.shares[list(self._trims)])
        what = f"{len(self._trims)} episodes are idle at their ends, up to {share:.0%} of them"
        remedy = f"dp-hub edit DIR --trim {number[at]}:{first}:{last} --to NEW, and so on"
        yield found("EPI-006", what, number[list(self._trims)], remedy=remedy)


class Lag:
    """By how many frames the state follows the action, episode by episode.

    Pairs the first dimensions of ``action`` with those of ``observation.state``.

    Args:
        totals: of all data.
        dims: its dimensions.
        bounds: the episodes.
    """

    def __init__(self, totals: Totals, dims: Dimensions, bounds: Bounds) -> None:
        action = [d for d in np.flatnonzero(dims.action).tolist() if dims.continuous[d]]
        self._pairs = _paired(action, dims)
        self._bounds = bounds
        n = len(bounds.starts)
        self._shifts = np.arange(-th.LAG_FRAMES, th.LAG_FRAMES + 1)
        self._correlation = np.full((n, len(self._shifts)), np.nan)
        self._error = np.full((n, len(self._shifts)), np.nan)
        self.mean_distance = 0.0
        self._n_frames = 0
        self._wide = np.maximum(totals.range, 1e-12)

    def add(self, at: int, matrix: np.ndarray) -> None:
        """Look at one episode, float64 (T, D)."""
        if not self._pairs or len(matrix) < th.MIN_LAG_EPISODE:
            return
        actions, states = (list(column) for column in zip(*self._pairs, strict=True))
        action, state = matrix[:, actions], matrix[:, states]
        if not (np.isfinite(action).all() and np.isfinite(state).all()):
            return
        distance = np.abs(action - state).mean(axis=1)
        self.mean_distance += float(distance.sum())
        self._n_frames += len(matrix)
        wide = self._wide[states]
        va, vs = np.diff(action, axis=0) / wide, np.diff(state, axis=0) / wide
        dot, aa, ss, _ = _products(va, vs, self._shifts)
        norm = np.sqrt(aa * ss)
        self._correlation[at] = np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 0)
        middle = action.mean(axis=0)
        dot, aa, ss, n = _products((action - middle) / wide, (state - middle) / wide, self._shifts)
        self._error[at] = np.sqrt(np.maximum(aa + ss - 2 * dot, 0) / n)

    @property
    def lags(self) -> np.ndarray:
        """Frames by which the action leads, float64 (R,); NaN where it can't be told."""
        known = ~np.isnan(self._correlation[:, 0])
        best = np.full(len(known), np.nan)
        best[known] = self._shifts[np.argmax(self._correlation[known], axis=1)]
        return best

    def facts(self) -> dict[str, float | int]:
        """The median lag and correlation, and the mean distance of action and state."""
        known = ~np.isnan(self._correlation[:, 0])
        if not known.any():
            return {}
        lag = float(np.median(self.lags[known]))
        return {
            "action_leads_frames": lag,
            "episodes_with_that_lag": int((self.lags[known] == lag).sum()),
            "action_state_correlation": float(np.median(self._correlation[known].max(axis=1))),
            "action_state_mean_distance": self.mean_distance / max(self._n_frames, 1),
        }

    def findings(self) -> Iterator[Finding]:
        """Episodes whose lag is another than that of most."""
        facts = self.facts()
        if not facts:
            return
        if facts["action_state_correlation"] < th.LAG_CORRELATION:
            what = f"actions and states correlate by {facts['action_state_correlation']:.2f} only"
            yield found("EPI-008", f"{what}: the lag between them is not checked")
            return
        median, lags = facts["action_leads_frames"], self.lags
        column = int(np.searchsorted(self._shifts, round(median)))
        off = np.flatnonzero(np.abs(np.nan_to_num(lags - median)) > th.LAG_DIFFERENCE)
        own = (lags[off] + th.LAG_FRAMES).astype(np.int64)
        off = off[self._error[off, column] > th.LAG_BETTER * self._error[off, own]]
        if len(off):
            what = f"the action leads by {median:g} frames, but in {len(off)} episodes by"
            seen = f"{lags[off].min():g} to {lags[off].max():g}"
            yield found("EPI-007", f"{what} {seen}", self._bounds.number[off])


def _paired(action: list[int], dims: Dimensions) -> list[tuple[int, int]]:
    """(action column, state column); the state's first dimensions where names don't tell."""
    state = [d for d in np.flatnonzero(dims.state & dims.continuous).tolist()
             if dims.features[d] in ("observation.state", "state", "qpos")]  # fmt: skip
    ends = {dims.labels[d].rsplit(".", 1)[-1]: d for d in state if "[" not in dims.labels[d]}
    named = [(d, ends[e]) for d in action if (e := dims.labels[d].rsplit(".", 1)[-1]) in ends]
    if named and len(named) == len(action):
        return named
    return list(zip(action, state, strict=False)) if len(state) >= len(action) else []


def _products(
    a: np.ndarray, s: np.ndarray, shifts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sums of a*s, a*a and s*s over the rows that overlap, and their number, for every shift.

    Args:
        a, s: float64 (T, n); a row of ``a`` stands beside the one of ``s`` that comes ``shift``
            later.
        shifts: int64 (S,).
    """
    total, width = len(a), a.shape[1]
    flat_a, flat_s = np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(s).reshape(-1)
    dot = np.array(
        [
            np.dot(
                flat_a[max(0, -k) * width : (total - max(0, k)) * width],
                flat_s[max(0, k) * width : (total + min(0, k)) * width],
            )
            for k in shifts.tolist()
        ]
    )
    sum_a = np.concatenate([[0.0], np.cumsum((a * a).sum(axis=1))])
    sum_s = np.concatenate([[0.0], np.cumsum((s * s).sum(axis=1))])
    first_a, last_a = np.maximum(0, -shifts), total - np.maximum(0, shifts)
    first_s, last_s = np.maximum(0, shifts), total + np.minimum(0, shifts)
    return dot, sum_a[last_a] - sum_a[first_a], sum_s[last_s] - sum_s[first_s], last_a - first_a
