"""A world with its shared memory, stepped on a virtual clock or run in a process of its own."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dp_hub.robot.shared.ring import Ring
from dp_hub.robot.worker import Worker
from dp_hub.robot.worlds.control import Request
from dp_hub.robot.worlds.ports import Ports, WorldMemory
from dp_hub.robot.worlds.process import WorldJob, run
from dp_hub.robot.worlds.running import Running
from dp_hub.robot.worlds.world import TARGET, World


@dataclass(frozen=True)
class Making:
    """Makes a world in its process, without entry points."""

    kind: type[Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Any:
        return self.kind(**self.options)


class Bench:
    """A world whose time is told: tick ``k`` is at ``start_s + k * period_s``."""

    def __init__(self, world: World, memory: WorldMemory, start_s: float = 100.0) -> None:
        world.open()
        self.world, self.start_s, self.k = world, start_s, 0
        self.rings = {name: Ring.attach(spec) for name, spec in memory.ports.rings.items()}
        self.running = Running(world, self.rings, start_s=start_s)

    @property
    def now_s(self) -> float:
        return self.start_s + self.k * self.world.period_s

    def send(self, target: Any, time_s: float | None = None) -> None:
        values = {"target": np.asarray(target, dtype=np.float64)}
        self.rings[TARGET].put(self.now_s if time_s is None else time_s, values)

    def tick(self, n: int = 1, *requests: Request) -> None:
        for i in range(n):
            self.k += 1
            self.running.tick(self.now_s, requests=requests if i == 0 else ())

    def late(self, missed: int) -> None:
        """A tick that comes after ``missed`` that did not happen."""
        self.k += missed + 1
        self.running.tick(self.now_s, missed=missed)

    def newest(self, ring: str, name: str) -> np.ndarray:
        return self.rings[ring].last(1).values[name][-1]

    def newest_s(self, ring: str) -> float:
        return float(self.rings[ring].last(1).times_s[-1])

    def truth(self) -> dict[str, float]:
        return {k: float(v[-1]) for k, v in self.rings["truth"].last(1).values.items()}


@contextmanager
def bench(kind: type[Any], **options: Any) -> Iterator[Bench]:
    world = kind(**options)
    with WorldMemory(world) as memory:
        one = Bench(world, memory)
        try:
            yield one
        finally:
            world.close()
            for ring in one.rings.values():
                ring.close()


@contextmanager
def in_process(kind: type[Any], **options: Any) -> Iterator[tuple[Worker[WorldJob], Ports]]:
    making = Making(kind, options)
    with WorldMemory(making.make()) as memory:
        worker = Worker("world", run, WorldJob(making, memory.ports), beat_within_s=None)
        worker.start()
        try:
            worker.wait_ready(60)
            yield worker, memory.ports
        finally:
            worker.stop()


def wait_for(true: Any, timeout_s: float = 20.0) -> None:
    """Until ``true()``; fails when it takes too long."""
    until_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until_s, "it did not happen"
        time.sleep(0.005)
