"""What is measured of a stream before anything is converted: shape, rate, jitter, gaps, clocks."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.recording import Stream
from dp_hub.replay.timeline import default_follow, median_period_s

_LEAST_GAP_S, _GAP_PERIODS = 0.5, 5
_MOST_LOOKED_AT_BYTES = 100_000_000


@dataclass(frozen=True)
class StreamFacts:
    """One stream, over all recordings that were looked at.

    Args:
        name: what the source calls it.
        kind: ``state``, ``command``, ``picture`` or ``event``; rows are ``state`` or ``picture``.
        dtype: numpy's name.
        shape: of one value.
        names: of the numbers of a value.
        about: what the source calls its type.
        recordings: how many have it.
        values: how many there are.
        rate_hz: values per second, gaps left out; None where there are no two.
        jitter_s: standard deviation of the time between two values, gaps left out.
        longest_s: the longest time between two values, gaps included.
        gaps: how many are longer than five usual ones and half a second.
        duration_s: sum over recordings, from the first value to the last.
        logged_s: mean of how much later values were written down than they were true; None where
            that is not told.
        logged_p95_s: what 95 % of those are within.
        low, high: of numbers; None of others.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    about: str = ""
    recordings: int = 1
    values: int = 0
    rate_hz: float | None = None
    jitter_s: float | None = None
    longest_s: float | None = None
    gaps: int = 0
    duration_s: float = 0.0
    logged_s: float | None = None
    logged_p95_s: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def type_name(self) -> str:
        """The type, for people."""
        return "text" if self.dtype.startswith(("object", "str")) else self.dtype

    @property
    def is_picture(self) -> bool:
        """Pictures that a dataset can hold."""
        return len(self.shape) == 3 and self.kind == "picture" and self.dtype == "uint8"

    @property
    def is_numbers(self) -> bool:
        """Numbers that a dataset can hold: up to two dimensions."""
        return self.kind != "picture" and len(self.shape) <= 2 and self.is_numeric

    @property
    def is_numeric(self) -> bool:
        """Numbers or truth values."""
        return np.dtype(self.dtype).kind in "biuf" and 0 not in self.shape


@dataclass
class StreamMeter:
    """Adds a stream up over recordings; memory grows with the number of values' times only."""

    name: str
    first: Stream
    recordings: int = 0
    values: int = 0
    duration_s: float = 0.0
    _between: list[np.ndarray] = field(default_factory=list)
    _later: list[np.ndarray] = field(default_factory=list)
    _range: tuple[float | None, float | None] = (None, None)

    def add(self, stream: Stream, where: str) -> None:
        """Raises DataError if the stream is another than before."""
        shape, dtype = stream.values.shape[1:], np.dtype(stream.values.dtype)
        before = self.first.values.shape[1:], np.dtype(self.first.values.dtype)
        if (shape, dtype) != before and self.values and len(stream):
            raise DataError(
                f"{self.name} of {where} is {dtype} {tuple(shape)}, before it was "
                f"{before[1]} {tuple(before[0])}",
                hint="look at (and convert) recordings of different robots apart",
            )
        if not self.values and len(stream):
            self.first = stream
            self._range = numbers_range(stream.values)
        self.recordings += 1
        self.values += len(stream)
        if len(stream):
            self.duration_s += float(stream.times_s[-1] - stream.times_s[0])
        self._between.append(np.diff(stream.times_s))
        if stream.logged_s is not None:
            self._later.append(stream.logged_s - stream.times_s)

    def facts(self) -> StreamFacts:
        """What was measured."""
        between = np.concatenate(self._between) if self._between else np.empty(0)
        later = np.concatenate(self._later) if self._later else np.empty(0)
        usual = median_period_s(np.concatenate([[0.0], np.cumsum(between)]))
        limit = max(_GAP_PERIODS * (usual or 0.0), _LEAST_GAP_S)
        if self.first.kind in ("event", "command"):
            limit = default_follow(self.first).max_gap_s or math.inf
        steady = between[between <= limit]
        total = float(steady.sum())
        return StreamFacts(
            name=self.name,
            kind=self.first.kind,
            dtype=np.dtype(self.first.values.dtype).name,
            shape=tuple(self.first.values.shape[1:]),
            names=self.first.names,
            about=self.first.about,
            recordings=self.recordings,
            values=self.values,
            rate_hz=len(steady) / total if total > 0 else None,
            jitter_s=float(steady.std()) if len(steady) else None,
            longest_s=float(between.max()) if len(between) else None,
            gaps=len(between) - len(steady),
            duration_s=self.duration_s,
            logged_s=float(later.mean()) if len(later) else None,
            logged_p95_s=float(np.quantile(np.abs(later), 0.95)) if len(later) else None,
            low=self._range[0],
            high=self._range[1],
        )


def numbers_range(values: Any) -> tuple[float | None, float | None]:
    """Smallest and largest finite number; None of pictures, texts and what is very much."""
    dtype = np.dtype(values.dtype)
    size = math.prod(values.shape) * dtype.itemsize
    if dtype.kind not in "biuf" or values.ndim > 3 or not 0 < size <= _MOST_LOOKED_AT_BYTES:
        return None, None
    array = np.asarray(values[:])
    finite = array[np.isfinite(array)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (None, None)
