"""The newest samples of one producer, for many readers, without a lock: nobody ever waits.

Every slot has a sequence number: odd while sample n is being written into it (2 n + 1), even when
it is there (2 n + 2). A reader copies, and looks whether the numbers are what they were: a sample
that was overwritten meanwhile counts as lost, and a torn one is never given out. A producer that is
killed in the middle of a sample leaves an odd number that the next one overwrites.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.fields import Field
from dp_hub.robot.shared.fence import fence
from dp_hub.robot.shared.segment import Segment, layout

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
    lost: int = 0

    def __len__(self) -> int:
        return len(self.numbers)


_HEAD = (Field("count", (), "int64"),)
_OF_SLOT = (
    Field("sequence", (), "int64"),
    Field("time_s", (), "float64"),
    Field("put_s", (), "float64"),
)


class Ring:
    """See the module. Made by `create` or `attach`."""

    def __init__(self, segment: Segment, spec: RingSpec) -> None:
        self.spec = spec
        self._segment = segment
        begins, _ = _places(spec.fields, spec.slots)
        all_fields = (*_OF_SLOT, *spec.fields)
        arrays = [
            segment.array(field.dtype, (spec.slots, *field.shape), at)
            for field, at in zip(all_fields, begins, strict=True)
        ]
        # Numbers through memoryviews: 8-byte loads and stores, and quicker than through numpy.
        self._count = memoryview(segment.array("int64", (1,), 0))
        self._sequence, self._times, self._puts = (memoryview(one) for one in arrays[:3])
        self._all = dict(zip((one.name for one in all_fields), arrays, strict=True))
        self._values = {one.name: self._all[one.name] for one in spec.fields}

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
        taken = {field.name for field in fields} & {field.name for field in _OF_SLOT}
        assert not taken and len({field.name for field in fields}) == len(fields), fields
        slots = keep + math.ceil(rate_hz * read_s * 1.5) + 1
        segment = Segment.create(_places(fields, slots)[1])
        return cls(segment, RingSpec(segment.name, tuple(fields), slots, keep))

    @classmethod
    def attach(cls, spec: RingSpec) -> "Ring":
        """Map one that another process made. Raises RobotError: it is gone."""
        return cls(Segment(spec.segment), spec)

    @property
    def count(self) -> int:
        """How many samples were ever put."""
        return self._count[0]

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
        arrays = [_fit(values, field) for field in self.spec.fields]
        if number and not time_s > self._times[(number - 1) % self.spec.slots]:
            raise self._not_later(time_s, number)
        slot = number % self.spec.slots
        self._sequence[slot] = 2 * number + 1
        fence()
        for ours, given in zip(self._values.values(), arrays, strict=True):
            ours[slot] = given
        self._times[slot] = time_s
        self._puts[slot] = time.monotonic() if put_s is None else put_s
        fence()
        self._sequence[slot] = 2 * number + 2
        fence()
        self._count[0] = number + 1

    def last(self, k: int) -> Samples:
        """The newest ``k``, or as many as there are: none, it may be, at the start."""
        assert k >= 0, k
        for again in range(_TRIES):
            count = self._count[0]
            # What is overwritten while we copy is asked for anew, in the end a single one.
            n = min(k, count, max(1, (self.spec.slots - 1) >> max(0, again - 3)))
            found = self._copy(count - n, count)
            if len(found) == n:
                return found
        return self._copy(0, 0)

    def since(self, number: int) -> Samples:
        """All from sample ``number`` on that are still there; ``lost`` says how many are not."""
        assert number >= 0, number
        for again in range(_TRIES):
            count = self._count[0]
            n = max(1, (self.spec.slots - 1) >> again)
            found = self._copy(min(count, max(number, count - n)), count)
            if len(found) or count <= number:
                lost = int(found.numbers[0]) - number if len(found) else 0
                return Samples(found.numbers, found.times_s, found.put_s, found.values, lost)
        return self._copy(0, 0)

    def close(self) -> None:
        """Let go. It cannot be used any more."""
        self._all, self._values = {}, {}
        for view in (self._count, self._sequence, self._times, self._puts):
            view.release()
        self._segment.close()

    def unlink(self) -> None:
        """Remove it: nobody can attach any more. Nothing, in a process that did not make it."""
        self._segment.unlink()

    def _copy(self, first: int, end: int) -> Samples:
        """Those of the samples ``first`` to ``end`` that are whole: the newest ones, in a row."""
        slots = self.spec.slots
        assert 0 <= end - first < slots, (first, end, slots)
        numbers = np.arange(first, end, dtype=np.int64)
        expected = 2 * numbers + 2
        fence()
        before = _row(self._all["sequence"], first, end, slots)
        fence()
        copied = {name: _row(one, first, end, slots) for name, one in self._all.items()}
        fence()
        after = _row(self._all["sequence"], first, end, slots)
        bad = np.flatnonzero((before != expected) | (after != expected))
        whole = slice(int(bad[-1]) + 1 if len(bad) else 0, None)
        values = {field.name: copied[field.name][whole] for field in self.spec.fields}
        return Samples(
            numbers[whole], copied["time_s"][whole], copied["put_s"][whole], values, whole.start
        )

    def _not_later(self, time_s: float, number: int) -> RobotError:
        last_s = self._times[(number - 1) % self.spec.slots]
        return RobotError(
            f"a sample of {', '.join(self._values)} at {time_s:.6f} s is not later than the one"
            f" before, at {last_s:.6f} s",
            hint="times are `time.monotonic()` seconds and increase; a sample may come once only",
        )


def _places(fields: Sequence[Field], slots: int) -> tuple[list[int], int]:
    _, at = layout(_HEAD, 1, at=0)
    return layout((*_OF_SLOT, *fields), slots, at=at)


def _row(array: np.ndarray, first: int, end: int, slots: int) -> np.ndarray:
    """Copy the slots of the samples ``first`` to ``end``, (end - first, ...)."""
    start, n = first % slots, end - first
    if start + n <= slots:
        return array[start : start + n].copy()
    return np.concatenate([array[start:], array[: start + n - slots]])


def _fit(values: Mapping[str, np.ndarray], field: Field) -> np.ndarray:
    """The value of a field, as it is if it fits."""
    if field.name not in values:
        seen = ", ".join(values) or "nothing"
        raise RobotError(f"`{field.name}` is missing; there were {seen}")
    value = np.asarray(values[field.name])
    if value.shape != field.shape or not np.can_cast(value.dtype, field.dtype, "same_kind"):
        raise RobotError(
            f"`{field.name}` should be {field.dtype} {field.shape}, not {value.dtype} {value.shape}"
        )
    return value
