"""Processes that put samples, for tests: each says by its numbers which sample it is."""

import os
import signal
from dataclasses import dataclass

import numpy as np

from dp_hub.robot.fields import Field
from dp_hub.robot.shared.ring import Ring, RingSpec
from dp_hub.robot.worker import Context

FIELDS = (
    Field("picture", (480, 640, 3), "uint8"),
    Field("numbers", (5000,), "int64"),
    Field("small", (), "float32"),
)

KINDS = 13
"""Of pictures: more than a ring has slots, so that neighbours differ."""


def sample(number: int) -> dict[str, np.ndarray]:
    """One whose every byte is told by its number."""
    return {
        "picture": np.full((480, 640, 3), number % KINDS, np.uint8),
        "numbers": np.arange(number, number + 5000),
        "small": np.asarray(number, np.float32),
    }


def check(number: int, time_s: float, values: dict[str, np.ndarray]) -> None:
    """Fails if any part of a sample is of another one."""
    assert time_s == number
    for name, wanted in sample(number).items():
        assert np.array_equal(values[name], wanted), (number, name)


@dataclass(frozen=True)
class Writing:
    """It is killed in the middle of sample ``die_at``, if that is not None."""

    ring: RingSpec
    die_at: int | None = None


def write(context: Context, writing: Writing) -> None:
    """Put samples until asked to stop, and go on where a writer before left off."""
    ring = Ring.attach(writing.ring)
    ready = [sample(number) for number in range(KINDS)]
    context.ready()
    while not context.stopping:
        number = ring.count
        values = ready[number % KINDS]
        values["numbers"] = np.arange(number, number + 5000)
        values["small"] = np.asarray(number, np.float32)
        if number == writing.die_at:
            die_in_the_middle(ring, number, values)
        ring.put(float(number), values)


def die_in_the_middle(ring: Ring, number: int, values: dict[str, np.ndarray]) -> None:
    """SIGKILL when half of a picture is there."""
    store = ring._values.store

    def half(place: int, given: list[np.ndarray]) -> None:
        store(place, [given[0], given[1] * 0, given[2] * 0])
        ring._values.arrays["picture"][place, 240:] = 255
        os.kill(os.getpid(), signal.SIGKILL)

    ring._values.store = half  # type: ignore[method-assign]
    ring.put(float(number), values)
