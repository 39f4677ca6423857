"""LeRobot datasets of every version and layout become datasets of ours, number by number."""

import itertools
import json
import os
import shutil
import time

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dp_hub_converters.lerobot_folders.meta import dimension_names
from lerobot_folders import (
    PICTURE,
    TOP,
    encoded,
    episodes,
    moving,
    write_json,
    write_lines,
    write_table,
    write_v2,
    write_v3,
    write_video,
)
from PIL import Image

from dp_hub.dataset.checksums import read_checksums
from dp_hub.dataset.convert import convert
from dp_hub.dataset.exporting.zarr import export_zarr
from dp_hub.dataset.frame_source import video_source
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError
from dp_hub.replay.buffer import open_replay

HIGH = "observation.images.cam_high"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))


def converted(source, to, **options):
    done = convert("lerobot", source, to, **options)
    return done, open_dataset(to)


def assert_same_numbers(dataset, some):
    for key in (k for k, v in some[0].items() if isinstance(v, np.ndarray) and v.ndim < 4):
        expected = np.concatenate([episode[key] for episode in some])
        np.testing.assert_array_equal(dataset.column(key), expected)
        assert dataset.column(key).dtype == expected.dtype, key
    lengths = [len(episode["action"]) for episode in some]
    assert dataset.episodes.lengths.tolist() == lengths


def decoded(path):
    """The frames of a video, by the plainest use of PyAV."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def plainly_decoded(*paths):
    """All frames of videos, in memory."""
    return np.stack(list(itertools.chain.from_iterable(map(decoded, paths))))


def packets(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def contents(root):
    return {name: one.sha256 for name, one in (read_checksums(root) or {}).items()}


# Real recordings


@pytest.fixture(scope="module")
def g1(shared_data):
    return shared_data / "samples" / "lerobot_v21_g1"


def test_real_v21_videos_are_copied_and_decode_to_the_same_frames(tmp_path, g1):
    done, dataset = converted(g1, tmp_path / "ds", options={"missing_episodes": "skip"})
    assert (done.written.n_episodes, done.written.n_frames) == (3, 1026)
    numbers = [1, 2, 10]
    assert [m["source_episode"] for m in dataset.episodes.metadata] == numbers
    assert set(dataset.episodes.tasks) == {"Pick up the yellow bottle on the table."}
    for key in ("observation.state", "action"):
        tables = [pq.read_table(g1 / f"data/chunk-000/episode_{n:06d}.parquet") for n in numbers]
        rows = [np.stack(t[key].to_numpy()) for t in tables]
        np.testing.assert_array_equal(dataset.column(key), np.concatenate(rows))
        names = dataset.info["features"][key]["names"]
        assert (len(names), names[0], names[-1]) == (
            26, "kLeftShoulderPitch", "kRightHandThumbRotation"
        )  # fmt: skip
    paths = [g1 / f"videos/chunk-000/{HIGH}/episode_{n:06d}.mp4" for n in numbers]
    [stored] = (tmp_path / "ds" / "videos" / HIGH).rglob("*.mp4")
    assert packets(stored) == [data for path in paths for data in packets(path)]
    frames = itertools.chain.from_iterable(map(decoded, paths))
    assert all(map(np.array_equal, decoded(stored), frames))
    # By the reader too: at an episode's first frame.
    feature, first = dataset.features[HIGH], int(dataset.episodes.starts[2])
    source = video_source(dataset.root, dataset.info, dataset.episodes, feature)
    part = next(part for part in source.parts() if part.start == first)
    assert np.array_equal(next(part.frames()), next(decoded(paths[2])))
    info = dataset.info["features"][HIGH]["info"]
    assert (info["video.codec"], info["video.pix_fmt"], info["has_audio"]) == (
        "av1", "yuv420p", False
    )  # fmt: skip
    assert "video.crf" not in info
    assert done.source.notes[0].endswith("episodes 0, 4, 5, 6, 7, 8 and 90 more")


def test_real_v21_that_lacks_files_is_refused_whole(tmp_path, g1):
    with pytest.raises(DataError, match=r"episode_000000.parquet is missing; so .* 95 more") as e:
        convert("lerobot", g1, tmp_path / "ds")
    assert "--option missing_episodes=skip" in e.value.hint
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_conversion_of_the_real_recording_goes_on_bit_equal(tmp_path, g1):
    skip = {"missing_episodes": "skip"}
    convert("lerobot", g1, tmp_path / "whole", options=skip)

    def stop(progress):
        if progress.episodes == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert("lerobot", g1, tmp_path / "ds", options=skip, on_progress=stop)
    assert not (tmp_path / "ds").exists()
    assert (tmp_path / ".ds.partial").exists()
    convert("lerobot", g1, tmp_path / "ds", options=skip)
    assert contents(tmp_path / "ds") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "ds")) >= 7


@pytest.mark.parametrize("kind", ["copied", "encoded again", "pictures"])
def test_an_interrupted_conversion_goes_on_bit_equal_wherever_it_stopped(tmp_path, kind):
    some = episodes((12, 9, 15, 7), pictures=True)
    options = {"images": "video", "codec": "av1"} if kind == "encoded again" else {}
    video, one = kind != "pictures", kind == "pictures"
    source = write_v3(tmp_path / "v3", some, per_file=3, video=video, one_group=one)
    convert("lerobot", source, tmp_path / "whole", **options)
    expected = contents(tmp_path / "whole")

    for stop_at in (1, 2, 3):

        def stop(progress, stop_at=stop_at):
            if progress.episodes == stop_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            convert("lerobot", source, tmp_path / "ds", on_progress=stop, **options)
        convert("lerobot", source, tmp_path / "ds", **options)
        assert contents(tmp_path / "ds") == expected
        shutil.rmtree(tmp_path / "ds")
    assert len(expected) >= 6


def test_real_v30_without_its_videos_is_refused_unless_they_are_dropped(tmp_path, shared_data):
    source = shared_data / "samples" / "lerobot_v30_pusht"
    with pytest.raises(DataError, match=r"file-000.mp4 is missing") as error:
        convert("lerobot", source, tmp_path / "ds")
    assert "--drop observation.image" in error.value.hint
    assert list(tmp_path.iterdir()) == []
    done, dataset = converted(source, tmp_path / "ds", drop=["observation.image"])
    assert (done.written.n_episodes, done.written.n_frames) == (206, 25650)
    table = pq.read_table(source / "data/chunk-000/file-000.parquet")
    for key in ("observation.state", "action"):
        np.testing.assert_array_equal(dataset.column(key), np.stack(table[key].to_numpy()))
        assert dataset.info["features"][key]["names"] == ["motor_0", "motor_1"]
    for key in ("next.reward", "next.done", "next.success"):
        np.testing.assert_array_equal(dataset.column(key), table[key].to_numpy())
    assert set(dataset.episodes.tasks) == {"Push the T-shaped block onto the T-shaped target."}


def test_the_real_zarr_and_the_real_lerobot_copy_hold_the_same_actions(
    tmp_path, shared_data, pusht_zip
):
    source = shared_data / "samples" / "lerobot_v30_pusht"
    convert("lerobot", source, tmp_path / "ds", drop=["observation.image"])
    export_zarr(tmp_path / "ds", tmp_path / "out.zarr.zip")
    one, other = open_replay(tmp_path / "out.zarr.zip"), open_replay(pusht_zip)
    np.testing.assert_array_equal(one.episode_ends, other.episode_ends)
    pairs = zip(one.episodes(["action"]), other.episodes(["action"]), strict=True)
    assert all(np.array_equal(a["action"], b["action"]) for a, b in pairs)


# Layouts and versions


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_v2_with_gaps_in_its_numbers_keeps_numbers_and_facts(tmp_path, version):
    some = episodes()
    facts = {1: {"success": True, "score": float("nan"), "nested": {"a": [1, 2]}}}
    source = write_v2(tmp_path / "v2", some, version=version, numbers=[0, 3, 11], facts=facts)
    done, dataset = converted(source, tmp_path / "ds")
    assert_same_numbers(dataset, some)
    assert dataset.episodes.metadata == [
        {},
        {"success": True, "score": None, "nested": {"a": [1, 2]}, "source_episode": 3},
        {"source_episode": 11},
    ]
    assert dataset.episodes.tasks == ["push"] * 3
    assert dataset.info["robot_type"] == "arm"
    assert dataset.provenance["source"]["attrs"]["codebase_version"] == version
    assert dataset.provenance["sources"] == [
        {"name": "v2", "revision": None, "fingerprint": None, "license": None}
    ]
    assert done.source.notes == ()


@pytest.mark.parametrize("one_group", [False, True])
def test_v3_files_of_several_episodes_are_taken_apart(tmp_path, one_group):
    some = episodes((12, 9, 15, 7, 8), pictures=True)
    facts = {0: {"success": True}}
    source = write_v3(tmp_path / "v3", some, per_file=3, facts=facts, one_group=one_group)
    _, dataset = converted(source, tmp_path / "ds")
    assert_same_numbers(dataset, some)
    paths = sorted((source / "videos").rglob("*.mp4"))
    assert len(paths) == 2
    np.testing.assert_array_equal(dataset.column(TOP), plainly_decoded(*paths))
    assert dataset.episodes.metadata[:2] == [{"success": True}, {}]


def test_a_dataset_of_ours_converted_again_has_the_same_fingerprint(tmp_path, pusht_first5_zip):
    first = convert("zarr", pusht_first5_zip, tmp_path / "a", task="Push the T.")
    again, dataset = converted(tmp_path / "a", tmp_path / "b")
    assert again.written.fingerprint == first.written.fingerprint
    origin = {"name": "a", "revision": None, "fingerprint": first.written.fingerprint}
    assert dataset.provenance["sources"] == [origin | {"license": None}]


def test_a_dataset_of_ours_with_videos_converted_again_has_the_same_packets(
    tmp_path, pusht_first5_zip
):
    first = convert("zarr", pusht_first5_zip, tmp_path / "a", images="video")
    again = convert("lerobot", tmp_path / "a", tmp_path / "b")
    assert again.written.fingerprint == first.written.fingerprint
    video = "videos/observation.image/chunk-000/file-000.mp4"
    assert packets(tmp_path / "a" / video) == packets(tmp_path / "b" / video)


def test_keys_keep_their_names_unless_mapped(tmp_path):
    some = [{"action": e["action"], "state": e["observation.state"]} for e in episodes()]
    source = write_v2(tmp_path / "v2", some)
    _, dataset = converted(source, tmp_path / "a")
    assert "state" in dataset.features
    _, dataset = converted(source, tmp_path / "b", mapping={"state": "observation.state"})
    assert "observation.state" in dataset.features


def test_lists_of_any_kind_become_vectors(tmp_path):
    some = episodes((5, 6))
    chunks = [np.arange(len(e["action"]) * 8, dtype=np.float32).reshape(-1, 4, 2) for e in some]
    for data, chunk in zip(some, chunks, strict=True):
        data["chunk"] = pa.array(chunk.tolist(), pa.list_(pa.list_(pa.float32(), 2)))
        data["action"] = pa.array(data["action"].tolist(), pa.list_(pa.float32()))
    source = write_v2(tmp_path / "v2", some)
    info = json.loads((source / "meta/info.json").read_text())
    info["features"]["chunk"] |= {"dtype": "float32", "shape": [4, 2]}
    info["features"]["action"] |= {"dtype": "float32", "shape": [2]}
    write_json(source / "meta/info.json", info)
    _, dataset = converted(source, tmp_path / "ds")
    expected = np.concatenate(chunks).reshape(-1, 8)
    np.testing.assert_array_equal(dataset.column("chunk"), expected)
    np.testing.assert_array_equal(
        dataset.column("action"), np.concatenate([e["action"] for e in episodes((5, 6))])
    )
    export_zarr(tmp_path / "ds", tmp_path / "out.zarr")
    [first, _] = open_replay(tmp_path / "out.zarr").episodes(["chunk"])
    np.testing.assert_array_equal(first["chunk"], chunks[0])


@pytest.mark.parametrize(
    ("stated", "names"),
    [
        (["x", "y"], ("x", "y")),
        ([["x", "y"]], ("x", "y")),
        ({"motors": ["x", "y"]}, ("x", "y")),
        ({"left": ["x"], "right": ["y"]}, ("x", "y")),
        ({"y": 1, "x": 0}, ("x", "y")),
        (["x"], ()),
        (None, ()),
        ([1, 2], ()),
    ],
)
def test_names_of_numbers_are_understood_however_they_are_nested(stated, names):
    assert dimension_names(stated, 2) == names


def test_names_survive_a_second_conversion_and_do_not_change_the_fingerprint(tmp_path):
    some, names = episodes(), {"action": {"axes": ["x", "y"]}}
    named, _ = converted(write_v2(tmp_path / "v2", some, names=names), tmp_path / "a")
    plain, dataset = converted(write_v2(tmp_path / "plain", some), tmp_path / "b")
    assert dataset.info["features"]["action"]["names"] == ["action_0", "action_1"]
    assert named.written.fingerprint == plain.written.fingerprint
    _, again = converted(tmp_path / "a", tmp_path / "c")
    assert again.info["features"]["action"]["names"] == ["x", "y"]
    assert again.provenance["keys"]["action"]["names"] == ["x", "y"]


def test_empty_meta_files_are_made_up_for_by_the_data(tmp_path):
    some = episodes()
    source = write_v2(tmp_path / "v2", some)
    write_lines(source / "meta/episodes.jsonl", [])
    write_lines(source / "meta/tasks.jsonl", [])
    done, dataset = converted(source, tmp_path / "ds", task="said by hand")
    assert_same_numbers(dataset, some)
    assert dataset.episodes.tasks == ["said by hand"] * 3
    assert "episodes.jsonl is missing or empty" in done.source.notes[0]


def test_a_video_folder_named_otherwise_than_the_template_says_is_found(tmp_path):
    some = episodes(pictures=True)
    source = write_v2(tmp_path / "v2", some)
    expected = plainly_decoded(*sorted((source / "videos").rglob("*.mp4")))
    (source / "videos/chunk-000").rename(source / "videos/moved")
    shutil.move(source / "videos/moved" / TOP, source / "video/top")
    _, dataset = converted(source, tmp_path / "ds")
    np.testing.assert_array_equal(dataset.column(TOP), expected)


def test_the_licence_of_the_card_goes_along(tmp_path):
    source = write_v2(tmp_path / "v2", episodes())
    (source / "README.md").write_text("---\ntags: [LeRobot]\nlicense: cc-by-4.0\n---\n# x\n")
    _, dataset = converted(source, tmp_path / "ds")
    assert dataset.provenance["license"] == "cc-by-4.0"
    assert dataset.provenance["sources"][0]["license"] == "cc-by-4.0"
    assert "\nlicense: cc-by-4.0\n" in (tmp_path / "ds/README.md").read_text()
    _, dataset = converted(tmp_path / "ds", tmp_path / "again")
    assert dataset.provenance["license"] == "cc-by-4.0"


def test_texts_that_do_not_change_become_facts_and_others_are_refused(tmp_path):
    some = episodes((4, 5))
    for number, data in enumerate(some):
        n = len(data["action"])
        data["operator"] = pa.array([f"p{number}"] * n)
        data["phase"] = pa.array(["reach"] * (n - 1) + ["grasp"])
    source = write_v2(tmp_path / "v2", some)
    with pytest.raises(DataError, match="phase is text that changes within episode 0") as error:
        convert("lerobot", source, tmp_path / "ds")
    assert "--drop phase" in error.value.hint
    _, dataset = converted(source, tmp_path / "ds", drop=["phase"])
    assert [m["operator"] for m in dataset.episodes.metadata] == ["p0", "p1"]


def test_tasks_that_change_within_an_episode_are_joined_and_kept_by_frame(tmp_path):
    some, tasks = episodes(), ("reach", "grasp")
    frame_tasks = {1: [1, 1, 1, 0, 0, 0, 1, 1, 1]}
    source = write_v2(tmp_path / "v2", some, tasks=tasks, frame_tasks=frame_tasks)
    done, dataset = converted(source, tmp_path / "ds")
    assert dataset.episodes.tasks == ["reach", "grasp; reach", "reach"]
    assert dataset.episodes.metadata[1] == {"tasks": ["grasp", "reach"]}
    assert dataset.column("source.task_index")[12:21].tolist() == frame_tasks[1]
    assert dataset.provenance["source"]["attrs"]["tasks"] == {"0": "reach", "1": "grasp"}
    assert any("task changes within 1 episodes" in note for note in done.source.notes)


def test_timestamps_off_the_grid_are_told(tmp_path):
    source = write_v2(tmp_path / "v2", episodes())
    path = source / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    times = table["timestamp"].to_numpy() + np.float32(0.04)
    write_table(path, [table.set_column(3, "timestamp", pa.array(times))])
    done, _ = converted(source, tmp_path / "ds")
    assert "timestamps are up to 0.04 s off the 10 Hz grid" in done.source.notes[0]


def test_a_thousand_tiny_episodes_take_seconds(tmp_path):
    some = episodes([5] * 1000)
    source = write_v2(tmp_path / "v2", some)
    began = time.process_time()
    _, dataset = converted(source, tmp_path / "ds")
    assert time.process_time() - began < 20
    assert_same_numbers(dataset, some)


# Videos: copied or encoded again


@pytest.mark.parametrize(
    ("encoding", "reason"),
    [
        ({"gop": 50, "options": {"bf": "0", "sc_threshold": "0"}}, "begins between key frames"),
        ({"gop": 50, "bf": 2}, "its frames depend on later ones"),
    ],
)
def test_v3_videos_that_cannot_be_cut_are_encoded_again(tmp_path, encoding, reason):
    some = episodes((12, 9, 15), pictures=True)
    source = write_v3(tmp_path / "v3", some, per_file=3, encoding=encoding)
    expected = plainly_decoded(*(source / "videos").rglob("*.mp4"))
    done, dataset = converted(source, tmp_path / "ds", images="video")
    column = next(c for c in done.written.columns if c.feature == TOP)
    assert (column.encoding, column.copied) == ("h264", False)
    [note] = done.source.notes
    assert note.startswith(f"{TOP} is decoded and encoded again as h264") and reason in note
    error = dataset.column(TOP).astype(np.float32) - expected
    assert 10 * np.log10(255**2 / np.square(error).mean(axis=(1, 2, 3)).max()) > 28
    # Small pictures that would be lossy twice over are kept as they decode instead.
    done, dataset = converted(source, tmp_path / "auto")
    assert done.source.notes[0].startswith(f"{TOP} is decoded and encoded again as webp")
    np.testing.assert_array_equal(dataset.column(TOP), expected)


@pytest.mark.parametrize(
    "encoding",
    [
        {"gop": 50},
        {"codec": "libsvtav1", "gop": 50},
        {"codec": "libx265", "options": {"x265-params": "bframes=0:log-level=none"}},
        {"codec": "libvpx-vp9", "options": {"lag-in-frames": "0"}},
    ],
)
def test_videos_that_start_with_each_episode_are_copied(tmp_path, encoding):
    some = episodes(pictures=True)
    source = write_v2(tmp_path / "v2", some, encoding=encoding)
    done, dataset = converted(source, tmp_path / "ds")
    assert next(c for c in done.written.columns if c.feature == TOP).copied
    paths = sorted((source / "videos").rglob("*.mp4"))
    np.testing.assert_array_equal(dataset.column(TOP), plainly_decoded(*paths))


@pytest.mark.parametrize(
    ("options", "dtype", "encoding", "copied"),
    [
        ({}, "video", "h264", True),
        ({"images": "video"}, "video", "h264", True),
        ({"codec": "h264"}, "video", "h264", True),
        ({"codec": "av1", "images": "video"}, "video", "av1", False),
        ({"images": "webp"}, "image", "webp", False),
        ({"images": "png"}, "image", "png", False),
        ({"fps": 5, "images": "video"}, "video", "h264", False),
    ],
)
def test_what_is_asked_for_decides_how_videos_are_stored(
    tmp_path, options, dtype, encoding, copied
):
    source = write_v2(tmp_path / "v2", episodes((12, 9), pictures=True))
    done, dataset = converted(source, tmp_path / "ds", **options)
    column = next(c for c in done.written.columns if c.feature == TOP)
    assert (column.dtype, column.encoding, column.copied) == (dtype, encoding, copied)
    if dtype == "image" or copied:
        paths = sorted((source / "videos").rglob("*.mp4"))
        np.testing.assert_array_equal(dataset.column(TOP), plainly_decoded(*paths))


def test_a_video_of_a_higher_rate_gives_the_frames_at_the_times_of_the_rows(tmp_path):
    some = episodes((12,), pictures=True)
    source = write_v2(tmp_path / "v2", some)
    [path] = (source / "videos").rglob("*.mp4")
    write_video(path, np.repeat(some[0][TOP], 3, axis=0), fps=30)
    done, dataset = converted(source, tmp_path / "ds", images="webp")
    np.testing.assert_array_equal(dataset.column(TOP), plainly_decoded(path)[::3])
    done, _ = converted(source, tmp_path / "video", images="video")
    assert "not at multiples of 1/10 s" in done.source.notes[0]


def test_files_of_two_codecs_are_encoded_again(tmp_path):
    some = episodes((12, 9), pictures=True)
    source = write_v2(tmp_path / "v2", some)
    second = sorted((source / "videos").rglob("*.mp4"))[1]
    write_video(second, some[1][TOP], codec="libsvtav1")
    done, _ = converted(source, tmp_path / "ds")
    assert "encoded in different ways: av1 yuv420p, h264 yuv420p" in done.source.notes[0]


def test_other_pixel_formats_are_copied_and_stated(tmp_path):
    some = episodes((12,), pictures=True)
    source = write_v2(tmp_path / "v2", some, encoding={"pix_fmt": "yuv444p"})
    done, dataset = converted(source, tmp_path / "ds")
    assert dataset.info["features"][TOP]["info"]["video.pix_fmt"] == "yuv444p"
    [path] = (source / "videos").rglob("*.mp4")
    np.testing.assert_array_equal(dataset.column(TOP), plainly_decoded(path))
    assert done.source.notes == ()


def test_frames_beyond_the_rows_are_left_out_and_told(tmp_path):
    some = episodes((12, 9), pictures=True)
    source = write_v2(tmp_path / "v2", some)
    path = sorted((source / "videos").rglob("*.mp4"))[1]
    write_video(path, moving(11, 1))
    done, dataset = converted(source, tmp_path / "ds")
    assert done.source.notes == (
        f"{TOP} is longer than the rows of episode 1: further frames are left out",
    )
    np.testing.assert_array_equal(dataset.column(TOP)[12:], plainly_decoded(path)[:9])


def test_sound_is_left_out_and_told(tmp_path):
    some = episodes((12,), pictures=True)
    source = write_v2(tmp_path / "v2", some, encoding={"audio": True})
    done, dataset = converted(source, tmp_path / "ds")
    assert f"sound is left out: {TOP}" in done.source.notes
    [stored] = (tmp_path / "ds/videos").rglob("*.mp4")
    with av.open(str(stored)) as container:
        assert len(container.streams) == 1
    assert dataset.info["features"][TOP]["info"]["has_audio"] is False


# Pictures


@pytest.mark.parametrize("layout", ["v2", "v3", "v3 in one row group"])
def test_embedded_pictures_come_back_exactly(tmp_path, layout):
    some = episodes((40, 9, 35), pictures=True)
    if layout == "v2":
        source = write_v2(tmp_path / "src", some, video=False)
    else:
        one = layout != "v3"
        source = write_v3(tmp_path / "src", some, video=False, per_file=3, one_group=one)
    _, dataset = converted(source, tmp_path / "ds")
    expected = np.concatenate([episode[TOP] for episode in some])
    np.testing.assert_array_equal(dataset.column(TOP), expected)


@pytest.mark.parametrize("in_column", [True, False])
def test_pictures_in_files_of_their_own_are_found(tmp_path, in_column):
    some = episodes((6, 4), pictures=True)
    expected = np.concatenate([episode[TOP] for episode in some])
    source = tmp_path / "v2"
    for number, data in enumerate(some):
        folder = source / "images" / TOP / f"episode_{number:06d}"
        folder.mkdir(parents=True)
        for i, picture in enumerate(data[TOP]):
            Image.fromarray(picture).save(folder / f"frame_{i:06d}.png")
        names = [str(folder / f"frame_{i:06d}.png") for i in range(len(data[TOP]))]
        paths = pa.array(
            [{"bytes": None, "path": f"/elsewhere{n[len(str(source)) :]}"} for n in names], PICTURE
        )
        data[TOP] = paths
        if not in_column:
            del data[TOP]
    write_v2(source, some)
    info = json.loads((source / "meta/info.json").read_text())
    info["features"][TOP] = {"dtype": "image", "shape": [48, 64, 3], "names": None}
    write_json(source / "meta/info.json", info)
    _, dataset = converted(source, tmp_path / "ds")
    np.testing.assert_array_equal(dataset.column(TOP), expected)
    shutil.rmtree(source / "images")
    with pytest.raises(DataError, match=r"is not in the dataset|are neither in") as error:
        convert("lerobot", source, tmp_path / "none")
    assert f"--drop {TOP}" in error.value.hint


def test_jpeg_pictures_are_kept_as_they_decode_and_their_growth_is_told(tmp_path):
    some = episodes((6,))
    frames = moving(6)
    data = [encoded(frame, "JPEG") for frame in frames]
    some[0][TOP] = pa.array([{"bytes": b, "path": "a.jpg"} for b in data], PICTURE)
    source = write_v2(tmp_path / "v2", some)
    info = json.loads((source / "meta/info.json").read_text())
    info["features"][TOP] = {"dtype": "image", "shape": [3, 48, 64], "names": None}
    write_json(source / "meta/info.json", info)
    done, dataset = converted(source, tmp_path / "ds")
    expected = np.stack([np.asarray(Image.open(pa.BufferReader(b)).convert("RGB")) for b in data])
    np.testing.assert_array_equal(dataset.column(TOP), expected)
    assert any("JPEG" in note for note in done.source.notes)


def test_pictures_of_sixteen_bits_are_refused(tmp_path):
    some = episodes((3,))
    deep = [encoded(np.full((48, 64), 900, np.uint16)) for _ in range(3)]
    some[0]["observation.images.depth"] = pa.array(
        [{"bytes": b, "path": None} for b in deep], PICTURE
    )
    source = write_v2(tmp_path / "v2", some)
    info = json.loads((source / "meta/info.json").read_text())
    info["features"]["observation.images.depth"] |= {"dtype": "image", "shape": [48, 64, 1]}
    write_json(source / "meta/info.json", info)
    with pytest.raises(DataError, match="not of 8 bits") as error:
        convert("lerobot", source, tmp_path / "ds")
    assert "--drop observation.images.depth" in error.value.hint


# What does not hold together


def break_lengths(source):
    rows = [json.loads(line) for line in (source / "meta/episodes.jsonl").open()]
    rows[1]["length"] = 5
    write_lines(source / "meta/episodes.jsonl", rows)


def break_order(source):
    path = source / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    write_table(path, [table.take([0, 2, 1, *range(3, len(table))])])


def break_number(source):
    shutil.copy(source / "data/chunk-000/episode_000000.parquet",
                source / "data/chunk-000/episode_000001.parquet")  # fmt: skip


def break_template(source):
    info = json.loads((source / "meta/info.json").read_text())
    info["data_path"] = "../{episode_index}.parquet"
    write_json(source / "meta/info.json", info)


def break_total(source):
    info = json.loads((source / "meta/info.json").read_text())
    write_json(source / "meta/info.json", info | {"total_episodes": 4})


def break_column(source):
    path = source / "data/chunk-000/episode_000002.parquet"
    write_table(path, [pq.read_table(path).drop_columns(["action"])])


def break_video(source):
    path = source / f"videos/chunk-000/{TOP}/episode_000002.mp4"
    write_video(path, moving(11))


def break_version(source):
    info = json.loads((source / "meta/info.json").read_text())
    write_json(source / "meta/info.json", info | {"codebase_version": "v1.6"})


def break_nothing(source):
    shutil.rmtree(source / "meta")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (break_lengths, "has 9 rows of episode 1; meta/ says it has 5 frames"),
        (break_order, "frame 1 of episode 1 has the frame_index 2"),
        (break_number, "has no rows of episode 1: it has episode 0"),
        (break_template, "leads out of the dataset"),
        (break_total, "total_episodes is 4, meta/ lists 3"),
        (break_column, "episode_000002.parquet has no column action"),
        (break_video, "ends at 1.000 s, before the last of the 15 frames of episode 2"),
        (break_version, "version 'v1.6'; v2.0, v2.1 and v3.x are read"),
        (break_nothing, "is not a LeRobot dataset"),
    ],
)
def test_a_dataset_that_does_not_hold_together_is_refused_whole(tmp_path, break_it, message):
    source = write_v2(tmp_path / "v2", episodes(pictures=True))
    break_it(source)
    with pytest.raises(DataError, match=message) as error:
        convert("lerobot", source, tmp_path / "ds")
    assert error.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v2"]


def test_wrong_places_in_meta_are_mended_by_the_rows_themselves(tmp_path):
    some = episodes((12, 9, 15, 7))
    source = write_v3(tmp_path / "v3", some, per_file=2)
    path = source / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[1]["data/file_index"] = 1
    rows[2] |= {"dataset_from_index": 0, "dataset_to_index": 15}
    write_table(path, [pa.Table.from_pylist(rows)])
    done, dataset = converted(source, tmp_path / "ds")
    assert_same_numbers(dataset, some)
    assert "wrong about the data file of 1 episodes" in done.source.notes[0]


def test_a_v21_folder_that_is_opened_tells_how_to_convert_it(tmp_path):
    source = write_v2(tmp_path / "v2", episodes())
    with pytest.raises(DataError, match=r"version 2.1; v3.0 is read") as error:
        open_dataset(source)
    assert error.value.hint == f"convert it first: dp-hub convert lerobot {source} --to NEW"


NONSENSE = [None, -1, 1e308, "x", [], {}, True, 10**30, "../../{x}", "\0", "é" * 300, [[3.5]]]


def places(value, path=()):
    """Where in nested plain values something could be another thing."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def with_value(value, path, new):
    if not path:
        return new
    part = with_value(value[path[0]], path[1:], new)
    if isinstance(value, dict):
        return value | {path[0]: part}
    return [part if i == path[0] else old for i, old in enumerate(value)]


@pytest.mark.parametrize("name", ["info.json", "episodes.jsonl", "tasks.jsonl"])
def test_nonsense_in_meta_never_ends_in_a_traceback(tmp_path, name):
    source = write_v2(tmp_path / "v2", episodes((4, 3), pictures=True))
    path = source / "meta" / name
    *lines, last = path.read_text().splitlines()
    document = json.loads(last)
    tried = [(p, value) for p in places(document) for value in NONSENSE]
    tried = tried[:: 1 + len(tried) // 60]
    for where, value in tried:
        path.write_text("\n".join([*lines, json.dumps(with_value(document, where, value))]))
        try:
            convert("lerobot", source, tmp_path / "ds")
        except DataError as error:
            assert str(error)
            assert sorted(os.listdir(tmp_path)) == ["v2"], (where, value)
        else:
            shutil.rmtree(tmp_path / "ds")
    assert len(tried) >= 30


@pytest.mark.parametrize("layout", ["v2", "v3"])
def test_damaged_bytes_never_end_in_a_traceback_or_half_a_dataset(tmp_path, layout):
    some = episodes((6, 5), pictures=True)
    write = write_v2 if layout == "v2" else write_v3
    good = write(tmp_path / "good", some)
    files = sorted(p.relative_to(good) for p in good.rglob("*") if p.is_file())
    assert len(files) >= 5
    rng = np.random.default_rng(1)
    refused = 0
    for trial in range(50):
        bad = tmp_path / "bad"
        shutil.copytree(good, bad)
        path = bad / files[trial % len(files)]
        data = bytearray(path.read_bytes())
        if trial % 3 == 0:
            del data[int(rng.integers(len(data))) :]
        else:
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            convert("lerobot", bad, tmp_path / "ds")
        except DataError:
            refused += 1
            assert sorted(os.listdir(tmp_path)) == ["bad", "good"]
        else:
            assert open_dataset(tmp_path / "ds").n_episodes == 2
            shutil.rmtree(tmp_path / "ds")
        shutil.rmtree(bad)
    assert refused >= 20
