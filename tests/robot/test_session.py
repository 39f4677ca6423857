"""A robot's session from on to off, in real time; what is asserted does not depend on how quick."""

import multiprocessing
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from session_help import on, robot_of, sent_of, wait_s, wait_until, without_cameras

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.session.session import Session


def test_a_session_observes_moves_holds_and_resumes() -> None:
    with on(robot_of()) as session:
        seen = session.observe(2)
        shapes = {name: (value.shape, value.dtype.name) for name, value in seen.values.items()}
        assert shapes == {
            "observation.state": ((2, 5), "float32"),
            "observation.environment_state": ((2, 18), "float32"),
            "observation.image": ((2, 96, 96, 3), "uint8"),
        }
        start = session.position("arm")
        goal = np.clip(start + 60, 20, 490)
        now_s = session.clock.now_s()
        assert session.move("arm", np.array([now_s]), goal[None], now_s)
        wait_until(session, lambda: np.allclose(session.position("arm"), goal, atol=15))
        session.hold()
        wait_until(session, lambda: session.state_of("arm") == "holding")
        refused = session.counts()["arm"]["refused"]
        assert session.move("arm", np.array([now_s]), start[None], now_s)
        wait_until(session, lambda: session.counts()["arm"]["refused"] > refused)
        session.resume()
        wait_until(session, lambda: session.state_of("arm") == "idle")
        now_s = session.clock.now_s()
        session.move("arm", np.array([now_s]), start[None], now_s)
        wait_until(session, lambda: np.allclose(session.position("arm"), start, atol=15))
        counts = session.counts()
        assert counts["arm"]["plans"] == 2 and counts["top"]["frames"] > 0
        assert counts["full_queues"] == 0


def test_the_newest_frame_is_used_and_latencies_are_taken_off() -> None:
    cameras = {"top": {"device": "sim_pusht", "rate_hz": 30, "latency_s": 0.2}}
    with on(robot_of(cameras=cameras)) as session:
        looked = 0
        while looked < 5:
            wait_s(session, 0.05)
            before_s, arm_s = session.rings["top"].newest_s, session.rings["arm"].newest_s
            seen = session.observe(2)
            after_s = session.rings["top"].newest_s
            if arm_s < after_s - 0.2:  # the arm's process stood still: its readings are older
                continue
            looked += 1
            assert before_s - 1e-9 <= seen.used_s["top"][-1] + 0.2 <= after_s + 1e-9
            assert seen.anchor_s == seen.used_s["top"][-1]
            # The state is nearest to the picture in time, not the newest.
            assert abs(seen.used_s["arm.state"][-1] - seen.anchor_s) <= seen.ages_s["top"]
            assert seen.ages_s["arm.state"] > 0.15
            assert before_s - 1e-9 <= session.newest_s() + 0.2
        with pytest.raises(RobotError, match=r"does not observe observation\.wrist"):
            session.observe(2, ["observation.wrist"])


def test_readings_are_interpolated_where_the_configuration_says_so() -> None:
    arms = {"arm": {"device": "sim_pusht", "rate_hz": 100, "interpolate": True}}
    with on(robot_of(arms=arms)) as session:
        now_s, start = session.clock.now_s(), session.position("arm")
        session.move("arm", np.array([now_s]), start[None] + 100, now_s)
        for _ in range(10):
            wait_s(session, 0.03)
            seen = session.observe(2)
            # Interpolated values are those of the step itself, which is a picture's time.
            assert seen.used_s["arm.state"][-1] == pytest.approx(seen.anchor_s, abs=1e-9)
        history = session.last("arm", 500)
        at = np.array([np.interp(t, history.times_s, history.values["position"][:, 0])
                       for t in seen.times_s])  # fmt: skip
        assert np.allclose(seen.values["observation.state"][:, 0], at, atol=1e-2)


def test_after_a_reset_nothing_of_the_episode_before_is_observed() -> None:
    world = {"device": "pusht", "options": {"camera_latency_s": 0.1}}
    cameras = {
        "top": {
            "device": "sim_pusht",
            "rate_hz": 30,
            "latency_s": 0.1,
            "options": {"stamp": "arrival"},
        }
    }
    with on(robot_of(world=world, cameras=cameras), seed=1) as session:
        for seed in (7, 1, 7):
            now_s = session.clock.now_s()
            session.move("arm", np.array([now_s]), np.array([[250.0, 250.0]]), now_s)
            wait_s(session, 0.2)
            session.reset(seed)
            first = session.observe(4)
            state = first.values["observation.state"]
            assert np.ptp(state, axis=0).max() == 0, "an earlier state shows"
            pictures = first.values["observation.image"]
            wait_s(session, 0.5)
            later = session.observe(2).values["observation.image"]
            assert (pictures == later[-1]).all(), "an earlier picture shows"
            assert np.array_equal(session.observe(1).values["observation.state"][0], state[0])
            assert session.world is not None and session.world.truth()["seed"] == seed


def test_an_arm_that_brakes_is_at_rest_before_a_reset() -> None:
    limits = {"low": [0, 0], "high": [512, 512], "speed": 300, "acceleration": 400}
    arms = {"arm": {"device": "sim_pusht", "rate_hz": 100, "limits": limits}}
    with on(without_cameras(arms=arms), seed=1) as session:
        now_s = session.clock.now_s()
        session.move("arm", now_s + np.array([0.0, 3.0]), np.array([[30.0, 30], [500, 500]]), now_s)
        wait_s(session, 1.0)
        assert session.state_of("arm") == "moving"
        session.reset(5)
        began_s = session.observe(1).anchor_s
        wait_s(session, 0.5)
        times_s, _ = sent_of(session)
        assert len(times_s) and times_s[-1] < began_s, "it was sent targets after the reset"


def test_the_emergency_stop_lasts_and_dry_runs_move_nothing() -> None:
    with on(without_cameras(), dry_run=True) as session:
        start, now_s = session.position("arm"), session.clock.now_s()
        session.move("arm", np.array([now_s]), start[None] + 100, now_s)
        wait_until(session, lambda: len(sent_of(session)[0]) > 10)
        assert np.array_equal(session.position("arm"), start), "a dry run has moved"
        assert np.allclose(sent_of(session)[1][-1], start + 100), "what would be sent is known"
        session.stop()
        wait_until(session, lambda: session.state_of("arm") == "stopped")
        session.resume()
        session.move("arm", np.array([now_s]), start[None], now_s)
        wait_until(session, lambda: session.counts()["arm"]["refused"] == 1)
        assert session.stopped and session.state_of("arm") == "stopped"
        with pytest.raises(RobotError, match="was stopped"):
            session.reset(4)


def test_two_sessions_at_once_do_not_meet() -> None:
    with on(without_cameras(), seed=1) as one, on(without_cameras(), seed=2) as other:
        assert len(multiprocessing.active_children()) == 4
        before, now_s = other.position("arm"), one.clock.now_s()
        goal = np.array([256.0, 40.0])
        one.move("arm", np.array([now_s]), goal[None], now_s)
        wait_until(one, lambda: np.allclose(one.position("arm"), goal, atol=20))
        assert np.array_equal(other.position("arm"), before)
        assert one.world is not None and other.world is not None
        assert (one.world.truth()["seed"], other.world.truth()["seed"]) == (1, 2)


def test_what_cannot_be_is_refused_and_nothing_is_left() -> None:
    observed = {"observation.state": "arm.speed"}
    with (
        pytest.raises(ConfigError, match=r"no such stream") as refused,
        Session(robot_of(observations=observed)),
    ):
        pass
    assert "arm.state" in str(refused.value)
    with (
        pytest.raises(ConfigError, match=r"no camera called 'simpusht'") as refused,
        Session(robot_of(cameras={"top": {"device": "simpusht"}})),
    ):
        pass
    assert "did you mean `sim_pusht`?" in str(refused.value)
    assert multiprocessing.active_children() == []


def test_a_script_without_a_main_guard_runs_too(tmp_path: Path) -> None:
    script = tmp_path / "no_guard.py"
    script.write_text(
        textwrap.dedent(
            """
            from dp_hub.robot.config import load_robot
            from dp_hub.robot.session.session import Session

            with Session(load_robot("pusht")) as session:
                session.reset(3)
                print("SEEN", *sorted(session.observe(2).values))
            """
        )
    )
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("SEEN") == 1, "it ran again in its own processes"
    assert ended.stderr == ""
