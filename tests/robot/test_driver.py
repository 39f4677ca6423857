"""A policy drives a simulated robot: what it says reaches the world at its times, or it holds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from known_policy import INFO, PICTURES, Known
from session_help import on, robot_of, sent_of, wait_until, without_cameras

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.config import InferenceConfig
from dp_hub.robot.observing.align import Stale
from dp_hub.robot.session.driver import PolicyAway, PolicyDriver, with_options
from dp_hub.robot.session.session import Session


class Driving:
    """A driver, and what its answers were due at."""

    def __init__(self, session: Session, policy: Known, **how: Any) -> None:
        self.session, self.policy = session, policy
        self.driver = PolicyDriver(session, policy, with_options(InferenceConfig(), **how), seed=5)
        self.driver.start()

    def until(self, done: Callable[[], Any]) -> None:
        """Step until something is so; False of a step ends it too."""

        def stepped() -> Any:
            return not self.driver.step() or done()

        wait_until(self.session, stepped)

    def for_s(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= until_s)


@contextmanager
def driving(policy: Known, config: Any = None, **how: Any) -> Iterator[Driving]:
    with on(config or without_cameras()) as session:
        yield Driving(session, policy, **how)


def lengths_s(session: Session) -> dict[float, float]:
    """By target (its first number), for how long it was sent."""
    times_s, targets = sent_of(session)
    changed = np.flatnonzero(np.diff(targets[:, 0], prepend=np.nan) != 0)
    starts_s = times_s[changed]
    return dict(zip(targets[changed[:-1], 0].tolist(), np.diff(starts_s).tolist(), strict=True))


def test_actions_reach_the_robot_in_order_each_for_a_period() -> None:
    with driving(Known()) as one:
        one.until(lambda: one.policy.number == 4)
        lasted = lengths_s(one.session)
        # Of each chunk, steps 1 to 8: To - 1 is the newest observed step, then n_action_steps.
        expected = [100.0 + 16 * chunk + step for chunk in range(3) for step in range(1, 9)]
        ours = [target for target in lasted if target <= expected[-1]]
        assert len(set(expected) & set(ours)) >= 0.8 * len(expected), sorted(ours)
        assert ours == sorted(ours)
        assert np.median(list(lasted.values())) == pytest.approx(0.1, abs=0.03)
        told = one.driver.told
        assert told.asked == len(one.policy.seeds) and told.full == 0 and told.stale == 0
        assert "answers" in told.line()


def test_of_a_late_answer_what_is_past_is_dropped() -> None:
    with driving(Known(delay_s=0.35), late="extend") as one:
        one.until(lambda: one.policy.number == 3)
        lasted = lengths_s(one.session)
        assert 101.0 not in lasted and 102.0 not in lasted, "they were due before the answer"
        # The chunk before went on beyond its eight actions, until the next one was there.
        assert {109.0, 110.0} <= set(lasted)
        assert one.driver.told.lateness.line()


def test_late_hold_stays_at_the_last_action_and_late_stop_ends() -> None:
    with driving(Known(), late="hold") as one:
        one.until(lambda: one.policy.number == 1)
        one.policy.delay_s = 1.0
        one.for_s(1.5)
        assert max(lengths_s(one.session)) <= 108.0, "no more than n_action_steps are carried out"
        assert one.session.state_of("arm") == "moving"
    with driving(Known(), late="stop") as one:
        one.until(lambda: one.policy.number == 1)
        one.policy.delay_s = 60.0
        one.until(lambda: False)  # ends by itself
        assert not one.driver.running
        wait_until(one.session, lambda: one.session.state_of("arm") == "holding")
        assert not one.session.stopped, "it can go on, with the next episode"


def test_a_stream_that_is_too_old_only_once_it_is_read_is_waited_for_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where the machine stood still between looking and reading."""
    with driving(Known()) as one:
        one.until(lambda: one.policy.number == 2)
        observe, times = one.session.observe, iter([True, True])

        def late(*asked: Any) -> Any:
            if next(times, False):
                raise Stale("arm.state", 1.046, 0.5)
            return observe(*asked)

        monkeypatch.setattr(one.session, "observe", late)
        one.until(lambda: one.policy.number == 4)
        assert one.driver.told.stale == 2 and one.driver.running


def test_a_stale_camera_holds_the_robot_until_it_is_back() -> None:
    with driving(Known(PICTURES), robot_of()) as one:
        one.until(lambda: one.policy.number == 1)
        assert one.session.world is not None
        one.session.world.stall_cameras(1.5)
        one.until(lambda: one.driver.told.stale == 1)
        one.until(lambda: one.session.state_of("arm") == "holding")
        asked = one.driver.told.asked
        one.until(lambda: one.driver.told.asked > asked and one.session.state_of("arm") == "moving")
        assert "1 waits for a stream" in one.driver.told.line()
        assert one.driver.told.as_dict()["stale"] == 1


def test_a_policy_that_is_away_holds_the_robot_and_can_be_started_again() -> None:
    with driving(Known(), give_up_s=0.4) as one:
        one.until(lambda: one.policy.number == 1)
        one.policy.delay_s = 60.0
        with pytest.raises(PolicyAway, match=r"not answered for") as away:
            one.for_s(20)
        assert "give_up_s" in str(away.value)
        wait_until(one.session, lambda: one.session.state_of("arm") == "holding")
        one.policy.ready, one.policy.delay_s = False, 0.0
        one.policy.reset()
        assert not one.driver.ready() and not one.driver.ready() and one.policy.starts == 1
        one.policy.ready = True
        assert one.driver.ready()
        one.session.resume()
        one.driver.start()
        one.until(lambda: one.policy.number == 2)
        one.policy.fail = RobotError("it was killed")
        with pytest.raises(PolicyAway, match="it was killed"):
            one.for_s(20)


def test_actions_that_are_no_numbers_hold_the_robot() -> None:
    class Broken(Known):
        def chunk(self, number: int) -> np.ndarray:
            return np.full((self.info.horizon, 2), np.nan, np.float32)

    with driving(Broken()) as one:
        with pytest.raises(RobotError, match="not finite") as broken:
            one.for_s(20)
        assert not isinstance(broken.value, PolicyAway)
        wait_until(one.session, lambda: one.session.state_of("arm") == "holding")
        assert len(sent_of(one.session)[0]) == 0


def test_realtime_chunking_tells_what_is_being_carried_out() -> None:
    with driving(Known(delay_s=0.1), chunking="guidance") as one:
        one.until(lambda: one.policy.number == 3)
        first, second, third = one.policy.prefixes[:3]
        assert first is None and second is not None and third is not None
        # The steps of the chunk before from the newest observed one on: consecutive, all its own.
        for number, prefix in ((0, second), (1, third)):
            chunk = one.policy.chunk(number)
            at = int(np.flatnonzero((chunk == prefix.actions[-1]).all(axis=1))[0])
            settled = prefix.actions[prefix.weights > 0]
            own = settled[(settled[:, None] == chunk[None]).all(axis=2).any(axis=1)]
            assert len(own) >= 2 and (np.diff(own[:, 0]) == 1).all()
            assert at == one.policy.info.horizon - 1, "all that is left of it"
            assert prefix.weights[0] == 1.0 and (np.diff(prefix.weights) <= 0).all()


def test_noise_is_the_same_whenever_an_episode_is_repeated() -> None:
    with driving(Known(), n_action_steps=2) as one:
        for seed in (8, 9, 8):
            one.driver.pause()
            one.policy.seeds.clear()
            one.driver.start(seed=seed)
            one.until(lambda: len(one.policy.seeds) == 3)
            assert one.policy.seeds == [seed * 100_000 + k for k in range(3)]


def test_what_does_not_fit_is_refused_before_it_drives() -> None:
    with on(without_cameras(), seed=None) as session:
        with pytest.raises(RobotError, match=r"observes observation\.image"):
            PolicyDriver(session, Known(PICTURES), InferenceConfig())
        three = replace(INFO, features={**INFO.features, "action": (3,)})
        with pytest.raises(RobotError, match="actions are 3 numbers; the robot takes 2"):
            PolicyDriver(session, Known(three), InferenceConfig())
        with pytest.raises(ConfigError, match="n_action_steps is 16") as refused:
            PolicyDriver(session, Known(), InferenceConfig(n_action_steps=16))
        assert "trained for 8" in str(refused.value)
        with pytest.raises(ConfigError, match="`ahead` is 8 of 8 actions") as refused:
            PolicyDriver(session, Known(), InferenceConfig(ahead=8))
        assert "auto" in str(refused.value)


def test_options_are_checked_as_the_configuration_is() -> None:
    assert with_options(InferenceConfig(), late="hold", merge=None).late == "hold"
    with pytest.raises(ConfigError, match="`late` in the options is 'maybe'") as refused:
        with_options(InferenceConfig(), late="maybe")
    assert "extend" in str(refused.value)


def test_another_rate_than_it_was_trained_at_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with on(without_cameras(fps=20), seed=None) as session:
        PolicyDriver(session, Known(), InferenceConfig())
    assert "moves 2 times as fast as was shown" in caplog.text
