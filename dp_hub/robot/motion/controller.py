"""The process that alone talks to an actuator: plans come in, limited targets go out, every tick.

Whatever happens elsewhere ends here in one of three ways, going on, holding and stopping:

| what                                        | what it does                                    |
|---------------------------------------------|-------------------------------------------------|
| the commander's heartbeat is too old        | holds; plans that come are thrown away; goes on |
|                                             | with the first plan that comes when it is back  |
| it is asked to end                          | holds, at rest ends                             |
| the process that started it is gone         | holds, at rest stops the actuator and ends      |
| the stop cell is not 0, or the order `STOP` | stops the actuator, for good; goes on reading   |
| a plan cannot be carried out (not finite,   | goes on with the plan before                    |
| an older one, of other numbers)             |                                                 |
| a plan exceeds limits, is past or far off   | goes on within the limits                       |
| the actuator's own clock steps              | its readings have the time at which they came   |
| the actuator fails                          | stops it as far as it can be, ends with the     |
|                                             | error, which reaches the process that started it|
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.clock import Clock, MonotonicClock, Tick, ticks
from dp_hub.robot.devices.protocols import Actuator, Reading
from dp_hub.robot.fields import Field
from dp_hub.robot.motion.limits import Limits
from dp_hub.robot.motion.motion import STATES, Motion
from dp_hub.robot.motion.plan import Command, Order, Plan, unpack
from dp_hub.robot.motion.reporting import Reporter
from dp_hub.robot.motion.trajectory import Interpolation
from dp_hub.robot.motion.violations import Event
from dp_hub.robot.shared.board import Board, BoardSpec
from dp_hub.robot.shared.queue import Queue, QueueSpec
from dp_hub.robot.shared.ring import Ring, RingSpec
from dp_hub.robot.space import Space
from dp_hub.robot.working import Context

log = logging.getLogger(__name__)
STOP_CELL = "stop"
HEARTBEAT_CELL = "heartbeat"
_QUIET = ("hold", "resume", "dry")


class Makes(Protocol):
    """A `DeviceCall`, or another that can be pickled."""

    def make(self, ports: Any = None) -> Any:
        """The actuator, not open yet."""


@dataclass(frozen=True, kw_only=True)
class ControllerJob:
    """What a controller does.

    Args:
        name: of the actuator; its cells on the board begin with it.
        make: makes the actuator.
        limits: that no target exceeds.
        interpolation: between way-points.
        rate_hz: of ticks.
        action_latency_s: from sending a target to the actuator being there; targets are asked for
            that much later than now.
        state: a ring of the actuator's ``fields``, one sample for each new reading.
        sent: a ring of `sent_fields`, one sample for each target.
        commands: a queue of `plan_fields`.
        board: with the cells `reporting.cells` (written here) and the two below.
        hold_after_s: a heartbeat older than this is lost; infinite: nobody has to beat.
        dry_run: nothing is sent. What would be is in the ring, and counts as followed.
        ports: of the simulated world, if the actuator is in one.
        stop_cell: the emergency stop: anything but 0 stops.
        heartbeat_cell: the monotonic seconds at which the commander was last alive.
    """

    name: str
    make: Makes
    limits: Limits
    interpolation: Interpolation
    rate_hz: float
    action_latency_s: float = 0.0
    state: RingSpec
    sent: RingSpec
    commands: QueueSpec
    board: BoardSpec
    hold_after_s: float
    dry_run: bool = False
    ports: Any = None
    stop_cell: str = STOP_CELL
    heartbeat_cell: str = HEARTBEAT_CELL


def sent_fields(space: Space) -> tuple[Field, ...]:
    """A sample of what was sent: the target, the number of the state in `STATES`, and the plan's.

    Its time is when it was sent.
    """
    return (
        Field("target", (space.size,), units=space.units, names=space.names),
        Field("state", (), "int64"),
        Field("plan", (), "int64"),
    )


def run(context: Context, job: ControllerJob) -> None:
    """A controller's process. Raises RobotError, after stopping the actuator, if that fails."""
    actuator: Actuator = job.make.make(job.ports)
    job.limits.check(actuator.space, where=f"{job.name}.limits")
    with _attached(job) as shared:
        try:
            actuator.open()
            _control(context, Controller(job, actuator, shared, MonotonicClock()))
        finally:
            actuator.close()


def _control(context: Context, controller: "Controller") -> None:
    why: str | None = "the controller ends on an error"
    try:
        context.ready()
        for tick in ticks(controller.period_s, controller.clock, spin_s=context.scheduling.spin_s):
            context.beat(controller.clock.now_s())
            if context.stopping:
                controller.end()
            controller.tick(tick)
            if controller.is_over:
                break
        why = "its session is gone" if context.orphaned else None
    finally:
        if why is not None:
            controller.stop_actuator(why)
        controller.close()


@dataclass(frozen=True)
class Shared:
    """A controller's ends of the shared memory."""

    state: Ring
    sent: Ring
    commands: Queue
    board: Board


@contextmanager
def _attached(job: ControllerJob) -> Iterator[Shared]:
    shared = Shared(
        Ring.attach(job.state),
        Ring.attach(job.sent),
        Queue.attach(job.commands),
        Board.attach(job.board),
    )
    try:
        yield shared
    finally:
        for one in (shared.state, shared.sent, shared.commands, shared.board):
            one.close()


class Controller:
    """One tick after the other, on any clock. The actuator is open, and is read at once.

    Args:
        job: see there; its specs are not looked at.
        actuator: open.
        shared: attached.
        clock: that ticks are counted on.
    """

    def __init__(
        self, job: ControllerJob, actuator: Actuator, shared: Shared, clock: Clock
    ) -> None:
        self.clock, self.period_s = clock, 1.0 / job.rate_hz
        self._job, self._actuator, self._shared = job, actuator, shared
        self._reporter = Reporter(shared.board, job.name)
        self._read_s = self._device_s = self._sent_s = -np.inf
        self._ending = False
        self._told_hold = self._told_stop = self._blind = False
        self._held_since_s = np.inf
        self.motion = Motion(
            actuator.space,
            job.limits,
            job.interpolation,
            start=self._read(),
            period_s=self.period_s,
            ahead_s=job.action_latency_s,
        )
        self._reporter.tell(self.motion)

    @property
    def is_over(self) -> bool:
        """Whether it was asked to end and has done all that comes before."""
        rest_s = self.clock.now_s() - self._held_since_s
        at_rest = self._told_hold and rest_s >= self._job.action_latency_s
        return self._ending and (at_rest or self.motion.state == "stopped")

    def end(self) -> None:
        """Come to rest, then be over; asked again, it does nothing more."""
        if not self._ending:
            self._ending = True
            self.motion.hold(self.clock.now_s(), "it is asked to end")

    def tick(self, tick: Tick) -> None:
        """Take commands, send a target, read.

        Raises:
            RobotError: the actuator failed.
        """
        now_s = self.clock.now_s()
        if self._shared.board[self._job.stop_cell] != 0.0:
            self.motion.stop(now_s, "the emergency stop")
        self._take_commands(now_s)
        self._send(self.motion.target(now_s), now_s)
        self._tell_actuator(now_s)
        self._look()
        self._reporter.ticked(tick.late_s, tick.missed)
        self._reporter.tell(self.motion)
        _log(self._job.name, self.motion.take_events())

    def stop_actuator(self, why: str) -> None:
        """As well as it can be done: a device that has failed may not take a stop either."""
        self.motion.stop(self.clock.now_s(), why)
        if not self._told_stop:
            try:
                self._actuator.stop()
                self._told_stop = True
            except RobotError as error:
                log.error("%s does not take a stop: %s", self._job.name, error)
        self._reporter.tell(self.motion)

    def close(self) -> None:
        """Log what is left to tell."""
        _log(self._job.name, self.motion.close())

    def _take_commands(self, now_s: float) -> None:
        lost_s = now_s - self._shared.board[self._job.heartbeat_cell]
        lost = lost_s > self._job.hold_after_s
        if lost and self.motion.state == "moving":
            why = f"the commander's last heartbeat is {lost_s:.3f} s old"
            self.motion.hold(now_s, why, needs_resume=False)
        for record in self._shared.commands.take():
            command = unpack(record)
            if lost and isinstance(command, Plan):
                self.motion.refuse(command, now_s, "the commander's heartbeat is lost")
            else:
                self._obey(command, now_s)

    def _obey(self, command: Command, now_s: float) -> None:
        if isinstance(command, Plan):
            self.motion.accept(command, now_s)
        elif command is Order.HOLD:
            self.motion.hold(now_s, "it is told to")
        elif command is Order.RESUME and not self._ending:
            self.motion.resume(now_s)
        elif command is Order.STOP:
            self.motion.stop(now_s, "it is told to")

    def _send(self, target: np.ndarray | None, now_s: float) -> None:
        if target is None:
            return
        if not self._job.dry_run:
            self._actuator.send(target)
        if now_s > self._sent_s:
            numbers = (STATES.index(self.motion.state), self.motion.newest)
            state, plan = np.array(numbers, dtype=np.int64)
            self._shared.sent.put(now_s, {"target": target, "state": state, "plan": plan})
            self._sent_s = now_s
        if self._job.dry_run:
            self.motion.saw(target)

    def _tell_actuator(self, now_s: float) -> None:
        """Once, when it is at rest, to hold, or to stop."""
        if self.motion.state == "stopped":
            if not self._told_stop:
                self._actuator.stop()
                self._told_stop = True
            return
        if not self.motion.held:
            self._told_hold = False
            return
        if not self._told_hold:
            self._told_hold, self._held_since_s = True, now_s
            if not self._job.dry_run:
                self._actuator.hold()

    def _look(self) -> None:
        if self._blind:
            return
        try:
            position = self._read()
        except RobotError as error:
            if not self._told_stop:
                raise
            self._blind = True  # it was stopped, and there is nothing more to be done
            log.warning("%s cannot be read since it was stopped: %s", self._job.name, error)
            return
        if not (self._job.dry_run and self.motion.state == "moving"):
            self.motion.saw(position)

    def _read(self) -> np.ndarray:
        reading = self._actuator.read()
        position = reading.values["position"]
        if not np.isfinite(position).all():
            raise RobotError(f"{self._job.name} measures the position {position.tolist()}")
        if reading.time_s != self._device_s:
            self._device_s = reading.time_s
            self._put(reading)
        return position

    def _put(self, reading: Reading) -> None:
        now_s, time_s = self.clock.now_s(), reading.time_s
        if not self._read_s < time_s <= now_s:
            # A device whose clock stepped. When the reading came is known in any case.
            self._reporter.restamped()
            log.debug("%s: a reading of %.3f s came at %.3f s", self._job.name, time_s, now_s)
            time_s = now_s
        if time_s > self._read_s:
            self._shared.state.put(time_s, reading.values)
            self._read_s = time_s


def _log(name: str, events: list[Event]) -> None:
    for event in events:
        level = logging.DEBUG if event.kind in _QUIET else logging.WARNING
        log.log(level, "%s: %s", name, event)
