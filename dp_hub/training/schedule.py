"""The learning rate over a run, and when the run is over: by steps, by minutes, or by both."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


def cosine_factor(
    step: int, *, warmup_steps: int, total_steps: int | None, share: float = 0.0
) -> float:
    """What the learning rate is multiplied with at optimiser step ``step`` (from 0).

    Linear warm-up, then half a cosine down to 0, as diffusers' ``get_scheduler("cosine")``; past
    the end it stays 0 (the original's climbs again).

    Args:
        step: optimiser steps done.
        warmup_steps: length of the warm-up.
        total_steps: steps of the whole run; None for a run limited by time alone.
        share: the part of the allowed time already used, 0 to 1; the later of both counts.
    """
    if step < warmup_steps:
        return step / warmup_steps
    progress = share
    if total_steps is not None:
        progress = max(share, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@dataclass(frozen=True)
class Budget:
    """How long to train: until the first limit is met.

    Args:
        steps: optimiser steps, or None.
        seconds: of training, pauses for evaluation and saving left out, or None.
    """

    steps: int | None
    seconds: float | None

    def share(self, elapsed_s: float) -> float:
        """The used part of the allowed time; 0 without a time limit."""
        return 0.0 if self.seconds is None else min(1.0, elapsed_s / self.seconds)

    def progress(self, step: int, elapsed_s: float) -> float:
        """The done part of the run, 0 to 1; 1 means stop."""
        steps = 0.0 if self.steps is None else min(1.0, step / self.steps)
        return max(steps, self.share(elapsed_s))


@dataclass
class Session:
    """The time since a start, all included, and whether it is used up.

    Args:
        minutes: that it may last, or None.
        clock: monotonic seconds.
    """

    minutes: float | None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._began = self.clock()

    @property
    def over(self) -> bool:
        """Whether it is time to stop."""
        return self.minutes is not None and self.clock() - self._began >= 60 * self.minutes


class Stopwatch:
    """Seconds of training over all runs, without the pauses.

    Args:
        elapsed_s: seconds of the runs before this one.
        clock: monotonic seconds.
    """

    def __init__(self, elapsed_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock() - elapsed_s

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far."""
        return self._clock() - self._start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out."""
        began = self._clock()
        try:
            yield
        finally:
            self._start += self._clock() - began
