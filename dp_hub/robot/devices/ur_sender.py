"""Targets to a UR arm from a thread, as a call of ur_rtde may wait for seconds.

``servoJ`` comes back within 50 us while all is well, but waits up to 3 s for a control program that
does not answer, and ``servoStop`` and ``stopScript`` wait for the robot always. (ur_rtde 1.6.5 lets
other threads run meanwhile; only its constructors do not.)
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

log = logging.getLogger(__name__)

OWNER_S = 0.5
"""The last target is sent again and again only while the driver's owner is alive."""


class Sender:
    """One thread that gives the newest target to the arm, and stops it.

    Args:
        control: ur_rtde's ``RTDEControlInterface``.
        servo: sends one target and tells whether it was taken.
        connected: whether the robot can still be heard; without that nothing is sent.
        watchdog_hz: the robot stops itself if nothing came for longer than one period of this,
            from the first target on; None: it never does.
    """

    def __init__(
        self,
        control: Any,
        servo: Callable[[Sequence[float]], bool],
        *,
        connected: Callable[[], bool],
        watchdog_hz: float | None,
    ) -> None:
        self._control, self._servo, self._connected = control, servo, connected
        self._watchdog_hz = watchdog_hz
        self._again_s = 1 / (3 * watchdog_hz) if watchdog_hz else None
        self._target: Sequence[float] | None = None
        self._fresh = self._ending = self._gone = False
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._owner_s = self._busy_s = float("inf")
        self.refused_s = float("inf")
        self._thread = threading.Thread(target=self._run, name="ur-sender", daemon=True)
        self._thread.start()

    def give(self, target: Sequence[float]) -> None:
        """The next target; one that has not been sent yet is forgotten."""
        with self._changed:
            self._target, self._fresh = target, True
            self._changed.notify()

    def owner_is_alive(self) -> None:
        """To be called every period: without it the robot's watchdog stops the arm."""
        self._owner_s = time.monotonic()

    def stuck_s(self) -> float:
        """For how long the robot has not taken the present target; 0 if nothing waits."""
        return max(0.0, time.monotonic() - self._busy_s)

    def refused_for_s(self) -> float:
        """Since when the robot has taken no target; 0 if it takes them."""
        return max(0.0, time.monotonic() - self.refused_s)

    def end(self, wait_s: float, *, gone: bool = False) -> bool:
        """Stop the arm and the program on the robot. Whether that was done within ``wait_s``.

        Args:
            wait_s: for the robot to confirm.
            gone: its connection is lost. Then nothing is asked of ur_rtde any more: its calls wait
                for minutes, or crash while it tries to connect again (1.6.5).
        """
        with self._changed:
            self._ending, self._gone = True, self._gone or gone
            self._changed.notify()
        return self._stopped.wait(wait_s)

    def join(self, timeout_s: float) -> bool:
        """After `end`: whether the thread has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._follow()
        except (RuntimeError, ValueError) as error:
            log.error("ur_rtde: %s", error)
            self.refused_s = time.monotonic()
        self._wait_for_end()
        if self._gone or not self._connected():
            return
        try:
            self._control.servoStop()
            self._control.stopScript()
        except (RuntimeError, ValueError) as error:
            log.warning("ur_rtde could not stop the program on the robot: %s", error)
        else:
            self._stopped.set()

    def _follow(self) -> None:
        armed = self._watchdog_hz is None
        while (target := self._next()) is not None:
            self._busy_s = time.monotonic()
            if not self._connected():
                return
            if not armed:  # here, as from now on targets will come
                armed = self._control.setWatchdog(self._watchdog_hz)
            taken = armed and self._servo(target)
            self._busy_s = float("inf")
            if not taken:
                self.refused_s = time.monotonic()
                return

    def _next(self) -> Sequence[float] | None:
        """The next target to send, the last one again to feed the watchdog; None: it is over."""
        with self._changed:
            while not self._ending:
                if self._fresh:
                    self._fresh = False
                    return self._target
                woken = self._changed.wait(self._again_s)
                alive = time.monotonic() - self._owner_s < OWNER_S
                if not woken and alive and self._target is not None:
                    return self._target
            return None

    def _wait_for_end(self) -> None:
        with self._changed:
            while not self._ending:
                self._changed.wait()
