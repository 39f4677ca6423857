"""The newest samples of one producer, for many readers, without a lock: nobody ever waits.

Every slot has a sequence number: odd while sample n is being written into it (2 n + 1), even when
it is there (2 n + 2); then it is counted. A reader copies samples that are counted and looks at
their sequence numbers after that: where one has gone on, the slot may have been written while it
was copied. That sample counts as lost; a torn one is never given out. A producer that is killed in
the middle of a sample has not counted it, and the next one writes it anew.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.fields import Field
from dp_hub.robot.shared.fence import fence
from dp_hub.robot.shared.records import Records, layout
from dp_hub.robot.shared.segment import Segment

_TRIES = 1000


@dataclass(frozen=True)
class RingSpec:
    """What another process needs to attach."""

    segment: str
    fields: tuple[Field, ...]
    slots: int
    keep: int


@dataclass(frozen=True, eq=False)
class Samples:
    """Some samples in a row, oldest first, copied.

    Args:
        numbers: int64 (k,), from 0 for the first sample ever put.
        times_s: float64 (k,), when they were true.
        put_s: float64 (k,), when they were put.
        values: (k, ...) of each field.
        lost: how many of those asked for are gone.
    """

    numbers: np.ndarray
    times_s: np.ndarray
    put_s: np.ndarray
    values: dict[str, np.ndarray]
    lost: int

    def __len__(self) -> int:
        return len(self.numbers)


_COUNT = (Field("count", (), "int64"),)
_OF_SLOT = (Field("sequence", (), "int64"), Field("time_s", ()), Field("put_s", ()))


class Ring:
    """See the module. Made by `create` or `attach`."""

    def __init__(self, segment: Segment, spec: RingSpec) -> None:
        self.spec = spec
        self._segment = segment
        _, at = layout(_COUNT, 1, at=0)
        begins, end = layout(_OF_SLOT, spec.slots, at=at)
        self._count = segment.integers(1, 0)
        self._sequence = segment.integers(spec.slots, begins[0])
        self._time, self._put = (segment.floats(spec.slots, begin) for begin in begins[1:])
        self._slots = Records(segment, _OF_SLOT, spec.slots, at=at)
        self._values = Records(segment, spec.fields, spec.slots, at=end)

    @classmethod
    def create(
        cls, fields: Sequence[Field], *, rate_hz: float, read_s: float = 0.2, keep: int = 16
    ) -> "Ring":
        """Make one.

        Args:
            fields: of every sample.
            rate_hz: at which samples come.
            read_s: how long a reader may take to copy.
            keep: how many samples back are certain to be readable within that.

        Raises:
            RobotError: shared memory is full.
        """
        assert rate_hz > 0 and read_s > 0 and keep > 0, (rate_hz, read_s, keep)
        slots = keep + math.ceil(rate_hz * read_s * 1.5) + 1
        _, at = layout(_COUNT, 1, at=0)
        _, at = layout(_OF_SLOT, slots, at=at)
        segment = Segment.create(layout(fields, slots, at=at)[1])
        return cls(segment, RingSpec(segment.name, tuple(fields), slots, keep))

    @classmethod
    def attach(cls, spec: RingSpec) -> "Ring":
        """Map one that another process made. Raises RobotError: it is gone."""
        return cls(Segment(spec.segment), spec)

    @property
    def count(self) -> int:
        """How many samples were ever put."""
        return self._count[0]

    @property
    def newest_s(self) -> float:
        """Time of the newest sample, without copying it; -inf if there is none."""
        count = self._count[0]
        return float(self._time[(count - 1) % self.spec.slots]) if count else -math.inf

    def put(
        self, time_s: float, values: Mapping[str, np.ndarray], *, put_s: float | None = None
    ) -> None:
        """Add a sample. Never waits.

        Args:
            time_s: when it was true; later than that of the sample before.
            values: an array, or a number, for every field.
            put_s: now, if not said.

        Raises:
            RobotError: it is not later, or a value does not fit its field. Nothing was put.
        """
        number = self._count[0]
        given = self._values.fitting(values)
        last_s = self._time[(number - 1) % self.spec.slots] if number else -math.inf
        if not last_s < time_s < math.inf:
            raise self._not_later(time_s, last_s)
        slot = number % self.spec.slots
        self._sequence[slot] = 2 * number + 1
        fence()
        self._values.store(slot, given)
        self._time[slot] = time_s
        self._put[slot] = time.monotonic() if put_s is None else put_s
        fence()
        self._sequence[slot] = 2 * number + 2
        fence()
        self._count[0] = number + 1

    def last(self, k: int) -> Samples:
        """The newest ``k``, or as many as there are: none, it may be, at the start.

        `RingSpec.keep` of them are certain to be read if that takes no longer than was planned;
        of those that are overwritten meanwhile, ``lost`` tells the number.
        """
        assert k >= 0, k
        return self._newest(lambda count: count - min(k, count))

    def since(self, number: int) -> Samples:
        """All from sample ``number`` on that are still there; ``lost`` says how many are not."""
        assert number >= 0, number
        return self._newest(lambda count: min(number, count))

    def _newest(self, first: Callable[[int], int]) -> Samples:
        """Those from ``first(count)`` on that can be read.

        Where the producer has overwritten all that was copied, fewer are tried, in the end one.
        """
        for again in range(_TRIES):
            count = self._count[0]
            asked = first(count)
            start = max(asked, count - max(1, (self.spec.slots - 1) >> again))
            found = self._copy(start, count)
            if len(found) or asked == count:
                return replace(found, lost=count - asked - len(found))
        raise RobotError(
            f"a sample of {self._values.names} was overwritten {_TRIES} times while it was read",
            hint="the producer is far quicker than the rate this ring was made for",
        )

    def close(self) -> None:
        """Let go. It cannot be used any more."""
        self._slots.close()
        self._values.close()
        for view in (self._count, self._sequence, self._time, self._put):
            view.release()
        self._segment.close()

    def unlink(self) -> None:
        """Remove it: nobody can attach any more. Nothing, in a process that did not make it."""
        self._segment.unlink()

    def _copy(self, first: int, end: int) -> Samples:
        """Those of the samples ``first`` to ``end`` that are whole: the newest ones, in a row."""
        slots = self.spec.slots
        assert 0 <= end - first < slots, (first, end, slots)
        fence()  # they were counted, so they were there
        values = {name: _row(one, first, end) for name, one in self._values.arrays.items()}
        times_s, put_s = (
            _row(self._slots.arrays[name], first, end) for name in ("time_s", "put_s")
        )
        fence()
        sequence = _row(self._slots.arrays["sequence"], first, end)
        numbers = np.arange(first, end, dtype=np.int64)
        gone = np.flatnonzero(sequence != 2 * numbers + 2)
        if not len(gone):
            return Samples(numbers, times_s, put_s, values, 0)
        whole = slice(int(gone[-1]) + 1, None)
        values = {name: one[whole] for name, one in values.items()}
        return Samples(numbers[whole], times_s[whole], put_s[whole], values, 0)

    def _not_later(self, time_s: float, last_s: float) -> RobotError:
        return RobotError(
            f"a sample of {self._values.names} at {time_s:.6f} s is not later than the one before,"
            f" at {last_s:.6f} s",
            hint="times are `time.monotonic()` seconds and increase; a sample comes once only",
        )


def _row(array: np.ndarray, first: int, end: int) -> np.ndarray:
    """Copy the slots of the samples ``first`` to ``end``, (end - first, ...)."""
    start, n, slots = first % len(array), end - first, len(array)
    if start + n <= slots:
        return array[start : start + n].copy()
    return np.concatenate([array[start:], array[: start + n - slots]])
