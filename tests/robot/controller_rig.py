"""A controller in a process of its own, with all that it needs, for tests."""

import time
from collections.abc import Callable

from made_actuator import PLANE, MakeActuator

from dp_hub.robot.fields import Field
from dp_hub.robot.motion.controller import ControllerJob, run, sent_fields
from dp_hub.robot.motion.limits import Limits
from dp_hub.robot.motion.plan import Command, pack, plan_fields
from dp_hub.robot.motion.reporting import Report, cells, read_report
from dp_hub.robot.shared.board import Board
from dp_hub.robot.shared.queue import Queue
from dp_hub.robot.shared.ring import Ring
from dp_hub.robot.worker import Worker

RATE_HZ = 100.0
LIMITS = Limits(low=[-10, -10], high=[10, 10], speed=1.0, acceleration=2.0)
PATIENT_S = 60.0  # it does not hold because the machine stood still for a while
STATE = (Field("position", (2,)), Field("target", (2,)))


class Rig:
    """One controller and its ends of the shared memory."""

    def __init__(self, make: MakeActuator, *, dry: bool = False) -> None:
        self.state = Ring.create(STATE, rate_hz=RATE_HZ, keep=1000)
        self.sent = Ring.create(sent_fields(PLANE), rate_hz=RATE_HZ, keep=1000)
        self.commands = Queue.create(plan_fields(2), capacity=16)
        self.board = Board.create([*cells("arm"), "stop", "heartbeat"])
        job = ControllerJob(
            name="arm",
            make=make,
            limits=LIMITS,
            interpolation="linear",
            rate_hz=RATE_HZ,
            state=self.state.spec,
            sent=self.sent.spec,
            commands=self.commands.spec,
            board=self.board.spec,
            hold_after_s=PATIENT_S,
            dry_run=dry,
        )
        self.worker = Worker("the arm's controller", run, job, beat_within_s=PATIENT_S)

    def start(self) -> None:
        """Until it is ready."""
        self.worker.start()
        self.worker.wait_ready(60)

    def __enter__(self) -> "Rig":
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.stop(20)
        for one in (self.state, self.sent, self.commands, self.board):
            one.close()
            one.unlink()

    def beat(self) -> None:
        """As the commander."""
        self.board["heartbeat"] = time.monotonic()

    def lose_beat(self) -> None:
        """As if the commander had not been there for long."""
        self.board["heartbeat"] = time.monotonic() - 2 * PATIENT_S

    def tell(self, command: Command) -> None:
        """As the commander."""
        self.commands.put(pack(command, 2))

    @property
    def report(self) -> Report:
        """What it has told."""
        return read_report(self.board, "arm")

    def until(self, done: Callable[[], object], *, beating: bool = True) -> None:
        """Wait, with or without a heartbeat."""
        end_s = time.monotonic() + 60
        while not done():
            assert time.monotonic() < end_s, self.report
            if beating:
                self.beat()
            time.sleep(0.005)
