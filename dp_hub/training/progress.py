"""One line on stderr that tells how far a run is, how fast, and how long it will take."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

PLAIN_INTERVAL_S = 10.0
TERMINAL_INTERVAL_S = 0.5


class Progress:
    """A line that rewrites itself on a terminal; elsewhere a new line every ten seconds.

    Args:
        stream: where to write; stderr by default.
        clock: monotonic seconds.
        enabled: False on processes but the first.
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        enabled: bool = True,
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._enabled = enabled
        self._terminal = self._stream.isatty()
        self._interval = TERMINAL_INTERVAL_S if self._terminal else PLAIN_INTERVAL_S
        self._written = clock()
        self._begin: tuple[float, int, float] | None = None
        self.loss: float | None = None

    def update(self, step: int, *, share: float, elapsed_s: float) -> None:
        """Tell the optimiser steps done, the done part of the run and the seconds of training."""
        if self._begin is None:
            self._begin = (elapsed_s, step, share)
        now = self._clock()
        if not self._enabled or now - self._written < self._interval:
            return
        self._written = now
        line = progress_line(step, share, elapsed_s, begin=self._begin, loss=self.loss)
        self._stream.write(f"\r{line}\x1b[K" if self._terminal else f"{line}\n")
        self._stream.flush()

    def clear(self) -> None:
        """End the line, before something else is written."""
        if self._enabled and self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def progress_line(
    step: int,
    share: float,
    elapsed_s: float,
    *,
    begin: tuple[float, int, float],
    loss: float | None,
) -> str:
    """The line, from the state now and ``begin``: seconds, step and share at the first update."""
    seconds = elapsed_s - begin[0]
    parts = [f"step {step:,}", f"{100 * share:.0f} %"]
    if loss is not None:
        parts.append(f"loss {loss:.4f}")
    if seconds > 0:
        parts.append(f"{(step - begin[1]) / seconds:.1f} steps/s")
        if share > begin[2]:
            parts.append(f"{clock_time(seconds * (1 - share) / (share - begin[2]))} left")
    return "  ".join(parts)


def clock_time(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
