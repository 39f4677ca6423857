"""Delays between signals that are sampled at different times. Pure: arrays in, seconds out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GRID_S = 0.002
"""Between the shifts that are tried; the best one is found between them."""
WEAK = 0.6
"""A smaller correlation says nothing about a delay."""


@dataclass(frozen=True)
class Spread:
    """Of some durations.

    Args:
        n: how many.
        median_s: of them.
        p95_s: 95 % are at most so long.
    """

    n: int
    median_s: float
    p95_s: float

    @staticmethod
    def of(durations_s: np.ndarray | list[float]) -> "Spread | None":
        """Of float64 (n,); None if there are none."""
        if not len(durations_s):
            return None
        median, p95 = np.percentile(np.asarray(durations_s, np.float64), [50, 95])
        return Spread(len(durations_s), float(median), float(p95))


@dataclass(frozen=True)
class Delay:
    """How much later one signal is than another, or why that is not known.

    Args:
        delay_s: None where it is not known; negative: earlier.
        correlation: of the two at that delay, or the best one that was found.
        why_not: a sentence; None where ``delay_s`` is known.
    """

    delay_s: float | None
    correlation: float
    why_not: str | None = None


def delay(
    values: np.ndarray,
    expected: Callable[[float], np.ndarray],
    *,
    low_s: float,
    high_s: float,
    weak: float = WEAK,
) -> Delay:
    """The delay at which what was seen is most like what was expected.

    Args:
        values: float64 (n,), seen.
        expected: what would be seen at a delay, float64 (n,).
        low_s, high_s: delays between which it is looked for.
        weak: a best correlation below this is no answer.
    """
    if len(values) < 8 or not np.ptp(values) > 0:
        return Delay(None, 0.0, "nothing moved in it")
    shifts = np.arange(round(low_s / GRID_S), round(high_s / GRID_S) + 1) * GRID_S
    alike = np.array([_correlation(values, expected(float(shift))) for shift in shifts])
    best = int(np.argmax(alike))
    strength = float(alike[best])
    if strength < weak:
        return Delay(None, strength, f"it correlates too weakly: {strength:.2f} at best")
    if best in (0, len(shifts) - 1):
        reason = f"the best delay is at the edge of {low_s:g} to {high_s:g} s: it is beyond"
        return Delay(None, strength, reason)
    return Delay(
        float(shifts[best]) + GRID_S * _peak(*alike[best - 1 : best + 2].tolist()), strength
    )


def lag(
    times_s: np.ndarray,
    values: np.ndarray,
    reference_s: np.ndarray,
    reference: np.ndarray,
    *,
    low_s: float = -0.1,
    high_s: float = 1.0,
    weak: float = WEAK,
) -> Delay:
    """How much later a signal is than the one it follows, by cross-correlation.

    Args:
        times_s: float64 (n,), increasing.
        values: float64 (n,).
        reference_s: float64 (m,), increasing.
        reference: float64 (m,), straight between its samples.
        low_s, high_s, weak: as of `delay`.
    """
    inside = _inside(times_s, reference_s, low_s, high_s)
    since = times_s[inside]
    return delay(
        values[inside],
        lambda shift_s: np.interp(since - shift_s, reference_s, reference),
        low_s=low_s,
        high_s=high_s,
        weak=weak,
    )


def picture_delay(
    frames_s: np.ndarray,
    changes: np.ndarray,
    positions_s: np.ndarray,
    position: np.ndarray,
    *,
    apart: int = 1,
    low_s: float = -0.3,
    high_s: float = 0.6,
    weak: float = WEAK,
) -> Delay:
    """How much later frames are than positions.

    How much two frames differ is compared with how far apart the positions at their times are,
    shifted by the delay. So a slow camera does not look late, nor one with gaps.

    Args:
        frames_s: float64 (n,), increasing.
        changes: float64 (n - apart,), how much each frame differs from the one ``apart`` before.
        positions_s: float64 (m,), increasing.
        position: float64 (m,).
        apart: frames.
        low_s, high_s, weak: as of `delay`.
    """
    known = _inside(frames_s, positions_s, low_s, high_s)
    inside = known[:-apart] & known[apart:]
    before, after = frames_s[:-apart][inside], frames_s[apart:][inside]

    def way(shift_s: float) -> np.ndarray:
        ends = (np.interp(at - shift_s, positions_s, position) for at in (before, after))
        return np.abs(np.subtract(*ends))

    return delay(changes[inside], way, low_s=low_s, high_s=high_s, weak=weak)


def rest(values: np.ndarray) -> tuple[float, float]:
    """Middle and noise of a signal that rests, float64 (n,), n at least 1.

    The noise is its standard deviation by the median deviation, so that a few strays do not count.
    """
    middle = float(np.median(values))
    return middle, 1.4826 * float(np.median(np.abs(values - middle)))


def first_beyond(
    times_s: np.ndarray, values: np.ndarray, middle: float, threshold: float, *, held: bool
) -> float | None:
    """When a signal was first farther from ``middle`` than ``threshold``; None: never.

    Args:
        times_s: float64 (n,), increasing.
        values: float64 (n,).
        middle: where it rested.
        threshold: more than 0.
        held: a value counts from its time on until the next one's, as targets do. Else it is
            straight between samples.
    """
    away = np.abs(values - middle)
    beyond = np.flatnonzero(away > threshold)
    if not len(beyond):
        return None
    at = int(beyond[0])
    if held or at == 0:
        return float(times_s[at])
    share = (threshold - away[at - 1]) / (away[at] - away[at - 1])
    return float(times_s[at - 1] + share * (times_s[at] - times_s[at - 1]))


def _inside(times_s: np.ndarray, of_s: np.ndarray, low_s: float, high_s: float) -> np.ndarray:
    """Which of the times have a reference whatever the delay: the same ones for all delays."""
    if not len(of_s):
        return np.zeros(len(times_s), dtype=bool)
    return (times_s - high_s >= of_s[0]) & (times_s - low_s <= of_s[-1])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def _peak(before: float, at: float, after: float) -> float:
    """Where the parabola through three values has its top, -0.5 to 0.5 from the middle one."""
    bend = before - 2 * at + after
    return 0.0 if bend == 0 else float(0.5 * (before - after) / bend)
