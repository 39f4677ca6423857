"""When messages were true: the stamps in them, or the log time where those make no sense.

A camera's message is logged when it arrives, tens of milliseconds after the picture was taken; its
stamp says when that was. But drivers leave stamps empty, or take them from other clocks.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

ClockChoice = Literal["auto", "header", "log"]
_NEAR_S, _STEADY_S = 1.0, 2.0


@dataclass(frozen=True, eq=False)
class Clock:
    """The times of the messages of a topic.

    Args:
        times_ns: int64 (n,), in order.
        logged_ns: int64 (n,), in the same order.
        order: int64 (n,), which message comes when; None if they were in order.
        told: which clock it is, and why.
    """

    times_ns: np.ndarray
    logged_ns: np.ndarray
    order: np.ndarray | None
    told: str


def choose(logged_ns: np.ndarray, stamps_ns: np.ndarray | None, choice: ClockChoice) -> Clock:
    """The clock of a topic.

    Args:
        logged_ns: int64 (n,), when each message was written down.
        stamps_ns: int64 (n,), when each says it was true; None if they do not say.
        choice: ``header`` takes stamps wherever there are some, ``log`` never, ``auto`` where they
            make sense.
    """
    told, times_ns = "log time", logged_ns
    if stamps_ns is not None and choice != "log":
        wrong = why_not(logged_ns, stamps_ns)
        if wrong is None or choice == "header":
            told, times_ns = _lateness(logged_ns, stamps_ns), stamps_ns
            told += f"; but {wrong}" if wrong else ""
        else:
            told = f"log time, as {wrong}"
    if (np.diff(times_ns) >= 0).all():
        return Clock(times_ns, logged_ns, None, told)
    order = np.argsort(times_ns, kind="stable")
    return Clock(times_ns[order], logged_ns[order], order, told)


def why_not(logged_ns: np.ndarray, stamps_ns: np.ndarray) -> str | None:
    """What is wrong with the stamps of a topic; None if they can be trusted."""
    n_zero = int((stamps_ns <= 0).sum())
    if n_zero:
        return f"the stamps of {n_zero} of {len(stamps_ns)} messages are zero"
    late_s = (logged_ns - stamps_ns) / 1e9
    usual_s = float(np.median(late_s)) if len(late_s) else 0.0
    if abs(usual_s) > _NEAR_S:
        return f"stamps are {usual_s:.3f} s before the log time: another clock"
    off_s = float(np.abs(late_s - usual_s).max(initial=0.0))
    if off_s > _STEADY_S:
        return f"stamps jump against the log time, by up to {off_s:.3f} s"
    if len(stamps_ns) > 2 and (stamps_ns == stamps_ns[0]).all():
        return "all stamps are the same"
    return None


def _lateness(logged_ns: np.ndarray, stamps_ns: np.ndarray) -> str:
    late_ms = (logged_ns - stamps_ns) / 1e6
    low, middle, high = np.percentile(late_ms, (5, 50, 95)) if len(late_ms) else (0.0, 0.0, 0.0)
    return f"stamps; logged {middle:.1f} ms later (5 to 95 %: {low:.1f} to {high:.1f})"
