"""All processes of a robot: started together, watched, told what to do, and ended together.

What ends or hangs, and what follows:

| what | what the robot does | what the session says |
|---|---|---|
| the session's own process | controllers hold after ``hold_after_s``, then end by themselves | |
| a controller | its arm is told nothing more; the others stop | RobotError by `check` |
| a camera, the simulated world | all stop | RobotError by `check` |
| a controller, a camera or the world hangs for 2 s | all stop; one that hangs stops when it is | |
|  | back, or is ended | RobotError by `check` |
| a stream is too old | the caller holds and goes on when it is back | `Stale` by `observe` |
| a queue is full: a plan | is thrown away, the old plan goes on | counted, False by `send` |
| a queue is full: `hold`, `resume` | is kept until there is room, before any later plan | counted |
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.clock import Clock, MonotonicClock
from dp_hub.robot.config import RobotConfig
from dp_hub.robot.fields import Field
from dp_hub.robot.motion.plan import Order, Plan
from dp_hub.robot.motion.reporting import read_report
from dp_hub.robot.observing.align import (
    Observation,
)
from dp_hub.robot.observing.check import split_action
from dp_hub.robot.observing.features import FeatureUse
from dp_hub.robot.session import camera
from dp_hub.robot.session.eyes import Eyes
from dp_hub.robot.session.orders import Orders
from dp_hub.robot.session.parts import BEAT, STOP, Parts, make_parts, start_parts
from dp_hub.robot.shared.ring import Ring, Samples
from dp_hub.robot.space import Space
from dp_hub.robot.worker import Scheduling
from dp_hub.robot.worlds.control import WorldControl

log = logging.getLogger(__name__)
_READY_S = 30.0
_FIRST_S = 10.0
_POLL_S = 0.005


class Session:
    """A robot that is on. Use as a context manager, in one thread.

    Args:
        config: of the robot.
        dry_run: everything but sending targets to the arms.
        scheduling: of controllers, cameras and the world; None: as every other process.
        clock: that the session waits by.
        before_start: called when streams and spaces are known and nothing has been started.
    Raises:
        ConfigError: on entering: a device does not exist, or what it is told does not fit.
        RobotError: on entering: a device or its library is away.
    """

    def __init__(
        self,
        config: RobotConfig,
        *,
        dry_run: bool = False,
        scheduling: Scheduling | None = None,
        clock: Clock | None = None,
        before_start: "Callable[[Session], None] | None" = None,
    ) -> None:
        self._before_start = before_start
        self.config, self.dry_run = config, dry_run
        self.clock: Clock = clock or MonotonicClock()
        self._scheduling = scheduling
        self._stack = ExitStack()
        self._parts: Parts | None = None

    def __enter__(self) -> Self:
        try:
            self._parts = make_parts(
                self.config, self._stack, dry_run=self.dry_run, scheduling=self._scheduling
            )
            parts = self._parts
            self._orders = Orders(parts.commands, parts.spaces)
            self._eyes = Eyes(self.config, parts.rings, parts.rates_hz, parts.streams, self.clock)
            if self._before_start is not None:
                self._before_start(self)
            start_parts(self._parts, self._stack)
            self._wait_for_workers()
            self._wait_for_samples()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Each controller brings its arm to rest before it ends; none waits for what hangs.
        for name, worker in self.parts.workers.items():
            if name != "world":
                worker.ask_to_stop()
        self._stack.close()

    @property
    def parts(self) -> Parts:
        """Rings, queues and workers. Only while the session is on."""
        assert self._parts is not None, "the session is not on"
        return self._parts

    @property
    def rings(self) -> Mapping[str, Ring]:
        """By stream: ``arm`` has readings, ``arm.sent`` targets, ``top`` pictures."""
        return self.parts.rings

    @property
    def streams(self) -> dict[str, Field]:
        """What can be observed: ``arm.position``, ``top``."""
        return self.parts.streams

    @property
    def spaces(self) -> dict[str, Space]:
        """Of the actuators that an action moves, in its order."""
        return {name: self.parts.spaces[name] for name in self.config.action}

    @property
    def action_size(self) -> int:
        """Da."""
        return sum(space.size for space in self.spaces.values())

    @property
    def world(self) -> WorldControl | None:
        """Asks the simulated world; None of a real robot."""
        return self.parts.world

    @property
    def features(self) -> dict[str, FeatureUse]:
        """What the configuration observes."""
        return dict(self._eyes.features)

    def beat(self) -> None:
        """Tell the controllers that the session is well; to be called several times a second."""
        self.parts.board[BEAT] = self.clock.now_s()
        self._orders.pay()

    def check(self) -> None:
        """Whether all processes are well.

        Raises:
            RobotError: one has ended or hangs; the others were told to stop.
        """
        try:
            for worker in self.parts.workers.values():
                worker.check()
        except RobotError:
            self.stop()
            raise

    def last(self, stream: str, k: int = 1) -> Samples:
        """The newest samples of a ring."""
        return self.rings[stream].last(k)

    def position(self, actuator: str) -> np.ndarray:
        """Where an actuator was measured last, float64 (D,)."""
        newest = self.last(actuator)
        if not len(newest):
            raise RobotError(f"{actuator} has told no position yet")
        return newest.values["position"][-1]

    def positions(self) -> np.ndarray:
        """Where all that an action moves were measured last, float64 (Da,)."""
        return np.concatenate([self.position(name) for name in self.config.action])

    def newest_s(self, features: Sequence[str] | None = None) -> float:
        """See `Eyes.newest_s`."""
        return self._eyes.newest_s(features)

    def observe(self, n_obs_steps: int, features: Sequence[str] | None = None) -> Observation:
        """What the robot observes now, see `Eyes.observe`."""
        return self._eyes.observe(n_obs_steps, features)

    def forget(self, before_s: float | None = None) -> None:
        """Observe nothing from before a time (None: now): another episode begins."""
        self._eyes.forget(self.clock.now_s() if before_s is None else before_s)

    def send(self, plan: Plan) -> bool:
        """Move all that an action moves; False if a controller has no room for more.

        Args:
            plan: targets float64 (K, Da). Its number is not used: they count by when they are sent.
        """
        widths = [space.size for space in self.spaces.values()]
        return all(
            [
                self.move(name, plan.times_s, plan.targets[:, part], plan.replace_from_s)
                for name, part in zip(self.spaces, split_action(widths), strict=True)
            ]
        )

    def move(
        self, actuator: str, times_s: np.ndarray, targets: np.ndarray, replace_from_s: float
    ) -> bool:
        """Move one actuator: targets float64 (K, D) at times; False if there was no room."""
        return self._orders.move(actuator, times_s, targets, replace_from_s)

    def hold(self) -> None:
        """Bring all actuators to rest; they stay there until `resume`."""
        self._orders.give(Order.HOLD)

    def resume(self) -> None:
        """Take plans again after `hold`."""
        self._orders.give(Order.RESUME)

    def stop(self) -> None:
        """The emergency stop: seen by every controller at its next tick, past any queue.

        It lasts as long as the session does.
        """
        self.parts.board[STOP] = 1.0

    @property
    def full_queues(self) -> int:
        """How often a controller had no room for what it was told."""
        return self._orders.full

    @property
    def stopped(self) -> bool:
        """Whether the emergency stop was used."""
        return self.parts.board[STOP] != 0.0

    def state_of(self, actuator: str) -> str:
        """Its controller's: ``idle``, ``moving``, ``holding`` or ``stopped``."""
        from dp_hub.robot.motion.motion import STATES

        return STATES[int(self.parts.board[f"{actuator}.state"])]

    def reset(self, seed: int | None = None, state: np.ndarray | None = None) -> None:
        """Put a simulated world into a start state; what is observed begins there.

        Raises:
            RobotError: it does not answer, or this is no simulation.
        """
        if self.world is None:
            raise RobotError(f"{self.config.robot_type} is no simulation and cannot be reset")
        if self.stopped:
            raise RobotError("the robot was stopped", hint="start the command again")
        self._rest()
        began_s = self.world.reset(seed, state)
        self.forget(began_s)
        self.wait_until(lambda: self._all_newer(began_s), "nothing was measured")

    def _rest(self) -> None:
        """Throw all plans away, and wait until nothing moves: targets of a braking arm count."""
        self.hold()
        self.resume()
        board, queues = self.parts.board, self.parts.commands
        self.wait_until(lambda: self._orders.are_taken, "the controllers took no orders")
        ticks = {name: board[f"{name}.ticks"] + 2 for name in queues}  # by then it is told
        self.wait_until(
            lambda: all(
                self.state_of(name) == "idle" and board[f"{name}.ticks"] >= tick
                for name, tick in ticks.items()
            ),
            "the robot did not come to rest",
        )

    def _all_newer(self, time_s: float) -> bool:
        """Whether all that measures by itself has told what was true after a time."""
        devices: dict[str, float] = {
            **{name: one.state_latency_s for name, one in self.config.actuators.items()},
            **{name: one.latency_s for name, one in self.config.cameras.items()},
        }
        return all(
            self.rings[name].newest_s - latency_s >= time_s for name, latency_s in devices.items()
        )

    def counts(self) -> dict[str, Any]:
        """What was lost, late, limited or refused, by device."""
        board = self.parts.board
        arms = {name: read_report(board, name).as_dict() for name in self.config.actuators}
        seen = {name: camera.counts(board, name) for name in self.config.cameras}
        return {**arms, **seen, "full_queues": self.full_queues}

    @property
    def _measuring(self) -> list[str]:
        """Streams that give something by themselves."""
        return [*self.parts.commands, *self.config.cameras]

    def wait_until(
        self, done: Callable[[], bool], otherwise: str, *, within_s: float = _FIRST_S
    ) -> None:
        """Wait, and keep the robot alive meanwhile. Raises RobotError, ``otherwise``: too long."""
        until_s = self.clock.now_s() + within_s
        while not done():
            self.beat()
            self.check()
            if self.clock.now_s() > until_s:
                raise RobotError(f"{otherwise} within {within_s:g} s")
            self.clock.sleep_until(self.clock.now_s() + _POLL_S)

    def _wait_for_workers(self) -> None:
        self.beat()
        for worker in self.parts.workers.values():
            worker.wait_ready(_READY_S)
            self.beat()

    def _wait_for_samples(self) -> None:
        silent = [name for name in self._measuring if not self.rings[name].count]
        while silent:
            self.wait_until(lambda: self.rings[silent[0]].count > 0, f"{silent[0]} gave nothing")
            silent.pop(0)
