"""What a world's process offers to the devices in it: rings and queues in memory, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from dp_hub.errors import RobotError
from dp_hub.robot.fields import Field

if TYPE_CHECKING:
    from dp_hub.robot.shared.queue import QueueSpec
    from dp_hub.robot.shared.ring import RingSpec
    from dp_hub.robot.worlds.world import World


S = TypeVar("S")


@dataclass(frozen=True)
class RingPort:
    """A ring to be made: what a sample of it holds, and how many come a second."""

    fields: tuple[Field, ...]
    rate_hz: float


@dataclass(frozen=True)
class QueuePort:
    """A queue to be made: what a message of it holds, and how many it has room for."""

    fields: tuple[Field, ...]
    capacity: int


@dataclass(frozen=True)
class Ports:
    """The rings and queues of a running world; it can be pickled."""

    rings: Mapping[str, RingSpec] = field(default_factory=dict)
    queues: Mapping[str, QueueSpec] = field(default_factory=dict)

    def ring(self, name: str) -> RingSpec:
        """Raises RobotError: the world has no ring of this name."""
        return _named(self.rings, name, "ring")

    def queue(self, name: str) -> QueueSpec:
        """Raises RobotError: the world has no queue of this name."""
        return _named(self.queues, name, "queue")


def _named(specs: Mapping[str, S], name: str, what: str) -> S:
    if name not in specs:
        have = ", ".join(specs) or "none"
        raise RobotError(
            f"the simulated world has no {what} {name!r}: it has {have}",
            hint="does the device belong to another world?",
        )
    return specs[name]


class WorldMemory:
    """The shared memory of one world, kept by the process that starts it.

    Args:
        world: made, not opened; only its ``rings`` and ``queues`` are looked at.
    """

    def __init__(self, world: World) -> None:
        from dp_hub.robot.shared.queue import Queue
        from dp_hub.robot.shared.ring import Ring

        self._kept: list[Ring | Queue] = []
        rings, queues = {}, {}
        try:
            for name, port in world.rings.items():
                ring = Ring.create(port.fields, rate_hz=port.rate_hz)
                self._kept.append(ring)
                rings[name] = ring.spec
            for name, way in world.queues.items():
                queue = Queue.create(way.fields, capacity=way.capacity)
                self._kept.append(queue)
                queues[name] = queue.spec
        except BaseException:
            self.close()
            raise
        self.ports = Ports(rings, queues)

    def close(self) -> None:
        """Give the memory back; processes that still use it lose nothing but its name."""
        for one in self._kept:
            one.close()
            one.unlink()
        self._kept = []

    def __enter__(self) -> WorldMemory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
