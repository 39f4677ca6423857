"""From answers to plans: what is past, what overlaps, what a late answer finds."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dp_hub.robot.acting.rules import Rules
from dp_hub.robot.acting.schedule import Chunk, Pacing, plan_chunk
from dp_hub.robot.acting.scheduler import Scheduler
from dp_hub.robot.motion.plan import MAX_POINTS
from dp_hub.rollout import execution

PERIOD_S = 0.1
HOLD = Pacing(PERIOD_S, 4)
LINEAR = Pacing(PERIOD_S, 4, interpolation="linear")
START_S = 1000.0


def chunk_of(observed_s, first=0, n=10, n_obs_steps=2):
    """Actions that say their index in the chunk, and ``first`` besides."""
    actions = np.stack([np.arange(n), np.full(n, first)], axis=1).astype(np.float32)
    return Chunk(observed_s, actions, n_obs_steps)


def planned(pacing, *, after_s, **rules):
    return plan_chunk(chunk_of(START_S), Rules(**rules), pacing, number=1, now_s=START_S + after_s)


def test_an_action_is_due_when_its_step_was_observed():
    plan = planned(HOLD, after_s=0.0).plans[0]
    np.testing.assert_allclose(plan.times_s, START_S + PERIOD_S * np.arange(9), rtol=0, atol=1e-9)
    assert plan.targets[:, 0].tolist() == list(range(1, 10))
    assert plan.targets.dtype == np.float64


@pytest.mark.parametrize(
    ("after_s", "first"), [(0.0, 1), (0.04, 1), (0.0999, 1), (0.1, 2), (0.14, 2), (0.2, 3)]
)
def test_a_held_action_is_past_when_the_next_one_is_due(after_s, first):
    result = planned(HOLD, after_s=after_s)
    assert result.plans[0].targets[0, 0] == first
    assert result.dropped == first - 1
    assert result.plans[0].times_s[0] == pytest.approx(START_S + PERIOD_S * (first - 1))


@pytest.mark.parametrize(
    ("after_s", "first"), [(0.0, 1), (0.04, 2), (0.1, 2), (0.1001, 3), (0.14, 3), (0.2, 3)]
)
def test_a_way_point_is_past_when_its_own_time_is(after_s, first):
    result = planned(LINEAR, after_s=after_s)
    assert result.plans[0].targets[0, 0] == first
    assert result.dropped == first - 1


def test_the_time_that_the_arm_needs_counts_as_latency():
    slow = Pacing(PERIOD_S, 4, action_latency_s=0.15)
    result = planned(slow, after_s=0.1)
    assert result.plans[0].targets[0, 0] == 3  # as if it were 0.25 s later
    assert result.latency_s == pytest.approx(0.25)


def test_by_arrival_the_first_action_starts_with_the_answer_and_nothing_is_dropped():
    result = planned(HOLD, after_s=0.37, timing="arrival")
    assert result.dropped == 0
    assert result.plans[0].times_s[0] == pytest.approx(START_S + 0.37)
    assert result.plans[0].targets[:, 0].tolist() == list(range(1, 10))


def test_an_answer_whose_actions_are_all_past_makes_no_plan():
    result = planned(HOLD, after_s=0.9)
    assert result.plans == ()
    assert result.dropped == 9


@pytest.mark.parametrize("late", ["hold", "stop"])
def test_only_n_action_steps_whole_periods_are_planned_unless_a_late_answer_may_use_more(late):
    on_time = planned(HOLD, after_s=0.0, late=late)
    assert on_time.plans[0].targets[:, 0].tolist() == [1, 2, 3, 4]
    assert on_time.until_s == pytest.approx(START_S + 0.4)
    begun = planned(HOLD, after_s=0.04, late=late)  # the rest of 1, and four whole ones
    assert begun.plans[0].targets[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert begun.until_s == pytest.approx(START_S + 0.5)
    way_points = planned(LINEAR, after_s=0.04, late=late)  # four, and the end of the way after
    assert way_points.plans[0].targets[:, 0].tolist() == [2, 3, 4, 5, 6]
    assert way_points.until_s == pytest.approx(START_S + 0.5)
    assert len(planned(HOLD, after_s=0.04, late="extend").plans[0].times_s) == 9


def test_a_new_plan_replaces_the_old_one_from_its_first_action_on():
    assert planned(HOLD, after_s=0.24).plans[0].replace_from_s == pytest.approx(START_S + 0.2)
    assert planned(LINEAR, after_s=0.24).plans[0].replace_from_s == pytest.approx(START_S + 0.24)


def test_blending_goes_evenly_from_the_old_plan_to_the_new_one():
    scheduler = Scheduler(Rules(merge="blend"), HOLD)
    scheduler.accept(chunk_of(START_S, first=0), now_s=START_S)  # until 0.9
    result = scheduler.accept(chunk_of(START_S + 0.4, first=60), now_s=START_S + 0.4)
    # Five times are planned already, 0.4 to 0.8: the old share falls from 5/6 to 1/6.
    expected = [10, 20, 30, 40, 50, 60, 60, 60, 60]
    np.testing.assert_allclose(result.plans[0].targets[:, 1], expected)
    assert result.merged == 5


def test_blending_between_way_points_takes_the_old_way_at_the_new_times():
    scheduler = Scheduler(Rules(merge="blend"), LINEAR)
    scheduler.accept(chunk_of(START_S), now_s=START_S)
    result = scheduler.accept(chunk_of(START_S + 0.65), now_s=START_S + 0.65)
    # The old plan is at 7.5 at 0.65 and at 8.5 at 0.75, and ends at 0.8.
    np.testing.assert_allclose(
        result.plans[0].targets[:3, 0], [7.5 * 2 / 3 + 1 / 3, 8.5 / 3 + 4 / 3, 3]
    )


def test_rotations_are_blended_on_the_shortest_turn():
    pacing = Pacing(PERIOD_S, 1, rotations_at=(0,))
    rules = Rules(merge="blend")
    almost = Rotation.from_rotvec([0, 0, np.pi - 0.1]).as_rotvec()
    beyond = Rotation.from_rotvec([0, 0, np.pi + 0.1]).as_rotvec()  # written as -(pi - 0.1)
    old = plan_chunk(Chunk(0.0, almost[None], 1), rules, pacing, number=1, now_s=0.0)
    new = plan_chunk(
        Chunk(0.0, beyond[None], 1), rules, pacing, number=2, now_s=0.0, previous=old.whole
    )
    middle = Rotation.from_rotvec(new.plans[0].targets[0]).magnitude()
    assert middle == pytest.approx(np.pi, abs=1e-6)


def test_ensembling_is_the_mean_that_simulated_rollouts_take():
    rng = np.random.default_rng(0)
    rules, pacing = Rules(merge="ensemble", ensemble=0.3), Pacing(PERIOD_S, 1)
    scheduler = Scheduler(rules, pacing)
    plans = []
    for step in range(12):
        chunk = rng.normal(size=(5, 3)).astype(np.float32)
        plans.append(execution.Plan(step, chunk))
        now_s = START_S + step * PERIOD_S
        plan = scheduler.accept(Chunk(now_s, chunk, 2), now_s=now_s).plans[0]
        expected = execution.action_at(step, plans, 1, 0.3)
        np.testing.assert_allclose(plan.targets[0], expected, rtol=1e-12)


def test_ensembled_rotations_are_the_mean_turn():
    rules = Rules(merge="ensemble", ensemble=0.0)
    scheduler = Scheduler(rules, Pacing(PERIOD_S, 1, rotations_at=(0,)))
    for angle in (np.pi - 0.1, np.pi + 0.1):
        turn = Rotation.from_rotvec([0, 0, angle]).as_rotvec()
        plan = scheduler.accept(Chunk(0.0, turn[None], 1), now_s=0.0).plans[0]
    assert Rotation.from_rotvec(plan.targets[0]).magnitude() == pytest.approx(np.pi, abs=1e-6)


@pytest.mark.parametrize(
    ("late", "state", "extended"),
    [("extend", "extending", 2), ("hold", "holding", 0), ("stop", "stopped", 0)],
)
def test_a_late_answer_finds_what_the_rules_say(late, state, extended):
    scheduler = Scheduler(Rules(late=late), HOLD)
    assert scheduler.state(START_S) == "empty"
    scheduler.accept(chunk_of(START_S), now_s=START_S)
    assert scheduler.state(START_S + 0.4) == "running"  # its four actions end there
    assert scheduler.state(START_S + 0.55) == state
    result = scheduler.accept(chunk_of(START_S + 0.4), now_s=START_S + 0.55)
    assert result.late
    assert result.late_s == pytest.approx(0.15)
    assert result.extended == extended  # those of 0.4 and 0.5 were begun
    assert scheduler.lateness.held == (late != "extend")


def test_even_a_whole_chunk_ends():
    scheduler = Scheduler(Rules(), HOLD)
    scheduler.accept(chunk_of(START_S), now_s=START_S)
    assert scheduler.state(START_S + 0.89) == "extending"
    assert scheduler.state(START_S + 0.91) == "holding"


def test_what_was_thrown_away_is_neither_blended_with_nor_late():
    scheduler = Scheduler(Rules(merge="blend"), HOLD)
    scheduler.accept(chunk_of(START_S), now_s=START_S)
    scheduler.forget()
    assert scheduler.state(START_S + 5) == "empty"
    result = scheduler.accept(chunk_of(START_S + 5), now_s=START_S + 5)
    assert result.merged == 0
    assert not result.late


def test_chunks_longer_than_a_plan_may_be_are_sent_in_plans_that_follow_each_other():
    scheduler = Scheduler(Rules(), HOLD)
    for _ in range(2):
        result = scheduler.accept(chunk_of(START_S, n=151), now_s=START_S + 0.31)
    assert [len(plan.times_s) for plan in result.plans] == [MAX_POINTS, MAX_POINTS, 19]
    assert [plan.number for plan in result.plans] == [3, 4, 5]
    starts_s = [plan.replace_from_s - START_S for plan in result.plans]
    np.testing.assert_allclose(starts_s, [0.3, 6.7, 13.1])
    together = np.concatenate([plan.targets for plan in result.plans])
    np.testing.assert_array_equal(together[:, 0], np.arange(4, 151))


def test_nothing_of_an_answer_is_changed():
    chunk = chunk_of(START_S)
    before = chunk.actions.copy()
    scheduler = Scheduler(Rules(merge="blend"), HOLD)
    for k in range(3):
        scheduler.accept(chunk, now_s=START_S + 0.1 * k)
    np.testing.assert_array_equal(chunk.actions, before)


@pytest.mark.parametrize(("rotations_at", "loaded"), [((), False), ((3,), True)])
def test_what_merging_rotations_needs_is_loaded_before_anything_moves(rotations_at, loaded):
    program = (
        "import sys\n"
        "from dp_hub.robot.acting.scheduler import Pacing, Rules, Scheduler\n"
        f"Scheduler(Rules(), Pacing(0.1, 8, rotations_at={rotations_at}))\n"
        "print('scipy.spatial.transform' in sys.modules)"
    )
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert seen.stdout.strip() == str(loaded), seen.stderr
