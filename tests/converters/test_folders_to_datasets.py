"""From folders of rows and videos to datasets through a mapping: which frame is with which row."""

import numpy as np
import pytest
from numbered_videos import number_of, write_numbered
from test_folder_source import arrays, save_npz
from test_real_zarr_source import LENGTHS, write_real

from dp_hub.dataset.convert import convert
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError

TOP = "observation.images.top"
REAL = """
fps: 10
keep_times: true
features:
  observation.state: {from: [robot_eef_pose], method: linear}
  action: {from: [action]}
  observation.images.top: {from: camera_0}
"""
ROWS = """
fps: 15
features:
  observation.state: {from: [state]}
  action: {from: [action]}
  observation.images.front: {from: front}
"""


def mapping(tmp_path, text):
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))


def test_each_row_of_a_real_recording_gets_the_frame_of_its_time(tmp_path):
    data = write_real(tmp_path / "real")
    done = convert(
        "real-zarr",
        tmp_path / "real",
        tmp_path / "ds",
        mapping=mapping(tmp_path, REAL),
        images="png",
    )
    dataset = open_dataset(tmp_path / "ds")
    frames = np.asarray(dataset.cached_frames("observation.images.top").open())
    actions, row, checked = dataset.column("action"), 0, 0
    bounds = np.concatenate(([0], np.cumsum(LENGTHS)))
    assert done.written.n_episodes == 3
    used = {key: dataset.column(f"times.{key}").reshape(-1) for key in ("action", TOP)}
    for episode, length in enumerate(dataset.episodes.lengths.tolist()):
        times = data["timestamp"][bounds[episode] : bounds[episode + 1]]
        commands = data["action"][bounds[episode] : bounds[episode + 1]]
        assert LENGTHS[episode] - 1 <= length <= LENGTHS[episode]
        for step in range(row, row + length):
            [given] = np.flatnonzero(np.abs(times - used["action"][step]) < 1e-6)
            np.testing.assert_array_equal(actions[step], commands[given])
            frame = (used[TOP][step] - times[0]) * 30
            assert abs(frame - round(frame)) < 0.01
            assert number_of(frames[step]) == 100 * episode + round(frame)
            assert abs(round(frame) - 3 * (step - row)) <= 1
            checked += 1
        row += length
    assert checked == done.written.n_frames == len(frames) >= sum(LENGTHS) - 3


def test_an_early_end_of_a_video_ends_the_episode_or_holds_its_last_frame(tmp_path):
    write_real(tmp_path / "real", frames={(1, "0"): 12})
    convert(
        "real-zarr",
        tmp_path / "real",
        tmp_path / "ds",
        mapping=mapping(tmp_path, REAL.replace("camera_0", "camera_0, max_gap_s: 0.1")),
        images="png",
    )
    dataset = open_dataset(tmp_path / "ds")
    frames = np.asarray(dataset.cached_frames("observation.images.top").open())
    numbers = [number_of(frame) for frame in frames]
    assert min(frame.max() for frame in frames) > 100  # no black ones
    assert {n for n in numbers if 100 <= n < 200} <= set(range(100, 112))
    assert dataset.episodes.lengths.tolist()[1] <= 5


def test_bad_videos_are_skipped_when_asked(tmp_path):
    write_real(tmp_path / "real")
    (tmp_path / "real/videos/1/0.mp4").write_bytes(b"nothing")
    path = mapping(tmp_path, REAL)
    with pytest.raises(DataError, match="episode 1"):
        convert("real-zarr", tmp_path / "real", tmp_path / "ds", mapping=path)
    done = convert("real-zarr", tmp_path / "real", tmp_path / "ds", mapping=path, skip_bad=True)
    assert done.written.n_episodes == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_row_aligned_folders_come_through_row_by_row(tmp_path, workers):
    for number in range(3):
        folder = tmp_path / "in" / f"episode_{number}"
        save_npz(folder, arrays(number))
        write_numbered(folder / "front.mp4", 12, fps=15, first=50 * number, bf=0, gop=2)
    done = convert(
        "folder",
        tmp_path / "in",
        tmp_path / "ds",
        mapping=mapping(tmp_path, ROWS),
        workers=workers,
    )
    dataset = open_dataset(tmp_path / "ds")
    assert dataset.episodes.lengths.tolist() == [12, 12, 12]
    expected = np.concatenate([arrays(number)["action"] for number in range(3)])
    np.testing.assert_array_equal(dataset.column("action"), expected)
    states = np.concatenate([arrays(number)["state"] for number in range(3)])
    np.testing.assert_array_equal(dataset.column("observation.state"), states)
    frames = dataset.cached_frames("observation.images.front").open()
    numbers = [number_of(frame) for frame in np.asarray(frames)]
    assert numbers == [50 * episode + row for episode in range(3) for row in range(12)]
    assert [column.copied for column in done.written.columns if column.is_visual] == [True]
