"""Streams at their own rates become observed steps, and robots are checked against policies."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dp_hub.errors import ConfigError, RobotError
from dp_hub.replay.mapping.picture_edits import PictureEdit
from dp_hub.robot.fields import Field
from dp_hub.robot.observing.align import Stale, StreamUse, observe, samples_needed
from dp_hub.robot.observing.check import check_action, check_observed, split_action
from dp_hub.robot.observing.features import FeatureUse, as_features, feature_shapes
from dp_hub.robot.shared.ring import Samples
from dp_hub.robot.space import POSE, WIDTH

START_S = 5000.0


def samples(times_s, **values):
    """``values``: by field, or none for the time itself (since the start) under `value`."""
    times_s = START_S + np.asarray(times_s, np.float64)
    k = len(times_s)
    fields = {name: np.asarray(one) for name, one in values.items()}
    fields = fields or {"value": (times_s - START_S)[:, None]}
    return Samples(np.arange(k), times_s, times_s, fields, lost=0)


def see(rings, uses, *, now_s, steps=2, period_s=0.1):
    return observe(rings, uses, now_s=START_S + now_s, n_obs_steps=steps, period_s=period_s)


ARM = StreamUse("arm", "value", "linear")
FRONT = StreamUse("front", "value")


def test_the_newest_frame_of_the_slowest_camera_is_always_used():
    frames = np.arange(0.0, 1.0, 1 / 30)
    rings = {"front": samples(frames), "arm": samples(np.arange(0.0, 1.0, 0.008))}
    seen = see(rings, {"front": FRONT, "arm": ARM}, now_s=1.01)
    assert seen.anchor_s == START_S + frames[-1]
    assert seen.values["front"][-1, 0] == pytest.approx(frames[-1])
    np.testing.assert_allclose(seen.values["arm"][:, 0], seen.values["front"][:, 0], atol=1e-9)
    assert seen.skew_s == pytest.approx(0.0)
    assert seen.repeated == 0


def test_of_two_cameras_the_one_behind_sets_the_time():
    rings = {"front": samples([0.0, 0.1, 0.2, 0.3]), "side": samples([0.06, 0.16, 0.26])}
    uses = {"front": FRONT, "side": StreamUse("side", "value")}
    seen = see(rings, uses, now_s=0.31)
    assert seen.anchor_s == pytest.approx(START_S + 0.26)
    assert seen.values["front"][:, 0].tolist() == pytest.approx([0.2, 0.3])
    assert seen.values["side"][:, 0].tolist() == pytest.approx([0.16, 0.26])
    assert seen.skew_s == pytest.approx(0.04)
    assert seen.ages_s == pytest.approx({"front": 0.01, "side": 0.05})
    np.testing.assert_allclose(seen.used_s["front"] - START_S, [0.2, 0.3])


def test_latency_is_taken_off_so_that_times_are_of_the_world():
    # A picture of the moment t is in its ring at t + 0.1: it goes with the arm of t.
    rings = {"front": samples([0.1, 0.2, 0.3, 0.4]), "arm": samples(np.arange(0, 0.41, 0.01))}
    uses = {"front": StreamUse("front", "value", latency_s=0.1), "arm": ARM}
    seen = see(rings, uses, now_s=0.41)
    assert seen.anchor_s == pytest.approx(START_S + 0.3)
    np.testing.assert_allclose(seen.values["arm"][:, 0], [0.2, 0.3])
    np.testing.assert_allclose(seen.used_s["front"] - START_S, [0.2, 0.3])
    assert seen.ages_s["front"] == pytest.approx(0.11)


def test_steps_before_the_first_value_show_it_and_are_counted():
    rings = {"front": samples([0.0]), "arm": samples([-0.15, -0.05, 0.05])}
    seen = see(rings, {"front": FRONT, "arm": ARM}, now_s=0.06, steps=4)
    assert seen.values["front"][:, 0].tolist() == [0.0] * 4
    np.testing.assert_allclose(seen.values["arm"][:, 0], [-0.15, -0.15, -0.1, 0.0])
    assert seen.repeated == 3 + 2
    np.testing.assert_allclose(seen.times_s - START_S, [-0.3, -0.2, -0.1, 0.0])


def test_the_nearest_of_two_values_as_far_is_the_older_one():
    rings = {"front": samples([0.0, 0.25, 0.5]), "side": samples([0.0, 0.125, 0.375])}
    uses = {"front": FRONT, "side": StreamUse("side", "value")}
    assert see(rings, uses, now_s=0.5, steps=1).values["front"][0, 0] == 0.25


def test_values_keep_their_type_unless_they_are_interpolated():
    pictures = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    rings = {"front": samples([0.0, 0.1], picture=pictures), "arm": samples([0.0, 0.1])}
    seen = see(rings, {"front": StreamUse("front", "picture"), "arm": ARM}, now_s=0.1)
    assert seen.values["front"].dtype == np.uint8
    np.testing.assert_array_equal(seen.values["front"], pictures)
    assert seen.values["arm"].dtype == np.float64


def test_rotation_vectors_turn_the_short_way():
    turns = [Rotation.from_rotvec([0, 0, angle]) for angle in (np.pi - 0.2, np.pi + 0.2)]
    poses = np.array([[float(i), 0, 0, *turn.as_rotvec()] for i, turn in enumerate(turns)])
    rings = {
        "arm": samples([0.0, 0.1], position=poses),
        "front": samples([0.0, 0.025]),
    }
    arm = StreamUse("arm", "position", "slerp", rotation_at=3)
    seen = see(rings, {"arm": arm, "front": FRONT}, now_s=0.1, steps=1)
    value = seen.values["arm"][0]
    assert value[0] == pytest.approx(0.25)
    expected = Rotation.from_rotvec([0, 0, np.pi - 0.1])
    assert (Rotation.from_rotvec(value[3:]).inv() * expected).magnitude() < 1e-6


def test_a_stream_that_has_stalled_is_named_with_its_age_and_limit():
    rings = {"front": samples([0.0, 0.1]), "arm": samples([0.0, 0.9])}
    uses = {"front": StreamUse("front", "value", max_age_s=0.3, latency_s=0.05), "arm": ARM}
    with pytest.raises(Stale, match=r"front is 0\.950 s old, and 0\.300 s is the limit") as caught:
        see(rings, uses, now_s=1.0)
    assert caught.value.stream == "front"
    assert caught.value.age_s == pytest.approx(0.95)
    assert caught.value.limit_s == 0.3


def test_a_stream_that_never_began_is_named():
    rings = {"front": samples([]), "arm": samples([0.0])}
    with pytest.raises(Stale, match="front has not given anything yet"):
        see(rings, {"front": FRONT, "arm": ARM}, now_s=0.1)


def test_numbers_that_are_not_finite_never_reach_a_policy():
    rings = {"arm": samples([0.0, 0.1], value=[[0.0, 1.0], [0.0, np.nan]])}
    with pytest.raises(RobotError, match="arm holds 1 numbers that are not finite"):
        see(rings, {"arm": StreamUse("arm", "value")}, now_s=0.1)


def test_as_many_samples_are_asked_for_as_the_steps_need():
    rate_hz, times_s = 125.0, np.arange(0, 10, 0.008)
    k = samples_needed(rate_hz, n_obs_steps=3, period_s=0.1, max_age_s=0.5)
    rings = {"front": samples([9.0, 9.1, 9.2, 9.3, 9.4, 9.5]), "arm": samples(times_s[-k:])}
    seen = see(rings, {"front": FRONT, "arm": ARM}, now_s=9.99, steps=3)
    assert seen.repeated == 0


@given(
    st.lists(st.floats(0.001, 0.2), min_size=3, max_size=30),
    st.lists(st.floats(0.001, 0.2), min_size=3, max_size=30),
    st.floats(0, 0.05),
    st.sampled_from(["nearest", "linear"]),
)
def test_no_step_is_beyond_what_was_measured(front, arm, latency_s, method):
    rings = {"front": samples(np.cumsum(front)), "arm": samples(np.cumsum(arm))}
    uses = {
        "front": StreamUse("front", "value", max_age_s=99, latency_s=latency_s),
        "arm": StreamUse("arm", "value", method, max_age_s=99),
    }
    seen = see(rings, uses, now_s=10.0, steps=3, period_s=0.07)
    newest = min(np.cumsum(front)[-1] - latency_s, np.cumsum(arm)[-1])
    assert seen.anchor_s == pytest.approx(START_S + newest)
    for name, taken in (("front", latency_s), ("arm", 0.0)):
        # What was measured is the time in the ring: values and times must tell the same.
        np.testing.assert_allclose(
            seen.values[name][:, 0], seen.used_s[name] - START_S + taken, atol=1e-6
        )
    if method == "linear" and not seen.repeated:
        np.testing.assert_allclose(seen.used_s["arm"], seen.times_s, atol=1e-6)


STREAMS = {
    "arm.position": Field("position", (2,)),
    "arm.block": Field("block", (3, 2)),
    "gripper": Field("width", ()),
    "front": Field("picture", (8, 12, 3), "uint8"),
}
FEATURES = {
    "observation.state": FeatureUse(("arm.block", "arm.position[1]", "gripper")),
    "observation.image": FeatureUse(("front",), PictureEdit(crop=(0, 2, 8, 8), resize=(4, 4))),
}


def test_features_are_streams_joined_in_order_and_pictures_edited():
    rings = {
        "arm": samples([0.0, 0.1], position=[[1, 2], [3, 4]], block=np.arange(12).reshape(2, 3, 2)),
        "gripper": samples([0.0, 0.1], width=[0.5, 0.6]),
        "front": samples([0.0, 0.1], picture=np.full((2, 8, 12, 3), 9, np.uint8)),
    }
    uses = {
        "arm.position": StreamUse("arm", "position"),
        "arm.block": StreamUse("arm", "block"),
        "gripper": StreamUse("gripper", "width"),
        "front": StreamUse("front", "picture"),
    }
    made = as_features(see(rings, uses, now_s=0.1), FEATURES)
    state = made.values["observation.state"]
    np.testing.assert_allclose(state[0], [0, 1, 2, 3, 4, 5, 2, 0.5])
    assert state.dtype == np.float32
    assert made.values["observation.image"].shape == (2, 4, 4, 3)
    assert set(made.ages_s) == set(uses)
    assert feature_shapes(FEATURES, STREAMS) == {
        "observation.state": 8,
        "observation.image": (4, 4, 3),
    }


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (FeatureUse(("arm.positon",)), "no such stream.*did you mean `arm.position`"),
        (FeatureUse(("arm.position[2]",)), r"no \[2\] where there are 2 numbers"),
        (FeatureUse(("arm.position[x]",)), "not understood"),
        (FeatureUse(("front", "gripper")), "a feature of pictures is one stream"),
        (FeatureUse(("front",), PictureEdit(crop=(0, 0, 9, 9))), "8x12"),
        (FeatureUse(("gripper",), PictureEdit(resize=(4, 4))), "no pictures to turn"),
    ],
)
def test_features_that_cannot_be_made_are_explained(use, message):
    with pytest.raises(ConfigError, match=f"(?s)x.*{message}"):
        feature_shapes({"x": use}, STREAMS)


def test_a_policy_that_sees_what_the_robot_gives_is_let_in():
    check_observed({"observation.state": 8, "observation.image": (4, 4, 3)}, FEATURES, STREAMS)
    check_observed({"observation.state": 8}, FEATURES, STREAMS)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"observation.environment_state": 18},
            r"observes observation.environment_state \(18 numbers\); the robot gives "
            r"observation.state \(8 numbers\), observation.image \(pictures of 4x4x3\).*"
            r"put `observation.environment_state: \[STREAM, ...\]` under `observations`.*"
            r"arm.position \(2\), arm.block \(6\), gripper \(1\)",
        ),
        (
            {"observation.state": 5},
            "observes observation.state with 5 numbers; the robot makes 8 numbers of arm.block",
        ),
        (
            {"observation.image": (96, 96, 3)},
            r"with pictures of 96x96x3; the robot makes pictures of 4x4x3 of front.*"
            r"resize: \[96, 96\].*front \(8x12\)",
        ),
    ],
)
def test_a_policy_that_wants_something_else_is_told_what_to_put_into_the_config(wanted, message):
    with pytest.raises(RobotError) as caught:
        check_observed(wanted, FEATURES, STREAMS)
    assert re.search(f"(?s){message}", str(caught.value)), str(caught.value)


def test_actions_of_another_width_than_the_robots_are_refused():
    actuators = {"arm": POSE, "gripper": WIDTH}
    check_action(7, actuators)
    with pytest.raises(RobotError, match=r"are 2 numbers; the robot takes 7: arm x, y, z, rx"):
        check_action(2, actuators)
    assert split_action([6, 1]) == [slice(0, 6), slice(6, 7)]
