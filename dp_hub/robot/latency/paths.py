"""Small movements to measure by, within an actuator's limits: offsets from where it is, over time.

Each one begins and ends where the actuator is, and reaches ``travel`` to one side of it. They use
half of the speed and acceleration that is allowed, so that what is sent is what was planned.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.motion.limits import Limits
from dp_hub.robot.space import Space

SHARE = 0.02
"""Of the workspace's smallest side: the default travel."""
POINT_S = 0.02
"""Between points of a path."""
STEP_S = 0.001
"""What takes no longer is a step."""


@dataclass(frozen=True, eq=False)
class Path:
    """Offsets over time, straight between points.

    Args:
        times_s: float64 (K,), increasing, from 0.
        offsets: float64 (K,), in the units of the number that moves.
        starts_s: float64 (S,): when it begins to move out of a rest.
    """

    times_s: np.ndarray
    offsets: np.ndarray
    starts_s: np.ndarray

    @property
    def lasts_s(self) -> float:
        """All of it."""
        return float(self.times_s[-1])


@dataclass(frozen=True)
class Reach:
    """What moves, and how far.

    Args:
        number: which of the space's numbers.
        travel: from where it is, with the sign of the side to which there is room.
        speed: the most it may have, units/s; infinite where it is not limited.
        acceleration: likewise, units/s².
    """

    number: int
    travel: float
    speed: float = np.inf
    acceleration: float = np.inf


def reach(
    space: Space,
    limits: Limits,
    position: np.ndarray,
    *,
    number: int | None = None,
    amplitude: float | None = None,
    where: str = "limits",
) -> Reach:
    """What to move by how much, inside the limits.

    Args:
        space: of the actuator.
        limits: of it.
        position: float64 (D,), where it is.
        number: which of its numbers; None: the first that is no rotation.
        amplitude: how far; None: 2 % of the smallest side of the workspace.
        where: the limits' key, for the messages.
    Raises:
        ConfigError: there is no workspace, or it has no room for that.
        RobotError: it is outside the workspace.
    """
    linear = list(space.linear)
    number = linear[0] if number is None else number
    if number not in linear:
        names = ", ".join(space.names[i] for i in linear)
        raise ConfigError(f"{space.names[number]} is a rotation; one of {names} can be measured")
    if limits.low is None or limits.high is None:
        raise ConfigError(
            f"{where} has no workspace: how far it may move is not known",
            hint=f"set {where}.low and {where}.high",
        )
    sides = np.subtract(limits.high, limits.low)
    asked = float(SHARE * sides.min()) if amplitude is None else amplitude
    if not asked > 0:
        raise ConfigError(f"the amplitude is {asked:g}: nothing would move")
    row = linear.index(number)
    # Half of a step limit: whoever lags behind by all of the way is not stopped by it.
    travel = asked if limits.step is None else min(asked, 0.5 * limits.step)
    side = _side(space, number, float(position[number]), limits.low[row], limits.high[row], travel)
    return Reach(number, side * travel, _half(limits.speed, row), _half(limits.acceleration, row))


def _side(space: Space, number: int, here: float, low: float, high: float, travel: float) -> float:
    name, unit = space.names[number], space.units[number]
    if not low <= here <= high:
        raise RobotError(
            f"{name} is {here:g} {unit}, outside the workspace of {low:g} to {high:g}",
            hint="move it inside before it is measured",
        )
    if max(high - here, here - low) < travel:
        raise ConfigError(
            f"{name} is {here:g} {unit} and cannot move {travel:g} {unit} to either side within "
            f"{low:g} to {high:g}",
            hint="choose a smaller --amplitude",
        )
    return 1.0 if high - here >= here - low else -1.0


def _half(limit: float | list[float] | None, row: int) -> float:
    if limit is None:
        return np.inf
    return 0.5 * (limit[row] if isinstance(limit, list) else limit)


def steps(how: Reach, moves: int, *, rest_s: float = 1.2) -> Path:
    """There and back, as sharply as it may be, with a rest before each and at the end.

    Args:
        how: see there.
        moves: how many, there and back counted each.
        rest_s: see above.
    """
    ramp_s, ramp = _ramp(how)
    starts = rest_s + np.arange(moves) * (ramp_s + rest_s)

    def offset(at_s: np.ndarray) -> np.ndarray:
        turns = np.clip((at_s[:, None] - starts) / ramp_s, 0.0, 1.0)  # (K, moves)
        return ramp(turns) @ np.where(np.arange(moves) % 2, -1.0, 1.0)

    lasts_s = float(starts[-1] + ramp_s + rest_s)
    corners = np.concatenate([starts, starts + ramp_s])
    return _sampled(offset, lasts_s, corners, starts)


def _ramp(how: Reach) -> tuple[float, Callable[[np.ndarray], np.ndarray]]:
    """How long one move takes, and its way at shares of that: as far as its limits let it."""
    way, sign = abs(how.travel), how.travel
    if np.isinf(how.acceleration):
        return max(STEP_S, way / how.speed), lambda share: sign * share
    # Half of the time it speeds up, half of it it slows down.
    ramp_s = max(STEP_S, 2.0 * np.sqrt(way / how.acceleration), 2.0 * way / how.speed)

    def parabolas(share: np.ndarray) -> np.ndarray:
        return sign * np.where(share < 0.5, 2 * share**2, 1 - 2 * (1 - share) ** 2)

    return float(ramp_s), parabolas


def sweep(
    how: Reach,
    *,
    lasts_s: float = 8.0,
    slowest_hz: float = 0.4,
    fastest_hz: float = 1.4,
    rest_s: float = 0.6,
) -> Path:
    """To and fro, ever faster, with a rest before and after: no delay looks like another.

    The fastest is as fast as the limits let it be; where that is below ``slowest_hz``, all of it is
    slow.
    """
    way = abs(how.travel)
    allowed = min(how.speed / (np.pi * way), np.sqrt(2.0 * how.acceleration / way) / (2.0 * np.pi))
    fast = min(fastest_hz, float(allowed))
    slow = min(slowest_hz, 0.5 * fast)
    turns = max(1, round(0.5 * (slow + fast) * lasts_s))
    lasts_s = turns / (0.5 * (slow + fast))

    def offset(at_s: np.ndarray) -> np.ndarray:
        t = np.clip(at_s - rest_s, 0.0, lasts_s)
        turned = slow * t + 0.5 * (fast - slow) * t**2 / lasts_s
        return 0.5 * how.travel * (1.0 - np.cos(2.0 * np.pi * turned))

    starts = np.array([rest_s])
    return _sampled(offset, lasts_s + 2 * rest_s, np.array([rest_s, rest_s + lasts_s]), starts)


def _sampled(
    offset: Callable[[np.ndarray], np.ndarray],
    lasts_s: float,
    corners: np.ndarray,
    starts: np.ndarray,
) -> Path:
    regular = np.arange(0.0, lasts_s, POINT_S)
    near = np.abs(regular[:, None] - corners).min(axis=1) < STEP_S
    times_s = np.unique(np.concatenate([regular[~near], corners, [lasts_s]]))
    return Path(times_s, offset(times_s), starts)
