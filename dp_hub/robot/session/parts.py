"""What a robot's session is made of: memory, queues and workers, made from its configuration."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from dp_hub.errors import ConfigError
from dp_hub.robot.config import ActuatorConfig, CameraConfig, RobotConfig
from dp_hub.robot.devices.protocols import Actuator
from dp_hub.robot.devices.registry import ARMS, CAMERAS, GRIPPERS, WORLDS, DeviceCall, device_call
from dp_hub.robot.fields import Field
from dp_hub.robot.motion import controller, reporting
from dp_hub.robot.motion.plan import plan_fields
from dp_hub.robot.session import camera
from dp_hub.robot.shared.board import Board
from dp_hub.robot.shared.queue import Queue
from dp_hub.robot.shared.ring import Ring
from dp_hub.robot.shared.segment import sweep
from dp_hub.robot.space import Space
from dp_hub.robot.worker import Scheduling, Worker
from dp_hub.robot.worlds import process
from dp_hub.robot.worlds.control import WorldControl
from dp_hub.robot.worlds.ports import Ports, WorldMemory

log = logging.getLogger(__name__)

BEAT, STOP = "session.beat_s", "session.stop"
"""Cells that the session writes: when it was last well, and 1 for the emergency stop."""
_COMMANDS = 32
NUMBERS_S = 10.0
"""So far back numbers can be read, by a recorder that was held up; they cost little memory."""
_HANGS_S = 2.0
_WORLD_READY_S = 30.0


@dataclass
class Parts:
    """All of a running session that has to be given back.

    Args:
        board: cells of the session, the controllers and the cameras.
        rings: by stream: ``arm`` has readings, ``arm.sent`` targets, ``top`` pictures.
        rates_hz: of the rings.
        commands: by actuator.
        spaces: by actuator.
        workers: by name, in the order they are started.
        world: asks the simulated world, if there is one.
        ports: of that world.
    """

    board: Board
    rings: dict[str, Ring] = field(default_factory=dict)
    rates_hz: dict[str, float] = field(default_factory=dict)
    commands: dict[str, Queue] = field(default_factory=dict)
    spaces: dict[str, Space] = field(default_factory=dict)
    workers: dict[str, Worker[Any]] = field(default_factory=dict)
    world: WorldControl | None = None
    ports: Ports | None = None

    @property
    def streams(self) -> dict[str, Field]:
        """By ``ring.field``, and by the camera's name for pictures: what can be observed."""
        found: dict[str, Field] = {}
        for name, ring in self.rings.items():
            for one in ring.spec.fields:
                found[name if one.name == camera.PICTURE else f"{name}.{one.name}"] = one
        return found


def make_parts(
    config: RobotConfig, stack: ExitStack, *, dry_run: bool, scheduling: Scheduling | None
) -> Parts:
    """Make all memory and plan all workers; what is made is given back by ``stack``.

    Nothing is started and no hardware is touched, so that what does not fit is refused before.

    Raises:
        ConfigError: a device does not exist, or its options or limits do not fit or are missing.
        RobotError: a library is missing.
    """
    sweep()
    world, call = _world(config, stack)
    board = _kept(stack, Board.create([BEAT, STOP, *_cells(config)]))
    parts = Parts(board, ports=world.ports if world else None)
    making = _Making(config, parts, stack, dry_run, scheduling)
    if world and call:
        making.add_worker(
            "world", "the simulated world", process.run, process.WorldJob(call, world.ports)
        )
        parts.world = WorldControl(world.ports)
        stack.callback(parts.world.close)
    for name, one in config.actuators.items():
        making.add_actuator(name, one)
    for name, seen in config.cameras.items():
        making.add_camera(name, seen)
    return parts


def start_parts(parts: Parts, stack: ExitStack) -> None:
    """Start all workers, the simulated world first: its devices look for it.

    They are ended by ``stack``. Raises RobotError: the world does not begin.
    """
    for name, worker in parts.workers.items():
        stack.callback(worker.stop)
        worker.start()
        if name == "world":
            worker.wait_ready(_WORLD_READY_S)


def _world(config: RobotConfig, stack: ExitStack) -> tuple[WorldMemory | None, DeviceCall | None]:
    if config.world is None:
        return None, None
    call = device_call(WORLDS, config.world.device, config.world.options, where="world")
    return stack.enter_context(WorldMemory(call.make())), call


def _cells(config: RobotConfig) -> Iterator[str]:
    for name in config.actuators:
        yield from reporting.cells(name)
    for name in config.cameras:
        yield from camera.board_cells(name)


@dataclass(frozen=True)
class _Making:
    """What is common to the parts that are made."""

    config: RobotConfig
    parts: Parts
    stack: ExitStack
    dry_run: bool
    scheduling: Scheduling | None

    def add_worker(self, key: str, name: str, main: Any, job: Any) -> None:
        self.parts.workers[key] = Worker(
            name, main, job, scheduling=self.scheduling, beat_within_s=_HANGS_S
        )

    def add_actuator(self, name: str, one: ActuatorConfig) -> None:
        config, parts = self.config, self.parts
        kind, group = ("arms", ARMS) if name in config.arms else ("grippers", GRIPPERS)
        call = device_call(group, one.device, one.options, where=f"{kind}.{name}")
        made: Actuator = call.make(parts.ports)
        one.limits.check(made.space, where=f"{kind}.{name}.limits")
        if not call.is_simulated:
            _check_real(config, one, made.space, where=f"{kind}.{name}")
        sent_fields = controller.sent_fields(made.space)
        state = self.add_ring(name, made.fields, one.rate_hz)
        sent = self.add_ring(f"{name}.sent", sent_fields, one.rate_hz)
        queue = _kept(self.stack, Queue.create(plan_fields(made.space.size), capacity=_COMMANDS))
        parts.commands[name], parts.spaces[name] = queue, made.space
        job = controller.ControllerJob(
            name=name,
            make=call,
            limits=one.limits,
            interpolation=one.interpolation,
            rate_hz=one.rate_hz,
            action_latency_s=one.action_latency_s,
            state=state.spec,
            sent=sent.spec,
            commands=queue.spec,
            board=parts.board.spec,
            heartbeat_cell=BEAT,
            stop_cell=STOP,
            hold_after_s=config.hold_after_s,
            dry_run=self.dry_run,
            ports=parts.ports,
        )
        self.add_worker(name, f"the controller of {name}", controller.run, job)

    def add_camera(self, name: str, seen: CameraConfig) -> None:
        where, parts = f"cameras.{name}", self.parts
        call = device_call(CAMERAS, seen.device, seen.options, where=where)
        picture = camera.picture_field(_shape(call, parts.ports, where))
        ring = self.add_ring(name, (picture,), seen.rate_hz)
        job = camera.CameraJob(name, call, ring.spec, parts.board.spec, parts.ports)
        self.add_worker(name, f"camera {name}", camera.run, job)

    def add_ring(self, name: str, fields: tuple[Field, ...], rate_hz: float) -> Ring:
        pictures = any(field.is_picture for field in fields)
        kept_s = self.config.history_s if pictures else max(self.config.history_s, NUMBERS_S)
        keep = round(kept_s * rate_hz) + 2
        ring = _kept(self.stack, Ring.create(fields, rate_hz=rate_hz, keep=keep))
        self.parts.rings[name], self.parts.rates_hz[name] = ring, rate_hz
        return ring


def _check_real(config: RobotConfig, one: ActuatorConfig, space: Space, *, where: str) -> None:
    """What can hit somebody has limits, and no simulation lets it begin by itself."""
    if config.is_simulated:
        raise ConfigError(
            f"{where} is a real device ({one.device}) of a robot with a simulated `world`",
            hint="take the `world` out, or a device of the simulated world",
        )
    if missing := one.limits.missing(space):
        raise ConfigError(
            f"{where} has no limits for {', '.join(missing)}",
            hint=f"set {where}.limits: a robot that is no simulation is not moved without",
        )


def _shape(call: DeviceCall, ports: Ports | None, where: str) -> tuple[int, int, int]:
    made = call.make(ports)
    shape = tuple(getattr(made, "shape", None) or ())
    if len(shape) != 3 or not all(size > 0 for size in shape):
        raise ConfigError(
            f"{where}: how large the pictures of {call.name!r} are is not known before it is open",
            hint=f"set its size in {where}.options",
        )
    return shape


def _kept(stack: ExitStack, memory: Any) -> Any:
    def give_back() -> None:
        memory.close()
        memory.unlink()

    stack.callback(give_back)
    return memory
