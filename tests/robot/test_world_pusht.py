"""The table of PushT as a world: the offline environment's bits, told at the right times."""

import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
from world_help import Bench, bench, in_process, wait_for

from dp_hub.envs.pusht.vector import PushTVector
from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices.sim_arm import SimArm
from dp_hub.robot.shared.ring import Ring
from dp_hub.robot.worlds.control import Request, WorldControl
from dp_hub.robot.worlds.ports import Ports, WorldMemory
from dp_hub.robot.worlds.pusht import PushTWorld

GOAL = np.array([100.0, 400.0, 256.0, 256.0, np.pi / 4])


@pytest.fixture
def table() -> Iterator[Bench]:
    with bench(PushTWorld, seed=7) as one:
        yield one


def pushes(table: Bench, n: int, seed: int = 0) -> np.ndarray:
    """Targets that walk about the block and into it, float64 (n, 2)."""
    rng = np.random.default_rng(seed)
    here = np.array([150.0, 150.0])
    steps = []
    for _ in range(n):
        here = np.clip(here + rng.normal(12, 25, 2), 20, 490)
        steps.append(here)
    return np.array(steps)


def test_targets_held_for_exact_periods_give_the_offline_environments_bits(table: Bench) -> None:
    offline = PushTVector(1, render_px=96)
    offline.reset([7])
    best = 0.0
    actions = pushes(table, 40)
    for n, action in enumerate(actions, start=1):
        table.send(action)
        table.tick(10)
        seen, reward, _ = offline.step(action[None])
        best = max(best, float(reward[0]))
        assert table.newest("state", "state").tolist() == seen["observation.state"][0].tolist()
        keypoints = seen["observation.environment_state"][0]
        assert table.newest("state", "keypoints").tolist() == keypoints.tolist()
        truth = table.truth()
        assert (truth["steps"], truth["max_reward"]) == (n, best)
        assert truth["coverage"] == offline.coverage()[0]
    moved = np.abs(seen["observation.state"][0] - offline.reset([7])["observation.state"][0])
    assert moved[2:4].max() > 5  # the block was pushed


def test_pictures_are_the_offline_environments_pixel_for_pixel() -> None:
    offline = PushTVector(1, render_px=96)
    offline.reset([7])
    seen = []
    with bench(PushTWorld, seed=7, camera_hz=10) as table:
        for action in pushes(table, 30):
            table.send(action)
            table.tick(10)
            wanted = offline.step(action[None])[0]["observation.image"][0]
            assert table.newest_s("camera") == table.now_s
            np.testing.assert_array_equal(table.newest("camera", "picture"), wanted)
            red = wanted[..., 0].astype(int) - wanted[..., 1]
            seen.append(red.max() > 60)
    assert any(seen)  # with red contact marks among them


def test_what_a_late_process_makes_up_for_changes_no_bit(table: Bench) -> None:
    actions = pushes(table, 30)
    for action in actions:
        table.send(action)
        table.tick(10)
    wanted = table.newest("state", "state").tolist()
    rng = np.random.default_rng(1)
    with bench(PushTWorld, seed=7) as late:
        sent = 0
        while late.k < 300:
            missed = min(int(rng.integers(0, 18)), 299 - late.k)
            while sent < len(actions) and sent * 10 <= late.k + missed:
                late.send(actions[sent], late.start_s + sent * 10 * late.world.period_s)
                sent += 1
            late.late(missed)
        assert late.newest("state", "state").tolist() == wanted
        assert late.truth()["skipped"] == 0


def test_what_is_too_long_ago_is_left_out_and_counted(table: Bench) -> None:
    table.send((400.0, 400.0))
    table.late(500)
    assert table.truth()["skipped"] == 480
    assert table.newest_s("state") == table.now_s
    states = table.rings["state"].since(1)  # the first of them are gone: the ring is short
    assert 15 <= len(states) <= 21


def test_the_agent_stands_still_until_the_first_target(table: Bench) -> None:
    before = table.newest("state", "state").tolist()
    table.tick(50)
    assert table.newest("state", "state").tolist() == before
    truth = table.truth()
    assert (truth["episode"], truth["seed"], truth["steps"], truth["elapsed_s"]) == (1, 7, 0, 0)


def test_after_a_reset_nothing_comes_that_was_true_before() -> None:
    with bench(PushTWorld, seed=7, camera_latency_s=0.1, state_latency_s=0.05) as table:
        table.tick(25)
        seen = {name: table.rings[name].count for name in ("camera", "state")}
        table.tick(1, Request("reset", seed=3))
        began_s = table.now_s
        table.tick(30)
        for name, count in seen.items():
            since = table.rings[name].since(count)
            assert len(since) > 3 and (since.times_s >= began_s - 1e-9).all()


def test_after_a_reset_a_target_held_from_before_does_not_count(table: Bench) -> None:
    for _ in range(20):
        table.send((30.0, 30.0))
        table.tick()
    table.tick(1, Request("reset", seed=3))
    began_s = table.now_s
    start = table.newest("state", "state").tolist()
    for _ in range(20):
        table.send((30.0, 30.0))
        table.tick()
    assert table.newest("state", "state").tolist() == start
    assert start == PushTVector(1).reset([3])["observation.state"][0].tolist()
    table.send((31.0, 30.0))
    table.tick(10)
    assert table.newest("state", "velocity").any()
    truth = table.truth()
    assert (truth["episode"], truth["seed"], truth["steps"]) == (2, 3, 1)
    assert truth["elapsed_s"] == pytest.approx(0.1)
    assert table.now_s - began_s > 0.25


def test_an_episode_begins_from_a_recorded_state_exactly(table: Bench) -> None:
    state = np.array([120.0, 333.25, 250.5, 201.125, 1.75])
    table.tick(1, Request("reset_to", state=state))
    assert table.newest("state", "state").tolist() == state.tolist()
    assert table.truth()["seed"] == -1


def test_success_ends_an_episode_and_so_does_its_time() -> None:
    with bench(PushTWorld, episode_s=2.0) as table:
        table.tick(1, Request("reset_to", state=GOAL))
        assert table.truth()["over"] == 0  # as offline: the start is not scored
        table.send((110.0, 400.0))
        table.tick(10)
        truth = table.truth()
        assert (truth["success"], truth["max_reward"], truth["over"]) == (1, 1, 1)
        table.tick(1, Request("reset", seed=0))
        table.send((200.0, 200.0))
        table.tick(199)
        assert table.truth()["over"] == 0
        table.tick()
        assert (table.truth()["over"], table.truth()["success"]) == (1, 0)


def test_states_and_pictures_come_late_and_say_when_they_were_true() -> None:
    with bench(PushTWorld, state_latency_s=0.05, camera_latency_s=0.1, camera_hz=100) as table:
        table.tick(40)
        assert table.newest_s("state") == pytest.approx(table.now_s - 0.05)
        assert table.newest_s("camera") == pytest.approx(table.now_s - 0.1)
        assert table.newest_s("truth") == table.now_s


def test_targets_act_late() -> None:
    with bench(PushTWorld, action_latency_s=0.2) as table:
        table.send((30.0, 30.0))
        table.tick(20)
        assert not table.newest("state", "velocity").any()
        table.tick()
        assert table.newest("state", "velocity").any()
        table.send((480.0, 480.0))
        table.tick(20)
        before = table.newest("state", "velocity")
        table.tick()
        assert (table.newest("state", "velocity") > before).all()


def test_a_camera_that_stalls_shows_nothing_while_states_go_on(table: Bench) -> None:
    table.tick(10)
    table.tick(1, Request("stall", value=0.5))
    shown = table.rings["camera"].count
    table.tick(49)
    assert table.rings["camera"].count == shown
    assert table.newest_s("state") == table.now_s
    table.tick(11)
    assert table.rings["camera"].count > shown


def test_a_camera_can_stall_regularly() -> None:
    with bench(PushTWorld, camera_stall_s=0.5, camera_stall_every_s=1.0) as table:
        table.tick(300)
        times_s = table.rings["camera"].last(100).times_s - table.start_s
        assert len(times_s) >= 20
        assert (times_s % 1.0 < 0.5 + 1e-6).all() and (np.diff(times_s).max() > 0.45)


def test_impossible_options_are_refused() -> None:
    for options in ({"camera_hz": 200.0}, {"image_px": 4000}, {"state_latency_s": -1.0}):
        with pytest.raises(ConfigError):
            PushTWorld(**options)
    with pytest.raises(ConfigError, match="never show"):
        PushTWorld(camera_stall_s=5, camera_stall_every_s=2)


def test_a_world_in_its_process_keeps_pace_and_begins_anew_when_asked() -> None:
    with in_process(PushTWorld, seed=1) as (worker, ports):
        control = WorldControl(ports)
        wait_for(lambda: control.truth().get("episode") == 1)
        began_s = control.reset(seed=12)
        assert control.truth()["seed"] == 12
        assert abs(time.monotonic() - began_s) < 5
        arm = SimArm(ports=ports, silent_s=30.0)
        arm.open()
        start = PushTVector(1).reset([12])["observation.state"][0]
        assert arm.read().values["state"].tolist() == start.tolist()
        first = arm.read()
        wait_for(lambda: arm.read().time_s > first.time_s + 1.0)
        state = Ring.attach(ports.ring("state"))
        assert np.median(np.diff(state.last(16).times_s)) == pytest.approx(0.01)
        state.close()
        arm.send(np.array([250.0, 250.0]))
        wait_for(lambda: np.abs(arm.read().values["position"] - 250).max() < 1)
        worker.check()
        arm.close()
        control.close()


def test_the_death_of_the_world_reaches_its_arm() -> None:
    with in_process(PushTWorld) as (worker, ports):
        arm = SimArm(ports=ports, silent_s=0.3)
        arm.open()
        os.kill(worker.pid, signal.SIGKILL)
        wait_for(lambda: not worker.is_alive)
        time.sleep(0.4)
        with pytest.raises(RobotError, match="no state for"):
            arm.read()
        arm.stop()  # never in the way
        with pytest.raises(RobotError, match="begin anew"):
            WorldControl(ports).reset(seed=0, timeout_s=0.1)
        with pytest.raises(RobotError, match="SIGKILL"):
            worker.check()
        arm.close()


def test_ports_that_are_not_there_are_named() -> None:
    with pytest.raises(RobotError, match="no ring 'camera'"):
        Ports().ring("camera")


def test_targets_of_a_controller_that_was_replaced_count(table: Bench) -> None:
    table.send((100.0, 100.0))
    table.tick(5)
    again = Ring.attach(table.rings["target"].spec)
    again.put(table.now_s, {"target": np.array([480.0, 480.0])})
    again.close()
    before = table.newest("state", "velocity")
    table.tick(3)
    assert (table.newest("state", "velocity") > before).all()


def test_start_states_of_another_size_are_refused() -> None:
    with (
        WorldMemory(PushTWorld()) as memory,
        pytest.raises(RobotError, match="has 5 numbers"),
    ):
        WorldControl(memory.ports).ask(Request("reset_to", state=np.zeros(3)))


def test_the_memory_of_a_world_is_gone_when_it_is_closed() -> None:
    with WorldMemory(PushTWorld()) as memory:
        spec = memory.ports.ring("state")
        Ring.attach(spec).close()
    with pytest.raises(RobotError):
        Ring.attach(spec)
