"""Runs a world against the clock, in a process of its own.

Every state carries the time at which it is true. A step from one period's end to the next follows
the target that was newest at its beginning, by the time it was sent; so what happens depends on
when targets were sent and not on how late this process got the processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dp_hub.robot.clock import MonotonicClock, ticks
from dp_hub.robot.shared.queue import Queue
from dp_hub.robot.shared.ring import Ring
from dp_hub.robot.worlds.control import unpack
from dp_hub.robot.worlds.ports import Ports
from dp_hub.robot.worlds.running import Running
from dp_hub.robot.worlds.world import CONTROL, World

if TYPE_CHECKING:
    from dp_hub.robot.worker import Context


class Make(Protocol):
    """Makes the world in its process: a `DeviceCall`."""

    def make(self) -> Any:
        """The world, not opened."""


@dataclass(frozen=True)
class WorldJob:
    """What a world's process needs; the argument of `run`.

    Args:
        make: of the world.
        ports: its memory, see `dp_hub.robot.worlds.ports.WorldMemory`.
    """

    make: Make
    ports: Ports


def run(context: Context, job: WorldJob) -> None:
    """The process: steps the world until it is asked to stop."""
    world: World = job.make.make()
    world.open()
    rings = {name: Ring.attach(spec) for name, spec in job.ports.rings.items()}
    control = Queue.attach(job.ports.queue(CONTROL))
    clock = MonotonicClock()
    try:
        start_s = clock.now_s()
        running = Running(world, rings, start_s=start_s)
        context.ready()
        for tick in ticks(world.period_s, clock, start_s=start_s + world.period_s):
            if context.stopping:
                return
            context.beat(clock.now_s())
            requests = [unpack(message) for message in control.take()]
            running.tick(tick.due_s, missed=tick.missed, requests=requests)
    finally:
        world.close()
        control.close()
        for ring in rings.values():
            ring.close()
