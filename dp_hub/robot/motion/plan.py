"""What a controller is told: a plan of way-points at absolute times, or one of three orders.

A command fits one record of a queue of shared memory; `pack` and `unpack` go there and back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from dp_hub.robot.fields import Field

MAX_POINTS = 64
"""Of one plan, so that any plan fits the same record."""

_PLAN = 0


class Order(IntEnum):
    """What is no plan: come to rest and wait, stop at once and for good, take plans again."""

    HOLD = 1
    STOP = 2
    RESUME = 3


@dataclass(frozen=True, eq=False)
class Plan:
    """Where to be, and when.

    Args:
        number: of the plan; each is higher than the one before.
        times_s: float64 (K,), increasing, monotonic seconds; 1 to ``MAX_POINTS`` points.
        targets: float64 (K, D) in the actuator's space.
        replace_from_s: what earlier plans have at this time or later is thrown away.
    """

    number: int
    times_s: np.ndarray
    targets: np.ndarray
    replace_from_s: float

    def __post_init__(self) -> None:
        shapes = (self.times_s.shape, self.targets.shape)
        assert self.times_s.ndim == 1 and self.targets.ndim == 2, shapes
        assert 1 <= len(self.times_s) == len(self.targets) <= MAX_POINTS, shapes


Command = Plan | Order


def plan_fields(size: int) -> tuple[Field, ...]:
    """The record of one command to an actuator of ``size`` numbers."""
    return (
        Field("kind", (), "int64"),
        Field("number", (), "int64"),
        Field("points", (), "int64"),
        Field("replace_from_s", ()),
        Field("times_s", (MAX_POINTS,)),
        Field("targets", (MAX_POINTS, size)),
    )


def pack(command: Command, size: int) -> dict[str, np.ndarray]:
    """A command as a record of `plan_fields`; what the command does not need is 0."""
    record = {field.name: np.zeros(field.shape, field.dtype) for field in plan_fields(size)}
    if isinstance(command, Order):
        record["kind"][...] = command
        return record
    points = len(command.times_s)
    record["kind"][...] = _PLAN
    record["number"][...] = command.number
    record["points"][...] = points
    record["replace_from_s"][...] = command.replace_from_s
    record["times_s"][:points] = command.times_s
    record["targets"][:points] = command.targets
    return record


def unpack(record: Mapping[str, np.ndarray]) -> Command:
    """The command in a record of `plan_fields`."""
    kind = int(record["kind"])
    if kind != _PLAN:
        return Order(kind)
    points = int(record["points"])
    return Plan(
        number=int(record["number"]),
        times_s=np.array(record["times_s"][:points]),
        targets=np.array(record["targets"][:points]),
        replace_from_s=float(record["replace_from_s"]),
    )
