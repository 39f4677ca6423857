"""The four states, what leads from one to another, and what is counted and told on the way."""

import numpy as np
import pytest

from dp_hub.robot.motion.limits import Limits
from dp_hub.robot.motion.motion import Motion
from dp_hub.robot.motion.plan import Plan
from dp_hub.robot.motion.trajectory import Interpolation
from dp_hub.robot.space import POSE, WIDTH, Space, joints

PERIOD_S = 0.01
PLANE = Space(("x", "y"), ("m", "m"))
BRAKES = Limits(low=[-1, -1], high=[1, 1], speed=1.0, acceleration=2.0)


def motion_of(
    limits: Limits | None = None,
    interpolation: Interpolation = "linear",
    *,
    ahead_s: float = 0.0,
) -> Motion:
    return Motion(
        PLANE,
        Limits() if limits is None else limits,
        interpolation,
        start=np.zeros(2),
        period_s=PERIOD_S,
        ahead_s=ahead_s,
    )


def plan_to(number: int, due_s: float, x: float, y: float = 0.0) -> Plan:
    return Plan(number, np.array([due_s]), np.array([[x, y]]), replace_from_s=0.0)


def run(motion: Motion, start_s: float, end_s: float) -> list[np.ndarray | None]:
    """Ticks of an actuator that follows at once."""
    sent = []
    for k in range(round(start_s / PERIOD_S), round(end_s / PERIOD_S)):
        target = motion.target(k * PERIOD_S)
        if target is not None:
            motion.saw(target)
        sent.append(target)
    return sent


def texts(motion: Motion) -> str:
    return "\n".join(str(event) for event in motion.close())


def test_idle_sends_nothing_and_a_plan_begins_where_the_actuator_is_then() -> None:
    motion = motion_of()
    assert motion.state == "idle"
    assert run(motion, 0.0, 0.1) == [None] * 10
    motion.saw(np.array([5.0, 5.0]))
    assert motion.accept(plan_to(0, 1.1, 6.0, 5.0), 0.1)
    assert motion.state == "moving"
    target = motion.target(0.6)
    assert target is not None and target.tolist() == pytest.approx([5.5, 5.0])


def test_the_last_target_is_held_and_running_dry_is_counted_once_per_time() -> None:
    motion = motion_of()
    motion.accept(plan_to(0, 0.1, 1.0), 0.0)
    sent = run(motion, 0.0, 1.0)
    assert sent[-1] is not None and sent[-1].tolist() == [1.0, 0.0]
    assert motion.state == "moving" and motion.counts.ran_dry == 1
    motion.accept(plan_to(1, 1.1, 2.0), 1.0)
    run(motion, 1.0, 2.0)
    assert motion.counts.ran_dry == 2
    assert texts(motion).count("at its end") == 2


def test_plans_that_follow_each_other_in_time_do_not_run_dry() -> None:
    motion = motion_of()
    for k in range(10):
        times = 0.1 * k + np.array([0.1, 0.2])
        motion.accept(Plan(k, times, np.outer(times, [1, 0]), times[0]), 0.1 * k)
        sent = run(motion, 0.1 * k, 0.1 * k + 0.1)
    assert sent[-1] is not None and sent[-1][0] == pytest.approx(0.99)
    assert motion.counts.ran_dry == 0
    assert motion.counts.replaced == 9
    assert (motion.counts.plans, motion.counts.points) == (10, 20)


def test_the_last_step_lasts_as_long_as_the_one_before_until_it_has_run_dry() -> None:
    motion = motion_of(interpolation="hold")
    motion.accept(Plan(0, np.array([0.1, 0.2]), np.zeros((2, 2)), 0.0), 0.0)
    run(motion, 0.0, 0.3)
    assert motion.counts.ran_dry == 0
    run(motion, 0.3, 0.4)
    assert motion.counts.ran_dry == 1


def test_targets_are_asked_for_ahead_by_the_latency_of_actions() -> None:
    early, plain = motion_of(ahead_s=0.25), motion_of()
    for motion in (early, plain):
        motion.accept(Plan(0, np.array([0.0, 1.0]), np.array([[0.0, 0], [1.0, 0]]), 0.0), 0.0)
    ahead, now = early.target(0.5), plain.target(0.5)
    assert ahead is not None and now is not None
    assert (ahead[0], now[0]) == (pytest.approx(0.75), pytest.approx(0.5))


def test_points_that_come_too_late_are_counted_and_the_one_due_now_is_used() -> None:
    motion = motion_of(interpolation="hold")
    times = np.array([0.1, 0.2, 0.3, 0.4])
    targets = np.array([[1.0, 0], [2.0, 0], [3.0, 0], [4.0, 0]])
    motion.accept(Plan(0, times, targets, 0.0), 0.35)
    sent = [motion.target(t) for t in (0.35, 0.36, 0.4)]
    assert [target[0] for target in sent if target is not None] == [3.0, 3.0, 4.0]
    assert motion.counts.late_points == 2


def test_hold_brakes_then_sends_nothing_and_waits_for_resume() -> None:
    motion = motion_of(BRAKES)
    motion.accept(plan_to(0, 1.0, 0.9), 0.0)
    run(motion, 0.0, 0.5)
    motion.hold(0.5, "asked")
    assert not motion.held and not motion.at_rest
    sent = run(motion, 0.5, 1.5)
    assert sent[0] is not None and sent[-1] is None and motion.held
    assert not motion.accept(plan_to(1, 2.0, 0.1), 1.5)
    assert run(motion, 1.5, 1.6) == [None] * 10
    motion.resume(1.6)
    run(motion, 1.6, 1.62)
    assert motion.state == "idle"
    assert motion.accept(plan_to(2, 2.0, 0.1), 1.62)
    assert run(motion, 1.62, 1.7)[-1] is not None
    assert motion.counts.holds == 1


def test_resume_while_it_still_brakes_lets_it_come_to_rest_first() -> None:
    motion = motion_of(BRAKES)
    motion.accept(plan_to(0, 1.0, 0.9), 0.0)
    run(motion, 0.0, 0.5)
    motion.hold(0.5, "asked")
    motion.resume(0.5)
    assert motion.state == "holding"
    run(motion, 0.5, 1.5)
    assert motion.state == "idle" and motion.at_rest


def test_after_a_lost_commander_it_goes_on_with_a_newer_plan_only() -> None:
    motion = motion_of(BRAKES)
    motion.accept(plan_to(5, 1.0, 0.9), 0.0)
    run(motion, 0.0, 0.5)
    motion.hold(0.5, "heartbeat", needs_resume=False)
    motion.refuse(plan_to(6, 1.0, 0.9), 0.6, "the heartbeat is lost")
    for number in (4, 5, 6):
        assert not motion.accept(plan_to(number, 1.0, 0.9), 0.7)
    assert motion.state == "holding"
    run(motion, 0.7, 1.5)
    assert motion.state == "holding", "it shows that it waits"
    assert motion.accept(plan_to(7, 2.0, 0.1), 1.5)
    assert motion.state == "moving"
    assert motion.counts.refused == 4


def test_the_thrown_away_plan_does_not_come_back_with_the_next_one() -> None:
    motion = motion_of()
    motion.accept(Plan(0, np.array([0.1, 5.0]), np.array([[0.1, 0], [9.0, 9.0]]), 0.0), 0.0)
    run(motion, 0.0, 0.2)
    motion.hold(0.2, "heartbeat", needs_resume=False)
    run(motion, 0.2, 0.3)
    motion.accept(Plan(1, np.array([4.0]), np.array([[0.0, 0.0]]), replace_from_s=6.0), 0.3)
    assert all(target is not None and target[1] < 0.2 for target in run(motion, 0.3, 6.0))


def test_a_hold_by_a_person_is_stronger_than_one_by_a_lost_commander() -> None:
    motion = motion_of()
    motion.accept(plan_to(0, 1.0, 0.9), 0.0)
    motion.hold(0.1, "heartbeat", needs_resume=False)
    motion.hold(0.2, "asked")
    assert not motion.accept(plan_to(1, 1.0, 0.9), 0.3)
    motion.hold(0.3, "heartbeat", needs_resume=False)
    assert not motion.accept(plan_to(2, 1.0, 0.9), 0.4)


def test_what_holds_begins_anew_where_it_was_moved_to() -> None:
    motion = motion_of(BRAKES)
    motion.accept(plan_to(0, 0.2, 0.1), 0.0)
    run(motion, 0.0, 1.0)
    motion.hold(1.0, "asked")
    run(motion, 1.0, 1.1)
    motion.saw(np.array([0.5, 0.5]))  # by hand, or by the reset of a simulated world
    motion.resume(1.1)
    run(motion, 1.1, 1.2)
    motion.accept(plan_to(1, 9.0, 0.5, 0.5), 1.2)
    target = motion.target(1.2)
    assert target is not None and target.tolist() == pytest.approx([0.5, 0.5])


def test_stop_is_for_good() -> None:
    motion = motion_of()
    motion.accept(plan_to(0, 1.0, 0.9), 0.0)
    run(motion, 0.0, 0.5)
    motion.stop(0.5, "asked")
    assert motion.target(0.51) is None
    motion.resume(0.6)
    motion.hold(0.6, "asked")
    assert not motion.accept(plan_to(1, 1.0, 0.9), 0.7)
    assert motion.state == "stopped" and run(motion, 0.7, 1.0) == [None] * 30
    assert "stopped: asked" in texts(motion)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (plan_to(1, 1.0, float("nan")), "`x` of its point 0 is nan"),
        (plan_to(1, 1.0, 0.0, float("inf")), "`y` of its point 0 is inf"),
        (plan_to(1, 1.0, 1e300), "`x` of its point 0 is 1e+300"),
        (plan_to(1, float("nan"), 0.0), "times do not increase"),
        (Plan(1, np.array([2.0, 1.0]), np.zeros((2, 2)), 0.0), "times do not increase"),
        (Plan(1, np.array([1.0]), np.zeros((1, 3)), 0.0), "3 numbers a point instead of 2"),
        (Plan(1, np.array([1.0]), np.zeros((1, 2)), float("nan")), "is not a number"),
        (plan_to(0, 1.0, 0.5), "plan 0 came before it"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused_whole_and_the_old_one_goes_on(
    plan: Plan, words: str
) -> None:
    motion = motion_of()
    motion.accept(plan_to(0, 1.0, 1.0), 0.0)
    assert not motion.accept(plan, 0.5)
    target = motion.target(0.5)
    assert target is not None and target.tolist() == pytest.approx([0.5, 0.0])
    assert motion.counts.refused == 1
    assert words in texts(motion)


def test_a_violation_is_one_event_from_its_begin_to_its_end() -> None:
    motion = motion_of(Limits(low=[-1, -1], high=[1, 1]))
    times = np.array([1.0, 1.5, 2.0, 4.0])
    motion.accept(Plan(0, times, np.array([[1.0, 0], [1.2, 0], [1, 0], [1, 0]]), 0.0), 0.0)
    run(motion, 0.0, 4.0)
    [event] = [one for one in motion.take_events() if one.kind == "box"]
    assert event.began_s == pytest.approx(1.01) and event.ended_s == pytest.approx(1.99)
    assert event.worst == pytest.approx(0.2)
    assert event.ticks == motion.counts.clipped_box == 99
    assert "0.2" in str(event) and "for 0.98 s" in str(event)
    assert motion.take_events() == []


def test_a_plan_that_is_too_fast_is_told_with_its_speed() -> None:
    motion = motion_of(Limits(low=[-9, -9], high=[9, 9], speed=0.5))
    motion.accept(plan_to(0, 1.0, 2.0), 0.0)
    run(motion, 0.0, 10.0)
    [event] = [one for one in motion.close() if one.kind == "speed"]
    assert event.worst == pytest.approx(2.0) and event.limit == 0.5
    assert event.ended_s == pytest.approx(4.0, abs=0.05), "until the command has caught up"
    assert motion.counts.limited_speed == event.ticks


def test_falling_behind_a_plan_because_of_the_acceleration_is_told() -> None:
    motion = motion_of(Limits(low=[-9, -9], high=[9, 9], speed=1.0, acceleration=0.5))
    motion.accept(plan_to(0, 2.0, 1.0), 0.0)
    run(motion, 0.0, 4.0)
    kinds = [one.kind for one in motion.close()]
    assert "acceleration" in kinds and "speed" not in kinds


@pytest.mark.parametrize("space", [WIDTH, PLANE, POSE, joints(6), joints(7)])
@pytest.mark.parametrize("interpolation", ["hold", "linear"])
def test_every_kind_of_space_reaches_its_target(space: Space, interpolation: Interpolation) -> None:
    n = len(space.linear)
    limits = Limits(
        low=[-1.0] * n,
        high=[1.0] * n,
        speed=0.5,
        acceleration=2.0,
        rotation_speed=1.0 if space.rotation_at is not None else None,
        rotation_acceleration=4.0 if space.rotation_at is not None else None,
        step=None,
    )
    start, goal = np.full(space.size, 0.1), np.linspace(-0.2, 0.3, space.size)
    motion = Motion(space, limits, interpolation, start=start, period_s=PERIOD_S)
    motion.accept(Plan(0, np.array([1.0]), goal[None], 0.0), 0.0)
    target = run(motion, 0.0, 4.0)[-1]
    assert target is not None and target.dtype == np.float64
    np.testing.assert_allclose(target, goal, atol=1e-9)
