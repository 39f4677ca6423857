"""Processes that put into a queue, and take from it, for tests."""

import os
import signal
import time
from dataclasses import dataclass

import numpy as np

from dp_hub.robot.fields import Field
from dp_hub.robot.shared.queue import Queue, QueueFull, QueueSpec
from dp_hub.robot.shared.ring import Ring, RingSpec
from dp_hub.robot.worker import Context

FIELDS = (Field("number", (), "int64"), Field("values", (100,)))
SEEN = (Field("number", (), "int64"),)


def record(number: int) -> dict[str, np.ndarray]:
    return {"number": np.asarray(number), "values": np.full(100, float(number))}


def put_all(context: Context, job: tuple[QueueSpec, int]) -> None:
    """Records 0 to n, each until there is room."""
    spec, n = job
    queue = Queue.attach(spec)
    context.ready()
    number = 0
    while number < n and not context.stopping:
        try:
            queue.put(record(number))
            number += 1
        except QueueFull:
            time.sleep(0.0005)
    while not context.stopping:
        time.sleep(0.005)


@dataclass(frozen=True)
class Taking:
    """What is taken is told in ``seen``; killed in a take, once that has ``die_at``."""

    queue: QueueSpec
    seen: RingSpec
    die_at: int | None = None


def take_all(context: Context, job: Taking) -> None:
    """Take until asked to stop."""
    queue, seen = Queue.attach(job.queue), Ring.attach(job.seen)
    context.ready()
    while not context.stopping:
        if job.die_at is not None and seen.count >= job.die_at and queue.waiting:
            die_in_a_take(queue)
        for one in queue.take():
            assert (one["values"] == one["number"]).all()
            seen.put(float(one["number"]), {"number": one["number"]})


def die_in_a_take(queue: Queue) -> None:
    """SIGKILL when the records are copied and not yet taken."""

    class Dies:
        def __getitem__(self, at: int) -> int:
            return taken[at]

        def __setitem__(self, at: int, value: int) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    taken = queue._taken
    queue._taken = Dies()  # type: ignore[assignment]
    queue.take()
