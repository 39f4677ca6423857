"""A controller's process: commands through the queue, and every way that it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from controller_rig import LIMITS, RATE_HZ, STATE, Rig
from made_actuator import PLANE, MadeActuator, MakeActuator, calls, diary_of

from dp_hub.errors import RobotError
from dp_hub.robot.clock import VirtualClock, ticks
from dp_hub.robot.devices.protocols import Reading
from dp_hub.robot.motion.controller import Controller, ControllerJob, Shared, sent_fields
from dp_hub.robot.motion.plan import Order, Plan, pack, plan_fields
from dp_hub.robot.motion.reporting import EDGES_S, Reporter, cells, read_report
from dp_hub.robot.shared.board import Board
from dp_hub.robot.shared.queue import Queue
from dp_hub.robot.shared.ring import Ring


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    return tmp_path / "diary"


def plan_to(number: int, x: float, in_s: float) -> Plan:
    return Plan(number, np.array([time.monotonic() + in_s]), np.array([[x, 0.0]]), 0.0)


def position_of(rig: Rig) -> float:
    return rig.state.last(1).values["position"][0, 0]


def sent_x(rig: Rig) -> float:
    return rig.sent.last(1).values["target"][0, 0]


def path_of(diary: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times (K,) and targets (K, 2) that the actuator was sent."""
    sends = [(time_s, target) for time_s, call, target in diary_of(diary) if call == "send"]
    return np.array([time_s for time_s, _ in sends]), np.array([target for _, target in sends])


def assert_within_limits(diary: Path) -> None:
    """A tick counts for two periods at most, however late it is."""
    _, targets = path_of(diary)
    ways = np.linalg.norm(np.diff(targets, axis=0), axis=1)
    assert np.all(ways <= 2 / RATE_HZ * 1.0 + 1e-12)
    assert np.all(np.abs(targets) <= 10)


def test_a_plan_is_followed_and_an_orderly_end_holds_and_closes(diary: Path) -> None:
    with Rig(MakeActuator(diary)) as rig:
        rig.start()
        assert rig.report.state == "idle"
        rig.beat()
        rig.tell(plan_to(0, 0.2, 0.4))
        rig.until(lambda: rig.report.counts.ran_dry and position_of(rig) > 0.19999999)
        assert rig.report.state == "moving" and rig.report.plan == 0
        sent = rig.sent.last(1000)
        assert np.all(np.diff(sent.times_s) > 0) and np.all(sent.values["state"] == 1)
        assert sent.values["target"][-1].tolist() == pytest.approx([0.2, 0.0])
        report = rig.report
        assert report.ticks >= len(sent)
        assert report.late.sum() == pytest.approx(report.ticks, abs=1)
        assert rig.state.count > 10
        rig.worker.check()
    assert calls(diary) == ["open", "send", "hold", "close"]
    assert_within_limits(diary)


def test_hold_resume_and_stop_come_through_the_queue(diary: Path) -> None:
    with Rig(MakeActuator(diary)) as rig:
        rig.start()
        rig.beat()
        rig.tell(plan_to(0, 9.0, 12.0))
        rig.until(lambda: rig.sent.count > 20)
        rig.tell(Order.HOLD)
        rig.until(lambda: "hold" in calls(diary))
        assert rig.report.state == "holding"
        rig.tell(Order.RESUME)
        rig.until(lambda: rig.report.state == "idle")
        rig.tell(plan_to(1, 0.0, 5.0))
        rig.until(lambda: rig.report.state == "moving")
        rig.tell(Order.STOP)
        rig.until(lambda: rig.report.state == "stopped")
        rig.tell(Order.RESUME)
        rig.tell(plan_to(2, 0.0, 5.0))
        rig.until(lambda: rig.report.counts.refused == 1)
        seen = rig.state.count
        rig.until(lambda: rig.state.count > seen + 5)  # it goes on reading
    assert calls(diary) == ["open", "send", "hold", "send", "stop", "close"]
    assert_within_limits(diary)


def test_a_lost_heartbeat_holds_and_it_goes_on_with_a_plan_made_after_it_is_back(
    diary: Path,
) -> None:
    with Rig(MakeActuator(diary)) as rig:
        rig.start()
        rig.beat()
        rig.tell(plan_to(0, 9.0, 12.0))
        rig.until(lambda: rig.sent.count > 20)
        rig.lose_beat()
        rig.until(lambda: "hold" in calls(diary), beating=False)
        here = rig.sent.last(1).values["target"][0, 0]
        assert rig.report.state == "holding" and here < 2.0
        rig.tell(plan_to(1, 9.0, 9.0))
        rig.until(lambda: rig.report.counts.refused == 1, beating=False)
        rig.beat()
        count = rig.report.ticks
        rig.until(lambda: rig.report.ticks > count + 5)
        assert rig.report.state == "holding"
        rig.tell(plan_to(2, 0.0, 5.0))
        rig.until(lambda: rig.report.state == "moving")
    assert calls(diary) == ["open", "send", "hold", "send", "hold", "close"]
    assert_within_limits(diary)


def test_the_stop_cell_stops_even_when_nobody_commands_and_the_queue_is_full(diary: Path) -> None:
    with Rig(MakeActuator(diary)) as rig:
        rig.start()
        rig.beat()
        rig.tell(plan_to(0, 9.0, 12.0))
        rig.until(lambda: rig.sent.count > 20)
        rig.board["stop"] = 1.0
        rig.until(lambda: rig.report.state == "stopped", beating=False)
        rig.until(lambda: "stop" in calls(diary), beating=False)
        rig.board["stop"] = 0.0  # it latches
        count = rig.report.ticks
        rig.until(lambda: rig.report.ticks > count + 5)
        assert rig.report.state == "stopped"
        rig.worker.check()
    assert calls(diary) == ["open", "send", "stop", "close"]


@pytest.mark.parametrize("sulks", [False, True])
def test_an_actuator_that_fails_is_stopped_and_its_error_reaches_the_parent(
    diary: Path, tmp_path: Path, sulks: bool
) -> None:
    fails = tmp_path / "fails"
    with Rig(MakeActuator(diary, fails=fails, sulks=sulks)) as rig:
        rig.start()
        rig.beat()
        rig.tell(plan_to(0, 9.0, 12.0))
        rig.until(lambda: rig.sent.count > 20)
        fails.touch()
        rig.until(lambda: not rig.worker.is_alive)
        with pytest.raises(RobotError, match="the made actuator is gone"):
            rig.worker.check()
        assert rig.report.state == "stopped"
    assert calls(diary) == ["open", "send", "stop", "close"]


def test_a_position_that_is_no_number_is_a_failure(diary: Path, tmp_path: Path) -> None:
    fails = tmp_path / "fails"
    with Rig(MakeActuator(diary, fails=fails)) as rig:
        rig.start()
        fails.with_name("new").write_text("nan")
        fails.with_name("new").rename(fails)
        rig.until(lambda: not rig.worker.is_alive)
        with pytest.raises(RobotError, match=r"arm measures the position \[nan, nan\]"):
            rig.worker.check()
    assert calls(diary) == ["open", "stop", "close"]


def test_an_actuator_that_is_away_is_told_before_the_controller_is_ready(diary: Path) -> None:
    with Rig(MakeActuator(diary, fails_to_open=True)) as rig:
        rig.worker.start()
        with pytest.raises(RobotError, match="is away") as caught:
            rig.worker.wait_ready(60)
        assert caught.value.hint == "switch it on"
    assert calls(diary) == ["close"]


def test_a_dry_run_sends_nothing_and_does_all_else(diary: Path) -> None:
    with Rig(MakeActuator(diary), dry=True) as rig:
        rig.start()
        rig.beat()
        rig.tell(plan_to(0, 0.2, 0.3))
        rig.until(lambda: rig.report.counts.ran_dry and sent_x(rig) > 0.199)
        assert rig.state.last(1).values["position"].tolist() == [[0.0, 0.0]]
        rig.tell(Order.HOLD)
        rig.until(lambda: rig.report.state == "holding")
    assert calls(diary) == ["open", "close"]


def test_a_controller_whose_parent_is_killed_brakes_stops_and_ends(diary: Path) -> None:
    program = Path(__file__).with_name("controller_parent.py")
    parent = subprocess.Popen(
        [sys.executable, str(program), str(diary)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    try:
        pid = int(parent.stdout.readline())
        end_s = time.monotonic() + 60
        while len(path_of(diary)[0]) < 30:
            assert time.monotonic() < end_s
            time.sleep(0.01)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    killed_s = time.monotonic()
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > killed_s + 30:
            os.kill(pid, signal.SIGKILL)
            pytest.fail("it goes on")
        time.sleep(0.01)
    assert calls(diary) == ["open", "send", "hold", "stop", "close"]
    times, targets = path_of(diary)
    after = targets[times > killed_s]
    assert_within_limits(diary)
    if len(after) > 3:
        steps = np.diff(after[:, 0])
        assert steps[-1] < steps[0], "it brakes"


@pytest.fixture
def shared() -> Iterator[Shared]:
    one = Shared(
        Ring.create(STATE, rate_hz=RATE_HZ, keep=1000),
        Ring.create(sent_fields(PLANE), rate_hz=RATE_HZ, keep=1000),
        Queue.create(plan_fields(2), capacity=16),
        Board.create([*cells("arm"), "stop", "heartbeat"]),
    )
    yield one
    for part in (one.state, one.sent, one.commands, one.board):
        part.close()
        part.unlink()


def test_targets_follow_times_and_not_arrival_on_an_exact_clock(
    diary: Path, shared: Shared
) -> None:
    clock = VirtualClock(100.0)
    actuator = MakeActuator(diary).make()
    job = ControllerJob(
        name="arm", make=actuator.how, limits=LIMITS, interpolation="linear", rate_hz=RATE_HZ,
        action_latency_s=0.05, state=shared.state.spec, sent=shared.sent.spec,
        commands=shared.commands.spec, board=shared.board.spec, hold_after_s=0.5,
    )  # fmt: skip
    controller = Controller(job, actuator, shared, clock)
    times = 100.0 + np.arange(1, 41) * 0.1
    plan = Plan(0, times, np.outer(times - 100.0, [0.3, 0.0]), 0.0)
    for tick in ticks(1 / RATE_HZ, clock):
        shared.board["heartbeat"] = clock.now_s()
        if tick.number == 0:
            shared.commands.put(pack(plan, 2))
        if tick.number == 150:
            clock.advance(0.123)  # a stall
        controller.tick(tick)
        if clock.now_s() > 103.5:
            break
    sent = shared.sent.last(1000)
    late = sent.times_s[-1]
    expected = 0.3 * (late + 0.05 - 100.0)
    assert sent.values["target"][-1, 0] == pytest.approx(expected, abs=1e-6)
    report = read_report(shared.board, "arm")
    assert report.ticks == len(sent) and report.missed == 12
    assert report.latest_s == 0.0
    assert report.counts.late_points == 0


def test_readings_of_a_device_whose_clock_steps_have_the_time_at_which_they_came(
    diary: Path, shared: Shared
) -> None:
    clock = VirtualClock(100.0)
    steps_s = {0: 0.0, 10: 3600.0, 20: -3600.0, 30: 0.0}

    class Stepping(MadeActuator):
        step_s = 0.0

        def read(self) -> Reading:
            return Reading(clock.now_s() + self.step_s, super().read().values)

    actuator = Stepping(MakeActuator(diary))
    job = ControllerJob(
        name="arm", make=actuator.how, limits=LIMITS, interpolation="linear", rate_hz=RATE_HZ,
        state=shared.state.spec, sent=shared.sent.spec, commands=shared.commands.spec,
        board=shared.board.spec, hold_after_s=0.5,
    )  # fmt: skip
    controller = Controller(job, actuator, shared, clock)
    for tick in ticks(1 / RATE_HZ, clock):
        actuator.step_s = steps_s.get(tick.number, actuator.step_s)
        controller.tick(tick)
        if tick.number == 39:
            break
    seen = shared.state.last(1000)
    np.testing.assert_allclose(np.diff(seen.times_s), 1 / RATE_HZ, atol=1e-9)
    assert seen.times_s[-1] == clock.now_s()
    assert read_report(shared.board, "arm").restamped == 20


def test_lateness_is_counted_so_that_its_quantiles_can_be_told() -> None:
    board = dict.fromkeys(cells("arm"), 0.0)
    reporter = Reporter(board, "arm")
    for late_s in [0.00015] * 98 + [0.0009, 0.25]:
        reporter.ticked(late_s, missed=1)
    report = read_report(board, "arm")
    assert report.late_s(0.5) == 0.0002 and report.late_s(0.99) == 0.001
    assert report.late_s(1.0) == report.latest_s == 0.25
    assert report.share_within(0.001) == 0.99 and 0.001 in EDGES_S
    assert (report.ticks, report.missed) == (100, 100)
