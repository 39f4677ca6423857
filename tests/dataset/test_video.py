"""Videos: right frames at the right times, and a wrong one noticed."""

import json
import os
from fractions import Fraction

import numpy as np
import pyarrow.parquet as pq
import pytest
from plain_dataset import write_video

from dp_hub.dataset.convert import convert
from dp_hub.dataset.episodes_io import open_folder, read_episodes
from dp_hub.dataset.packets import NotCopyableError, clips_sha256
from dp_hub.dataset.video import (
    VideoShards,
    check_video,
    encode_clip,
    exact_rate,
)
from dp_hub.errors import DataError
from dp_hub.replay.buffer import open_replay
from dp_hub.replay.clip import VideoClip


def moving(n, size=64, start=0):
    """A bright bar that moves 2 px a frame: each frame unlike its neighbours."""
    frames = np.full((n, size, size, 3), 40, np.uint8)
    for i in range(n):
        at = (start + 2 * i) % (size - 8)
        frames[i, :, at : at + 8] = (220, 200, 60)
    return frames


def write(shards, frames, codec="h264"):
    clip = encode_clip(frames, rate=shards.rate, codec=codec)
    return shards.append([clip], dict(enumerate(frames)))


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_real_pictures_come_back_in_order_from_video(tmp_path, pusht_first5_zip, codec):
    done = convert("zarr", pusht_first5_zip, tmp_path / "ds", images="video", codec=codec)
    assert done.written.worst_video_db > 30
    folder = open_folder(tmp_path / "ds")
    image = [c for c in folder.columns if c.is_visual]
    pictures = [arrays["img"] for _, arrays in read_episodes(folder, image)]
    source = [e["img"] for e in open_replay(pusht_first5_zip).episodes(["img"])]
    assert len(pictures) == 5
    for decoded, recorded in zip(pictures, source, strict=True):
        error = np.square(decoded.astype(float) - recorded).mean(axis=(1, 2, 3))
        assert 10 * np.log10(255**2 / error.max()) > 30


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_encoding_makes_no_thread_real_time(codec):
    """SVT-AV1 would, as root: its own, and the one that calls it with all that it starts later."""

    def policies():
        return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}

    class Watched(list):
        def __iter__(self):
            for frame in super().__iter__():
                seen.append((policies(), len(os.listdir("/proc/self/task"))))
                yield frame

    seen, before = [], (policies(), len(os.listdir("/proc/self/task")))
    encode_clip(Watched(moving(4)), rate=Fraction(10), codec=codec)
    assert [of for of, _ in seen] == [before[0]] * 4 and policies() == before[0]
    assert codec == "h264" or seen[-1][1] > before[1]  # it has threads of its own


def test_video_locations_and_info_are_lerobots(tmp_path, pusht_first5_zip):
    convert("zarr", pusht_first5_zip, tmp_path / "ds", images="video")
    table = pq.read_table(tmp_path / "ds/meta/episodes/chunk-000/file-000.parquet")
    name = "videos/observation.image"
    ends = table["dataset_to_index"].to_numpy() / 10
    np.testing.assert_allclose(table[f"{name}/to_timestamp"].to_numpy(), ends)
    np.testing.assert_allclose(table[f"{name}/from_timestamp"].to_numpy()[1:], ends[:-1])
    assert table[f"{name}/file_index"].to_pylist() == [0] * 5
    info = json.loads((tmp_path / "ds/meta/info.json").read_text())
    assert info["features"]["observation.image"]["dtype"] == "video"
    assert info["features"]["observation.image"]["info"]["video.codec"] == "h264"
    assert info["video_path"].startswith("videos/{video_key}/")
    columns = pq.read_schema(tmp_path / "ds/data/chunk-000/file-000.parquet").names
    assert "observation.image" not in columns


def test_files_roll_over_and_times_start_again(tmp_path):
    one = len(encode_clip(moving(5), rate=exact_rate(10), codec="h264").source)
    shards = VideoShards(tmp_path, "cam", fps=10, is_full=lambda n_bytes: n_bytes >= one)
    places = [write(shards, moving(5, start=7 * i)) for i in range(5)]
    shards.close()
    files = [file for _, file, _, _ in places]
    assert files == sorted(files) and 1 < len(set(files)) < 5
    assert len(list(tmp_path.rglob("*.mp4"))) == len(set(files))
    for number, (_, file, start, stop) in enumerate(places):
        before = [p for p in places[:number] if p[1] == file]
        assert start == pytest.approx(0.5 * len(before))
        assert stop == pytest.approx(start + 0.5)


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_packets_moved_to_another_file_are_the_same_file(tmp_path, codec):
    episodes = [moving(n, start=3 * n) for n in (21, 8, 30)]
    whole, parts, again = (
        VideoShards(tmp_path / name, "cam", fps=10) for name in ("whole", "parts", "again")
    )
    for frames in episodes:
        write(whole, frames, codec)
        write(parts, frames, codec)
        parts.close()
    whole.close()
    for number, frames in enumerate(episodes):
        path = tmp_path / f"parts/videos/cam/chunk-000/file-00{number}.mp4"
        again.append([VideoClip(path, 0, len(frames), (64, 64), again.rate, codec)])
    again.close()
    name = "videos/cam/chunk-000/file-000.mp4"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    second = VideoClip(tmp_path / "whole" / name, 21, 8, (64, 64), whole.rate, codec)
    error = np.square(second[:].astype(float) - episodes[1]).mean()
    assert 10 * np.log10(255**2 / error) > 25


def test_frames_that_need_others_are_not_copied(tmp_path):
    write_video(tmp_path / "b.mp4", moving(40), options={"bf": "2"}, gop=12)
    with_b = VideoClip(tmp_path / "b.mp4", 0, 40, (64, 64), exact_rate(10), "h264")
    with pytest.raises(NotCopyableError, match="depend on later ones"):
        clips_sha256([with_b])
    write_video(tmp_path / "g.mp4", moving(40), options={"bf": "0"}, gop=12)
    middle = VideoClip(tmp_path / "g.mp4", 5, 10, (64, 64), exact_rate(10), "h264")
    with pytest.raises(NotCopyableError, match="is no key frame"):
        clips_sha256([middle])
    assert len(with_b[5:15]) == len(middle[:]) == 10  # decoding does not mind
    with pytest.raises(DataError, match="has no frame 40"):
        VideoClip(tmp_path / "g.mp4", 35, 10, (64, 64), exact_rate(10), "h264")[:]


def test_swapped_frame_is_noticed(tmp_path):
    shards = VideoShards(tmp_path, "cam", fps=10)
    frames = moving(20)
    write(shards, frames)
    shards.close()
    (path,) = tmp_path.rglob("*.mp4")
    assert check_video(path, {6: frames[6]}, 20, Fraction(10)) > 25
    with pytest.raises(DataError, match=r"frame 6 .* comes back as frame 7"):
        check_video(path, {6: frames[7]}, 20, Fraction(10))
    with pytest.raises(DataError, match="holds 20 frames instead of 21"):
        check_video(path, {6: frames[6]}, 21, Fraction(10))


def test_fractional_rate_keeps_frames_on_the_grid(tmp_path):
    shards = VideoShards(tmp_path, "cam", fps=30000 / 1001)
    write(shards, moving(40))
    shards.close()
    assert shards.worst_db > 25
