"""A policy drives a simulated robot: what it says reaches the world at its times, or it holds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from known_policy import INFO, PICTURES, Known
from session_help import on, plans_sent, robot_of, sent_of, wait_until, without_cameras
from virtual_session import VirtualSession

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.config import InferenceConfig, RobotConfig
from dp_hub.robot.observing.align import Stale
from dp_hub.robot.session.driver import PolicyAway, PolicyDriver, with_options
from dp_hub.robot.session.session import Session


class Driving:
    """A driver and its session, the policy on the session's clock."""

    def __init__(self, session: Session, policy: Known, **how: Any) -> None:
        self.session, self.policy = session, policy
        policy.now_s = session.clock.now_s  # type: ignore[method-assign]
        self.driver = PolicyDriver(session, policy, with_options(InferenceConfig(), **how), seed=5)
        self.driver.start()

    def until(self, done: Callable[[], Any]) -> None:
        """Step until something is so; False of a step ends it too."""

        def stepped() -> Any:
            return not self.driver.step() or done()

        self.wait(stepped)

    def wait(self, done: Callable[[], Any]) -> None:
        """Until something is so, without a step of the driver."""
        if not isinstance(self.session, VirtualSession):
            wait_until(self.session, done)
            return
        until_s = self.session.clock.now_s() + 200.0
        while not done():
            assert self.session.clock.now_s() < until_s, "it takes too long"
            self.session.step()

    def for_s(self, seconds: float) -> None:
        clock = self.session.clock
        until_s = clock.now_s() + seconds
        self.until(lambda: clock.now_s() >= until_s)


@contextmanager
def driving(policy: Known, **how: Any) -> Iterator[Driving]:
    """On a clock of its own."""
    with VirtualSession(without_cameras()) as session:
        yield Driving(session, policy, **how)


@contextmanager
def really_driving(policy: Known, config: RobotConfig, **how: Any) -> Iterator[Driving]:
    """In real time."""
    with on(config) as session:
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
        # An answer is there a tick after the question, and until then the chunk before goes on.
        ours = {target: lasts_s for target, lasts_s in lasted.items() if lasts_s > 0.011}
        assert list(ours)[: len(expected)] == expected
        assert list(ours.values()) == pytest.approx([0.1] * len(ours), abs=0.011)
        assert set(lasted) - set(ours) == {109.0, 125.0}
        told = one.driver.told
        assert told.asked == len(one.policy.seeds) and told.full == 0 and told.stale == 0
        assert "answers" in told.line()


def test_in_real_time_what_is_sent_is_the_plan_in_force_at_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans = plans_sent(monkeypatch)
    with really_driving(Known(delay_s=0.05), without_cameras()) as one:
        one.until(lambda: one.policy.number == 4)
        sent = one.session.last("arm.sent", 10_000)
    in_force: dict[int, list[tuple[float, np.ndarray]]] = {0: []}
    for plan in plans:
        before = [
            point for point in in_force[plan.number - 1] if point[0] < plan.replace_from_s - 1e-6
        ]
        in_force[plan.number] = [*before, *zip(plan.times_s.tolist(), plan.targets, strict=True)]
    assert len(plans) == 4 and set(sent.values["plan"]) >= {1, 2, 3}
    for now_s, target, number in zip(
        sent.times_s, sent.values["target"], sent.values["plan"], strict=True
    ):
        due = [where for time_s, where in in_force[int(number)] if time_s <= now_s]
        if due:  # before, it stays where it is
            assert target.tolist() == due[-1].tolist()


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
        one.wait(lambda: one.session.state_of("arm") == "holding")
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


def test_a_stale_camera_holds_the_robot_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    impatient = {"top": {"device": "sim_pusht", "rate_hz": 30, "max_age_s": 0.5}}
    with really_driving(Known(PICTURES), robot_of(cameras=impatient)) as one:
        one.until(lambda: one.policy.number == 1)
        assert one.session.world is not None
        one.session.world.stall_cameras(1.5)
        one.until(lambda: one.driver.told.stale)
        one.until(lambda: one.session.state_of("arm") == "holding")
        asked = one.driver.told.asked
        one.until(lambda: one.driver.told.asked > asked and one.session.state_of("arm") == "moving")
        told = one.driver.told
    waits = [text for text in caplog.messages if "the robot holds until it is back" in text]
    assert waits and all("the newest of top is" in text for text in waits)
    assert f"{len(waits)} waits for a stream" in told.line()
    assert told.as_dict()["stale"] == len(waits)


def test_a_policy_that_is_away_holds_the_robot_and_can_be_started_again() -> None:
    with driving(Known(), give_up_s=0.4) as one:
        one.until(lambda: one.policy.number == 1)
        one.policy.delay_s = 60.0
        with pytest.raises(PolicyAway, match=r"not answered for") as away:
            one.for_s(20)
        assert "give_up_s" in str(away.value)
        one.wait(lambda: one.session.state_of("arm") == "holding")
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
        one.wait(lambda: one.session.state_of("arm") == "holding")
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
