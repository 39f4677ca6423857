"""What a robot's session is made of: memory, queues and workers, made from its configuration."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from dp_hub.errors import ConfigError
from dp_hub.robot.config import ActuatorConfig, RobotConfig
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
_HANGS_S = 2.0


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
    """Make everything and start the workers; what is made is given back by ``stack``.

    Raises:
        ConfigError: a device does not exist, or its options or limits do not fit.
        RobotError: a library or a device is missing.
    """
    sweep()
    world, call = _world(config, stack)
    ports = world.ports if world else None
    board = _kept(stack, Board.create([BEAT, STOP, *_cells(config)]))
    parts = Parts(board, ports=ports)
    if world and call:
        job = process.WorldJob(call, world.ports)
        parts.workers["world"] = Worker(
            "the simulated world", process.run, job, scheduling=scheduling, beat_within_s=_HANGS_S
        )
        _start(parts.workers["world"], stack)
        parts.workers["world"].wait_ready(30.0)
        parts.world = WorldControl(world.ports)
        stack.callback(parts.world.close)
    for name, one in config.actuators.items():
        _add_actuator(parts, config, name, one, ports, stack, dry_run, scheduling)
    for name, seen in config.cameras.items():
        where = f"cameras.{name}"
        made = device_call(CAMERAS, seen.device, seen.options, where=where)
        shape = _shape(made, ports, where)
        ring = _ring(parts, stack, name, (camera.picture_field(shape),), seen.rate_hz, config)
        job_of = camera.CameraJob(name, made, ring.spec, board.spec, ports)
        parts.workers[name] = Worker(
            f"camera {name}", camera.run, job_of, scheduling=scheduling, beat_within_s=_HANGS_S
        )
        _start(parts.workers[name], stack)
    return parts


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


def _add_actuator(
    parts: Parts,
    config: RobotConfig,
    name: str,
    one: ActuatorConfig,
    ports: Ports | None,
    stack: ExitStack,
    dry_run: bool,
    scheduling: Scheduling | None,
) -> None:
    kind, group = ("arms", ARMS) if name in config.arms else ("grippers", GRIPPERS)
    call = device_call(group, one.device, one.options, where=f"{kind}.{name}")
    made: Actuator = call.make(ports)
    one.limits.check(made.space, where=f"{kind}.{name}.limits")
    if not config.is_simulated and (missing := one.limits.missing(made.space)):
        raise ConfigError(
            f"{kind}.{name} has no limits for {', '.join(missing)}",
            hint=f"set {kind}.{name}.limits: a robot that is no simulation is not moved without",
        )
    state = _ring(parts, stack, name, made.fields, one.rate_hz, config)
    sent = _ring(
        parts, stack, f"{name}.sent", controller.sent_fields(made.space), one.rate_hz, config
    )
    queue = _kept(stack, Queue.create(plan_fields(made.space.size), capacity=_COMMANDS))
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
        dry_run=dry_run,
        ports=ports,
    )
    parts.workers[name] = Worker(
        f"the controller of {name}",
        controller.run,
        job,
        scheduling=scheduling,
        beat_within_s=_HANGS_S,
    )
    _start(parts.workers[name], stack)


def _ring(
    parts: Parts,
    stack: ExitStack,
    name: str,
    fields: tuple[Field, ...],
    rate_hz: float,
    config: RobotConfig,
) -> Ring:
    keep = round(config.history_s * rate_hz) + 2
    ring = _kept(stack, Ring.create(fields, rate_hz=rate_hz, keep=keep))
    parts.rings[name], parts.rates_hz[name] = ring, rate_hz
    return ring


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


def _start(worker: Worker[Any], stack: ExitStack) -> None:
    stack.callback(worker.stop)
    worker.start()


def counters(board: Board, names: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What controllers and cameras counted, by device."""
    told: dict[str, dict[str, float]] = {name: {} for name in names}
    for cell in board:
        device, _, what = cell.partition(".")
        if device in told:
            told[device][what] = board[cell]
    return told
