"""What is measured of a simulated robot is what was injected into it, on a machine that is busy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import pytest
from inference_helpers import STATE, StandIn
from session_help import PATIENT_S

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.config import RobotConfig, load_robot
from dp_hub.robot.latency.asking import ask
from dp_hub.robot.latency.choosing import choose
from dp_hub.robot.latency.finding import Findings
from dp_hub.robot.latency.measuring import Wanted, check_place, measure, plan
from dp_hub.robot.latency.playing import careful, play
from dp_hub.robot.latency.tape import Tape
from dp_hub.robot.session.session import Session

T = TypeVar("T")
STATE_S, CAMERA_S, ACTION_S = 0.06, 0.15, 0.04
BRIEF = Wanted(amplitude=40.0, moves=4, sweep_s=4.0, watch_s=1.0, questions=5)
SHORT = Wanted(moves=2, sweep_s=1.0)


def quiet(what: str) -> Callable[[float], None]:
    return lambda share: None


def pusht(*, camera: bool, **late: float) -> RobotConfig:
    """PushT whose devices stamp what comes when it comes, as most hardware does."""
    values = load_robot("pusht").model_dump(exclude_unset=True)
    values["hold_after_s"] = PATIENT_S
    values["world"]["options"] = late
    values["arms"]["arm"]["options"] = {"stamp": "arrival", "silent_s": PATIENT_S}
    values["arms"]["arm"]["max_age_s"] = values["cameras"]["top"]["max_age_s"] = PATIENT_S
    values["cameras"]["top"]["options"] = {"stamp": "arrival"}
    if not camera:
        del values["cameras"], values["observations"]["observation.image"]
    return RobotConfig.model_validate(values)


def undisturbed(session: Session, act: Callable[[], T]) -> T:
    """Do it again, five times at most, where the machine stood still for 50 ms meanwhile."""
    for _ in range(5):
        missed = session.counts()["arm"]["missed"]
        result = act()
        if session.counts()["arm"]["missed"] - missed < 5:
            break
    return result


@contextmanager
def arm_only() -> Iterator[Session]:
    with Session(pusht(camera=False)) as session:
        session.beat()
        yield session


@pytest.fixture(scope="module")
def measured() -> Findings:
    late = {
        "state_latency_s": STATE_S, "camera_latency_s": CAMERA_S, "action_latency_s": ACTION_S,
    }  # fmt: skip
    with Session(pusht(camera=True, **late)) as session:
        inference = StandIn(STATE, compute_s=0.05)
        return undisturbed(
            session, lambda: measure(session, BRIEF, plan(session, BRIEF), inference, quiet)
        )


def near(measured: Findings) -> float:
    """A period of the arm's readings as they came, on a machine that may be busy, and a half."""
    return 0.015 + 1 / measured.streams["arm"].rate_hz


def test_dead_time_is_action_and_state_latency_together(measured: Findings) -> None:
    assert measured.dead_time is not None and measured.dead_time.spread is not None
    # The world moves on once in 10 ms.
    assert measured.dead_time.spread.median_s == pytest.approx(
        ACTION_S + STATE_S + 0.01, abs=near(measured)
    )


def test_lag_is_longer_by_what_the_arm_needs_to_follow(measured: Findings) -> None:
    assert measured.lag is not None and measured.lag.delay_s is not None
    # A PD controller of gain 100 and damping 20 is 0.2 s behind slow targets, less behind quick.
    assert measured.lag.delay_s == pytest.approx(
        ACTION_S + STATE_S + 0.18, abs=0.04 + near(measured)
    )


def test_pictures_are_later_than_positions_by_camera_less_state_latency(measured: Findings) -> None:
    assert measured.cameras is not None
    assert measured.cameras["top"].delay_s == pytest.approx(CAMERA_S - STATE_S, abs=near(measured))


def test_with_the_state_latency_known_all_others_are_what_was_injected(measured: Findings) -> None:
    config = pusht(camera=True)
    values = choose(measured, config, state_latency_s=STATE_S).values
    assert values["arms", "arm", "state_latency_s"] == STATE_S
    assert values["cameras", "top", "latency_s"] == pytest.approx(CAMERA_S, abs=near(measured))
    assert values["arms", "arm", "action_latency_s"] == pytest.approx(ACTION_S, abs=near(measured))


def test_streams_are_told_with_their_rates(measured: Findings) -> None:
    assert set(measured.streams) == {"arm", "top"}
    assert measured.streams["arm"].wanted_hz == 100
    for timing in measured.streams.values():
        assert 0 < timing.rate_hz < 1.2 * timing.wanted_hz
        assert timing.transport is not None and timing.transport.median_s >= 0
    assert measured.counts["arm"]["ticks"] > 0


def test_policy_is_asked_and_its_time_told(measured: Findings) -> None:
    asked = measured.inference
    assert asked is not None and asked.answers.n == BRIEF.questions
    assert asked.answers.median_s == pytest.approx(0.05, abs=0.02)
    assert asked.compute.median_s == pytest.approx(0.05)
    # The loop sees it a little later, and the observation was a little old.
    assert asked.observed.median_s > asked.answers.median_s


def test_what_moves_is_told_before_and_the_robot_is_where_it_was_after() -> None:
    with arm_only() as session:
        planned = plan(session, SHORT)
        assert planned.line().startswith(f"arm moves along x between {planned.here:g} and ")
        assert abs(planned.how.travel) == pytest.approx(10.24)
        assert session.position("arm")[0] == pytest.approx(planned.here)

        def moved() -> Tape:
            tape = Tape({"arm": session.rings["arm"]}, session.parts.rates_hz, 0)
            play(session, tape, "arm", planned.how, planned.steps, quiet(""))
            return tape

        tape = undisturbed(session, moved)
        ends = sorted((planned.here, planned.there))
        assert tape["arm"].values.min() > ends[0] - 1 and tape["arm"].values.max() < ends[1] + 1
        assert np.ptp(tape["arm"].values) == pytest.approx(10.24, abs=0.5)
        assert session.position("arm")[0] == pytest.approx(planned.here, abs=0.5)
        check_place(planned, session.position("arm"))
        with pytest.raises(RobotError, match="when it was told what moves"):
            check_place(planned, session.position("arm") + 20.0)


@pytest.mark.parametrize(
    ("end", "state"), [(KeyboardInterrupt(), "holding"), (RobotError("it fell"), "stopped")]
)
def test_interrupt_in_the_middle_holds_and_an_error_stops(end: BaseException, state: str) -> None:
    def ends(share: float) -> None:
        if share > 0.3:
            raise end

    with arm_only() as session:
        planned = plan(session, SHORT)
        tape = Tape({"arm": session.rings["arm"]}, session.parts.rates_hz, 0)
        with pytest.raises(type(end)), careful(session):
            play(session, tape, "arm", planned.how, planned.steps, ends)
        until_s = session.clock.now_s() + 5
        while session.state_of("arm") != state and session.clock.now_s() < until_s:
            session.beat()
            session.clock.sleep_until(session.clock.now_s() + 0.01)
        assert session.state_of("arm") == state


def test_arm_that_is_held_from_elsewhere_ends_the_measurement() -> None:
    with arm_only() as session:
        planned = plan(session, SHORT)
        tape = Tape({"arm": session.rings["arm"]}, session.parts.rates_hz, 0)

        def holds(share: float) -> None:
            if share > 0.2:
                session.hold()

        with pytest.raises(RobotError, match="arm is holding in the middle"):
            play(session, tape, "arm", planned.how, planned.steps, holds)


def test_what_is_not_there_cannot_be_moved_or_asked() -> None:
    with arm_only() as session:
        with pytest.raises(ConfigError, match="no arm or gripper is called 'leg'; there is arm"):
            plan(session, Wanted(actuator="leg"))
        with pytest.raises(ConfigError, match="arm has no number 'z'; it has x, y"):
            plan(session, Wanted(number="z"))
        blind = STATE.__class__(**{**vars(STATE), "observations": ("observation.image",)})
        blind.features["observation.image"] = (96, 96, 3)
        with pytest.raises(RobotError, match=r"observes observation\.image"):
            ask(session, StandIn(blind), 1, quiet(""))
