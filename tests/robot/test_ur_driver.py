"""The UR driver and the real ur_rtde against a stand-in that speaks the controller's protocols."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rtde_control")

from rtde_process import RobotProcess, robot_at_a_free_address
from rtde_robot import HOME, HOME_POSE, SERVO_J, SERVO_L, SERVO_STOP, SET_WATCHDOG, joints_of
from ur_driving import arm_at, drive, lost, threads, until_it_fails
from world_help import wait_for

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices.protocols import Reading
from dp_hub.robot.devices.ur import UrArm

HANGS_S = 2.0
"""A call that takes longer waits for what does not come: in ur_rtde 3 s and more."""


@pytest.fixture
def robot() -> Iterator[RobotProcess]:
    with robot_at_a_free_address() as one:
        yield one


def arm_of(robot: RobotProcess, **options: Any) -> UrArm:
    return arm_at(robot.host, **options)


def at_rest(arm: UrArm) -> np.ndarray:
    """Where it is when five readings in a row tell the same place."""
    seen: list[Reading] = []

    def rests() -> bool:
        one = arm.read()
        if not seen or one.time_s != seen[-1].time_s:
            seen.append(one)
        last = [reading.values["position"] for reading in seen[-5:]]
        return len(last) == 5 and all(np.array_equal(place, last[0]) for place in last)

    wait_for(rests)
    return seen[-1].values["position"]


@pytest.mark.parametrize("control", ["joints", "pose"])
def test_targets_at_125_hz_reach_the_robot_in_order_and_it_follows(robot, control):
    home = HOME if control == "joints" else HOME_POSE
    n_targets = 250 if control == "joints" else 100
    shares = np.sin(np.linspace(0, np.pi / 2, n_targets))[:, None]
    path = home + shares * 0.05 * np.array([1, -1, 1, 0.5, 0, 0])
    arm = arm_of(robot, control=control, lookahead_s=0.05, gain=500)
    arm.open()
    try:
        readings = drive(arm, path)
        wait_for(lambda: np.abs(arm.read().values["position"] - path[-1]).max() < 1e-9)
    finally:
        arm.close()
    servos = robot.see("servos")
    assert {one.command for one in servos} == {SERVO_J if control == "joints" else SERVO_L}
    assert {(one.period_s, one.lookahead_s, one.gain) for one in servos} == {(0.008, 0.05, 500.0)}
    rows = [np.flatnonzero((path == one.target).all(1)) for one in servos]
    assert all(len(row) for row in rows), "a target that was never sent"
    numbers = np.array([row[0] for row in rows])
    assert (np.diff(numbers) >= 0).all() and numbers[-1] == len(path) - 1
    assert len(np.unique(numbers)) > 0.8 * n_targets
    assert all(set(one.values) == {f.name for f in arm.fields} for one in readings)


def test_an_e_series_is_driven_at_500_hz():
    path = HOME + np.sin(np.linspace(0, np.pi / 2, 500))[:, None] * 0.05
    with robot_at_a_free_address(rate_hz=500.0) as robot:
        arm = arm_of(robot, control="joints", rate_hz=500)
        arm.open()
        try:
            readings = drive(arm, path, 1 / 500)
            wait_for(lambda: np.abs(arm.read().values["position"] - path[-1]).max() < 1e-9)
        finally:
            arm.close()
        servos = robot.see("servos")
    assert {one.period_s for one in servos} == {0.002}
    numbers = np.array([np.flatnonzero((path == one.target).all(1))[0] for one in servos])
    assert (np.diff(numbers) >= 0).all() and numbers[-1] == len(path) - 1
    # More than at 125 Hz, which a quarter would be, also where this process came late at times.
    assert min(len(np.unique(numbers)), len({one.time_s for one in readings})) > len(path) / 3


def test_readings_hold_both_joints_and_pose_and_are_told_in_monotonic_seconds(robot):
    robot.set("clock_offset_s", 5e6)
    arm = arm_of(robot, control="joints")
    arm.open()
    try:
        readings = drive(arm, np.tile(HOME + 0.3, (100, 1)))
        before_s = time.monotonic()
        wait_for(lambda: arm.read().time_s >= before_s)
        readings.append(arm.read())
        now_s = time.monotonic()
        robot.set("clock_offset_s", -100.0)  # the controller's clock steps back by weeks
        later = drive(arm, np.tile(HOME + 0.3, (50, 1)))
    finally:
        arm.close()
    times_s = np.array([one.time_s for one in readings])
    assert (np.diff(times_s) >= 0).all()
    assert len(np.unique(times_s)) > 50
    assert before_s <= times_s[-1] <= now_s
    assert np.median(np.diff(np.unique(times_s))) == pytest.approx(0.008, abs=0.004)
    assert now_s < later[-1].time_s <= time.monotonic()
    values = readings[-1].values
    np.testing.assert_allclose(joints_of(values["pose"]), values["joints"])
    np.testing.assert_array_equal(values["position"], values["joints"])
    assert max(one.values["joint_velocity"].max() for one in readings) > 0.5


def test_hold_stays_at_the_present_position(robot):
    arm = arm_of(robot, control="joints")
    arm.open()
    try:
        drive(arm, np.tile(HOME + 2.0, (30, 1)))
        arm.hold()
        first = at_rest(arm)
        time.sleep(0.2)
        np.testing.assert_array_equal(arm.read().values["position"], first)
        assert (first > HOME + 0.1).all() and (first < HOME + 1.9).all()
    finally:
        arm.close()


def test_stop_brakes_at_once_and_no_target_is_taken_until_it_is_opened_again(robot):
    arm = arm_of(robot, control="joints")
    arm.open()
    drive(arm, np.tile(HOME + 2.0, (30, 1)))
    arm.stop()
    first = at_rest(arm)
    assert (first < HOME + 1.9).all()
    n_servos = len(robot.see("servos"))
    drive(arm, np.tile(HOME, (10, 1)))
    np.testing.assert_array_equal(arm.read().values["position"], first)
    assert len(robot.see("servos")) == n_servos
    assert not robot.see("program")
    arm.close()
    arm.open()
    drive(arm, np.tile(first, (10, 1)))
    assert len(robot.see("servos")) > n_servos
    arm.close()


def test_close_leaves_the_arm_at_rest_and_no_thread(robot):
    before = threads()
    arm = arm_of(robot, control="joints", tcp=(0, 0, 0.1, 0, 0, 0), payload_kg=0.5)
    arm.open()
    assert threads() > before
    drive(arm, np.tile(HOME + 2.0, (30, 1)))
    arm.close()
    arm.close()
    wait_for(lambda: threads() == before)
    assert not robot.see("program")
    first = robot.see("joints")
    time.sleep(0.1)
    np.testing.assert_array_equal(robot.see("joints"), first)
    assert robot.see("commands")[-2:] == [SERVO_STOP, 255]
    assert robot.see("commands").index(SET_WATCHDOG) >= 2  # after tool and payload


def test_protective_stop_is_told_in_words(robot):
    arm = arm_of(robot)
    arm.open()
    try:
        drive(arm, np.tile(HOME_POSE, (20, 1)))
        robot.do("protective_stop")
        error, longest_s = until_it_fails(arm)
    finally:
        arm.close()
    assert error.message == f"the UR arm at {robot.host} has stopped itself: protective stop"
    assert "unlock it" in str(error.hint)
    assert longest_s < HANGS_S


@pytest.mark.parametrize(("mode", "words"), [(7, "emergency stop of the robot"), (9, "fault of")])
def test_an_arm_that_must_not_move_is_not_opened(robot, mode, words):
    robot.set("safety_mode", mode)
    before = threads()
    with pytest.raises(RobotError, match=words):
        arm_of(robot).open()
    wait_for(lambda: threads() == before)


@pytest.mark.parametrize("refuse", [True, False])
def test_a_cut_connection_is_an_error_and_never_a_hang(robot, refuse):
    seen = lost(robot, lambda: robot.do("drop", refuse=refuse))
    assert "is gone" in seen.message
    assert seen.longest_s < HANGS_S and seen.closing_s < 10
    # Else ur_rtde has connected again, from a thread of its own.
    assert not (refuse and seen.leaves_threads)


def test_a_robot_that_falls_silent_is_an_error_and_never_a_hang(robot):
    seen = lost(robot, robot.freeze, stop=True)
    silent = re.search(r"its last message is ([0-9.]+) s old", seen.message)
    assert silent is not None and float(silent[1]) >= 1.5
    assert seen.longest_s < HANGS_S and seen.closing_s < 10


def test_a_delay_of_200_ms_is_no_error_and_targets_go_on(robot):
    arm = arm_of(robot, control="joints", watchdog_hz=None)
    arm.open()
    try:
        drive(arm, np.tile(HOME, (20, 1)))
        robot.do("stall", 0.2)
        readings = drive(arm, np.tile(HOME + 0.1, (80, 1)))
        np.testing.assert_allclose(arm.read().values["position"], HOME + 0.1)
    finally:
        arm.close()
    times_s = np.array([one.time_s for one in readings])
    assert (np.diff(times_s) >= 0).all()


def test_a_program_that_was_stopped_on_the_pendant_is_an_error(robot):
    arm = arm_of(robot)
    arm.open()
    try:
        drive(arm, np.tile(HOME_POSE, (20, 1)))
        robot.set("program", False)
        error, _ = until_it_fails(arm)
    finally:
        arm.close()
    assert "its control program is stopped, its safety mode normal" in error.message


def test_the_robot_stops_itself_when_the_driver_is_no_longer_asked(robot):
    arm = arm_of(robot, control="joints", watchdog_hz=1.0)
    arm.open()
    try:
        drive(arm, np.tile(HOME, (20, 1)))
        sent = len(robot.see("servos"))

        def sent_again() -> bool:  # no targets, but somebody is there
            arm.read()
            return len(robot.see("servos")) >= sent + 5

        wait_for(sent_again)
        assert robot.see("safety_mode") == 1
        wait_for(lambda: robot.see("safety_mode") == 3)  # as when the controller hangs
        with pytest.raises(RobotError, match="protective stop"):
            arm.read()
    finally:
        arm.close()


def test_a_target_that_is_not_finite_never_reaches_the_robot(robot):
    arm = arm_of(robot)
    arm.open()
    try:
        with pytest.raises(RobotError, match="not finite"):
            arm.send(np.array([0.4, 0.1, np.nan, 0, 3, 0]))
    finally:
        arm.close()
    assert robot.see("servos") == []


def test_an_address_without_a_robot_is_told_wait_for():
    begin_s = time.monotonic()
    with pytest.raises(RobotError, match=r"no UR arm at 127\.0\.0\.99: its dashboard port 29999"):
        UrArm(host="127.0.0.99", connect_s=1).open()
    assert time.monotonic() - begin_s < 5


ON_A_REAL_TIME_KERNEL = """
mount -t tmpfs none /sys/kernel && echo 1 > /sys/kernel/realtime || exit 77
exec "$@"
"""
TELL_PRIORITIES = """
import os, sys
from pathlib import Path
from dp_hub.robot.devices.ur import UrArm
arm = UrArm(host=sys.argv[1])
arm.open()
for task in Path("/proc/self/task").iterdir():
    print("priority", (task / "stat").read_text().rpartition(")")[2].split()[37])
arm.close()
"""


def test_threads_of_ur_rtde_are_run_as_the_process_is_on_a_real_time_kernel_too(robot):
    kernel = ["unshare", "--mount", "sh", "-c", ON_A_REAL_TIME_KERNEL, "sh"]
    tell = [sys.executable, "-c", TELL_PRIORITIES, robot.host]
    try:
        done = subprocess.run([*kernel, *tell], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no unshare, which shows a process another kernel")
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip(f"this user may not show a process another kernel: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    priorities = [line for line in done.stdout.splitlines() if line.startswith("priority")]
    assert len(priorities) >= 4 and set(priorities) == {"priority 0"}


@pytest.mark.parametrize("options", [{"gain": 50}, {"lookahead_s": 1.0}, {"rate_hz": 1000}])
def test_values_that_the_robot_would_refuse_are_refused_before(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        UrArm(host="127.0.0.1", **options)
