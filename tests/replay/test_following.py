"""Streams on a grid: which value is used at which step."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from streams_made import HOLD, T0, camera, follows_of, numbered, on_grid, sorted_times

from dp_hub.dataset.video import encode_clip
from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip, look_at_video
from dp_hub.replay.recording import Stream
from dp_hub.replay.rotations import convert
from dp_hub.replay.timeline import (
    SAME_S,
    Follow,
    Grid,
    default_follow,
    find_grids,
    follow,
)
from dp_hub.replay.timeline.taken import Taken


@settings(max_examples=150)
@given(
    times=sorted_times,
    fps=st.sampled_from([7, 10, 30, 29.97]),
    latency=st.floats(-0.2, 0.2),
    method=st.sampled_from(["hold", "nearest", "linear"]),
)
def test_nothing_that_may_not_look_ahead_is_from_after_its_step(
    times: np.ndarray, fps: float, latency: float, method: Any
) -> None:
    how = Follow(method, latency_s=latency, may_look_ahead=False)
    stream = numbered(times, "command")
    followed = on_grid(stream, how, fps)
    assert followed.method == "hold"
    true_s, steps = times - latency, followed.grid.times_s
    assert (true_s[followed.index] <= steps + SAME_S).all()
    following = np.append(true_s, np.inf)[followed.index + 1]
    assert (following >= steps - SAME_S).all()  # and none later would have done
    assert np.array_equal(followed.values[:, 0], followed.index)
    assert np.allclose(followed.offset_s, steps - true_s[followed.index], atol=1e-6)
    assert np.array_equal(followed.used_s, times[followed.index])


@settings(max_examples=150)
@given(times=sorted_times, fps=st.sampled_from([7, 30, 29.97]))
def test_looking_ahead_goes_half_an_interval_or_one(times: np.ndarray, fps: float) -> None:
    stream = numbered(times)
    near, between = on_grid(stream, Follow("nearest"), fps), on_grid(stream, Follow("linear"), fps)
    distance = np.abs(near.grid.times_s[:, None] - times).min(axis=1)
    assert np.allclose(np.abs(near.offset_s), distance, atol=1e-6)
    longest = np.diff(times).max()
    assert np.abs(near.offset_s).max() <= longest / 2 + SAME_S
    assert between.offset_s.min() >= -SAME_S and between.offset_s.max() <= longest + SAME_S
    expected = np.interp(between.grid.times_s, times, np.arange(len(times)))
    assert np.abs(between.values[:, 0] - expected).max() < 2e-3  # a microsecond of half a ms


@settings(max_examples=100)
@given(
    ticks=st.lists(st.integers(0, 40), min_size=2, max_size=60),
    method=st.sampled_from(["hold", "nearest", "linear"]),
)
def test_of_several_values_at_one_time_the_last_counts(ticks: list[int], method: Any) -> None:
    times = np.sort(np.array(ticks)) / 8
    stream = numbered(times)
    followed = on_grid(stream, Follow(method), 8)
    assert np.isfinite(followed.values).all()
    for step, number, value in zip(
        followed.grid.times_s, followed.index, followed.values[:, 0], strict=True
    ):
        if step in times:
            assert number == value == np.flatnonzero(times == step)[-1]


def test_a_sine_is_followed_as_well_as_was_measured() -> None:
    rng = np.random.default_rng(0)
    times = T0 + np.cumsum(rng.uniform(0.0095, 0.0105, 6000))
    stream = Stream(np.sin(times - T0)[:, None], times)
    error = {}
    for method in ("hold", "nearest", "linear"):
        followed = on_grid(stream, Follow(method))
        truth = np.sin(followed.grid.times_s - T0)
        error[method] = float(np.sqrt(np.mean((followed.values[:, 0] - truth) ** 2)))
    assert 3e-3 < error["hold"] < 6e-3
    assert 1.5e-3 < error["nearest"] < 2.5e-3
    assert error["linear"] < 1e-5


def test_rotations_are_followed_exactly_through_sign_flips() -> None:
    rng = np.random.default_rng(1)
    times = T0 + np.cumsum(rng.uniform(0.018, 0.022, 3000))
    vectors = np.array([0.0, 0.6, 0.8]) * (0.5 * (times - T0))[:, None]
    clean = convert(vectors, "rotvec", "quat_xyzw")
    flipped = clean * np.where(rng.random(3000) < 0.4, -1, 1)[:, None]
    how = Follow("slerp", rotation="quat_xyzw")
    followed = on_grid(Stream(flipped, times), how)
    truth = np.array([0.0, 0.6, 0.8]) * (0.5 * (followed.grid.times_s - T0))[:, None]
    expected = convert(truth, "rotvec", "quat_xyzw")
    half = np.linalg.norm(np.cross(followed.values[:, :3], expected[:, :3]), axis=1)
    dots = np.abs((followed.values * expected).sum(axis=1))
    angle = 2 * np.arccos(np.clip(dots, 0, 1))
    assert angle.max() < 1e-6 and half.max() < 1
    assert np.abs(np.linalg.norm(followed.values, axis=1) - 1).max() < 1e-12
    assert ((followed.values[1:] * followed.values[:-1]).sum(axis=1) > 0).all()
    vectors_followed = on_grid(Stream(vectors % 1.0, times), Follow("slerp", rotation="rotvec"))
    assert np.isfinite(vectors_followed.values).all()


def test_single_numbers_keep_their_type_and_whole_ones_get_fractions() -> None:
    times = np.arange(0, 2, 0.01)
    for kind, expected in (("f4", "f4"), ("f2", "f2"), ("f8", "f8"), ("i4", "f8"), ("u1", "f8")):
        stream = Stream(np.arange(200).astype(kind), times)
        followed = on_grid(stream, Follow("linear"))
        assert followed.values.dtype == expected and followed.values.shape == (60,)
        assert np.abs(followed.values - followed.grid.times_s * 100).max() < 0.1
    held = on_grid(Stream(np.array(["a", "b", "c"] * 20, object), np.arange(60) / 10), HOLD)
    assert held.values.dtype == object and held.values[:4].tolist() == ["a", "a", "a", "b"]
    truths = on_grid(Stream(np.arange(60) % 2 == 0, np.arange(60) / 10), HOLD)
    assert truths.values.dtype == bool


def test_what_is_not_a_number_reaches_its_neighbours_only() -> None:
    values = np.arange(50.0)
    values[20] = np.nan
    followed = on_grid(Stream(values, np.arange(50) / 10), Follow("linear"), 20)
    assert np.flatnonzero(np.isnan(followed.values)).tolist() == [39, 40, 41]
    exact = on_grid(Stream(values, np.arange(50) / 10), Follow("linear"), 10)
    assert np.flatnonzero(np.isnan(exact.values)).tolist() == [20]


@pytest.mark.parametrize("kind", ["object", "bool", "U3"])
def test_what_cannot_be_interpolated_is_said(kind: str) -> None:
    stream = Stream(np.zeros(30, kind), np.arange(30) / 10)
    with pytest.raises(DataError, match="cannot be interpolated"):
        on_grid(stream, Follow("linear"))


def test_a_step_before_the_first_value_is_refused() -> None:
    with pytest.raises(DataError, match=r"the first value comes 1.000 s after the first step"):
        follow(numbered([2.0, 3.0]), Grid(1.0, 5, Fraction(10)), HOLD)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "cubic"}, {"method": "slerp"}, {"method": "slerp", "rotation": "quat"},
        {"method": "hold", "max_gap_s": 0.0}, {"method": "hold", "max_gap_s": float("nan")},
        {"method": "hold", "latency_s": float("inf")},
    ],
)  # fmt: skip
def test_following_in_ways_that_are_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        Follow(**wrong)


def test_latencies_move_a_stream() -> None:
    stream = numbered(np.arange(0, 5, 0.1))
    late = on_grid(stream, Follow("linear", latency_s=0.05), 10)
    assert late.grid.start_s == pytest.approx(-0.05)
    arm = numbered(np.arange(0, 5, 0.01))
    [grid], _ = find_grids(
        {"/cam": stream, "/arm": arm}, {"/cam": HOLD, "/arm": Follow("linear")}, 10
    )
    moved = follow(arm, grid, Follow("linear", latency_s=-0.0))
    assert np.allclose(moved.values[:, 0] / 100, grid.times_s)


@pytest.mark.parametrize("how", [HOLD, Follow("linear"), Follow("nearest")])
@pytest.mark.parametrize("start", [0.0, T0, T0 + 0.123456789])
def test_values_on_the_grid_pass_through_bit_by_bit(how: Follow, start: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(900, 7)).astype(np.float32)
    times = start + np.arange(900) / 30 + rng.uniform(-2e-7, 2e-7, 900)
    times[0] = start
    followed = on_grid(Stream(values, times), how)
    assert followed.grid.count == 900
    assert np.array_equal(followed.values, values)
    assert followed.repeated == followed.dropped == 0
    assert np.shares_memory(followed.values, values) or how.method == "linear"


def test_quaternions_on_the_grid_pass_through_bit_by_bit() -> None:
    angle = np.linspace(0, 3, 100)
    values = np.stack([np.sin(angle), 0 * angle, 0 * angle, np.cos(angle)], axis=1) * 1.0001
    followed = on_grid(
        Stream(values, T0 + np.arange(100) / 30), Follow("slerp", rotation="quat_xyzw")
    )
    assert np.array_equal(followed.values, values)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), jitter=st.floats(0, 0.008), offset=st.floats(0, 0.03))
@example(seed=195, jitter=0.0078125, offset=0.0)  # the last frame is the latest
def test_a_jittering_camera_at_the_grids_rate_loses_and_doubles_nothing(
    seed: int, jitter: float, offset: float
) -> None:
    rng = np.random.default_rng(seed)
    times = T0 + np.arange(300) / 30 + rng.uniform(-jitter, jitter, 300)
    arm = numbered(T0 - 1 + np.arange(1300) / 100)
    streams = {"/cam": camera(times), "/arm": arm}
    follows = {name: default_follow(stream) for name, stream in streams.items()}
    [grid], _ = find_grids(streams, follows, 30)
    followed = follow(streams["/cam"], grid, follows["/cam"])
    assert followed.repeated == followed.dropped == 0
    assert grid.count in (299, 300)  # the first may be a little late
    assert followed.offset_s.min() >= -SAME_S and followed.offset_s.max() <= 2 * jitter + SAME_S
    assert grid.start_s - times[0] <= 1 / 30


def test_two_cameras_at_the_grids_rate_are_both_whole() -> None:
    rng = np.random.default_rng(5)
    first = T0 + np.arange(600) / 30 + rng.normal(0, 0.001, 600)
    second = T0 + 0.012 + np.arange(600) / 30 + rng.normal(0, 0.001, 600)
    streams = {"/a": camera(first), "/b": camera(second)}
    follows = {name: default_follow(stream) for name, stream in streams.items()}
    [grid], _ = find_grids(streams, follows, 30)
    for name, stream in streams.items():
        followed = follow(stream, grid, follows[name])
        assert followed.repeated == followed.dropped == 0
        assert followed.grid.count >= 598


def test_a_camera_that_jitters_widely_is_cut_where_the_fewest_frames_are() -> None:
    rng = np.random.default_rng(2)
    times = np.sort(T0 + np.arange(9000) / 30 + rng.normal(0, 0.004, 9000))
    streams = {"/cam": camera(times), "/late": numbered(times[100] + np.arange(1, 28000) / 100)}
    [grid], _ = find_grids(streams, follows_of(streams), 30)
    followed = follow(streams["/cam"], grid, HOLD)
    assert 0 <= followed.repeated < 100 and followed.dropped < 100  # at the worst start: 1,900
    worst = follow(streams["/cam"], Grid(T0 + 200 / 30, 8000, Fraction(30)), HOLD)
    assert worst.repeated > 1500


def test_a_camera_at_nearly_the_grids_rate_starts_at_once() -> None:
    stream = camera(T0 + np.arange(9000) / 29.8)
    followed = on_grid(stream, default_follow(stream))
    assert followed.grid.start_s == T0
    assert followed.repeated == pytest.approx(9000 * (30 / 29.8 - 1), abs=2)


def video(frames: int, rate: Fraction) -> VideoClip:
    grays = (np.arange(frames) * 4 % 250).astype(np.uint8)
    pictures = np.ascontiguousarray(
        np.broadcast_to(grays[:, None, None, None], (frames, 64, 64, 3))
    )
    return encode_clip(pictures, rate=rate, codec="h264")


def test_a_video_at_the_grids_rate_stays_a_video_that_can_be_copied() -> None:
    clip = video(60, Fraction(30))
    times = T0 + np.arange(60) / 30
    arm = numbered(T0 + 0.5 + np.arange(100) / 100)
    streams = {"/cam": Stream(clip, times, "picture"), "/arm": arm}
    follows = {name: default_follow(stream) for name, stream in streams.items()}
    [grid], _ = find_grids(streams, follows, 30)
    followed = follow(streams["/cam"], grid, follows["/cam"])
    assert isinstance(followed.values, VideoClip)
    assert followed.values.first == int(followed.index[0]) >= 14
    assert np.array_equal(followed.values[:], clip[:][followed.index])


def test_a_video_at_another_rate_or_with_holes_is_taken_frame_by_frame() -> None:
    clip = video(60, Fraction(30))
    stream = Stream(clip, T0 + np.arange(60) / 30, "picture")
    frames = clip[:]
    for fps, index in ((15, np.arange(0, 60, 2)), (60, np.arange(120) // 2)):
        followed = on_grid(stream, default_follow(stream), fps)
        assert isinstance(followed.values, Taken)
        assert np.array_equal(followed.index, index)
        assert np.array_equal(followed.values[:], frames[index])
    slow = Stream(clip, T0 + np.arange(60) / 10, "picture")  # the file says 30
    followed = on_grid(slow, default_follow(slow), 10)
    assert isinstance(followed.values, Taken)
    assert np.array_equal(followed.index, np.arange(60))


def test_a_real_video_of_a_robot_is_put_on_other_rates(shared_data: Path) -> None:
    paths = sorted((shared_data / "samples" / "lerobot_v21_g1").rglob("*.mp4"))
    assert len(paths) >= 3
    facts = look_at_video(paths[0])
    clip = VideoClip(paths[0], 0, len(facts.times_s), facts.size, Fraction(30), facts.codec)
    stream = Stream(clip, T0 + facts.times_s, "picture")
    assert isinstance(on_grid(stream, default_follow(stream), 30).values, VideoClip)
    slow = on_grid(stream, default_follow(stream), 20)
    wanted = slow.index[:40]
    assert np.array_equal(wanted[:6], [0, 1, 3, 4, 6, 7])
    frames = clip.frames()
    seen = {
        number: frame for number, frame in zip(range(int(wanted[-1]) + 1), frames, strict=False)
    }
    blocks = [slow.values[first : first + 16] for first in (0, 16, 32)]
    assert np.array_equal(np.concatenate(blocks)[:40], np.stack([seen[k] for k in wanted.tolist()]))
    assert slow.dropped == pytest.approx(len(facts.times_s) / 3, abs=1) and slow.repeated == 0


def test_pictures_in_memory_are_not_copied_before_they_are_looked_at() -> None:
    stream = camera(np.arange(100) / 30)
    followed = on_grid(stream, default_follow(stream), 60)
    assert isinstance(followed.values, Taken) and followed.values.source is stream.values
    assert followed.values[10:14][:, 0, 0, 0].tolist() == [5, 5, 6, 6]
