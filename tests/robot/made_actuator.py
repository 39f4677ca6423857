"""An actuator made for tests: it goes towards its target, and fails when it is told to."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.devices.protocols import Reading
from dp_hub.robot.fields import Field
from dp_hub.robot.space import Space

PLANE = Space(("x", "y"), ("m", "m"))


@dataclass(frozen=True)
class MakeActuator:
    """Can be pickled, as a `DeviceCall`.

    Args:
        diary: a file: what was called when, a line each.
        fails: a file: a read fails once it is there.
    """

    diary: Path
    fails: Path | None = None
    fails_to_open: bool = False
    sulks: bool = False

    def make(self, ports: Any = None) -> "MadeActuator":
        return MadeActuator(self)


@dataclass
class MadeActuator:
    """Two numbers; half of the way to the target at every read."""

    how: MakeActuator
    space: Space = PLANE
    fields: tuple[Field, ...] = (Field("position", (2,)), Field("target", (2,)))
    position: np.ndarray = field(default_factory=lambda: np.zeros(2))
    target: np.ndarray = field(default_factory=lambda: np.zeros(2))

    def open(self) -> None:
        if self.how.fails_to_open:
            raise RobotError("the made actuator is away", hint="switch it on")
        self._note("open")

    def read(self) -> Reading:
        if self.how.fails is not None and self.how.fails.exists():
            if self.how.fails.read_text() == "nan":
                return Reading(
                    time.monotonic(), {"position": np.full(2, np.nan), "target": self.target}
                )
            raise RobotError("the made actuator is gone")
        self.position = self.position + 0.5 * (self.target - self.position)
        return Reading(time.monotonic(), {"position": self.position, "target": self.target})

    def send(self, target: np.ndarray) -> None:
        assert np.isfinite(target).all() and target.shape == (2,)
        self.target = target.copy()
        self._note("send", target.tolist())

    def hold(self) -> None:
        self._note("hold")

    def stop(self) -> None:
        self._note("stop")
        if self.how.sulks:
            raise RobotError("the made actuator takes no stop")

    def close(self) -> None:
        self._note("close")

    def _note(self, call: str, value: Any = None) -> None:
        with self.how.diary.open("a") as file:
            file.write(json.dumps([time.monotonic(), call, value]) + "\n")


def diary_of(path: Path) -> list[tuple[float, str, Any]]:
    """What was called, in order."""
    if not path.exists():
        return []
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()]


def calls(path: Path) -> list[str]:
    """What was called, sends that follow each other as one."""
    found: list[str] = []
    for _, call, _ in diary_of(path):
        if not (found and found[-1] == call == "send"):
            found.append(call)
    return found
