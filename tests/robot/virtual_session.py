"""A session without processes, on a clock that only its steps move: what it does is exact."""

from typing import Any, Self
from unittest import mock

import numpy as np

from dp_hub.robot.clock import Tick, VirtualClock
from dp_hub.robot.config import RobotConfig
from dp_hub.robot.devices.protocols import Reading
from dp_hub.robot.fields import Field
from dp_hub.robot.motion.controller import Controller, Shared
from dp_hub.robot.session import session
from dp_hub.robot.space import Space


class Swift:
    """An actuator that is where it is told to be, and measures itself at every reading."""

    def __init__(self, space: Space, fields: tuple[Field, ...], clock: VirtualClock) -> None:
        self.space, self.fields, self._clock = space, fields, clock
        self.position = np.full(space.size, 250.0)

    def read(self) -> Reading:
        values = {one.name: np.zeros(one.shape, one.dtype) for one in self.fields}
        return Reading(self._clock.now_s(), values | {"position": self.position})

    def send(self, target: np.ndarray) -> None:
        self.position = target.copy()

    def open(self) -> None: ...
    def hold(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class VirtualSession(session.Session):
    """Of a robot with one arm. Its controller, the real one, runs here, once in every `step`."""

    clock: VirtualClock

    def __init__(self, config: RobotConfig) -> None:
        super().__init__(config, clock=VirtualClock(1000.0))

    def __enter__(self) -> Self:
        with mock.patch.object(session, "start_parts"):
            return super().__enter__()

    def step(self) -> None:
        """A tick of the controller later."""
        self.clock.advance(self.controller.period_s)
        self.beat()
        self._ticks += 1
        self.controller.tick(Tick(self._ticks, self.clock.now_s(), 0.0, 0))

    def check(self) -> None:
        """There is no worker."""

    def _wait_for_workers(self) -> None:
        parts, self._ticks = self.parts, 0
        [(name, commands)] = parts.commands.items()
        state, sent = parts.rings[name], parts.rings[f"{name}.sent"]
        self.arm = Swift(parts.spaces[name], state.spec.fields, self.clock)
        job: Any = parts.workers[name]._argument
        self.controller = Controller(
            job, self.arm, Shared(state, sent, commands, parts.board), self.clock
        )
        self.step()
