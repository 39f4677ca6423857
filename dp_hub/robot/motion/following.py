"""How a command comes from where it is to where it should be, no faster than it may.

A velocity for one tick, from a gap and the velocity of the tick before. All arrays are (rows, k):
each row is limited by the length of its k numbers, so that one row of six numbers and six rows of
one are the same code.

The position moves by the *new* velocity for the time of the tick. A command that brakes by a·dt
every tick then goes no farther than v²/2a, whatever the times of its ticks are: it is a sum under
the line of the velocity. So a speed u is allowed at a distance d before a stop if

    u·dt + u²/2a <= d,    that is    u <= sqrt((a·dt)² + 2·a·d) - a·dt,

and if that held at one tick, braking makes it hold at the next: no stop is overshot.
"""

import numpy as np

_SHARES = (1.0, 0.5, 0.25, 0.125)


def length(vectors: np.ndarray) -> np.ndarray:
    """Of each row, (rows, 1)."""
    return np.sqrt(np.add.reduce(vectors * vectors, axis=-1, keepdims=True))


def braked(velocity: np.ndarray, acceleration: np.ndarray | None, dt_s: float) -> np.ndarray:
    """A tick later, slower by all that is allowed: at rest in the end, and exactly so.

    Args:
        velocity: (rows, k).
        acceleration: (rows, 1), or None where it is not limited.
        dt_s: of the tick.
    """
    if acceleration is None:
        return np.zeros_like(velocity)
    speed = length(velocity)
    less = acceleration * dt_s
    share = np.divide(speed - less, speed, out=np.zeros_like(speed), where=speed > less)
    return velocity * share


def towards(
    gap: np.ndarray,
    velocity: np.ndarray,
    speed: np.ndarray,
    acceleration: np.ndarray | None,
    dt_s: float,
) -> np.ndarray:
    """The velocity of this tick on the way over a gap, (rows, k), ready to stop at its end.

    Args:
        gap: (rows, k), from the command to where it should be.
        velocity: (rows, k), of the tick before.
        speed: (rows, 1), the most allowed; infinite where it is not limited.
        acceleration: (rows, 1), or None where it is not limited.
        dt_s: of the tick, more than 0.
    """
    distance = length(gap)
    if acceleration is None:
        most = distance / dt_s
    else:
        change = acceleration * dt_s
        # The bound above, written so that nothing cancels when the distance is small.
        root = np.sqrt(change * change + 2.0 * acceleration * distance)
        most = 2.0 * acceleration * distance / (root + change)
    fast = np.minimum(most, speed)
    wanted = gap * np.divide(fast, distance, out=np.zeros_like(distance), where=distance > 0.0)
    if acceleration is None:
        return wanted
    turn = wanted - velocity
    much = length(turn)
    share = np.divide(change, much, out=np.ones_like(much), where=much > change)
    return velocity + turn * share


def kept_inside(
    wanted: np.ndarray,
    velocity: np.ndarray,
    position: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    acceleration: np.ndarray | None,
    dt_s: float,
) -> np.ndarray:
    """The wanted velocity, or one nearer to braking, that can still stop inside the box.

    Braking straight on stops inside if the velocity of the tick before could, so there is always an
    answer. It matters where a command moves along a wall and is called to another side.

    Args:
        wanted, velocity, position, low, high: (rows, k).
        acceleration: (rows, 1), or None.
        dt_s: of the tick.
    """
    slow = braked(velocity, acceleration, dt_s)
    result = slow
    open_rows = np.ones((len(wanted), 1), dtype=bool)
    for share in _SHARES:
        tried = slow + share * (wanted - slow)
        stop = position + tried * dt_s
        if acceleration is not None:
            stop = stop + tried * (length(tried) / (2.0 * acceleration))
        slack = 1e-12 * (1.0 + np.abs(position))
        inside = np.all((stop >= low - slack) & (stop <= high + slack), axis=-1, keepdims=True)
        result = np.where(open_rows & inside, tried, result)
        open_rows &= ~inside
        if not open_rows.any():
            break
    return result
