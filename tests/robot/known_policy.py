"""An `Inference` without a policy, whose answers are known beforehand."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from inference_helpers import STATE

from dp_hub.errors import RobotError
from dp_hub.robot.inference.info import Answer, PolicyInfo, Prefix

INFO = replace(STATE, observations=("observation.state",))
PICTURES = replace(
    STATE,
    observations=("observation.image",),
    features={"observation.image": (96, 96, 3), "action": (2,)},
)


class Known:
    """An `Inference` that answers with chunks known beforehand, ``delay_s`` after it was asked."""

    now_s: Callable[[], float] = time.monotonic

    def __init__(self, info: PolicyInfo = INFO, *, delay_s: float = 0.0) -> None:
        self.info, self.delay_s = info, delay_s
        self.ready, self.starts = True, 0
        self.seeds: list[int | None] = []
        self.prefixes: list[Prefix | None] = []
        self.fail: RobotError | None = None
        self.number = 0
        self._due_s: float | None = None

    def chunk(self, number: int) -> np.ndarray:
        """Float32 (Tp, 2): no two targets of any chunks are equal, and all are on the table."""
        steps = number * self.info.horizon + np.arange(self.info.horizon)
        return np.stack([100 + steps, 400 - steps], axis=1).astype(np.float32)

    def start(self) -> None:
        self.starts += 1
        self.fail = None

    def ask(self, obs: Any, *, seed: int | None = None, prefix: Prefix | None = None) -> None:
        assert self._due_s is None, "asked twice"
        assert {name: value.shape for name, value in obs.items()} == {
            name: self.info.observed_shape(name) for name in self.info.observed
        }
        self.seeds.append(seed)
        self.prefixes.append(prefix)
        self._due_s = self.now_s() + self.delay_s

    def answer(self) -> Answer | None:
        if self.fail is not None:
            self._due_s = None
            raise self.fail
        now_s = self.now_s()
        if self._due_s is None or now_s < self._due_s:
            return None
        chunk, asked_s, self._due_s = self.chunk(self.number), self._due_s - self.delay_s, None
        self.number += 1
        return Answer(chunk, asked_s, now_s, self.delay_s)

    @property
    def waiting(self) -> bool:
        return self._due_s is not None

    def wait(self, timeout_s: float) -> bool:
        raise AssertionError("a driver never waits")

    def wait_ready(self, timeout_s: float) -> None:
        raise AssertionError("a driver never waits")

    def reset(self) -> None:
        self._due_s = None

    def close(self) -> None:
        pass
