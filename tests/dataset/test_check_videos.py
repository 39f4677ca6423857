"""Videos: counted packet by packet, looked at in samples."""

import json
import os
import shutil

import numpy as np
import pytest
from checks_helpers import (
    LENGTHS,
    as_others_write,
    changed,
    copy,
    edit_json,
    edit_rows,
    examined,
    healthy_episodes,
    ids,
    write_episodes,
)
from plain_dataset import write_video

from dp_hub.dataset.checks.fix import fix
from dp_hub.dataset.reader import open_dataset

NAME = "videos/observation.image/chunk-000/file-000.mp4"
KEY = "videos/observation.image"
INFO = "meta/info.json"


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos") / "healthy"
    return as_others_write(write_episodes(root, healthy_episodes(32), images="video"))


def pictures(size=32):
    return np.concatenate([data["img"] for data in healthy_episodes(size)])


def encode(root, frames, **options):
    write_video(root / NAME, frames, **{"fps": 10, **options})


def missing(root):
    (root / NAME).unlink()


def cut_short(root):
    data = (root / NAME).read_bytes()
    (root / NAME).write_bytes(data[: len(data) // 2])


def frames_lost(root):
    encode(root, pictures()[:-9])


def other_rate(root):
    encode(root, pictures(), fps=11)


def other_size(root):
    edit_json(root, INFO, lambda v: v["features"]["observation.image"].update(shape=[48, 32, 3]))


def other_codec(root):
    edit_json(
        root,
        INFO,
        lambda v: v["features"]["observation.image"]["info"].update({"video.codec": "av1"}),
    )


def to_time(root):
    edit_rows(
        root, lambda t: changed(t, f"{KEY}/to_timestamp", lambda v: np.add(v, [0, 0, 0.3, 0, 0, 0]))
    )


def shifted(root):
    def change(table):
        table = changed(table, f"{KEY}/from_timestamp", lambda v: np.add(v, [0, 0, 0.04, 0, 0, 0]))
        return changed(table, f"{KEY}/to_timestamp", lambda v: np.add(v, [0, 0, 0.04, 0, 0, 0]))

    edit_rows(root, change)


def shared(root):
    def change(table):
        table = changed(table, f"{KEY}/from_timestamp", lambda v: v - [0, 0, 0.5, 0, 0, 0])
        return changed(table, f"{KEY}/to_timestamp", lambda v: v - [0, 0, 0.5, 0, 0, 0])

    edit_rows(root, change)


def few_key_frames(root):
    encode(root, pictures(), gop=100, options={"x264-params": "scenecut=0:keyint=100"})


def hevc(root):
    options = {"x265-params": "log-level=error:bframes=3"}
    encode(root, pictures(), codec="libx265", options=options)
    entry = {"video.codec": "hevc"}
    edit_json(root, INFO, lambda v: v["features"]["observation.image"]["info"].update(entry))


def black(root):
    frames = pictures()
    frames[36 : 36 + 31] = 0
    encode(root, frames)


def frozen(root):
    frames = pictures()
    frames[67:109] = frames[67]
    encode(root, frames)


CASES = {
    "missing": (missing, "VIDEO-001", set(range(6))),
    "cut short": (cut_short, "VIDEO-002", set(range(6))),
    "frames lost": (frames_lost, "VIDEO-004", {5}),
    "other rate": (other_rate, "VIDEO-004", set(range(6))),
    "other size": (other_size, "VIDEO-005", set()),
    "other codec": (other_codec, "VIDEO-006", set()),
    "times of an episode": (to_time, "VIDEO-003", {2}),
    "between the frames": (shifted, "VIDEO-004", {2}),
    "frames of the neighbour": (shared, "VIDEO-008", {2}),
    "few key frames": (few_key_frames, "VIDEO-009", set()),
    "reordered HEVC": (hevc, "VIDEO-010", set()),
    "black": (black, "IMAGE-003", {1}),
    "frozen": (frozen, "IMAGE-005", {2}),
}


def test_the_healthy_videos_pass(healthy):
    report = examined(healthy)
    assert ids(report) == {"SUM-003"}, [(f.id, f.what) for f in report.findings]
    assert report.facts["decoded_video_frames"] == 4 * len(LENGTHS)


@pytest.mark.parametrize("name", CASES)
def test_a_fault_of_a_video_is_found(healthy, tmp_path, name):
    spoil, id, episodes = CASES[name]
    root = copy(healthy, tmp_path / "ds")
    spoil(root)
    report = examined(root)
    assert id in ids(report), [(f.id, f.what) for f in report.findings]
    found = next(f for f in report.findings if f.id == id)
    assert set(found.episodes) == episodes
    assert ids(report, "fail") == ({id} if found.severity == "fail" else set())
    if name == "missing":
        assert report.unchecked == ("the pictures of 6 episodes of observation.image",)


def test_damaged_pictures_in_a_whole_container_do_not_decode(healthy, tmp_path):
    root = copy(healthy, tmp_path / "ds")
    data = bytearray((root / NAME).read_bytes())
    start = data.index(b"mdat") + 4
    data[start : len(data) * 3 // 4] = bytes(len(data) * 3 // 4 - start)
    (root / NAME).write_bytes(data)
    assert ids(examined(root), "fail") & {"VIDEO-002", "VIDEO-007"}


def test_two_cameras_that_show_the_same_are_found(tmp_path):
    episodes = healthy_episodes(32)
    for data in episodes:
        data["wrist"] = data["img"].copy()
    report = examined(as_others_write(write_episodes(tmp_path / "ds", episodes, images="video")))
    assert "IMAGE-006" in ids(report)


def test_fix_renumbers_videos_and_keeps_their_bytes(healthy, tmp_path):
    root = copy(healthy, tmp_path / "ds")
    os.rename(root / NAME, (root / NAME).with_name("file-003.mp4"))
    edit_rows(root, lambda t: changed(t, f"{KEY}/file_index", lambda v: v + 3))
    edit_json(root, "meta/stats.json", lambda v: v["action"]["mean"].reverse())
    report = examined(root)
    assert "STRUCT-016" in ids(report, "warn") and "STATS-003" in ids(report, "fail")
    new = fix(root, tmp_path / "new", report).path
    after = examined(new)
    assert not ids(after) & {"STRUCT-016", "STATS-003"} and not ids(after, "fail")
    assert (new / NAME).read_bytes() == (healthy / NAME).read_bytes()
    assert np.array_equal(
        open_dataset(new).episodes.places["observation.image"].file, np.zeros(6, np.int64)
    )


def test_a_video_nobody_refers_to_is_left_out(healthy, tmp_path):
    root = copy(healthy, tmp_path / "ds")
    shutil.copy(root / NAME, (root / NAME).with_name("file-001.mp4"))
    report = examined(root)
    assert "STRUCT-017" in ids(report, "warn")
    new = fix(root, tmp_path / "new", report).path
    assert not (new / NAME).with_name("file-001.mp4").exists()
    assert json.loads((new / INFO).read_text())["total_frames"] == sum(LENGTHS)
