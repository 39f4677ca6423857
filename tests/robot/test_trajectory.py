"""Where to be between way-points, and what a new plan keeps, replaces and finds late."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dp_hub.robot.motion.plan import MAX_POINTS, Order, Plan, pack, plan_fields, unpack
from dp_hub.robot.motion.rotation_vectors import difference, slerp, turned
from dp_hub.robot.motion.trajectory import Interpolation, Trajectory, resting
from dp_hub.robot.space import POSE, WIDTH, Space

PLANE = Space(("x", "y"), ("px", "px"))


def plan_of(
    times: list[float], targets: list[list[float]], *, number: int = 0, replace_from: float = 0.0
) -> Plan:
    return Plan(number, np.array(times), np.array(targets, dtype=np.float64), replace_from)


def at_rest(interpolation: Interpolation, *position: float) -> Trajectory:
    return resting(np.array(position), 0.0, PLANE, interpolation)


def planned(trajectory: Trajectory, plan: Plan, now_s: float) -> Trajectory:
    return trajectory.accept(plan, now_s, trajectory.at(now_s), now_s).trajectory


def test_hold_steps_to_each_point_when_its_time_has_come() -> None:
    path = planned(at_rest("hold", 5, 5), plan_of([1.0, 1.1], [[1, 2], [3, 4]]), 0.5)
    assert path.at(0.999).tolist() == [5, 5]
    assert path.at(1.0).tolist() == [1, 2]
    assert path.at(1.0999).tolist() == [1, 2]
    assert path.at(1.1).tolist() == path.at(99.0).tolist() == [3, 4]


def test_linear_goes_straight_from_where_it_is_to_the_first_point_and_on() -> None:
    path = planned(at_rest("linear", 0, 0), plan_of([1.0, 2.0], [[10, 0], [10, 20]]), 0.5)
    assert path.at(0.75).tolist() == [5, 0]
    assert path.at(1.25).tolist() == [10, 5]
    assert path.at(2.5).tolist() == [10, 20]


def test_a_plan_that_is_late_is_what_it_would_be_had_it_come_in_time() -> None:
    times, targets = [1.0, 1.1, 1.2, 1.3], [[1, 1], [2, 2], [3, 3], [4, 4]]
    for interpolation in ("hold", "linear"):
        start = at_rest(interpolation, 0, 0)
        in_time = planned(start, plan_of(times, targets), 0.9)
        late = start.accept(plan_of(times, targets), 1.25, start.at(1.25), 1.25)
        assert late.late == 2, "1.2 is due, or the line from it is; 1.0 and 1.1 are never used"
        for time in (1.25, 1.29, 1.3, 2.0):
            np.testing.assert_allclose(late.trajectory.at(time), in_time.at(time), atol=1e-12)


def test_a_plan_replaces_what_was_planned_from_its_time_on_and_keeps_what_was_before() -> None:
    first = plan_of([1.0, 2.0, 3.0, 4.0], [[1, 0], [2, 0], [3, 0], [4, 0]])
    path = planned(at_rest("linear", 0, 0), first, 0.0)
    got = path.accept(
        plan_of([3.0, 4.0], [[9, 9], [8, 8]], replace_from=2.5), 1.5, path.at(1.5), 1.5
    )
    assert got.replaced == 2
    assert got.trajectory.at(1.5).tolist() == [1.5, 0]
    assert got.trajectory.at(2.0).tolist() == [2, 0]
    assert got.trajectory.at(2.5).tolist() == [5.5, 4.5]
    assert got.trajectory.at(4.0).tolist() == [8, 8]


def test_a_plan_that_begins_before_the_time_it_replaces_from_wins_from_its_first_point() -> None:
    path = planned(at_rest("hold", 0, 0), plan_of([1.0, 2.0, 3.0], [[1, 0], [2, 0], [3, 0]]), 0.0)
    got = path.accept(plan_of([1.5], [[7, 7]], replace_from=2.5), 0.5, path.at(0.5), 0.5)
    assert got.replaced == 2
    assert [got.trajectory.at(t)[0] for t in (0.9, 1.2, 1.5, 9.0)] == [0, 1, 7, 7]


def test_the_step_that_is_held_lasts_until_the_first_point_of_a_plan_that_replaces_all() -> None:
    path = planned(at_rest("hold", 0, 0), plan_of([1.0, 2.0], [[1, 0], [2, 0]]), 0.0)
    path = planned(path, plan_of([1.8], [[7, 7]], replace_from=-np.inf), 1.5)
    assert [path.at(t)[0] for t in (1.5, 1.79, 1.8, 3.0)] == [1, 1, 7, 7]


def test_points_that_are_past_do_not_pile_up() -> None:
    path = at_rest("linear", 0, 0)
    for k in range(1000):
        now = 0.1 * k
        path = planned(path, plan_of([now + 0.1, now + 0.2], [[k, 0], [k, 1]]), now)
    assert len(path.times_s) <= 4


def test_rotations_take_the_short_way_across_a_half_turn() -> None:
    start = np.array([0, 0, 0, 0, 0, 3.0])
    path = resting(start, 0.0, POSE, "linear")
    end = np.array([0.2, 0, 0, 0, 0, -3.0])
    path = path.accept(Plan(0, np.array([1.0]), end[None], 0.0), 0.0, start, 0.0).trajectory
    middle = path.at(0.5)
    np.testing.assert_allclose(middle[:3], [0.1, 0, 0])
    assert abs(middle[5]) == pytest.approx(np.pi)
    before, after = path.at(0.45)[3:], path.at(0.55)[3:]
    assert np.linalg.norm(difference(before, after)) == pytest.approx(0.1 * (2 * np.pi - 6))


VECTORS = st.tuples(*[st.floats(-4, 4)] * 3).map(np.array)


@settings(max_examples=200)
@given(start=VECTORS, end=VECTORS, share=st.floats(0, 1))
def test_differences_and_slerp_are_those_of_scipy(
    start: np.ndarray, end: np.ndarray, share: float
) -> None:
    turn = Rotation.from_rotvec(end) * Rotation.from_rotvec(start).inv()
    by = difference(start, end)
    assert np.linalg.norm(by) <= np.pi + 1e-12
    assert (Rotation.from_rotvec(by) * turn.inv()).magnitude() < 1e-7
    there = Rotation.from_rotvec(turned(start, by))
    assert (there * Rotation.from_rotvec(end).inv()).magnitude() < 1e-7
    if np.linalg.norm(by) < np.pi - 1e-3:
        expected = Rotation.from_rotvec(share * by) * Rotation.from_rotvec(start)
        found = Rotation.from_rotvec(slerp(start, end, share))
        assert (found * expected.inv()).magnitude() < 1e-7


def test_small_turns_across_a_half_turn_have_no_jump_in_their_numbers() -> None:
    vector = np.array([0.0, 0.0, 3.1])
    for _ in range(20):
        before, vector = vector, turned(vector, np.array([0.0, 0.0, 0.01]))
        assert np.linalg.norm(vector - before) == pytest.approx(0.01)


def test_commands_come_out_of_a_record_as_they_went_in() -> None:
    plan = plan_of([1.0, 2.0], [[0.01], [0.02]], number=7, replace_from=-np.inf)
    back = unpack(pack(plan, 1))
    assert isinstance(back, Plan)
    assert (back.number, back.replace_from_s) == (7, -np.inf)
    np.testing.assert_array_equal(back.times_s, plan.times_s)
    np.testing.assert_array_equal(back.targets, plan.targets)
    for order in Order:
        assert unpack(pack(order, 3)) is order


def test_the_longest_plan_fits_the_record() -> None:
    times = np.arange(MAX_POINTS) * 1.0
    plan = Plan(1, times, np.zeros((MAX_POINTS, WIDTH.size)), 0.0)
    record = pack(plan, 1)
    assert {field.name: field.shape for field in plan_fields(1)} == {
        name: value.shape for name, value in record.items()
    }
    with pytest.raises(AssertionError):
        Plan(1, np.arange(MAX_POINTS + 1.0), np.zeros((MAX_POINTS + 1, 1)), 0.0)
