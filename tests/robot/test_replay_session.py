"""A recorded episode carried out again by a simulated robot, in real time."""

import time

import numpy as np
import pytest
from session_help import on, plans_sent, sent_of, wait_until, without_cameras

from dp_hub.envs.pusht.demonstration import demonstrate
from dp_hub.errors import ConfigError, DataError
from dp_hub.robot.keys.script import ScriptKeys
from dp_hub.robot.session.replaying import RecordedActions, Replay, Replayed
from dp_hub.robot.session.session import Session


def replayed(
    session: Session, recorded: RecordedActions, *presses: tuple[float, str], speed: float = 1.0
) -> Replayed:
    said: list[str] = []
    keys = ScriptKeys(presses, time.monotonic)
    done = Replay(session, recorded, speed=speed, keys=keys, say=said.append).run()
    assert said == (["emergency stop: every arm was stopped"] if session.stopped else [])
    return done


def short(n: int = 12) -> RecordedActions:
    """A straight way over the table."""
    return RecordedActions(np.linspace((100, 100), (200, 150), n), 10.0, 3, "made")


def test_an_expert_episode_gets_the_reward_that_it_had_offline() -> None:
    """Within 0.15: targets come up to 10 ms later than offline, on a busy machine more."""
    demos = [demonstrate(seed) for seed in range(3)]
    demo = min((one for one in demos if one.success), key=lambda one: len(one.arrays["action"]))
    actions = np.asarray(demo.arrays["action"], np.float64)
    recorded = RecordedActions(actions, 10.0, demo.seed, "the expert")
    with on(without_cameras(), seed=None) as session:
        for _ in range(5):  # a machine that stands still for long stalls the simulation too
            done = replayed(session, recorded)
            assert done.done and done.score is not None
            if done.score >= 0.85:
                break
    assert done.score == pytest.approx(1.0, abs=0.15)
    assert f"reward {done.score:.3f}" in done.line() and "carried out" in done.line()


def test_actions_are_sent_as_they_were_recorded_at_the_speed_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans = plans_sent(monkeypatch)
    with on(without_cameras(), seed=None) as session:
        recorded = short()
        done = replayed(session, recorded, speed=0.5)
        sent_s, sent = sent_of(session)
        assert done.done and done.off_mean < done.off_most
        wait_until(session, lambda: session.state_of("arm") == "holding")
    due_s = np.concatenate([plan.times_s for plan in plans])
    first = len(due_s) - len(recorded.actions)  # before, it goes to where the episode began
    targets = np.concatenate([plan.targets for plan in plans])
    np.testing.assert_array_equal(targets[first:], recorded.actions)
    np.testing.assert_allclose(np.diff(due_s[first:]), 0.2, atol=1e-9)
    in_force = np.searchsorted(due_s, sent_s, side="right") - 1
    carried_out = in_force >= first
    assert carried_out.sum() > 20
    np.testing.assert_array_equal(
        sent[carried_out], recorded.actions[in_force[carried_out] - first]
    )


def test_quit_and_the_emergency_stop_end_it_on_the_way() -> None:
    with on(without_cameras(), seed=None) as session:
        done = replayed(session, short(100), (1.0, "q"))
        assert not done.done and not session.stopped and "stopped on the way" in done.line()
        done = replayed(session, short(100), (1.0, "esc"))
        assert not done.done and session.stopped


def test_what_was_recorded_with_another_robot_is_refused() -> None:
    with on(without_cameras(), seed=None) as session:
        wide = RecordedActions(np.zeros((5, 7)), 10.0, None, "made")
        with pytest.raises(DataError, match="actions of 7 numbers; the robot takes 2"):
            replayed(session, wide)
        outside = RecordedActions(np.full((5, 2), 900.0), 10.0, None, "made")
        with pytest.raises(ConfigError, match="outside the workspace"):
            replayed(session, outside)
        assert len(sent_of(session)[0]) == 0
