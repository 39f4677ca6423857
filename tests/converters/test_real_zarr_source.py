"""The original's real-robot folders: rows with times, and videos whose frames get theirs."""

import shutil

import numpy as np
import pytest
import zarr
from dp_hub_converters.real_zarr import RealZarr
from dp_hub_converters.shared.video_frames import VideoFrames, constant_rate, open_video
from numbered_videos import number_of, write_numbered
from source_mutations import mutations

from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip

BEGAN_S = 1_700_000_000.25
LENGTHS = (8, 11, 9)


def rows(lengths=LENGTHS):
    """Low-dimensional data at 10 Hz with a little jitter; a pause of a minute between episodes."""
    rng = np.random.default_rng(0)
    n = sum(lengths)
    times = [
        BEGAN_S + 60 * number + np.arange(length) * 0.1 + rng.uniform(0, 0.01, length)
        for number, length in enumerate(lengths)
    ]
    return {
        "action": rng.normal(size=(n, 2)),
        "robot_eef_pose": rng.normal(size=(n, 6)),
        "robot_joint": rng.normal(size=(n, 6)),
        "stage": rng.integers(1, 3, n),
        "timestamp": np.concatenate(times),
    }


def write_real(folder, *, lengths=LENGTHS, cameras=("0", "1"), frames=None, **changes):
    """A folder as the original records it; ``frames``: number of frames by (episode, camera)."""
    data = rows(lengths) | changes
    root = zarr.open_group(folder / "replay_buffer.zarr", mode="w", zarr_format=2)
    root.create_group("meta").create_array("episode_ends", data=np.cumsum(lengths))
    group = root.create_group("data")
    for key, values in data.items():
        if values is not None:
            group.create_array(key, data=values, chunks=(5, *values.shape[1:]))
    for episode, length in enumerate(lengths):
        for camera in cameras:
            n = (frames or {}).get((episode, camera), length * 3)
            if n:
                path = folder / "videos" / str(episode) / f"{camera}.mp4"
                write_numbered(path, n, first=100 * episode + 40 * cameras.index(camera))
    return data


def test_rows_come_with_their_times_and_kinds(tmp_path):
    data = write_real(tmp_path)
    source = RealZarr()
    assert source.recognises(tmp_path) and not source.recognises(tmp_path / "videos")
    found = list(source.recordings(tmp_path))
    assert len(found) == 3
    assert source.describe(tmp_path).n_frames == 28
    kinds = {key: stream.kind for key, stream in found[0].streams.items()}
    assert kinds == {
        "action": "command",
        "robot_eef_pose": "state",
        "robot_joint": "state",
        "stage": "event",
        "camera_0": "picture",
        "camera_1": "picture",
    }
    for key in ("action", "robot_eef_pose", "robot_joint", "stage"):
        read = np.concatenate([np.asarray(one.streams[key].values) for one in found])
        np.testing.assert_array_equal(read, data[key])
        times = np.concatenate([one.streams[key].times_s for one in found])
        np.testing.assert_array_equal(times, data["timestamp"])
    assert [one.metadata["source"] for one in found] == [
        f"replay_buffer.zarr, episode {number}" for number in range(3)
    ]


def test_every_frame_of_every_video_has_its_time(tmp_path):
    data = write_real(tmp_path)
    ends, seen = np.cumsum(LENGTHS), 0
    for number, one in enumerate(RealZarr().recordings(tmp_path)):
        began_s = data["timestamp"][ends[number] - LENGTHS[number]]
        for which, camera in enumerate(("camera_0", "camera_1")):
            stream = one.streams[camera]
            assert isinstance(stream.values, VideoClip) and stream.about == "h264"
            expected = began_s + np.arange(LENGTHS[number] * 3) / 30
            np.testing.assert_allclose(stream.times_s, expected, atol=1e-5)
            for place, frame in enumerate(stream.values.frames()):
                assert number_of(frame) == 100 * number + 40 * which + place
                seen += 1
    assert seen == 2 * 3 * sum(LENGTHS)


def test_videos_that_began_later_or_earlier_are_moved_when_asked(tmp_path):
    write_real(tmp_path)
    [plain, *_] = RealZarr().recordings(tmp_path)
    [moved, *_] = RealZarr(video_offset_s=-0.2).recordings(tmp_path)
    difference = moved.streams["camera_0"].times_s - plain.streams["camera_0"].times_s
    np.testing.assert_allclose(difference, -0.2, atol=1e-6)
    assert (moved.streams["action"].times_s == plain.streams["action"].times_s).all()


def test_streams_and_first_episodes_can_be_left_out(tmp_path):
    write_real(tmp_path)
    found = list(RealZarr().recordings(tmp_path, only={"action", "camera_1"}, start=1))
    assert [set(one.streams) for one in found] == [{"action", "camera_1"}] * 2
    assert found[0].name == "videos/1"


def test_ten_episodes_are_in_the_order_of_their_numbers(tmp_path):
    write_real(tmp_path, lengths=(3,) * 11, cameras=("10", "9"))
    found = list(RealZarr().recordings(tmp_path))
    assert len(found) == 11
    assert list(found[0].streams)[-2:] == ["camera_9", "camera_10"]
    firsts = [number_of(one.streams["camera_10"].values[:1][0]) for one in found[:10]]
    assert firsts == [100 * number for number in range(10)]


def test_videos_that_end_early_are_told_and_give_no_black_frames(tmp_path):
    write_real(tmp_path, frames={(1, "0"): 12})
    source = RealZarr()
    [note] = [note for note in source.describe(tmp_path).notes if "end before" in note]
    assert note.startswith("camera_0: 1 videos") and "(episode 1)" in note
    stream = list(source.recordings(tmp_path))[1].streams["camera_0"]
    assert len(stream) == 12
    assert [number_of(frame) for frame in stream.values.frames()] == list(range(100, 112))
    assert stream.times_s[-1] - stream.times_s[0] == pytest.approx(11 / 30)


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "folder"])
def test_a_video_that_is_missing_or_damaged_is_named_and_its_episode_can_be_passed(
    tmp_path, damage
):
    write_real(tmp_path)
    file = tmp_path / "videos/1/1.mp4"
    if damage == "folder":
        shutil.rmtree(file.parent)
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"" if damage == "empty" else b"no video" * 99)
    with pytest.raises(DataError, match="episode 1") as caught:
        RealZarr().describe(tmp_path)
    assert "--skip-bad" in (caught.value.hint or "")
    source = RealZarr()
    found = source.describe(tmp_path, skip_bad=True)
    assert (found.n_episodes, found.n_frames) == (3, 28)
    assert any("episode 1: " in note for note in found.notes)
    with pytest.raises(DataError, match="episode 1"):
        list(source.recordings(tmp_path))
    assert [one.name for one in source.recordings(tmp_path, start=2)] == ["videos/2"]
    assert len(list(source.recordings(tmp_path, only={"action"}))) == 3


def test_folders_of_episodes_that_are_not_in_the_buffer_are_told(tmp_path):
    write_real(tmp_path)
    shutil.copytree(tmp_path / "videos/2", tmp_path / "videos/3")
    assert any("videos/3" in note for note in RealZarr().describe(tmp_path).notes)


def backwards(times):
    times = times.copy()
    times[10] = times[9] - 1
    return times


@pytest.mark.parametrize(
    ("times", "told"),
    [
        (lambda times: None, "no timestamp for each row"),
        (lambda times: np.stack([times, times], 1), "no timestamp for each row"),
        (backwards, r"timestamps of episode 1 do not increase \(row 2"),
        (lambda times: times * np.nan, "timestamps of episode 0 do not increase"),
    ],
)
def test_rows_without_usable_times_are_refused(tmp_path, times, told):
    write_real(tmp_path, timestamp=times(rows()["timestamp"]), cameras=("0",))
    with pytest.raises(DataError, match=told):
        RealZarr().describe(tmp_path)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no replay_buffer\.zarr"):
        RealZarr().describe(tmp_path)
    assert not RealZarr().recognises(tmp_path / "absent")


def uneven(count):
    """Times of a phone's video: about 30 Hz, frames late or missing."""
    gaps = np.random.default_rng(3).choice([1 / 30, 1 / 24, 2 / 30, 0.15], count)
    return np.cumsum(gaps) - gaps[0] + 0.4


@pytest.mark.parametrize("bf", [0, 2])
def test_frames_of_a_video_without_a_constant_rate_are_found_by_their_numbers(tmp_path, bf):
    times = uneven(40)
    path = write_numbered(tmp_path / "v.mp4", 40, times_s=times, bf=bf)
    frames, found_s = open_video(path)
    assert isinstance(frames, VideoFrames) and frames.shape == (40, 48, 64, 3)
    np.testing.assert_allclose(found_s, times - times[0], atol=2e-5)
    everything = frames[:]
    assert [number_of(frame) for frame in everything] == list(range(40))
    places = [slice(0, 1), slice(1, 4), slice(4, 5), slice(30, 33), slice(7, 8), slice(39, 50)]
    places += [slice(5, 40, 9), slice(None, None, -7), slice(9, 9), slice(26, 28), slice(28, 29)]
    for place in places:
        numbers = [number_of(frame) for frame in frames[place]]
        assert numbers == list(range(40))[place], place


def test_rates_are_told_from_times():
    assert constant_rate(np.arange(50) / 30) == 30
    assert float(constant_rate(np.arange(500) * 1001 / 30000)) == pytest.approx(29.97, abs=1e-3)
    assert constant_rate(np.array([0, 0.1, 0.2, 0.4])) is None
    assert constant_rate(np.zeros(1)) is None


@pytest.mark.parametrize("times", [None, uneven(12)], ids=["even", "uneven"])
def test_mutated_videos_are_read_or_refused(tmp_path, times):
    path = write_numbered(tmp_path / "v.mp4", 12, times_s=times, gop=4)
    seen = [0, 0]
    for data in mutations(path.read_bytes(), 100):
        path.write_bytes(data)
        try:
            frames, times_s = open_video(path)
            assert frames[:].shape == (len(times_s), 48, 64, 3)
            seen[0] += 1
        except DataError as error:
            assert str(error)
            seen[1] += 1
    assert sum(seen) == 100 and min(seen) > 0


def test_keys_that_were_always_zero_are_read_when_told(tmp_path):
    write_real(tmp_path, stage=np.zeros(sum(LENGTHS), np.int64))  # zarr 3 stores no chunk of it
    with pytest.raises(DataError, match="stage has no chunk") as caught:
        RealZarr().describe(tmp_path)
    assert "--option missing_chunks=fill" in caught.value.hint
    source = RealZarr(missing_chunks="fill")
    assert any(
        "stage" in note and "read as fill" in note for note in source.describe(tmp_path).notes
    )
    first = next(iter(source.recordings(tmp_path)))
    assert not first.streams["stage"].values.any()
