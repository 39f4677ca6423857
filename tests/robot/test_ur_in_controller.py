"""A UR arm in the controller's process: plans reach the robot, its stops reach the parent."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

pytest.importorskip("rtde_control")

from rtde_process import RobotProcess, robot_at_a_free_address
from rtde_robot import HOME

from dp_hub.errors import RobotError
from dp_hub.robot.devices.registry import ARMS, device_call
from dp_hub.robot.motion.controller import ControllerJob, run, sent_fields
from dp_hub.robot.motion.limits import Limits
from dp_hub.robot.motion.plan import Plan, pack, plan_fields
from dp_hub.robot.motion.reporting import cells, read_report
from dp_hub.robot.shared.board import Board
from dp_hub.robot.shared.queue import Queue
from dp_hub.robot.shared.ring import Ring
from dp_hub.robot.worker import Worker

RATE_HZ = 125.0


class Driven:
    """A controller of the stand-in's joints, and its commander's ends."""

    def __init__(self, robot: RobotProcess) -> None:
        patient = {"silent_s": 10.0, "watchdog_hz": 0.5}  # a busy machine needs it
        call = device_call(ARMS, "ur", {"host": robot.host, "control": "joints"} | patient)
        arm = call.make()
        self.robot = robot
        self.state = Ring.create(arm.fields, rate_hz=RATE_HZ, keep=1000)
        self.sent = Ring.create(sent_fields(arm.space), rate_hz=RATE_HZ, keep=1000)
        self.commands = Queue.create(plan_fields(6), capacity=16)
        self.board = Board.create([*cells("arm"), "stop", "heartbeat"])
        job = ControllerJob(
            name="arm",
            make=call,
            limits=Limits(low=[-7] * 6, high=[7] * 6, speed=[1.0] * 6, acceleration=[4.0] * 6),
            interpolation="linear",
            rate_hz=RATE_HZ,
            state=self.state.spec,
            sent=self.sent.spec,
            commands=self.commands.spec,
            board=self.board.spec,
            hold_after_s=60.0,
        )
        self.worker = Worker("the arm's controller", run, job, beat_within_s=60.0)

    def go(self, target: np.ndarray, in_s: float) -> None:
        """A plan of one point."""
        self.board["heartbeat"] = time.monotonic()
        plan = Plan(0, np.array([time.monotonic() + in_s]), target[None], 0.0)
        self.commands.put(pack(plan, 6))

    def until(self, done: Callable[[], object]) -> None:
        """Wait, alive."""
        end_s = time.monotonic() + 30
        while not done():
            assert time.monotonic() < end_s, read_report(self.board, "arm")
            self.board["heartbeat"] = time.monotonic()
            self.worker.check()
            time.sleep(0.01)

    def close(self) -> None:
        """Whatever happened."""
        self.worker.stop(20)
        for one in (self.state, self.sent, self.commands, self.board):
            one.close()
            one.unlink()


@pytest.fixture
def driven() -> Iterator[Driven]:
    with robot_at_a_free_address() as robot:
        one = Driven(robot)
        try:
            one.worker.start()
            one.worker.wait_ready(60)
            yield one
        finally:
            one.close()


def test_a_plan_moves_the_robot_within_the_limits_of_speed(driven):
    target = HOME + np.array([0.3, 0.2, 0.1, 0, 0, -0.3])
    driven.go(target, 0.5)
    driven.until(lambda: np.abs(driven.robot.see("joints") - target).max() < 1e-6)
    states = driven.state.last(1000)
    assert (np.diff(states.times_s) > 0).all()
    np.testing.assert_allclose(states.values["position"][-1], states.values["joints"][-1])
    servos = driven.robot.see("servos")
    steps = np.abs(np.diff([one.target for one in servos], axis=0))
    assert len(servos) > 20 and steps.max() < 4 / RATE_HZ  # some are passed over on a busy machine
    driven.worker.stop(20)
    assert not driven.robot.see("program")


def test_a_protective_stop_reaches_the_parent_in_words(driven):
    driven.go(HOME + 1.0, 1.0)
    driven.until(lambda: len(driven.robot.see("servos")) > 10)
    driven.robot.do("protective_stop")
    with pytest.raises(RobotError, match="has stopped itself: protective stop"):
        driven.until(lambda: False)


def test_a_lost_connection_reaches_the_parent(driven):
    driven.go(HOME + 1.0, 1.0)
    driven.until(lambda: len(driven.robot.see("servos")) > 10)
    driven.robot.do("drop")
    with pytest.raises(RobotError, match=r"the UR arm at .* is gone"):
        driven.until(lambda: False)


def test_the_robot_stops_itself_when_the_controller_is_killed(driven):
    driven.go(HOME + 3.0, 3.0)
    driven.until(lambda: len(driven.robot.see("servos")) > 20)
    os.kill(driven.worker.pid, signal.SIGKILL)
    end_s = time.monotonic() + 30
    while driven.robot.see("safety_mode") != 3:
        assert time.monotonic() < end_s, "nobody stopped it"
        time.sleep(0.01)
    first = driven.robot.see("joints")
    time.sleep(0.2)
    np.testing.assert_array_equal(driven.robot.see("joints"), first)
    assert (first < HOME + 2.9).all()
