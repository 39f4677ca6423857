"""A path becomes targets that a hand could give."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dp_hub.envs.pusht import expert_motion as motion

paths = st.lists(st.tuples(st.floats(0, 512), st.floats(0, 512)), min_size=2, max_size=6).map(
    lambda points: motion.resample(np.array(points))
)


@given(path=paths, speed=st.floats(3, 25))
def test_targets_end_on_the_path_and_keep_to_the_speed_limit(path, speed):
    limit = np.full(len(path), speed)
    targets, _ = motion.time_along(path, limit, speed_up=4.0, slow_down=3.0)
    np.testing.assert_allclose(targets[-1], path[-1])
    steps = np.hypot(*np.diff(np.concatenate([path[:1], targets]), axis=0).T)
    assert steps.max() <= speed * 1.1 + 1e-6


def test_a_straight_walk_speeds_up_and_slows_down_gently():
    path = motion.resample(np.array([(0.0, 0.0), (400.0, 0.0)]))
    targets, _ = motion.time_along(path, np.full(len(path), 20.0), speed_up=4.0, slow_down=3.0)
    steps = np.diff(targets[:, 0], prepend=0.0)
    assert steps.max() > 18
    assert np.diff(steps).max() < 4.5
    assert np.diff(steps).min() > -3.5
    assert steps[-1] < 5


@given(path=paths)
def test_smoothing_keeps_the_ends(path):
    smooth = motion.smooth(path, 20.0)
    np.testing.assert_allclose(smooth[[0, -1]], path[[0, -1]], atol=1e-6)


def test_smoothing_rounds_a_corner_so_that_it_can_be_taken_faster():
    path = motion.resample(np.array([(0.0, 0.0), (100.0, 0.0), (100.0, 100.0)]))
    sharp = motion.turn_limit(path, 7.0).min()
    round_ = motion.turn_limit(motion.smooth(path, 26.0), 7.0).min()
    assert round_ > 1.5 * sharp


def test_a_path_without_length_gives_one_target():
    path = motion.resample(np.array([(5.0, 5.0), (5.0, 5.0)]))
    targets, _ = motion.time_along(path, np.full(len(path), 10.0), speed_up=4.0, slow_down=3.0)
    np.testing.assert_array_equal(targets, [(5.0, 5.0)])


def test_where_along_the_path_each_target_lies_is_told():
    path = motion.resample(np.array([(0.0, 0.0), (100.0, 0.0)]))
    targets, along = motion.time_along(path, np.full(51, 9.0), speed_up=4.0, slow_down=3.0)
    np.testing.assert_allclose(targets[:, 0], along)


def test_a_moving_hand_goes_on_at_its_speed():
    path = motion.resample(np.array([(0.0, 0.0), (100.0, 0.0)]))
    targets, _ = motion.time_along(path, np.full(51, 12.0), speed_up=4.0, slow_down=3.0, start=12.0)
    assert 10 < targets[0, 0] < 12.5


def test_tremor_is_smooth_and_slow_moves_are_steadier_than_in_proportion():
    def offsets(speed):
        tremor = motion.Tremor(0.1, np.random.default_rng(0))
        return np.array([tremor.next(speed) for _ in range(500)])

    slow, fast = offsets(5.0), offsets(20.0)
    assert slow.std() < fast.std() / 4
    assert 1 < fast.std() < 10
    assert np.diff(fast, 2, axis=0).std() < 0.5 * fast.std()


def test_without_tremor_the_hand_is_steady():
    tremor = motion.Tremor(0.0, np.random.default_rng(0))
    assert not any(tremor.next(20.0).any() for _ in range(10))
