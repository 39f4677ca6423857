"""Clocks and periodic work at absolute times: a loop that was late once is not late ever after.

Every time is `time.monotonic()` seconds. The wall clock, which people and time servers set, is used
nowhere.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

SAME_S = 1e-6
"""Times closer than this are the same: one grid's, computed in two ways, are off by roundings."""


class Clock(Protocol):
    """Tells the time and waits."""

    def now_s(self) -> float:
        """Seconds since a start that is the same in all processes of this machine."""

    def sleep_until(self, t_s: float, *, spin_s: float = 0.0) -> None:
        """Return at ``t_s``, at once if it is past.

        Args:
            t_s: when, on this clock.
            spin_s: so much of the end of the wait is spent looking at the clock, which costs a CPU
                and is more exact than to be woken.
        """


class MonotonicClock:
    """The machine's own, `time.monotonic()`."""

    def now_s(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def sleep_until(self, t_s: float, *, spin_s: float = 0.0) -> None:
        """See `Clock`."""
        # `time.sleep` waits for an absolute time itself; it may return early by a rounding only.
        while (left_s := t_s - spin_s - time.monotonic()) > 0:
            time.sleep(left_s)
        while time.monotonic() < t_s:
            pass


class VirtualClock:
    """Time passes only when someone waits for it, or by `advance`: for exact tests."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = float(start_s)

    def now_s(self) -> float:
        """See `Clock`."""
        return self._now_s

    def sleep_until(self, t_s: float, *, spin_s: float = 0.0) -> None:
        """Jump there."""
        self._now_s = max(self._now_s, t_s)

    def advance(self, seconds: float) -> None:
        """Let time pass, as work or a stall would."""
        assert seconds >= 0, seconds
        self._now_s += seconds


@dataclass(frozen=True, slots=True)
class Tick:
    """One turn of a periodic loop.

    Args:
        number: of its deadline, counted from 0 at the start.
        due_s: the deadline, start + number * period.
        late_s: how long after it the loop went on.
        missed: deadlines between the previous tick and this one that went by without a tick.
    """

    number: int
    due_s: float
    late_s: float
    missed: int


def ticks(
    period_s: float, clock: Clock, *, start_s: float | None = None, spin_s: float = 0.0
) -> Iterator[Tick]:
    """Tick at ``start + number * period``, for ever.

    Deadlines are absolute, so lateness does not add up. When the loop comes back after one or more
    deadlines have gone by, it goes on at the first that is not past: never in a burst.

    Args:
        period_s: between deadlines, more than 0.
        clock: that waits.
        start_s: the first deadline; None: now.
        spin_s: see `Clock.sleep_until`.
    """
    assert period_s > 0, period_s
    start_s = clock.now_s() if start_s is None else start_s
    last = -1
    while True:
        number = max(last + 1, _first_not_past(clock.now_s(), start_s, period_s))
        due_s = start_s + number * period_s
        clock.sleep_until(due_s, spin_s=spin_s)
        yield Tick(number, due_s, clock.now_s() - due_s, number - last - 1)
        last = number


def _first_not_past(now_s: float, start_s: float, period_s: float) -> int:
    """The smallest number, 0 or more, whose deadline is not before ``now_s``."""
    number = max(0, math.ceil((now_s - start_s) / period_s))
    # Rounding: what counts is the deadline as it is computed.
    while number > 0 and start_s + (number - 1) * period_s >= now_s:
        number -= 1
    while start_s + number * period_s < now_s:
        number += 1
    return number
