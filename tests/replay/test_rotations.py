"""Rotations against formulas written here, not against the library that is used inside."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp_hub.errors import DataError
from dp_hub.replay.rotations import continuous, convert, size_of, slerp

ORDERS = [
    "".join(axes)
    for axes in itertools.product("xyz", repeat=3)
    if axes[0] != axes[1] and axes[1] != axes[2]
]
NAMES = [
    "quat_wxyz", "quat_xyzw", "matrix", "rotvec", "rot6d",
    *(f"euler_{order}" for order in ORDERS), *(f"euler_{order.upper()}" for order in ORDERS),
]  # fmt: skip


def random_quaternions(n: int, seed: int = 0) -> np.ndarray:
    """wxyz, float64 (n, 4)."""
    q = np.random.default_rng(seed).normal(size=(n, 4))
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def matrices_of(q: np.ndarray) -> np.ndarray:
    """The textbook formula on wxyz, float64 (n, 3, 3)."""
    w, x, y, z = q.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def about(axis: str, angle: float) -> np.ndarray:
    """A turn about one axis of the room, float64 (3, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def rodrigues(vector: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def euler_matrix(order: str, angles: np.ndarray) -> np.ndarray:
    first, second, third = (about(a.lower(), r) for a, r in zip(order, angles, strict=True))
    # About fixed axes each next turn is applied from the left, about turned ones from the right.
    return third @ second @ first if order.islower() else first @ second @ third


def turn_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Radians between matrices (n, 9)."""
    product = a.reshape(-1, 3, 3).transpose(0, 2, 1) @ b.reshape(-1, 3, 3)
    skew = product - product.transpose(0, 2, 1)
    sine = np.linalg.norm([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=0) / 2
    return np.arctan2(sine, (np.trace(product, axis1=1, axis2=2) - 1) / 2)


def test_matrices_are_those_of_the_textbook() -> None:
    q = random_quaternions(200)
    flat = matrices_of(q).reshape(-1, 9)
    assert np.abs(convert(q, "quat_wxyz", "matrix") - flat).max() < 1e-12
    assert np.abs(convert(q[:, [1, 2, 3, 0]], "quat_xyzw", "matrix") - flat).max() < 1e-12
    back = convert(flat, "matrix", "quat_wxyz")
    assert np.abs(np.abs((back * q).sum(1)) - 1).max() < 1e-12
    assert (np.abs(np.linalg.norm(back, axis=1) - 1) < 1e-12).all()


def test_six_numbers_are_the_first_two_rows() -> None:
    q = random_quaternions(100, 1)
    six = convert(q, "quat_wxyz", "rot6d")
    assert np.abs(six - matrices_of(q)[:, :2].reshape(-1, 6)).max() < 1e-12
    # What a network predicts is not orthonormal: the first row counts, then what is left.
    bent = six * 1.7 + np.concatenate([np.zeros((100, 3)), 0.4 * six[:, :3]], axis=1)
    assert turn_between(convert(bent, "rot6d", "matrix"), matrices_of(q)).max() < 1e-7


def test_vectors_are_axis_times_angle() -> None:
    vectors = np.random.default_rng(2).uniform(-1.8, 1.8, (100, 3))
    expected = np.stack([rodrigues(v) for v in vectors]).reshape(-1, 9)
    assert np.abs(convert(vectors, "rotvec", "matrix") - expected).max() < 1e-12
    degrees = convert(np.rad2deg(vectors), "rotvec", "matrix", degrees=True)
    assert np.abs(degrees - expected).max() < 1e-12


@pytest.mark.parametrize("order", [*ORDERS, *(order.upper() for order in ORDERS)])
def test_euler_angles_turn_about_fixed_or_turned_axes(order: str) -> None:
    angles = np.random.default_rng(3).uniform(-3, 3, (30, 3))
    expected = np.stack([euler_matrix(order, a) for a in angles]).reshape(-1, 9)
    assert np.abs(convert(angles, f"euler_{order}", "matrix") - expected).max() < 1e-12
    in_degrees = convert(expected, "matrix", f"euler_{order}", degrees=True)
    again = np.stack([euler_matrix(order, np.deg2rad(a)) for a in in_degrees]).reshape(-1, 9)
    assert np.abs(again - expected).max() < 1e-9


def test_every_way_leads_to_every_other_and_back() -> None:
    truth = matrices_of(random_quaternions(40, 4)).reshape(-1, 9)
    pairs = list(itertools.product(NAMES, NAMES))
    assert len(pairs) == 29 * 29
    forms = {name: convert(truth, "matrix", name) for name in NAMES}
    for source, target in pairs:
        there = convert(forms[source], source, target)
        assert there.shape == (40, size_of(target))
        assert turn_between(convert(there, target, "matrix"), truth).max() < 1e-7, (source, target)


def test_shapes_before_the_last_stay() -> None:
    q = random_quaternions(24).reshape(2, 3, 4, 4)
    assert convert(q, "quat_wxyz", "rot6d").shape == (2, 3, 4, 6)
    assert convert(np.zeros((0, 3)), "rotvec", "matrix").shape == (0, 9)
    assert convert([0.0, 0, 0], "rotvec", "quat_wxyz").tolist() == [1, 0, 0, 0]
    assert convert(np.float32([[0, 0, 1]]), "rotvec", "rotvec").dtype == np.float64


def test_rows_that_are_not_finite_become_nan() -> None:
    q = random_quaternions(4)
    q[1, 2], q[2, 0] = np.nan, np.inf
    out = convert(q, "quat_wxyz", "rot6d")
    assert np.isnan(out).all(axis=1).tolist() == [False, True, True, False]


def test_quaternions_that_are_not_of_length_one_are_taken() -> None:
    q = random_quaternions(20)
    assert np.allclose(convert(3 * q, "quat_wxyz", "matrix"), convert(q, "quat_wxyz", "matrix"))


@pytest.mark.parametrize(
    ("values", "name", "seen"),
    [
        ([[1, 0, 0, 0], [0, 0, 0, 0]], "quat_xyzw", "row 1 is a quaternion of length 0"),
        (np.diag([1, 1, -1]).reshape(1, 9), "matrix", "not a rotation matrix"),
        (np.ones((1, 9)), "matrix", "not a rotation matrix"),
        ([[1, 0, 0, 2, 0, 0]], "rot6d", "two parallel rows"),
        ([[1, 0, 0]], "quat_xyzw", "has 4 numbers, not an array of"),
        (1.0, "rotvec", "has 3 numbers"),
        ([["a", "b", "c"]], "rotvec", "are numbers"),
        ([[1, 0, 0]], "euler_xxz", "not written as 'euler_xxz'"),
        ([[1, 0, 0]], "euler_xYz", "not written as"),
        ([[1, 0, 0]], "quaternion", "not written as"),
    ],
)
def test_what_is_no_rotation_is_said(values: object, name: str, seen: str) -> None:
    with pytest.raises(DataError, match=seen) as caught:
        convert(values, name, "matrix")
    assert caught.value.hint


def test_a_gimbal_that_locks_gives_one_of_the_answers_without_a_warning() -> None:
    locked = np.stack([euler_matrix("xyz", np.array([0.3, np.pi / 2, 0.1]))]).reshape(1, 9)
    angles = convert(locked, "matrix", "euler_xyz")
    assert turn_between(convert(angles, "euler_xyz", "matrix"), locked).max() < 1e-6


def test_signs_are_made_continuous_and_the_first_stays() -> None:
    t = np.linspace(0, 20, 500)
    smooth = np.stack([np.cos(t / 2), np.sin(t / 2), 0 * t, 0 * t], axis=1)
    flips = np.where(np.random.default_rng(0).random(500) < 0.4, -1, 1)
    flips[0] = 1
    assert np.array_equal(continuous(smooth * flips[:, None]), smooth)
    assert continuous(smooth) is smooth
    holed = smooth * flips[:, None]
    holed[[3, 4]] = np.nan
    good = np.delete(np.arange(500), [3, 4])
    assert np.array_equal(continuous(holed)[good], smooth[good])
    assert continuous(np.empty((0, 4))).shape == (0, 4)


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    angle=st.floats(1e-9, 3.14),
    weight=st.floats(0, 1),
    flip=st.booleans(),
    name=st.sampled_from(["quat_wxyz", "quat_xyzw", "matrix", "rotvec", "rot6d", "euler_ZYX"]),
)
def test_halfway_on_the_shortest_turn_is_part_of_the_angle(
    seed: int, angle: float, weight: float, flip: bool, name: str
) -> None:
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    start = rodrigues(rng.normal(size=3))
    end, between = (start @ rodrigues(axis * angle * w) for w in (1.0, max(weight, 1e-12)))
    a, b = (convert(m.reshape(1, 9), "matrix", name) for m in (start, end))
    if flip and name.startswith("quat"):
        b = -b
    out = slerp(a, b, np.array([weight]), name)
    found = convert(out, name, "matrix")
    assert turn_between(found, between.reshape(1, 9)).max() < 1e-6


def test_mixing_leaves_rows_alone_that_are_not_finite() -> None:
    a, b = random_quaternions(3), random_quaternions(3, 1)
    a[1, 0] = np.nan
    out = slerp(a, b, np.full(3, 0.5), "quat_wxyz")
    assert np.isnan(out).all(axis=1).tolist() == [False, True, False]
    assert np.isnan(slerp(a[1:2], b[1:2], np.array([0.5]), "quat_wxyz")).all()
