"""When the policy is asked, and that real time then does what simulated rollouts do."""

import heapq
import math

import numpy as np
import pytest

from dp_hub.robot.acting.pace import Pace
from dp_hub.robot.acting.rules import Rules
from dp_hub.robot.acting.schedule import Chunk, Pacing
from dp_hub.robot.acting.scheduler import Scheduler
from dp_hub.robot.motion.trajectory import resting
from dp_hub.robot.space import Space
from dp_hub.rollout import execution

PLANE = Space(("x", "y"), ("px", "px"))

PERIOD_S = 0.1
TO, TP, TA = 2, 16, 6


def answer_of(step):
    """A chunk of which every action is another one, far from all others."""
    return np.random.default_rng(step).normal(scale=100, size=(TP, 2))


class Arm:
    """Follows plans as a controller does, without limits."""

    def __init__(self, interpolation):
        self.trajectory = resting(np.zeros(2), -np.inf, PLANE, interpolation)
        self.has_plan, self.held = False, interpolation == "hold"

    def take(self, plan, at_s):
        here = self.at(at_s)
        self.trajectory = self.trajectory.accept(plan, at_s, here, at_s).trajectory
        self.has_plan = True

    def at(self, time_s):
        return self.trajectory.at(time_s + (1e-7 if self.held else 0.0))  # sums of floats


def run(latency_of, *, pace, rules, pacing, until_s=8.0, camera_s=PERIOD_S / 3):
    """The loop on a virtual clock: frames, answers, and the action at every step.

    Returns the steps observed, the actions by step, and the scheduler.
    """
    scheduler, arm = Scheduler(rules, pacing), Arm(pacing.interpolation)
    n_frames, n_steps = round(until_s / camera_s), round(until_s / PERIOD_S)
    # At one time: first an answer, then a frame, then what the arm does.
    events = [(frame * camera_s, 1, frame) for frame in range(n_frames)]
    ahead_s = pacing.action_latency_s  # what the arm is at was sent so long before
    events += [(step * PERIOD_S - ahead_s, 2, step) for step in range(n_steps)]
    heapq.heapify(events)
    waiting, asked, actions = False, [], {}
    while events:
        now_s, kind, what = heapq.heappop(events)
        if kind == 0:
            waiting = False
            result = scheduler.accept(what, now_s=now_s)
            pace.answered(result.latency_s)
            for plan in result.plans:
                arm.take(plan, now_s + ahead_s)
        elif kind == 1 and not waiting and pace.wants(now_s):
            pace.asked(now_s)
            waiting = True
            step = round(now_s / PERIOD_S)
            asked.append(step)
            chunk = Chunk(now_s, answer_of(step), TO)
            heapq.heappush(events, (now_s + latency_of(len(asked)) - 1e-9, 0, chunk))
        elif kind == 2 and arm.has_plan:
            actions[what] = arm.at(now_s + ahead_s)
    return asked, actions, scheduler


@pytest.mark.parametrize("interpolation", ["hold", "linear"])
@pytest.mark.parametrize("late", ["extend", "hold"])
@pytest.mark.parametrize("latency_s", [0.0, 0.03, 0.1, 0.17, 0.2, 0.35])
def test_with_constant_latency_the_actions_are_those_of_simulated_rollouts(
    latency_s, late, interpolation
):
    pace = Pace(period_s=PERIOD_S, n_action_steps=TA, grid_s=PERIOD_S / 3)
    pacing = Pacing(PERIOD_S, TA, interpolation=interpolation)
    asked, actions, scheduler = run(
        lambda _: latency_s, pace=pace, rules=Rules(late=late), pacing=pacing
    )
    late_steps = math.ceil(latency_s / PERIOD_S)
    simulated = execution.Execution(TA, late_steps)
    assert asked == list(range(0, 80, TA))
    plans = [execution.Plan(step, answer_of(step)) for step in asked]
    compared = 0
    for step in range(60):
        begun = [plan for plan in plans if plan.step <= step]
        first = TO - 1 + simulated.latency_steps
        expected = execution.action_at(step, begun, first, None)
        np.testing.assert_allclose(actions[step + late_steps], expected, atol=1e-4)
        compared += 1
    assert compared == 60
    assert scheduler.lateness.late == 0
    assert scheduler.lateness.extended == 0


@pytest.mark.parametrize("interpolation", ["hold", "linear"])
def test_the_time_that_the_arm_needs_is_latency_like_any_other(interpolation):
    pace = Pace(period_s=PERIOD_S, n_action_steps=TA)
    pacing = Pacing(PERIOD_S, TA, action_latency_s=0.08, interpolation=interpolation)
    _, actions, _ = run(lambda _: 0.05, pace=pace, rules=Rules(), pacing=pacing)
    # 0.13 s in all: two steps. What the arm is at, not what it was sent.
    for step in range(TA):
        np.testing.assert_allclose(actions[2 + step], answer_of(0)[TO + 1 + step], atol=1e-4)


def test_by_arrival_the_robot_follows_each_chunk_from_its_start():
    pace = Pace(period_s=PERIOD_S, n_action_steps=TA, grid_s=PERIOD_S / 3)
    _, actions, scheduler = run(
        lambda _: 0.15,
        pace=pace,
        rules=Rules(timing="arrival"),
        pacing=Pacing(PERIOD_S, TA),
    )
    for step in range(60):
        asked, since = divmod(step, TA)
        np.testing.assert_array_equal(actions[step + 2], answer_of(TA * asked)[TO - 1 + since])
    assert scheduler.lateness.dropped == 0


def test_asked_ahead_by_what_answers_take_no_action_beyond_n_action_steps_is_carried_out():
    pace = Pace(period_s=PERIOD_S, n_action_steps=TA, ahead="auto", grid_s=PERIOD_S / 3)
    asked, actions, scheduler = run(
        lambda _: 0.17, pace=pace, rules=Rules(), pacing=Pacing(PERIOD_S, TA)
    )
    assert pace.ahead == 2
    assert asked == list(range(0, 80, TA - 2))
    for step in range(2, 60):
        newest = max(one for one in asked if one + 2 <= step)
        np.testing.assert_array_equal(actions[step], answer_of(newest)[TO - 1 + step - newest])
    assert scheduler.lateness.late == 0


def test_a_high_share_of_what_was_measured_lately_sets_how_far_ahead():
    pace = Pace(period_s=PERIOD_S, n_action_steps=8, ahead="auto", share=0.9, memory=20)
    assert pace.ahead == 0
    for _ in range(17):
        pace.answered(0.15)
    pace.answered(0.35)
    assert pace.ahead == 2  # one in 18 may be late
    for _ in range(2):
        pace.answered(0.35)
    assert pace.ahead == 4
    for _ in range(20):
        pace.answered(0.05)
    assert pace.ahead == 1
    pace.answered(9.0)
    pace.answered(9.0)
    pace.answered(9.0)
    assert pace.ahead == 7  # never so early that no step would be left


def test_one_slow_answer_costs_the_steps_it_was_late_and_nothing_after():
    pace = Pace(period_s=PERIOD_S, n_action_steps=TA, grid_s=PERIOD_S / 3)
    asked, actions, scheduler = run(
        lambda n: 0.55 if n == 4 else 0.05,
        pace=pace,
        rules=Rules(),
        pacing=Pacing(PERIOD_S, TA),
    )
    assert asked[:6] == [0, 6, 12, 18, 24, 30]
    for step in range(18, 24):  # the old chunk goes on to its end until the answer of 18 is there
        np.testing.assert_array_equal(actions[step], answer_of(12)[TO - 1 + step - 12])
    np.testing.assert_array_equal(actions[24], answer_of(18)[TO - 1 + 6])
    np.testing.assert_array_equal(actions[25], answer_of(24)[TO - 1 + 1])
    assert scheduler.lateness.late == 1
    assert scheduler.lateness.extended == 5


def test_frames_that_jitter_set_the_beat_without_drift():
    camera_s, rng = 1 / 30, np.random.default_rng(0)
    pace = Pace(period_s=PERIOD_S, n_action_steps=TA, grid_s=camera_s)
    frames_s = camera_s * np.arange(9000) + rng.uniform(-0.008, 0.008, 9000)
    asked = []
    for frame, time_s in enumerate(frames_s):
        if pace.wants(time_s):
            pace.asked(time_s)
            asked.append(frame)
    assert asked == list(range(0, 9000, 18))


def test_after_a_reset_it_asks_with_the_next_observation():
    pace = Pace(period_s=PERIOD_S, n_action_steps=TA)
    pace.asked(5.0)
    assert not pace.wants(5.1)
    pace.reset()
    assert pace.wants(5.1)
