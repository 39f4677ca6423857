"""A hand's way of moving along a path: smooth corners, limited speed and acceleration.

The agent is a person's mouse pointer sampled at 10 Hz: targets come as positions in px, one a
control step, and speeds are px a step (0.1 s).
"""

import numpy as np

_SPACING_PX = 2.0
_STEADY_SPEED_PX = 14.0


def smooth(path: np.ndarray, width_px: float) -> np.ndarray:
    """Round the corners of an evenly spaced path over about ``width_px``, ends kept; (M, 2)."""
    half = min(round(width_px / _SPACING_PX / 2), len(path) - 1)
    if half < 1:
        return path
    for _ in range(2):
        head, tail = 2 * path[0] - path[half:0:-1], 2 * path[-1] - path[-2 : -half - 2 : -1]
        total = np.cumsum(np.concatenate([np.zeros((1, 2)), head, path, tail]), axis=0)
        width = 2 * half + 1
        path = (total[width:] - total[:-width]) / width
    return path


def resample(path: np.ndarray, spacing_px: float = _SPACING_PX) -> np.ndarray:
    """Points along a polyline at (nearly) equal spacing, both ends kept; float64 (M, 2)."""
    along = arc_length(path)
    n = max(2, round(along[-1] / spacing_px) + 1)
    where = np.linspace(0, along[-1], n)
    return np.stack([np.interp(where, along, path[:, k]) for k in (0, 1)], axis=-1)


def arc_length(path: np.ndarray) -> np.ndarray:
    """Distance travelled at each point of a polyline; float64 (M,)."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])


def turn_limit(path: np.ndarray, sideways: float) -> np.ndarray:
    """Speed at which rounding each point costs ``sideways`` px a step squared; (M,)."""
    wide = 3  # points to each side: a bend is felt over some px
    if len(path) <= 2 * wide:
        return np.full(len(path), np.inf)
    before, after = path[wide:-wide] - path[: -2 * wide], path[2 * wide :] - path[wide:-wide]
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    angle = np.abs(np.arctan2(cross, (before * after).sum(1)))
    radius = np.hypot(*after.T) / np.maximum(angle, 1e-6)
    return np.concatenate(
        [np.full(wide, np.inf), np.sqrt(sideways * radius), np.full(wide, np.inf)]
    )


def time_along(
    path: np.ndarray, limit: np.ndarray, *, speed_up: float, slow_down: float, start: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Targets along a path, one a control step, that end at rest on its last point.

    Args:
        path: float64 (M, 2), points every 2 px or so.
        limit: float64 (M,), the greatest speed at each point.
        speed_up, slow_down: greatest change of speed per step.
        start: speed already reached at the path's first point.
    Returns:
        float64 (n, 2), without the path's first point, and how far along each lies, (n,).
    """
    along = arc_length(path)
    gap = np.diff(along)
    speeds = (np.minimum(limit, 1e3) ** 2).tolist()
    speeds[0] = min(speeds[0], max(start, speed_up) ** 2)
    speeds[-1] = 0.25 * slow_down**2
    for i, ds in enumerate(gap.tolist()):
        speeds[i + 1] = min(speeds[i + 1], speeds[i] + 2 * speed_up * ds)
    for i in range(len(gap) - 1, -1, -1):
        speeds[i] = min(speeds[i], speeds[i + 1] + 2 * slow_down * float(gap[i]))
    slowness = 1 / np.sqrt(np.maximum(speeds, 0.25))
    times = np.concatenate([[0.0], np.cumsum(gap * 0.5 * (slowness[1:] + slowness[:-1]))])
    n = max(1, int(np.ceil(times[-1])))
    where = np.interp(np.linspace(0, times[-1], n + 1)[1:], times, along)
    return np.stack([np.interp(where, along, path[:, k]) for k in (0, 1)], axis=-1), where


class Tremor:
    """A hand's unsteadiness: it drifts off smoothly, the more the faster it moves, and comes back.

    Args:
        size: standard deviation of the drift's change a step, as a share of the speed.
        rng: where the drift comes from.
    """

    def __init__(self, size: float, rng: np.random.Generator) -> None:
        self._size, self._rng = size, rng
        self._drift = np.zeros(2)
        self._offset = np.zeros(2)

    def settle(self) -> None:
        """The hand knows where it is: what comes next starts from there."""
        self._offset = np.zeros(2)

    def next(self, speed: float) -> np.ndarray:
        """How far the hand is off its way now, float64 (2,) px, at ``speed`` px a step."""
        steadiness = min(1.0, speed / _STEADY_SPEED_PX)  # slow, careful moves are steadier still
        fresh = self._rng.normal(size=2) * self._size * speed * steadiness
        self._drift = 0.7 * self._drift + 0.7 * fresh
        self._offset = 0.8 * self._offset + self._drift
        return self._offset
