"""The words of time: a grid of steps, and how one stream follows it.

Times of steps are made from integers, never summed up, so that a grid does not drift in hours.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.recording import Stream
from dp_hub.replay.rotations import check_name

Method = Literal["nearest", "hold", "linear", "slerp"]

# Times closer than this are the same: float64 tells seconds since 1970 apart by 0.24 us, and what
# was divided and added up elsewhere may be off by a few of those.
SAME_S = 1e-6
LEAST_GAP_S = 0.5
GAP_PERIODS = 5
_REGULAR_HZ = 4.0


@dataclass(frozen=True)
class Grid:
    """The times of the steps of one episode: ``start_s + k / fps``.

    Args:
        start_s: time of step 0, on the clock of the recording.
        count: number of steps T.
        fps: steps per second, exact.
    """

    start_s: float
    count: int
    fps: Fraction

    @property
    def since_start_s(self) -> np.ndarray:
        """Seconds from step 0 to each step, float64 ``(T,)``; each is rounded once."""
        steps = np.arange(self.count, dtype=np.int64)
        return steps * self.fps.denominator / self.fps.numerator

    @property
    def times_s(self) -> np.ndarray:
        """When each step is, float64 ``(T,)``."""
        return self.start_s + self.since_start_s


@dataclass(frozen=True)
class Follow:
    """How one stream follows a grid.

    Args:
        method: ``hold``: the last value at or before the step. ``nearest``: the one nearest to it,
            at most half an interval of the stream ahead. ``linear``: between the values before and
            after it, at most one interval ahead. ``slerp``: likewise for rotations, along the
            shortest turn.
        latency_s: each value was true so long before its time says; ``times_s - latency_s`` is
            used.
        max_gap_s: two successive values farther apart than this have a gap between them. None: a
            value counts until the next one, however late, and the last one of a held stream for
            ever.
        rotation: for ``slerp``, how the last dimension is written: a name of
            `dp_hub.replay.rotations`.
        may_look_ahead: False: never a value from after the step; every method is ``hold`` then.
    Raises:
        DataError: an impossible value.
    """

    method: Method
    latency_s: float = 0.0
    max_gap_s: float | None = None
    rotation: str | None = None
    may_look_ahead: bool = True

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise DataError(
                f"no stream can be followed by {self.method!r}",
                hint=f"methods are {', '.join(get_args(Method))}",
            )
        if not np.isfinite(self.latency_s):
            raise DataError(f"latency_s is {self.latency_s}; it has to be a number of seconds")
        if self.max_gap_s is not None and not self.max_gap_s > 0:
            raise DataError(f"max_gap_s is {self.max_gap_s}; it has to be above 0 seconds")
        if self.method == "slerp" and self.rotation is None:
            raise DataError(
                "slerp has to know how the rotations are written",
                hint="give rotation: quat_xyzw, or what it is",
            )
        if self.rotation is not None:
            check_name(self.rotation)

    @property
    def used_method(self) -> Method:
        """``method``, or ``hold`` where it may not look ahead."""
        return self.method if self.may_look_ahead else "hold"


def median_period_s(times_s: np.ndarray) -> float | None:
    """The usual time between successive values; None of fewer than two different times."""
    between = np.diff(times_s)
    between = between[between > 0]
    return float(np.median(between)) if len(between) else None


def default_follow(stream: Stream) -> Follow:
    """How a stream follows a grid if nobody says.

    Measured numbers with a fraction are interpolated. Pictures, commands, events, whole numbers,
    truths and texts hold until the next one, and never come from after the step.

    The longest gap is 5 of the stream's usual (median) periods, but not less than 0.5 s: a few
    lost frames are no reason to cut a demonstration. Events, single values, and commands that
    come rarely or irregularly have none: silence means that nothing was said.
    """
    numbers = np.dtype(stream.values.dtype).kind == "f"
    linear = stream.kind == "state" and numbers and len(stream) > 1
    limit = _default_gap_s(stream)
    if linear:
        return Follow("linear", max_gap_s=limit)
    return Follow("hold", max_gap_s=limit, may_look_ahead=False)


def _default_gap_s(stream: Stream) -> float | None:
    period = median_period_s(stream.times_s)
    if period is None or stream.kind == "event":
        return None
    if stream.kind == "command":
        between = np.diff(stream.times_s)
        usual = float(np.quantile(between, 0.9)) <= 3 * period
        if not usual or period > 1 / _REGULAR_HZ or len(stream) < 10:
            return None
    return max(GAP_PERIODS * period, LEAST_GAP_S)
