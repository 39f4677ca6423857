"""Whatever is planned and however late ticks are: no target leaves the limits."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp_hub.errors import ConfigError
from dp_hub.robot.motion.limits import Limits
from dp_hub.robot.motion.motion import Motion
from dp_hub.robot.motion.plan import Plan
from dp_hub.robot.motion.rotation_vectors import difference
from dp_hub.robot.motion.trajectory import Interpolation
from dp_hub.robot.space import POSE, WIDTH, Space, joints

PERIOD_S = 0.008
PLANE = Space(("x", "y"), ("m", "m"))
TOOL_AND_WIDTH = Space((*POSE.names, "width"), (*POSE.units, "m"), rotation_at=POSE.rotation_at)
SPACES = (WIDTH, PLANE, POSE, joints(6), TOOL_AND_WIDTH)


def limits_for(space: Space, *, each: bool = False, step: float | None = None) -> Limits:
    n = len(space.linear)
    turns = space.rotation_at is not None
    return Limits(
        low=[-0.3] * n,
        high=[0.4] * n,
        speed=[0.25 + 0.05 * i for i in range(n)] if each else 0.25,
        acceleration=[1.0 + 0.5 * i for i in range(n)] if each else 1.5,
        rotation_speed=0.6 if turns else None,
        rotation_acceleration=3.0 if turns else None,
        step=step,
    )


@dataclass
class Watch:
    """Checks every target against the one before."""

    space: Space
    limits: Limits
    each: bool
    position: np.ndarray
    velocity: np.ndarray
    last_s: float

    def rest(self, position: np.ndarray, now_s: float) -> None:
        self.position, self.velocity, self.last_s = position, np.zeros(self.space.size), now_s

    def check(self, target: np.ndarray, now_s: float) -> None:
        elapsed = now_s - self.last_s
        dt = min(elapsed, 2 * PERIOD_S)
        velocity = (target - self.position) / dt
        if self.space.rotation_at is not None:
            turn = slice(self.space.rotation_at, self.space.rotation_at + 3)
            velocity[turn] = difference(self.position[turn], target[turn]) / dt
            parts = [(list(range(turn.start, turn.stop)), "rotation_")]
        else:
            parts = []
        rounding = 1e-14 / dt
        for rows, prefix in [(list(self.space.linear), ""), *parts]:
            speed = np.array(getattr(self.limits, f"{prefix}speed"))
            most = np.array(getattr(self.limits, f"{prefix}acceleration"))
            change = velocity[rows] - self.velocity[rows]
            fast, hard = np.abs(velocity[rows]), np.abs(change)
            if not (self.each and not prefix):
                fast, hard = np.linalg.norm(fast), np.linalg.norm(hard)
            assert np.all(fast <= speed * (1 + 1e-9) + rounding), (prefix, fast, speed)
            assert np.all(hard <= most * elapsed * (1 + 1e-9) + rounding), (prefix, hard)
        self._check_box(target)
        self.position, self.velocity, self.last_s = target, velocity, now_s

    def _check_box(self, target: np.ndarray) -> None:
        """Inside; or, from outside, not farther from it."""
        linear = list(self.space.linear)
        low, high = np.array(self.limits.low), np.array(self.limits.high)
        before = self.position[linear]
        assert np.all(target[linear] >= np.minimum(low, before))
        assert np.all(target[linear] <= np.maximum(high, before))


def some_plan(rng: np.random.Generator, space: Space, number: int, now_s: float) -> Plan:
    n = int(rng.integers(1, 9))
    gaps = rng.choice([0.02, 0.1, 0.3]) * rng.uniform(0.2, 1.8, n)
    times = now_s + rng.uniform(-0.6, 0.4) + np.cumsum(gaps)
    way = rng.choice([0.005, 0.05, 0.5])
    targets = rng.uniform(-0.4, 0.5, space.size) + np.cumsum(
        rng.normal(0, way, (n, space.size)), axis=0
    )
    return Plan(number, times, targets, float(now_s + rng.choice([-np.inf, 0.0, 0.1])))


def drive(
    space: Space, interpolation: Interpolation, *, seed: int, each: bool, step: float | None
) -> Motion:
    """A few seconds of plans, holds and stalls; the actuator follows, lags or is pushed."""
    rng = np.random.default_rng(seed)
    limits = limits_for(space, each=each, step=step)
    start = rng.uniform(-0.6, 0.6, space.size)  # perhaps outside
    measured = start
    motion = Motion(space, limits, interpolation, start=start, period_s=PERIOD_S, ahead_s=0.02)
    now_s = 100.0
    watch = Watch(space, limits, each, start, np.zeros(space.size), now_s)
    motion.target(now_s)
    for number in range(300):
        stall = rng.uniform(0.02, 0.3) if rng.random() < 0.02 else 0.0
        now_s += PERIOD_S * rng.uniform(0.2, 1.8) + stall
        chance = rng.random()
        if chance < 0.06 or number == 3:
            motion.accept(some_plan(rng, space, number, now_s), now_s)
        elif chance < 0.075:
            motion.hold(now_s, "chance", needs_resume=bool(rng.random() < 0.5))
        elif chance < 0.1:
            motion.resume(now_s)
        target = motion.target(now_s)
        if target is None:
            watch.rest(motion.command, now_s)
        else:
            watch.check(target, now_s)
            measured = measured + 0.4 * (target - measured)
        motion.saw(measured + rng.normal(0, 1e-3, space.size))
        if target is None:
            watch.rest(motion.command, now_s)
    return motion


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    space=st.sampled_from(SPACES),
    interpolation=st.sampled_from(["hold", "linear"]),
    each=st.booleans(),
    step=st.sampled_from([None, 0.05]),
)
def test_speed_acceleration_and_box_hold_for_any_plans_and_any_ticks(
    seed: int, space: Space, interpolation: Interpolation, each: bool, step: float | None
) -> None:
    motion = drive(space, interpolation, seed=seed, each=each, step=step)
    assert motion.counts.plans > 0


def jittered(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.cumsum(PERIOD_S * rng.uniform(0.2, 1.8, n))


def moving(
    space: Space, interpolation: Interpolation, rng: np.random.Generator, goal: np.ndarray
) -> Motion:
    motion = Motion(
        space, limits_for(space), interpolation, start=np.zeros(space.size), period_s=PERIOD_S
    )
    motion.target(0.0)
    assert motion.accept(Plan(0, np.array([0.05]), goal[None], 0.0), 0.0)
    return motion


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), space=st.sampled_from(SPACES))
def test_a_command_never_goes_past_a_target_that_stays(seed: int, space: Space) -> None:
    rng = np.random.default_rng(seed)
    goal = rng.uniform(-0.3, 0.3, space.size)
    motion = moving(space, "hold", rng, goal)
    left = []
    for now_s in jittered(rng, 700):
        target = motion.target(now_s)
        assert target is not None
        left.append(goal - target)
    ways = np.array(left)[:, list(space.linear)]
    sizes = np.linalg.norm(ways, axis=1)
    assert np.all(np.diff(sizes) <= 1e-12), "it comes nearer all the time"
    assert np.all(ways @ goal[list(space.linear)] >= -1e-12), "and does not go past"
    np.testing.assert_allclose(left[-1], 0.0, atol=1e-9)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), space=st.sampled_from(SPACES), ticks=st.integers(5, 80))
def test_hold_comes_to_rest_within_the_way_that_braking_takes_and_stays(
    seed: int, space: Space, ticks: int
) -> None:
    rng = np.random.default_rng(seed)
    motion = moving(space, "linear", rng, rng.uniform(-0.3, 0.3, space.size))
    times = jittered(rng, 400)
    here = motion.command
    for now_s in times[:ticks]:
        before, here = here, motion.command
        motion.target(now_s)
    linear = list(space.linear)
    before, here = here, motion.command
    dt = times[ticks - 1] - (times[ticks - 2] if ticks > 1 else 0.0)
    speed = np.linalg.norm((here - before)[linear]) / dt
    motion.hold(float(times[ticks - 1]), "test")
    sent = [motion.target(now_s) for now_s in times[ticks:]]
    path = [here, *(target for target in sent if target is not None)]
    way = sum(np.linalg.norm((b - a)[linear]) for a, b in itertools.pairwise(path))
    assert way <= speed**2 / (2 * 1.5) + 1e-12
    first_none = next(i for i, target in enumerate(sent) if target is None)
    assert all(target is None for target in sent[first_none:])
    assert motion.held and motion.state == "holding"


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), each=st.booleans())
def test_a_command_called_from_wall_to_wall_crosses_none_and_brakes_as_it_may(
    seed: int, each: bool
) -> None:
    rng = np.random.default_rng(seed)
    speed, acceleration = (0.8, 2.0) if not each else ([0.8, 0.6], [2.0, 3.0])
    limits = Limits(low=[-0.1] * 2, high=[0.1] * 2, speed=speed, acceleration=acceleration)
    motion = Motion(PLANE, limits, "hold", start=np.zeros(2), period_s=PERIOD_S)
    motion.target(0.0)
    goals = np.clip(rng.uniform(-0.3, 0.3, (20, 2)), -0.1, 0.1)
    times = np.cumsum(rng.uniform(0.02, 0.3, 20))
    motion.accept(Plan(0, times, goals, 0.0), 0.0)
    watch = Watch(PLANE, limits, each, np.zeros(2), np.zeros(2), 0.0)
    for now_s in jittered(rng, 400):
        target = motion.target(now_s)
        assert target is not None
        watch.check(target, now_s)
    motion.hold(now_s, "test")
    while (target := motion.target(now_s := now_s + PERIOD_S)) is not None:
        watch.check(target, now_s)


def test_a_stall_is_no_leave_to_jump() -> None:
    limits = Limits(low=[-9.0, -9.0], high=[9.0, 9.0], speed=0.25)
    motion = Motion(PLANE, limits, "linear", start=np.zeros(2), period_s=PERIOD_S)
    motion.target(0.0)
    motion.accept(Plan(0, np.array([40.0]), np.array([[10.0, 0.0]]), 0.0), 0.0)
    for k in range(1, 50):
        motion.target(k * PERIOD_S)
    before = motion.command
    after = motion.target(49 * PERIOD_S + 0.1)
    assert after is not None
    assert np.linalg.norm(after - before) == pytest.approx(2 * PERIOD_S * 0.25)


def test_what_was_left_alone_for_long_starts_from_rest() -> None:
    limits = Limits(low=[-9.0, -9.0], high=[9.0, 9.0], speed=0.25, acceleration=1.0)
    motion = Motion(PLANE, limits, "linear", start=np.zeros(2), period_s=PERIOD_S)
    motion.target(0.0)
    motion.accept(Plan(0, np.array([50.0]), np.array([[9.0, 0.0]]), 0.0), 0.0)
    for k in range(1, 100):
        motion.target(k * PERIOD_S)
    before = motion.command
    after = motion.target(99 * PERIOD_S + 2.0)
    assert after is not None
    assert np.linalg.norm(after - before) == pytest.approx(1.0 * (2 * PERIOD_S) ** 2)


def test_a_steady_plan_within_the_limits_is_followed_in_time() -> None:
    motion = Motion(POSE, limits_for(POSE), "linear", start=np.zeros(6), period_s=PERIOD_S)
    times = np.arange(1, 31) * 0.1
    targets = np.outer(times, [0.06, 0.06, 0, 0, 0, 0.4])
    motion.accept(Plan(0, times, targets, 0.0), 0.0)
    for k in range(1, 375):
        target = motion.target(k * PERIOD_S)
        assert target is not None
        if 1.0 < k * PERIOD_S < 2.8:
            expected = np.array([0.06, 0.06, 0, 0, 0, 0.4]) * k * PERIOD_S
            np.testing.assert_allclose(target, expected, atol=1e-5)
    assert motion.counts.limited_speed == 0


def test_step_keeps_a_target_near_to_what_is_measured() -> None:
    limits = Limits(step=0.1)
    motion = Motion(PLANE, limits, "hold", start=np.zeros(2), period_s=PERIOD_S)
    motion.accept(Plan(0, np.array([0.0]), np.array([[3.0, 4.0]]), 0.0), 0.0)
    for k, here in enumerate([0.0, 0.05, 0.05], 1):
        motion.saw(np.array([here, 0.0]))
        target = motion.target(k * PERIOD_S)
        assert target is not None
        assert np.linalg.norm(target - [here, 0.0]) == pytest.approx(0.1)
    assert motion.counts.limited_step == 3


@given(
    goals=st.lists(
        st.tuples(*[st.integers(-(10**9), 10**9).map(lambda number: number / 997)] * 2),
        min_size=1,
        max_size=5,
    ),
    ticks=st.lists(st.floats(1e-4, 0.02), min_size=5, max_size=5),
)
def test_without_limits_a_target_is_what_was_planned_to_the_last_bit(
    goals: list[tuple[float, float]], ticks: list[float]
) -> None:
    motion = Motion(PLANE, Limits(), "hold", start=np.array([353.1, 0.3]), period_s=0.01)
    times_s = np.cumsum(ticks[: len(goals)])
    motion.target(0.0)
    motion.accept(Plan(0, times_s, np.array(goals), 0.0), 0.0)
    for now_s, goal in zip(times_s, goals, strict=True):
        target = motion.target(now_s)
        assert target is not None and target.tolist() == list(goal)
    assert motion.close() == []


@pytest.mark.parametrize(
    ("values", "space", "words"),
    [
        ({"low": [0, 0], "high": [1, 1, 1]}, POSE, ["limits.low", "2", "x, y, z"]),
        ({"low": [0, 0, 0]}, POSE, ["limits.low", "limits.high"]),
        ({"low": [0, 2], "high": [1, 1]}, PLANE, ["limits.low", "y", "2.0 and 1.0"]),
        ({"low": [0, float("nan")], "high": [1, 1]}, PLANE, ["limits.low", "y"]),
        ({"speed": 0}, PLANE, ["limits.speed", "more than 0"]),
        ({"speed": [1, -1]}, PLANE, ["limits.speed", "more than 0"]),
        ({"acceleration": float("inf")}, PLANE, ["limits.acceleration"]),
        ({"step": -0.1}, PLANE, ["limits.step"]),
        ({"speed": 1, "acceleration": [1, 1]}, PLANE, ["limits.speed", "limits.acceleration"]),
        ({"speed": [1] * 5}, joints(6), ["limits.speed", "joint_6"]),
        ({"rotation_speed": 1}, joints(6), ["limits.rotation_speed", "joint_1"]),
    ],
)
def test_limits_that_do_not_fit_name_their_key(
    values: dict[str, object], space: Space, words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        Limits.model_validate(values).check(space)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("each", [False, True])
def test_limits_are_complete_with_all_that_suit_the_space(space: Space, each: bool) -> None:
    limits = limits_for(space, each=each).model_copy(update={"step": 1.0})
    limits.check(space)
    assert limits.missing(space) == ()
    assert Limits(speed=1.0, acceleration=1.0).missing(space)
    assert Limits(speed=1.0, acceleration=1.0).missing(WIDTH) == ("low", "high", "step")
