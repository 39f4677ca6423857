"""A recorded episode as plans: slowly to its beginning, then every action at its time."""

from pathlib import Path

import numpy as np
import pytest
from played_streams import demonstrations

from dp_hub.errors import ConfigError, DataError
from dp_hub.robot.motion.limits import Limits
from dp_hub.robot.motion.plan import MAX_POINTS, Plan
from dp_hub.robot.replaying import approach_s, between, delayed, due, episode_plan
from dp_hub.robot.space import POSE, Space

PLANE = Space(("x", "y"), ("px", "px"))


def together(plans: tuple[Plan, ...]) -> tuple[np.ndarray, np.ndarray]:
    times = np.concatenate([plan.times_s for plan in plans])
    return times, np.concatenate([plan.targets for plan in plans])


def test_actions_of_a_real_episode_keep_their_times_and_values(pusht_first5_zip: Path) -> None:
    actions = demonstrations(pusht_first5_zip, most_s=30.0)[0].action
    assert len(actions) > 2 * MAX_POINTS
    plan = episode_plan(
        actions, 10, start_s=50.0, position=np.array([300.0, 300.0]), space=PLANE,
        limits=Limits(speed=200.0), first_number=7,
    )  # fmt: skip
    times, targets = together(plan.actions)
    assert np.array_equal(targets, actions)
    assert np.allclose(times, plan.begins_s + np.arange(len(actions)) / 10, atol=1e-12)
    assert plan.ends_s == pytest.approx(plan.begins_s + len(actions) / 10)
    assert [one.number for one in plan.plans] == list(range(7, 7 + len(plan.plans)))
    assert all(len(one.times_s) <= MAX_POINTS for one in plan.plans)
    assert all(one.replace_from_s == one.times_s[0] for one in plan.plans)


def test_the_approach_is_straight_slow_and_at_rest_before_the_first_action() -> None:
    actions, position = np.array([[100.0, 0.0], [101.0, 0.0]]), np.array([0.0, 0.0])
    limits = Limits(speed=100.0)
    plan = episode_plan(actions, 10, start_s=0.0, position=position, space=PLANE, limits=limits)
    times, targets = together(plan.approach)
    way = np.vstack([position, targets])
    speeds = np.linalg.norm(np.diff(way, axis=0), axis=1) / np.diff([0.0, *times])
    assert speeds.max() <= 25.0 + 1e-9  # a quarter of the limit
    assert (targets[:, 1] == 0).all() and (np.diff(targets[:, 0]) > 0).all()
    assert np.array_equal(targets[-1], actions[0])
    assert plan.begins_s >= times[-1] + 0.5


def test_limits_of_single_numbers_and_of_rotations_are_kept() -> None:
    start = np.zeros(6)
    first = np.array([0.4, 0.1, 0.0, 0.0, 0.0, np.pi / 2])
    each = Limits(speed=[0.1, 0.2, 0.3], rotation_speed=10.0)
    assert approach_s(start, first, POSE, each, slow=0.5) == pytest.approx(0.4 / 0.05)
    turning = Limits(speed=10.0, rotation_speed=0.1)
    assert approach_s(start, first, POSE, turning, slow=0.5) == pytest.approx(np.pi / 2 / 0.05)
    assert approach_s(start, start, POSE, each) == 1.0  # never a jerk
    half = between(start, first, np.array([0.5, 1.0]), POSE)
    assert np.allclose(half[0], [0.2, 0.05, 0, 0, 0, np.pi / 4])
    assert np.array_equal(half[1], first)


def test_a_beginning_outside_the_workspace_and_other_numbers_are_refused() -> None:
    limits = Limits(low=[0, 0], high=[512, 512])
    options = {"start_s": 0.0, "position": np.zeros(2), "space": PLANE, "limits": limits}
    with pytest.raises(ConfigError, match="outside the workspace"):
        episode_plan(np.array([[10.0, 600.0]]), 10, **options)
    with pytest.raises(DataError, match="takes 2 numbers"):
        episode_plan(np.zeros((3, 7)), 10, **options)
    with pytest.raises(DataError, match="x of frame 0 is nan"):
        episode_plan(np.array([[np.nan, 1.0]]), 10, **options)


def test_plans_are_sent_shortly_before_they_are_due_and_can_be_delayed() -> None:
    actions = np.tile([[1.0, 2.0]], (200, 1))
    plan = episode_plan(
        actions, 10, start_s=0.0, position=np.ones(2), space=PLANE, limits=Limits(speed=9.0)
    )
    assert list(due(plan.plans, -2.0)) == []
    assert len(list(due(plan.plans, 0.0, ahead_s=0.2))) == 1
    assert len(list(due(plan.plans, plan.ends_s))) == len(plan.plans)
    later = delayed(plan, 1.5)
    assert later.begins_s == plan.begins_s + 1.5
    assert np.allclose(later.actions[0].times_s, plan.actions[0].times_s + 1.5)
    assert later.approach is plan.approach
