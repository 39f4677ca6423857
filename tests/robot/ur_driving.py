"""Drives a UR arm as a controller does, here or, where it gets lost, in another process."""

import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from rtde_process import RobotProcess
from rtde_robot import HOME_POSE
from world_help import wait_for

from dp_hub.errors import RobotError
from dp_hub.robot.devices.protocols import Reading
from dp_hub.robot.devices.ur import UrArm

PERIOD_S = 0.008


def arm_at(host: str, **options: Any) -> UrArm:
    """With the patience that a busy machine needs."""
    return UrArm(host=host, **({"silent_s": 10.0, "watchdog_hz": 0.2} | options))


def threads() -> int:
    """Of this process, those of C++ libraries too."""
    return len(os.listdir(f"/proc/{os.getpid()}/task"))


def drive(arm: UrArm, path: np.ndarray, period_s: float = PERIOD_S) -> list[Reading]:
    """Send a row every period, as a controller does, and read before each."""
    readings = []
    due_s = time.monotonic()
    for target in path:
        readings.append(arm.read())
        arm.send(target)
        due_s = max(due_s + period_s, time.monotonic())  # never in a burst
        time.sleep(max(0.0, due_s - time.monotonic()))
    return readings


def until_it_fails(arm: UrArm, *, within_s: float = 30.0) -> tuple[RobotError, float]:
    """Read as a controller does; the error, and the longest that a call took."""
    longest_s = 0.0
    target = HOME_POSE
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        begin_s = time.monotonic()
        try:
            arm.read()
            arm.send(target)
        except RobotError as error:
            return error, max(longest_s, time.monotonic() - begin_s)
        longest_s = max(longest_s, time.monotonic() - begin_s)
        time.sleep(PERIOD_S)
    raise AssertionError(f"no error in {within_s} s")


@dataclass(frozen=True)
class Lost:
    """How a driver found that its robot was gone.

    Args:
        message: of its error.
        longest_s: that a call took.
        closing_s: how long it took to close.
        leaves_threads: whether some of its were there afterwards.
    """

    message: str
    longest_s: float
    closing_s: float
    leaves_threads: bool


def lost(robot: RobotProcess, lose: Callable[[], Any], *, stop: bool = False) -> Lost:
    """Drive in a process of its own, as controllers do, and lose the robot on the way.

    What is left of ur_rtde then goes on looking for the robot until its process ends: it finds the
    robot of another test, or ends its process, when that robot goes too, with SIGABRT.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe()
    process = spawn.Process(target=_drive_until_lost, args=(its, robot.host, stop), daemon=True)
    process.start()
    its.close()
    try:
        assert ours.recv() == "driven"
        lose()
        ours.send("lost")
        return ours.recv()
    finally:
        process.kill()
        process.join()
        ours.close()


def _drive_until_lost(pipe: Connection, host: str, stop: bool) -> None:
    before = threads()
    arm = arm_at(host, silent_s=1.5)
    arm.open()
    drive(arm, np.tile(HOME_POSE, (20, 1)))
    pipe.send("driven")
    pipe.recv()
    error, longest_s = until_it_fails(arm)
    begin_s = time.monotonic()
    if stop:
        arm.stop()
    arm.close()
    closing_s = time.monotonic() - begin_s
    with suppress(AssertionError):
        wait_for(lambda: threads() == before, 5.0)
    pipe.send(Lost(error.message, longest_s, closing_s, threads() != before))
    time.sleep(60)  # until it is killed
