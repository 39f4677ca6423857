"""Datasets to LeRobot's layout of one file an episode and back, without a bit changing."""

import json

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from made_datasets import episodes, rewrite_episodes, with_leftover_row, without_hashes, write

from dp_hub.dataset import shards
from dp_hub.dataset.convert import convert
from dp_hub.dataset.editing import Edit, edit
from dp_hub.dataset.exporting.lerobot_v21 import export_lerobot_v21
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError

CAMERA = "observation.image"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four episodes with a camera, in two data files and two videos."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROW_GROUPS_PER_FILE", 2)
        patch.setattr(shards, "VIDEO_FILE_MB", 0.003)
        some = [*episodes(size=(64, 48)), *episodes((4,), size=(64, 48), task="pull")]
        folder = write(tmp_path_factory.mktemp("v21") / "made", some, images="video")
    assert len(list(folder.glob("videos/*/*/*.mp4"))) > 1
    assert len(list(folder.glob("data/*/*.parquet"))) > 1
    return folder


@pytest.fixture(scope="module")
def g1(tmp_path_factory, shared_data):
    """What is there of a real recording of LeRobot v2.1, as a dataset and exported again."""
    source, folder = shared_data / "samples" / "lerobot_v21_g1", tmp_path_factory.mktemp("g1")
    convert("lerobot", source, folder / "ds", options={"missing_episodes": "skip"})
    export_lerobot_v21(folder / "ds", folder / "v21")
    return source, folder


def lines(folder, name):
    return [json.loads(line) for line in (folder / "meta" / f"{name}.jsonl").open()]


def packets(path):
    with av.open(str(path)) as container:
        return [
            (bytes(one), one.pts * one.time_base) for one in container.demux(video=0) if one.size
        ]


def assert_same_content(one, other):
    one, other = open_dataset(one), open_dataset(other)
    assert len(one.episodes.sha256) > 1 and all(one.episodes.sha256)
    assert one.episodes.sha256 == other.episodes.sha256
    assert one.episodes.tasks == other.episodes.tasks
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(("images", "n_videos"), [("video", 4), ("webp", 0), ("png", 0)])
def test_exported_and_converted_back_every_episode_has_its_hash(tmp_path, images, n_videos):
    dataset = write(tmp_path / "ds", episodes(size=(64, 48)), images=images)
    done = export_lerobot_v21(dataset, tmp_path / "v21")
    assert (done.n_episodes, done.n_frames, done.n_videos) == (4, 27, n_videos)
    convert("lerobot", tmp_path / "v21", tmp_path / "back", images=images)
    assert_same_content(dataset, tmp_path / "back")
    facts = open_dataset(tmp_path / "back").episodes.metadata
    assert [one["seed"] for one in facts] == [0, 1, 2, 3]


def test_episodes_of_several_files_come_back_from_one_each(tmp_path, made):
    export_lerobot_v21(made, tmp_path / "v21")
    for kind, pattern in (("parquet", "data/chunk-000"), ("mp4", f"videos/chunk-000/{CAMERA}")):
        found = sorted(path.name for path in (tmp_path / "v21" / pattern).iterdir())
        assert found == [f"episode_{number:06d}.{kind}" for number in range(5)]
    convert("lerobot", tmp_path / "v21", tmp_path / "back")
    assert_same_content(made, tmp_path / "back")


def test_real_pictures_and_numbers_come_back_the_same(tmp_path, pusht_webp):
    export_lerobot_v21(pusht_webp, tmp_path / "v21")
    convert("lerobot", tmp_path / "v21", tmp_path / "back")
    assert_same_content(pusht_webp, tmp_path / "back")
    table = pq.read_table(tmp_path / "v21/data/chunk-000/episode_000003.parquet")
    assert set(table["episode_index"].to_pylist()) == {3}
    assert all(row["bytes"][:4] == b"RIFF" for row in table["observation.image"].to_pylist())


def test_real_recording_comes_back_as_its_maker_wrote_it(g1):
    source, folder = g1
    there = [1, 2, 10]  # with all their files
    for number, original in enumerate(there):
        ours = pq.read_table(folder / f"v21/data/chunk-000/episode_{number:06d}.parquet")
        theirs = pq.read_table(source / f"data/chunk-000/episode_{original:06d}.parquet")
        assert [(f.name, f.type) for f in ours.schema] == [(f.name, f.type) for f in theirs.schema]
        for name in ("observation.state", "action", "timestamp", "frame_index"):
            assert ours[name].to_pylist() == theirs[name].to_pylist()
        videos = [
            root / f"videos/chunk-000/observation.images.cam_high/episode_{n:06d}.mp4"
            for root, n in ((folder / "v21", number), (source, original))
        ]
        assert packets(videos[0]) == packets(videos[1])
    back = folder / "back"
    convert("lerobot", folder / "v21", back)
    assert_same_content(folder / "ds", back)


def test_metadata_has_the_form_of_a_real_recordings(g1):
    source, folder = g1
    roots = (folder / "v21", source)
    ours, theirs = (json.loads((root / "meta/info.json").read_text()) for root in roots)
    assert list(ours) == list(theirs)
    for key in ("codebase_version", "fps", "data_path", "video_path", "chunks_size", "robot_type"):
        assert ours[key] == theirs[key]
    assert (ours["total_episodes"], ours["total_videos"], ours["total_chunks"]) == (3, 3, 1)
    camera = "observation.images.cam_high"
    assert ours["features"].keys() == theirs["features"].keys()
    assert ours["features"][camera]["info"].items() >= theirs["features"][camera]["info"].items()
    assert lines(folder / "v21", "tasks") == lines(source, "tasks")
    first, original = lines(folder / "v21", "episodes")[0], lines(source, "episodes")[1]
    assert first == original | {"episode_index": 0, "source_episode": 1}
    schemas = [
        pq.read_schema(next((root / "data").rglob("*.parquet"))).metadata[b"huggingface"]
        for root in roots
    ]
    assert json.loads(schemas[0]) == json.loads(schemas[1])


def test_statistics_of_episodes_are_those_a_real_recording_came_with(g1):
    source, folder = g1
    theirs = {row["episode_index"]: row["stats"] for row in lines(source, "episodes_stats")}
    rows = lines(folder / "v21", "episodes_stats")
    assert len(rows) == 3
    for row, original in zip(rows, (1, 2, 10), strict=True):
        assert row["stats"].keys() == theirs[original].keys()
        for name in ("observation.state", "action", "timestamp", "frame_index"):
            assert list(row["stats"][name]) == ["min", "max", "mean", "std", "count"]
            for stat, values in row["stats"][name].items():
                np.testing.assert_allclose(
                    values, theirs[original][name][stat], rtol=2e-3, atol=1e-5
                )
        picture = row["stats"]["observation.images.cam_high"]["mean"]
        expected = theirs[original]["observation.images.cam_high"]["mean"]
        assert np.shape(picture) == (3, 1, 1)
        np.testing.assert_allclose(picture, expected, atol=0.02)


def test_license_and_fingerprint_go_along(tmp_path):
    dataset = write(tmp_path / "ds", episodes(), license="cc-by-4.0")
    export_lerobot_v21(dataset, tmp_path / "v21")
    convert("lerobot", tmp_path / "v21", tmp_path / "back")
    provenance = open_dataset(tmp_path / "back").provenance
    assert provenance["license"] == "cc-by-4.0"
    assert provenance["sources"][0]["fingerprint"] == open_dataset(dataset).fingerprint


def test_edited_and_unfinished_datasets_are_exported_as_far_as_they_count(tmp_path, made):
    edit([made], tmp_path / "edited", Edit(delete="0"))
    export_lerobot_v21(tmp_path / "edited", tmp_path / "v21")
    convert("lerobot", tmp_path / "v21", tmp_path / "back")
    assert_same_content(tmp_path / "edited", tmp_path / "back")
    longer = with_leftover_row(write(tmp_path / "ds", episodes()))
    assert export_lerobot_v21(longer, tmp_path / "other").n_episodes == 4


def test_dataset_of_another_program_is_exported_too(tmp_path):
    ours = write(tmp_path / "ds", episodes(size=(64, 48)), images="video")
    kept = open_dataset(ours).episodes.sha256
    export_lerobot_v21(without_hashes(ours), tmp_path / "v21")
    assert lines(tmp_path / "v21", "episodes")[1] == {
        "episode_index": 1, "tasks": ["push"], "length": 3,
    }  # fmt: skip
    convert("lerobot", tmp_path / "v21", tmp_path / "back")
    assert open_dataset(tmp_path / "back").episodes.sha256 == kept


def test_existing_target_and_other_folders_are_refused(tmp_path, made):
    (tmp_path / "v21").mkdir()
    with pytest.raises(DataError, match="already exists"):
        export_lerobot_v21(made, tmp_path / "v21")
    with pytest.raises(DataError, match="no file at"):
        export_lerobot_v21(tmp_path, tmp_path / "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "v21"]


def test_interrupted_export_leaves_nothing(tmp_path, made):
    def stop(episodes, total):
        if (episodes, total) == (3, 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_lerobot_v21(made, tmp_path / "v21", on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_dataset_without_statistics_says_how_to_get_them(tmp_path):
    dataset = write(tmp_path / "ds", episodes())
    rewrite_episodes(dataset, lambda table: table.drop_columns(["stats/action/mean"]))
    with pytest.raises(DataError, match="has no column stats/action/mean") as caught:
        export_lerobot_v21(dataset, tmp_path / "v21")
    assert "dp-hub convert lerobot" in caught.value.hint


def test_video_that_cannot_be_cut_says_what_to_do(tmp_path):
    dataset = write(tmp_path / "ds", episodes(size=(64, 48)), images="video")

    def one_frame_later(table):
        name = f"videos/{CAMERA}/from_timestamp"
        moved = [at + 0.1 for at in table[name].to_pylist()]
        return table.set_column(table.column_names.index(name), name, [moved])

    rewrite_episodes(dataset, one_frame_later)
    with pytest.raises(DataError, match=r"cannot be cut out of .* ends before frame 28") as caught:
        export_lerobot_v21(dataset, tmp_path / "v21")
    assert "dp-hub convert lerobot" in caught.value.hint
    assert not (tmp_path / "v21").exists()


def test_damaged_datasets_are_refused_or_exported_whole(tmp_path, made):
    export_lerobot_v21(made, tmp_path / "good")
    good = {p.relative_to(tmp_path / "good"): p for p in (tmp_path / "good").rglob("*.*")}
    rng = np.random.default_rng(0)
    files = [p for p in sorted(made.rglob("*.*")) if p.suffix in (".json", ".parquet", ".mp4")]
    told = same = 0
    for number in range(200):
        path = files[number % len(files)]
        data = path.read_bytes()
        path.write_bytes(mutated(data, rng))
        try:
            export_lerobot_v21(made, tmp_path / "bad")
        except DataError:
            told += 1
            assert not (tmp_path / "bad").exists()
        else:
            same += 1
            found = {p.relative_to(tmp_path / "bad") for p in (tmp_path / "bad").rglob("*.*")}
            assert found == good.keys()
            (tmp_path / "bad").rename(tmp_path / f"was{number}")
        finally:
            path.write_bytes(data)
    assert told + same == 200 and told > 60


def mutated(data, rng):
    """Bytes flipped, zeroed or cut off."""
    changed, at = bytearray(data), int(rng.integers(len(data)))
    match rng.integers(3):
        case 0:
            changed[at] ^= 1 << rng.integers(8)
        case 1:
            changed[at : at + 64] = bytes(len(changed[at : at + 64]))
        case _:
            del changed[at:]
    return bytes(changed)
