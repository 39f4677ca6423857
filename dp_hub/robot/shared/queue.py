"""Records from one process to one other, in order, none lost: what is full says so.

One process puts, one takes. A record is there when the count of those put has gone up, and room is
there when the count of those taken has: who is killed in between has put, or taken, nothing, and
who is started in its place goes on from there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.fields import Field
from dp_hub.robot.shared.fence import fence
from dp_hub.robot.shared.records import Records, layout
from dp_hub.robot.shared.segment import Segment


class QueueFull(RobotError):
    """There is no room: the process that takes is late, or gone."""


@dataclass(frozen=True)
class QueueSpec:
    """What another process needs to attach."""

    segment: str
    fields: tuple[Field, ...]
    capacity: int


_HEAD = (Field("put", (), "int64"), Field("taken", (), "int64"), Field("dropped", (), "int64"))


class Queue:
    """See the module. Made by `create` or `attach`."""

    def __init__(self, segment: Segment, spec: QueueSpec) -> None:
        self.spec = spec
        self._segment = segment
        begins, at = layout(_HEAD, 1, at=0)
        self._put, self._taken, self._dropped = (segment.integers(1, begin) for begin in begins)
        self._records = Records(segment, spec.fields, spec.capacity, at=at)

    @classmethod
    def create(cls, fields: Sequence[Field], *, capacity: int) -> "Queue":
        """Make one for ``capacity`` records of ``fields``. Raises RobotError: memory is full."""
        assert capacity > 0, capacity
        _, at = layout(_HEAD, 1, at=0)
        segment = Segment.create(layout(fields, capacity, at=at)[1])
        return cls(segment, QueueSpec(segment.name, tuple(fields), capacity))

    @classmethod
    def attach(cls, spec: QueueSpec) -> "Queue":
        """Map one that another process made. Raises RobotError: it is gone."""
        return cls(Segment(spec.segment), spec)

    @property
    def dropped(self) -> int:
        """How many records found no room, ever."""
        return self._dropped[0]

    @property
    def waiting(self) -> int:
        """How many records are there to be taken."""
        return self._put[0] - self._taken[0]

    def put(self, values: Mapping[str, np.ndarray]) -> None:
        """Add a record, an array or number for every field. Never waits.

        Raises:
            QueueFull: nothing was put; it is counted in `dropped`.
            RobotError: a value does not fit its field.
        """
        given = self._records.fitting(values)
        number = self._put[0]
        if number - self._taken[0] >= self.spec.capacity:
            self._dropped[0] += 1
            raise QueueFull(
                f"a queue of {self._records.names} is full with {self.spec.capacity} records",
                hint="the process that takes them is late, or has ended",
            )
        fence()
        self._records.store(number % self.spec.capacity, given)
        fence()
        self._put[0] = number + 1

    def take(self) -> list[dict[str, np.ndarray]]:
        """All records that are there, oldest first, copied; arrays of the fields' shapes."""
        first, end = self._taken[0], self._put[0]
        fence()
        arrays = self._records.arrays
        records = [
            {name: np.array(one[n % self.spec.capacity]) for name, one in arrays.items()}
            for n in range(first, end)
        ]
        fence()
        if end > first:
            self._taken[0] = end
        return records

    def close(self) -> None:
        """Let go. It cannot be used any more."""
        self._records.close()
        for view in (self._put, self._taken, self._dropped):
            view.release()
        self._segment.close()

    def unlink(self) -> None:
        """Remove it: nobody can attach any more. Nothing, in a process that did not make it."""
        self._segment.unlink()
