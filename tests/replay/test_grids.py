"""Grids: exact times, where they begin and end, and gaps."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams_made import HOLD, T0, alone, camera, follows_of, numbered, with_gap

from dp_hub.errors import DataError
from dp_hub.replay.recording import Stream
from dp_hub.replay.timeline import (
    SAME_S,
    Follow,
    Grid,
    default_follow,
    exact_fps,
    find_grids,
    follow,
)


def test_a_grid_does_not_drift_in_hours() -> None:
    grid = Grid(T0, 30 * 3600 * 10, Fraction(30000, 1001))
    since = grid.since_start_s
    for step in (0, 1, 29, 30, 107999, 30 * 3600 * 10 - 1):
        assert since[step] == float(Fraction(step * 1001, 30000))
    assert np.diff(since).min() > 0
    assert grid.times_s[-1] == T0 + since[-1]
    added_up = np.cumsum(np.full(grid.count, 1 / 30))[-1]
    assert abs(added_up - 36000.0) > 1e-9  # what is not done here
    assert Grid(0.0, 30 * 36000 + 1, Fraction(30)).since_start_s[-1] == 36000.0


@pytest.mark.parametrize(
    ("fps", "exact"),
    [
        (30, Fraction(30)), (30.0, Fraction(30)), (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)), (23.976, Fraction(24000, 1001)), (12.5, Fraction(25, 2)),
        (0.5, Fraction(1, 2)), (30000 / 1001, Fraction(30000, 1001)), (1 / 3, Fraction(1, 3)),
        (Fraction(30000, 1001), Fraction(30000, 1001)), (50, Fraction(50)),
        (0.001, Fraction(1, 1000)),
    ],
)  # fmt: skip
def test_rates_are_exact(fps: Any, exact: Fraction) -> None:
    assert exact_fps(fps) == exact


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1e9])
def test_rates_that_are_none_are_refused(fps: float) -> None:
    with pytest.raises(DataError, match="fps"):
        exact_fps(fps)


def test_it_begins_when_all_are_there_and_ends_with_the_first() -> None:
    streams = {
        "/a": numbered(T0 + np.arange(0, 10, 0.01)),
        "/b": numbered(T0 + np.arange(2, 8, 0.02)),
    }
    follows = {name: default_follow(stream) for name, stream in streams.items()}
    [grid], gaps = find_grids(streams, follows, 20)
    assert gaps == [] and grid.start_s == T0 + 2
    assert grid.count == 120  # 2.00 ... 7.95, as the last value is at 7.98
    assert [one.count for one in find_grids(streams, follows, 50)[0]] == [300]  # 7.98 is a step


def test_steps_stay_between_what_was_asked_for() -> None:
    stream = numbered(T0 + np.arange(0, 10, 0.01))
    [grid], _ = alone(stream, Follow("linear"), 10, start_s=T0 + 3.005, stop_s=T0 + 4.005)
    assert grid.start_s == T0 + 3.005 and grid.count == 10
    with pytest.raises(DataError, match=r"not between .* as asked"):
        alone(stream, Follow("linear"), 10, start_s=T0 + 20)


def test_streams_that_are_never_there_together_are_named() -> None:
    streams = {"/early": numbered([0.0, 1.0]), "/late": numbered([5.0, 6.0])}
    with pytest.raises(DataError, match=r"/early ends at 1.000 s, before /late begins at 5.000 s"):
        find_grids(streams, dict.fromkeys(streams, Follow("linear")), 10)


def test_an_empty_stream_is_named() -> None:
    with pytest.raises(DataError, match="the stream /x is empty"):
        alone(numbered([]), HOLD)
    with pytest.raises(DataError, match="empty stream"):
        follow(numbered([]), Grid(0.0, 1, Fraction(1)), HOLD)
    with pytest.raises(DataError, match="at least one stream"):
        find_grids({}, {}, 10)


def test_a_single_value_holds_and_cannot_be_interpolated() -> None:
    streams = {"/arm": numbered(np.arange(0, 2, 0.01)), "/once": numbered([0.5])}
    follows = {name: default_follow(stream) for name, stream in streams.items()}
    assert follows["/once"].method == "hold" and follows["/once"].max_gap_s is None
    [grid], _ = find_grids(streams, follows, 10)
    assert grid.start_s == 0.5 and grid.count == 15
    assert (follow(streams["/once"], grid, follows["/once"]).values == 0).all()
    with pytest.raises(DataError, match="single value") as caught:
        find_grids(streams, {**follows, "/once": Follow("linear")}, 10)
    assert "method: hold" in str(caught.value.hint)
    assert alone(numbered([3.0]), HOLD)[0] == [Grid(3.0, 1, Fraction(30))]


def test_more_steps_than_any_recording_has_are_refused() -> None:
    with pytest.raises(DataError, match="no recording is so long"):
        alone(numbered([0.0, 1.7e9]), Follow("linear"), 1000)


def test_a_gap_makes_two_episodes_without_anything_frozen() -> None:
    streams = with_gap()
    grids, gaps = find_grids(streams, follows_of(streams), 10)
    assert [(gap.stream, round(gap.start_s, 6), round(gap.stop_s, 6)) for gap in gaps] == [
        ("/cam", 3.9, 6.0)
    ]
    assert gaps[0].length_s == pytest.approx(2.1)
    assert [grid.count for grid in grids] == [40, 40]
    for grid in grids:
        followed = follow(streams["/cam"], grid, follows_of(streams)["/cam"])
        assert followed.repeated == followed.dropped == 0
        assert followed.offset_s.max() < 0.1


def test_a_gap_rejects_or_is_an_error_or_is_kept() -> None:
    streams = with_gap()
    follows = follows_of(streams)
    assert find_grids(streams, follows, 10, on_gap="reject")[0] == []
    with pytest.raises(DataError, match=r"/cam has nothing for 2.100 s, from 3.900 to 6.000 s"):
        find_grids(streams, follows, 10, on_gap="error")
    [grid], gaps = find_grids(streams, follows, 10, on_gap="keep")
    assert grid.count == 100 and len(gaps) == 1
    followed = follow(streams["/cam"], grid, follows["/cam"])
    assert followed.offset_s.max() == pytest.approx(2.0) and followed.repeated == 20
    with pytest.raises(DataError, match="on_gap is 'cut'"):
        find_grids(streams, follows, 10, on_gap="cut")  # type: ignore[arg-type]


def test_gaps_of_several_streams_are_all_left_out() -> None:
    streams = with_gap()
    arm = np.concatenate([np.arange(0, 5, 0.01), np.arange(7, 10, 0.01)])
    streams["/arm"] = numbered(arm)
    grids, gaps = find_grids(streams, follows_of(streams), 10)
    assert [gap.stream for gap in gaps] == ["/cam", "/arm"]
    spans = [(g.start_s, g.times_s[-1]) for g in grids]
    assert np.allclose(spans, [(0, 3.9), (7, 9.9)], atol=1e-6)


def test_a_gap_before_all_are_there_is_none() -> None:
    streams = with_gap()
    streams["/late"] = numbered(np.arange(6.5, 10, 0.01))
    grids, gaps = find_grids(streams, follows_of(streams), 10, on_gap="error")
    assert gaps == [] and len(grids) == 1


@settings(max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    limit=st.floats(0.11, 0.9),
    method=st.sampled_from(["hold", "linear", "nearest"]),
)
def test_gaps_are_exactly_the_long_intervals(seed: int, limit: float, method: Any) -> None:
    rng = np.random.default_rng(seed)
    between = np.where(rng.random(80) < 0.1, rng.uniform(0.05, 1.0, 80), 0.05)
    times = T0 + np.cumsum(between)
    stream = numbered(times)
    how = Follow(method, max_gap_s=limit)
    grids, gaps = alone(stream, how, 20)
    long = np.flatnonzero(np.diff(times) > limit)
    assert [(g.start_s, g.stop_s) for g in gaps] == [(times[i], times[i + 1]) for i in long]
    seen = 0
    for grid in grids:
        followed = follow(stream, grid, how)
        assert np.abs(followed.offset_s).max() <= limit + SAME_S
        inside = (grid.times_s > times[long, None] + 0.05 + SAME_S) & (
            grid.times_s < times[long + 1, None] - SAME_S
        )
        assert not inside.any()
        seen += grid.count
    assert seen >= len(grids) >= 1


def test_a_limit_below_the_usual_period_is_refused() -> None:
    with pytest.raises(DataError, match=r"max_gap_s of /x is 0.05, but its values usually come"):
        alone(numbered(np.arange(0, 5, 0.1)), Follow("hold", max_gap_s=0.05))


def test_gaps_that_leave_nothing_are_said() -> None:
    streams = {
        "/a": numbered([0.0, 0.1, 0.2, 0.3, 9.0]),
        "/b": numbered([0.35, 8.0, 8.1, 8.2, 8.3]),
    }
    follows = dict.fromkeys(streams, Follow("linear", max_gap_s=1.0))
    with pytest.raises(DataError, match="2 gaps leave no step"):
        find_grids(streams, follows, 10)


def test_what_nobody_said_is_sensible() -> None:
    arm = default_follow(numbered(np.arange(0, 5, 0.01)))
    assert (arm.method, arm.max_gap_s, arm.may_look_ahead) == ("linear", 0.5, True)
    slow = default_follow(numbered(np.arange(0, 50, 0.5)))
    assert slow.max_gap_s == pytest.approx(2.5)
    cam = default_follow(camera(np.arange(0, 5, 0.1)))
    assert (cam.method, cam.may_look_ahead) == ("hold", False)
    assert cam.max_gap_s == pytest.approx(0.5)
    regular = default_follow(numbered(np.arange(0, 5, 0.02), "command"))
    assert (regular.method, regular.max_gap_s, regular.may_look_ahead) == ("hold", 0.5, False)
    rare = default_follow(numbered([0.0, 0.1, 3.0, 9.0, 9.1, 20.0], "command"))
    assert (rare.method, rare.max_gap_s) == ("hold", None)
    doubled = default_follow(camera(np.repeat(np.arange(0, 50, 0.5), 3)))
    assert doubled.max_gap_s == pytest.approx(2.5)
    event = default_follow(numbered(np.arange(0, 5, 0.02), "event"))
    assert (event.method, event.max_gap_s) == ("hold", None)
    whole = default_follow(Stream(np.arange(50), np.arange(50) / 10))
    assert (whole.method, whole.max_gap_s) == ("hold", pytest.approx(0.5))
