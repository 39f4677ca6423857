"""Videos decoded into the frame cache: the right frame at every place, or an error."""

import json
import shutil

import av
import numpy as np
import pytest
import zarr
from plain_dataset import write_dataset, write_video

from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError

NAME = "observation.images.top"
ENDS = np.array([30, 47, 80])
VIDEOS = {
    "h264": {"codec": "libx264", "gop": 2},
    "h264 with long groups and B-frames": {"codec": "libx264", "gop": 50},
    "av1": {"codec": "libsvtav1", "gop": 2, "options": {"preset": "12", "crf": "30"}},
    "hevc with open groups": {
        "codec": "libx265",
        "gop": 2,
        "options": {"x265-params": "log-level=none"},
    },
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pictures(pusht_first5_zip):
    """Eighty real frames, uint8 (80, 96, 96, 3)."""
    group = zarr.open_group(zarr.storage.ZipStore(pusht_first5_zip), mode="r")
    return group["data/img"][:240:3]


def write(root, pictures, video=None, per_file=3, **options):
    columns = {"action": np.zeros((80, 2), np.float32), NAME: pictures}
    video = video or VIDEOS["h264"]
    return write_dataset(root, columns, ENDS, video=video, episodes_per_file=per_file, **options)


def video_files(root):
    return sorted((root / "videos" / NAME).rglob("*.mp4"))


def decoded_in_a_row(root):
    """All frames by the plainest use of PyAV: file after file, no seeking."""
    frames = []
    for path in video_files(root):
        with av.open(str(path)) as container:
            frames += [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)


@pytest.mark.parametrize("per_file", [1, 2, 3])
@pytest.mark.parametrize("kind", VIDEOS)
def test_every_frame_is_the_one_plain_decoding_gives(tmp_path, pictures, kind, per_file):
    root = write(tmp_path / "dataset", pictures, VIDEOS[kind], per_file)
    assert len(video_files(root)) == -(-3 // per_file)
    frames = open_dataset(root).column(NAME)
    np.testing.assert_array_equal(frames, decoded_in_a_row(root))
    error = frames.astype(np.float32) - pictures
    assert 10 * np.log10(255**2 / np.square(error).mean(axis=(1, 2, 3)).max()) > 28


def test_a_rate_that_seconds_do_not_divide_is_read_exactly(tmp_path, pictures):
    root = write(tmp_path / "dataset", pictures, fps=30, per_file=2)
    np.testing.assert_array_equal(open_dataset(root).column(NAME), decoded_in_a_row(root))


def test_a_video_of_a_higher_rate_gives_the_frames_at_the_times_of_the_dataset(tmp_path, pictures):
    root = write(tmp_path / "dataset", pictures, per_file=3)
    write_video(video_files(root)[0], np.repeat(pictures, 3, axis=0), fps=30, gop=2)
    frames = open_dataset(root).column(NAME)
    np.testing.assert_array_equal(frames, decoded_in_a_row(root)[::3])


def test_a_video_cut_short_is_told_with_the_time(tmp_path, pictures):
    root = write(tmp_path / "dataset", pictures)
    write_video(video_files(root)[0], pictures[:75])
    with pytest.raises(DataError, match=r"file-000.mp4 has no frame at 7.500 s: an episode of 33"):
        open_dataset(root).column(NAME)


def test_a_damaged_video_is_told(tmp_path, pictures):
    root = write(tmp_path / "dataset", pictures)
    video_files(root)[0].write_bytes(b"not a video" * 100)
    with pytest.raises(DataError, match=r"file-000.mp4 cannot be decoded"):
        open_dataset(root).column(NAME)


def test_a_missing_video_is_told(tmp_path, pictures):
    root = write(tmp_path / "dataset", pictures, per_file=2)
    video_files(root)[1].unlink()
    with pytest.raises(DataError, match=r"file-001.mp4 is missing"):
        open_dataset(root).column(NAME)
    assert open_dataset(root).column("action").shape == (80, 2)


def test_a_video_of_another_size_is_told(tmp_path, pictures):
    root = write(tmp_path / "dataset", pictures)
    write_video(video_files(root)[0], pictures[:, ::2, ::2].copy())
    with pytest.raises(DataError, match="is 48 x 48, meta/info"):
        open_dataset(root).column(NAME)


def test_times_that_do_not_give_the_number_of_frames_are_told(tmp_path, pictures):
    root = write(tmp_path / "dataset", pictures)
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"fps": 20}))
    with pytest.raises(DataError, match=r"episode 0 has 30 frames, but .* 60 frames at 20 Hz"):
        open_dataset(root).column(NAME)


def test_channels_first_in_the_description_is_understood_by_its_names(tmp_path, pictures):
    root = write(tmp_path / "dataset", pictures)
    info = json.loads((root / "meta/info.json").read_text())
    names = ["channels", "height", "width"]
    info["features"][NAME] |= {"shape": [3, 96, 96], "names": names}
    (root / "meta/info.json").write_text(json.dumps(info))
    assert open_dataset(root).column(NAME).shape == (80, 96, 96, 3)


def test_channels_that_are_neither_grey_nor_colour_are_refused(tmp_path, pictures):
    root = write(tmp_path / "dataset", pictures)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][NAME]["shape"] = [96, 96, 4]
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="has 4 channels; pictures of 1 or 3"):
        open_dataset(root).column(NAME)


def test_a_real_camera_recording_is_read_frame_by_frame(tmp_path, pictures, shared_data):
    recorded = shared_data / "samples/lerobot_v21_g1/videos/chunk-000/observation.images.cam_high"
    root = write(tmp_path / "dataset", pictures, fps=30)
    shutil.copy(recorded / "episode_000001.mp4", video_files(root)[0])
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][NAME]["shape"] = [480, 640, 3]
    (root / "meta/info.json").write_text(json.dumps(info))
    frames = open_dataset(root).column(NAME)
    assert frames.shape == (80, 480, 640, 3)
    with av.open(str(video_files(root)[0])) as container:
        for number, frame in zip(range(80), container.decode(video=0), strict=False):
            np.testing.assert_array_equal(frames[number], frame.to_ndarray(format="rgb24"))
    assert number == 79
