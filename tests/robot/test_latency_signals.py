"""Delays of made signals come out to a fraction of a sample, and no number where there is none."""

import numpy as np
import pytest

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.config import load_robot
from dp_hub.robot.latency.choosing import choose
from dp_hub.robot.latency.finding import (
    Asked,
    DeadTime,
    Findings,
    dead_time,
    frames_lag,
    position_lag,
    stream_timing,
)
from dp_hub.robot.latency.paths import Reach, reach, steps, sweep
from dp_hub.robot.latency.signals import (
    Delay,
    Spread,
    first_beyond,
    lag,
    picture_delay,
    rest,
)
from dp_hub.robot.latency.tape import Taped
from dp_hub.robot.motion.limits import Limits
from dp_hub.robot.space import POSE, joints

RNG = np.random.default_rng(0)


def wave(at_s: np.ndarray) -> np.ndarray:
    """Slow and quick at once, so that no delay looks like another."""
    return np.sin(2.1 * at_s + 0.3 * at_s**2 / 2) + 0.3 * np.sin(5.3 * at_s)


def taped(times_s: np.ndarray, values: np.ndarray, *, apart: int = 1) -> Taped:
    return Taped(times_s, times_s + 0.002, values, 0, apart)


TICKS = np.arange(0.0, 10.0, 0.01)


@pytest.mark.parametrize("delay_s", [-0.0517, 0.0, 0.0034, 0.1234, 0.4321])
def test_lag_is_found_between_samples(delay_s: float) -> None:
    times_s = np.sort(RNG.uniform(0, 10, 700))  # at no rate at all
    found = lag(times_s, wave(times_s - delay_s), TICKS, wave(TICKS))
    assert found.delay_s == pytest.approx(delay_s, abs=2e-4)
    assert found.correlation > 0.999


def test_lag_survives_noise_gain_and_offset() -> None:
    seen = 5.0 + 0.2 * wave(TICKS - 0.15) + RNG.normal(0, 0.05, len(TICKS))
    assert lag(TICKS, seen, TICKS, wave(TICKS)).delay_s == pytest.approx(0.15, abs=0.005)


def test_delay_beyond_what_is_looked_for_is_no_number() -> None:
    slow = np.sin(0.6 * TICKS)
    found = lag(TICKS, np.sin(0.6 * (TICKS - 0.8)), TICKS, slow, high_s=0.5)
    assert found.delay_s is None
    assert "at the edge" in (found.why_not or "")


def test_signals_without_a_relation_give_no_number() -> None:
    found = lag(TICKS, RNG.normal(size=len(TICKS)), TICKS, wave(TICKS))
    assert found.delay_s is None
    assert "too weakly" in (found.why_not or "")


def test_nothing_that_moves_gives_no_number() -> None:
    found = lag(TICKS, np.full(len(TICKS), 3.0), TICKS, wave(TICKS))
    assert (found.delay_s, found.why_not) == (None, "nothing moved in it")


def test_too_short_a_recording_gives_no_number() -> None:
    found = lag(TICKS[:50], wave(TICKS[:50]), TICKS[:50], wave(TICKS[:50]))
    assert found.delay_s is None


@pytest.mark.parametrize("delay_s", [-0.08, 0.0, 0.0702, 0.31])
@pytest.mark.parametrize("apart", [1, 3])
def test_pictures_are_later_by_as_much_as_they_are(delay_s: float, apart: int) -> None:
    frames_s = np.arange(0.0, 10.0, 1 / 30) + RNG.uniform(-0.004, 0.004, 300)
    frames_s = np.delete(frames_s, [40, 41, 150])  # some were dropped
    ways = np.abs(wave(frames_s[apart:] - delay_s) - wave(frames_s[:-apart] - delay_s))
    changes = 0.4 + 2.5 * ways + RNG.normal(0, 0.02, len(ways))  # noise changes pictures, too
    found = picture_delay(frames_s, changes, TICKS, wave(TICKS), apart=apart)
    assert found.delay_s == pytest.approx(delay_s, abs=0.006)


def test_pictures_of_something_else_give_no_number() -> None:
    frames_s = np.arange(0.0, 10.0, 1 / 30)
    changes = RNG.uniform(0, 5, len(frames_s))
    changes[0] = np.nan
    found = frames_lag(taped(frames_s, changes).between(0.01, 9.0), taped(TICKS, wave(TICKS)))
    assert found.delay_s is None
    assert "has to be in view" in (found.why_not or "")


def test_leaving_a_rest_is_found_between_samples_but_not_of_what_is_held() -> None:
    times_s = np.array([0.0, 1.0, 2.0, 3.0])
    values = np.array([5.0, 5.0, 5.4, 5.8])
    assert first_beyond(times_s, values, 5.0, 0.1, held=False) == pytest.approx(1.25)
    assert first_beyond(times_s, values, 5.0, 0.1, held=True) == 2.0
    assert first_beyond(times_s, values, 5.0, 1.0, held=False) is None


def test_noise_of_a_rest_is_not_fooled_by_a_stray() -> None:
    values = RNG.normal(2.0, 0.01, 1000)
    values[7] = 50.0
    middle, noise = rest(values)
    assert middle == pytest.approx(2.0, abs=0.002)
    assert noise == pytest.approx(0.01, rel=0.15)


JUMP = Reach(0, 10.0)


def moved(delay_s: float, *, noise: float = 0.0, how: Reach = JUMP) -> DeadTime:
    """An arm that does exactly what it is told, so much later, seen at another rate."""
    path = steps(how, 8)
    sent_s = np.arange(0.0, path.lasts_s, 0.008)
    index = np.searchsorted(path.times_s, sent_s, side="right") - 1
    targets = 100 + path.offsets[index]
    read_s = np.arange(0.003, path.lasts_s, 0.005)
    held = np.searchsorted(sent_s + delay_s, read_s, side="right") - 1
    position = targets[np.maximum(held, 0)] + RNG.normal(0, 1, len(read_s)) * noise
    return dead_time(
        taped(sent_s, targets), taped(read_s, position), path.starts_s, how.travel, within_s=1.0
    )


@pytest.mark.parametrize("delay_s", [0.0, 0.083, 0.4])
def test_dead_time_of_a_pure_delay_is_that_delay(delay_s: float) -> None:
    found = moved(delay_s, noise=0.01)
    assert found.spread is not None
    assert found.spread.n == 8
    assert found.spread.median_s == pytest.approx(delay_s, abs=0.005)  # a sample of the position


def test_dead_time_does_not_depend_on_how_softly_it_starts() -> None:
    found = moved(0.083, how=Reach(0, 10.0, speed=40.0, acceleration=200.0))
    assert found.spread is not None
    assert found.spread.median_s == pytest.approx(0.083, abs=0.005)


def test_arm_that_does_not_move_has_no_dead_time() -> None:
    found = moved(50.0)
    assert found.spread is None
    assert "in 0 of 8 moves" in (found.why_not or "")


def test_movement_that_noise_hides_has_no_dead_time() -> None:
    found = moved(0.05, noise=3.0)
    assert found.spread is None
    assert "noise hides" in (found.why_not or "")


def test_timing_of_a_stream_tells_rate_jitter_gaps_and_transport() -> None:
    times_s = np.delete(np.arange(0.0, 3.0, 0.01), [100, 101])
    found = stream_timing(Taped(times_s, times_s + 0.004, times_s, 2), 100.0)
    assert found.rate_hz == pytest.approx(99.3, abs=0.1)
    assert found.longest_s == pytest.approx(0.03)
    assert found.transport == Spread(len(times_s), pytest.approx(0.004), pytest.approx(0.004))
    assert (found.jitter_s, found.lost) == (pytest.approx(0.0, abs=1e-9), 2)
    assert stream_timing(taped(np.empty(0), np.empty(0)), 30.0).samples == 0
    nothing = taped(np.empty(0), np.empty(0))
    assert position_lag(nothing, nothing).why_not == "nothing was sent"


ROOM = Limits(low=[0.0, 0.0, 0.0], high=[1.0, 0.5, 0.5], speed=0.2, acceleration=1.0, step=0.1)
HERE = np.array([0.3, 0.45, 0.2, 0.0, 3.0, 0.0])


def test_default_travel_is_2_percent_of_the_smallest_side_towards_the_room() -> None:
    assert reach(POSE, ROOM, HERE) == Reach(0, pytest.approx(0.01), 0.1, 0.5)
    assert reach(POSE, ROOM, HERE, number=1).travel == pytest.approx(-0.01)


def test_travel_is_at_most_half_of_a_step_limit() -> None:
    assert reach(POSE, ROOM, HERE, amplitude=0.3).travel == pytest.approx(0.05)


def test_limits_of_each_joint_are_its_own() -> None:
    own = Limits(low=[-1.0] * 2, high=[1.0] * 2, speed=[1.0, 3.0], acceleration=[2.0, 8.0])
    found = reach(joints(2), own, np.zeros(2), number=1, amplitude=0.1)
    assert found == Reach(1, pytest.approx(0.1), 1.5, 4.0)


@pytest.mark.parametrize(
    ("limits", "options", "error", "message"),
    [
        (Limits(), {}, ConfigError, "no workspace"),
        (ROOM, {"amplitude": 0.0}, ConfigError, "amplitude is 0"),
        (ROOM, {"number": 4}, ConfigError, "ry is a rotation; one of x, y, z"),
        (ROOM.model_copy(update={"step": None}), {"amplitude": 0.9}, ConfigError, "cannot move"),
        (ROOM.model_copy(update={"low": [0.4, 0.0, 0.0]}), {}, RobotError, "outside the workspace"),
    ],
)
def test_movement_without_room_is_refused(limits, options, error, message) -> None:
    with pytest.raises(error, match=message):
        reach(POSE, limits, HERE, **options)


@pytest.mark.parametrize(
    "how", [Reach(0, 10.0), Reach(0, -0.02, 0.1, 0.5), Reach(0, 0.5, 0.3), Reach(0, 0.05, 5.0, 9.0)]
)
def test_paths_begin_and_end_at_home_and_stay_within_half_of_the_limits(how: Reach) -> None:
    for path in (steps(how, 6), sweep(how)):
        assert np.all(np.diff(path.times_s) > 0)
        assert path.offsets[[0, -1]] == pytest.approx(0.0, abs=1e-9)
        ends = sorted((0.0, how.travel))
        assert path.offsets.min() >= ends[0] - 1e-9 and path.offsets.max() <= ends[1] + 1e-9
        assert np.ptp(path.offsets) == pytest.approx(abs(how.travel), rel=0.02)
        speed = np.diff(path.offsets) / np.diff(path.times_s)
        assert np.abs(speed).max() <= how.speed * (1 + 1e-6)


def test_step_is_as_sharp_as_it_may_be() -> None:
    free, slow = steps(Reach(0, 10.0), 4), steps(Reach(0, 10.0, 20.0), 4)
    assert np.diff(free.offsets).max() == pytest.approx(10.0)
    began = slow.starts_s[0]
    assert np.interp([began, began + 0.25, began + 0.5], slow.times_s, slow.offsets) == (
        pytest.approx([0.0, 5.0, 10.0])
    )


def found_with(dead_s: float, top_s: float | None, lag_s: float = 0.3) -> Findings:
    spread = Spread(8, dead_s, dead_s)
    return Findings(
        "pusht", {}, {}, actuator="arm", dead_time=DeadTime(8, spread, 0.1), lag=Delay(lag_s, 0.9),
        cameras={"top": Delay(top_s, 0.9)},
    )  # fmt: skip


ACTION = ("arms", "arm", "action_latency_s")
STATE = ("arms", "arm", "state_latency_s")
CAMERA = ("cameras", "top", "latency_s")


def test_what_is_chosen_is_right_for_the_state_latency_that_is_known() -> None:
    config = load_robot("pusht")
    assert choose(found_with(0.08, 0.07), config).values == {CAMERA: 0.07, ACTION: 0.08}
    known = choose(found_with(0.08, 0.07), config, state_latency_s=0.05)
    assert known.values == {STATE: 0.05, CAMERA: 0.12, ACTION: 0.03}


def test_camera_that_is_earlier_than_the_state_raises_the_state_latency() -> None:
    chosen = choose(found_with(0.08, -0.04), load_robot("pusht"))
    assert chosen.values == {STATE: 0.04, CAMERA: 0.0, ACTION: 0.04}
    assert "pictures are earlier" in chosen.notes[0]
    within_error = choose(found_with(0.08, -0.002), load_robot("pusht"))
    assert within_error.values == {CAMERA: 0.0, ACTION: 0.08}


def test_what_did_not_come_out_is_left_out() -> None:
    assert choose(found_with(0.08, None), load_robot("pusht")).values == {ACTION: 0.08}
    lagging = choose(found_with(0.08, None), load_robot("pusht"), follows="lag")
    assert lagging.values == {ACTION: 0.3}


def test_inference_latency_counts_in_that_observations_are_older_than_was_known() -> None:
    asked = Asked("me", 1.0, *(Spread(9, s, s + 0.01) for s in (0.05, 0.06, 0.04)))
    found = found_with(0.08, 0.07)
    chosen = choose(Findings(**{**vars(found), "inference": asked}), load_robot("pusht"))
    assert chosen.values["inference", "latency_s"] == pytest.approx(0.14)
    alone = choose(Findings("pusht", {}, {}, inference=asked), load_robot("pusht"))
    assert alone.values == {("inference", "latency_s"): 0.07}
