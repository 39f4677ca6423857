"""A device's own clock, told in monotonic seconds.

What a device stamps is right to the microsecond but on a clock that started at another moment and
runs a little faster or slower; when its message arrives is on ours but late by a delay that varies.
The difference of both is the offset plus that delay, so the smallest difference lately is the best
offset known. "Lately", as two clocks of 50 ppm apart part by 3 ms a minute.
"""

import logging

log = logging.getLogger(__name__)

WINDOW_S = 10.0
"""An offset is the smallest difference of this window and the one before."""

STEP_S = 0.05
"""A difference smaller by this much than any before is a step of the device's clock."""


class DeviceClock:
    """Follows one device's clock.

    Delays, also of many messages in a row, do not move its offset. A step of the device's clock
    does at once: back, where stamps decrease, and ahead, where a message seems to come before its
    time. A step back in a pause longer than the step looks like a delay at first; it is followed
    within two windows.

    Attributes:
        steps: of the device's clock that were noticed.
    """

    def __init__(self, name: str) -> None:
        self.steps = 0
        self._name = name
        self._stamp_s: float | None = None
        self._told_s = -float("inf")
        self._least_s = self._before_s = float("inf")
        self._since_s = -float("inf")

    def monotonic_s(self, stamp_s: float, now_s: float) -> float:
        """When it was, in monotonic seconds: never later than ``now_s``, and increasing.

        Args:
            stamp_s: the device's time of a message.
            now_s: monotonic seconds, after the message came.
        """
        if stamp_s == self._stamp_s:  # the same message again
            return self._told_s
        difference_s = now_s - stamp_s
        if self._stamp_s is not None and (
            stamp_s < self._stamp_s or difference_s < self._offset_s - STEP_S
        ):
            self._step(difference_s)
        self._stamp_s = stamp_s
        if now_s - self._since_s >= WINDOW_S:
            self._before_s, self._least_s, self._since_s = self._least_s, float("inf"), now_s
        self._least_s = min(self._least_s, difference_s)
        self._told_s = max(stamp_s + self._offset_s, self._told_s + 1e-6)
        return self._told_s

    @property
    def _offset_s(self) -> float:
        return min(self._least_s, self._before_s)

    def _step(self, difference_s: float) -> None:
        self.steps += 1
        by_s = self._offset_s - difference_s
        log.warning("the clock of %s stepped by about %.3f s; followed", self._name, by_s)
        self._forget()

    def _forget(self) -> None:
        self._least_s = self._before_s = float("inf")
        self._since_s = -float("inf")
