"""Edits: the old is only read, what stays keeps its hash and its bytes, statistics are right."""

import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from dp_hub.dataset import shards
from dp_hub.dataset.checksums import read_checksums, verify
from dp_hub.dataset.convert import convert
from dp_hub.dataset.edit_plan import all_pieces, chosen, parse_episodes, split, trimmed, with_tasks
from dp_hub.dataset.editing import Edit, edit, split_dataset
from dp_hub.dataset.exporting.zarr import export_zarr
from dp_hub.dataset.features import plan_columns
from dp_hub.dataset.reader import open_dataset
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.errors import DataError, DpHubError
from dp_hub.replay.buffer import open_replay
from dp_hub.replay.episode import Episode


@pytest.fixture(scope="module")
def real(tmp_path_factory, pusht_first5_zip):
    """The first five real demonstrations with pictures, and with videos."""
    folder = tmp_path_factory.mktemp("edit")
    for kind in ("webp", "video"):
        convert("zarr", pusht_first5_zip, folder / kind, images=kind, task="push")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))


def files_of(folder):
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in folder.rglob("*") if p.is_file()}  # fmt: skip


def frames_of(dataset, episodes):
    index = dataset.episodes
    parts = [np.arange(index.starts[i], index.stops[i]) for i in episodes]
    return np.concatenate(parts)


def check_whole(folder):
    """It opens, its files are as written, its index is in order, its statistics are exact."""
    dataset = open_dataset(folder)
    assert verify(folder, read_checksums(folder)) == []
    stats = json.loads((folder / "meta/stats.json").read_text())
    for name in ("action", "observation.state", "timestamp", "index", "episode_index"):
        if name not in dataset.features:
            continue
        values = dataset.column(name).reshape(dataset.n_frames, -1).astype(np.float64)
        for stat, expected in (
            ("mean", values.mean(axis=0)),
            ("std", values.std(axis=0)),
            ("min", values.min(axis=0)),
            ("max", values.max(axis=0)),
            ("q10", np.quantile(values, 0.1, axis=0)),
        ):
            np.testing.assert_allclose(stats[name][stat], expected, atol=1e-9, err_msg=name)
        assert stats[name]["count"] == [dataset.n_frames]
    return dataset


@pytest.mark.parametrize("kind", ["webp", "video"])
def test_deleting_keeps_the_others_bit_for_bit_and_the_source_untouched(tmp_path, real, kind):
    before = files_of(real / kind)
    done = edit([real / kind], tmp_path / "new", Edit(delete="1,3"))
    assert files_of(real / kind) == before
    old, new = open_dataset(real / kind), check_whole(tmp_path / "new")
    assert new.n_episodes == 3 and (done.unchanged, done.copied) == (3, 3)
    assert new.episodes.sha256 == [old.episodes.sha256[i] for i in (0, 2, 4)]
    rows = frames_of(old, [0, 2, 4])
    for name in ("action", "observation.state", "observation.image"):
        np.testing.assert_array_equal(new.column(name), old.column(name)[rows])
    assert new.column("frame_index").tolist() == old.column("frame_index")[rows].tolist()


def test_keeping_all_shares_every_file(tmp_path, real):
    done = edit([real / "video"], tmp_path / "new", Edit(tasks=["0,2=other words"]))
    assert done.shared_files == 1  # of the data file the numbers of the tasks change
    assert done.unchanged == 3
    done = edit([real / "video"], tmp_path / "same", Edit(tasks=["other words"]))
    assert done.shared_files == 2 and done.unchanged == 0
    for name in (
        "data/chunk-000/file-000.parquet",
        "videos/observation.image/chunk-000/file-000.mp4",
    ):
        assert (tmp_path / "same" / name).samefile(real / "video" / name)
    assert check_whole(tmp_path / "same").episodes.tasks == ["other words"] * 5


def test_changing_nothing_gives_the_same_fingerprint(tmp_path, real):
    done = edit([real / "webp"], tmp_path / "new")
    assert done.written.fingerprint == open_dataset(real / "webp").fingerprint
    assert done.unchanged == 5


def test_files_before_a_deleted_episode_are_shared_in_a_dataset_of_many(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUPS_PER_FILE", 4)
    rng = np.random.default_rng(0)
    episodes = [Episode({"action": rng.normal(size=(5, 2))}, task="go") for _ in range(14)]
    with DatasetWriter(tmp_path / "old", plan_columns(episodes[0].data), fps=10) as writer:
        for episode in episodes:
            writer.add_episode(episode)
        writer.finish()
    done = edit([tmp_path / "old"], tmp_path / "new", Edit(delete="9"))
    assert done.shared_files == 2  # of 4, 4, 4 and 2 episodes
    new = check_whole(tmp_path / "new")
    kept = np.concatenate([e.data["action"] for i, e in enumerate(episodes) if i != 9])
    np.testing.assert_array_equal(new.column("action"), kept)
    names = sorted(p.name for p in (tmp_path / "new/data/chunk-000").iterdir())
    assert names == [f"file-00{i}.parquet" for i in range(4)]
    assert (tmp_path / "new/data/chunk-000/file-001.parquet").samefile(
        tmp_path / "old/data/chunk-000/file-001.parquet"
    )


@pytest.mark.parametrize("kind", ["webp", "video"])
def test_merging_puts_episodes_end_to_end(tmp_path, real, kind):
    edit([real / kind], tmp_path / "part", Edit(keep="2-3", license="mit"))
    done = edit([real / kind, tmp_path / "part"], tmp_path / "new")
    old, new = open_dataset(real / kind), check_whole(tmp_path / "new")
    assert (new.n_episodes, done.unchanged) == (7, 7)
    assert new.episodes.sha256 == old.episodes.sha256 + old.episodes.sha256[2:4]
    rows = frames_of(old, [0, 1, 2, 3, 4, 2, 3])
    np.testing.assert_array_equal(new.column("action"), old.column("action")[rows])
    images = new.column("observation.image")
    np.testing.assert_array_equal(images, old.column("observation.image")[rows])
    assert done.shared_files == (3 if kind == "video" else 1)
    names = [source["name"] for source in new.provenance["sources"]]
    assert names == [kind, "part"]
    assert new.provenance["license"] is None  # theirs differ


def test_merging_different_datasets_is_refused_with_a_table_or_mapped(tmp_path, real):
    change = Edit(rename={"observation.state": "state"}, drop=["n_contacts"])
    edit([real / "webp"], tmp_path / "other", change)
    with pytest.raises(DataError) as caught:
        edit([real / "webp", tmp_path / "other"], tmp_path / "new")
    table = caught.value.message.splitlines()
    assert any(line.split() == ["n_contacts", "float32", "1", "-"] for line in table)
    assert any(line.split() == ["state", "-", "float32", "5"] for line in table)
    assert not (tmp_path / "new").exists()
    edit([real / "webp", tmp_path / "other"], tmp_path / "new", change)
    assert check_whole(tmp_path / "new").n_episodes == 10


def test_pictures_and_videos_merge_into_what_the_first_has(tmp_path, real):
    done = edit([real / "webp", real / "video"], tmp_path / "new")
    new, video = check_whole(tmp_path / "new"), open_dataset(real / "video")
    assert (done.unchanged, done.copied) == (5, 5)
    half = new.n_frames // 2
    images = new.column("observation.image")
    np.testing.assert_array_equal(images[half:], video.column("observation.image"))


@pytest.mark.parametrize(("start", "copied"), [(10, True), (11, False)])
def test_trimming_a_video_encodes_again_only_where_it_must(tmp_path, real, start, copied):
    edit([real / "video"], tmp_path / "new", Edit(trim=[f"2:{start}:100"]))
    old, new = open_dataset(real / "video"), check_whole(tmp_path / "new")
    rows = frames_of(old, [2])[start:100]
    mine = slice(new.episodes.starts[2], new.episodes.stops[2])
    np.testing.assert_array_equal(new.column("action")[mine], old.column("action")[rows])
    before = old.column("observation.image")[rows].astype(float)
    after = new.column("observation.image")[mine].astype(float)
    if copied:  # from a key frame on: the same packets
        np.testing.assert_array_equal(after, before)
    else:
        assert 10 * np.log10(255**2 / np.square(after - before).mean()) > 35
    assert new.episodes.sha256[2] != old.episodes.sha256[2]
    assert new.episodes.sha256[:2] == old.episodes.sha256[:2]


def test_trimmed_pictures_are_bit_equal_and_have_the_hash_of_a_recording(tmp_path, real):
    edit([real / "webp"], tmp_path / "new", Edit(trim=["0::50"], keep="0"))
    old, new = open_dataset(real / "webp"), check_whole(tmp_path / "new")
    images = new.column("observation.image")
    np.testing.assert_array_equal(images, old.column("observation.image")[:50])
    columns = plan_columns(
        {"img": old.column("observation.image")[:50], "action": old.column("action")[:50]}
    )
    change = Edit(drop=["observation.state", "observation.environment_state", "n_contacts"])
    edit([tmp_path / "new"], tmp_path / "few", change)
    with DatasetWriter(tmp_path / "anew", columns, fps=10) as writer:
        data = {"img": old.column("observation.image")[:50], "action": old.column("action")[:50]}
        sha256 = writer.add_episode(Episode(data, task="push"))
    assert open_dataset(tmp_path / "few").episodes.sha256 == [sha256]


def test_images_to_video_and_back(tmp_path, real):
    edit([real / "webp"], tmp_path / "video", Edit(images="video"))
    assert open_dataset(tmp_path / "video").fingerprint == open_dataset(real / "video").fingerprint
    edit([tmp_path / "video"], tmp_path / "back", Edit(images="png"))
    video, back = open_dataset(tmp_path / "video"), check_whole(tmp_path / "back")
    images = back.column("observation.image")
    np.testing.assert_array_equal(images, video.column("observation.image"))
    np.testing.assert_array_equal(back.column("action"), video.column("action"))


def test_renamed_and_dropped_features_export_under_their_old_keys(tmp_path, real, pusht_first5_zip):
    change = Edit(rename={"observation.state": "state"}, drop=["observation.image"])
    edit([real / "webp"], tmp_path / "new", change)
    new = check_whole(tmp_path / "new")
    assert "state" in new.features and "observation.image" not in new.features
    path = export_zarr(tmp_path / "new", tmp_path / "out.zarr").path
    exported, source = open_replay(path), open_replay(pusht_first5_zip)
    assert sorted(exported) == ["action", "keypoint", "n_contacts", "state"]
    for mine, theirs in zip(exported.episodes(), source.episodes(list(exported)), strict=True):
        for key, values in mine.items():
            np.testing.assert_array_equal(values, theirs[key])


def test_splitting_makes_a_dataset_for_every_part(tmp_path, real):
    made = split_dataset([real / "webp"], tmp_path / "new", ["val=1", "train=100%"])
    assert {name: one.written.n_episodes for name, one in made.items()} == {"val": 1, "train": 4}
    old = open_dataset(real / "webp").episodes.sha256
    assert check_whole(tmp_path / "new/val").episodes.sha256 == [old[1]]
    expected = [old[i] for i in (0, 2, 3, 4)]
    assert check_whole(tmp_path / "new/train").episodes.sha256 == expected


def test_measuring_finds_a_changed_value_and_mends_statistics(tmp_path, real):
    done = edit([real / "video"], tmp_path / "new", Edit(measure=True))
    assert done.unchanged == 5
    old = json.loads((real / "video/meta/stats.json").read_text())
    new = json.loads((tmp_path / "new/meta/stats.json").read_text())
    assert old.keys() == new.keys()
    for name in ("action", "observation.state"):
        assert old[name] == new[name]
    path = tmp_path / "new/data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    action = np.array(table["action"].combine_chunks().flatten())
    action[5] += 1
    i = table.schema.get_field_index("action")
    kind = table.schema.field("action").type
    import pyarrow as pa

    column = pa.FixedSizeListArray.from_arrays(pa.array(action), type=kind)
    path.unlink()
    with pq.ParquetWriter(path, table.schema) as writer:
        changed = table.set_column(i, table.schema.field(i), column)
        for start, stop in zip(
            open_dataset(real / "video").episodes.starts,
            open_dataset(real / "video").episodes.stops,
            strict=True,
        ):
            writer.write_table(changed.slice(start, stop - start))
    with pytest.raises(DataError, match=r"episode 0 of .* its hash differs"):
        edit([tmp_path / "new"], tmp_path / "newer", Edit(measure=True))
    assert not (tmp_path / "newer").exists()


def test_an_interrupted_edit_leaves_nothing(tmp_path, real):
    def interrupt(done, total):
        assert total == 5
        if done == 3:
            raise KeyboardInterrupt

    before = files_of(real / "webp")
    with pytest.raises(KeyboardInterrupt):
        edit([real / "webp"], tmp_path / "new", on_progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        split_dataset([real / "webp"], tmp_path / "new", ["a=1", "b=1.0"], on_progress=interrupt)
    assert [p for p in tmp_path.iterdir() if p.name != "cache"] == []
    assert files_of(real / "webp") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Edit(delete="5"), "there is no episode 5; the dataset has 0 to 4"),
        (Edit(delete="0-4"), "no episode would be left"),
        (Edit(delete="1", keep="2"), "both --keep and --delete"),
        (Edit(delete="x"), "'x' is no episode number"),
        (Edit(keep="1,1"), "names an episode twice"),
        (Edit(trim=["1"]), "is not EPISODE:START:STOP"),
        (Edit(trim=["1:118:"]), "leaves nothing of the 118 frames"),
        (Edit(trim=["1:0:119"]), "episode 1 has only 118 frames"),
        (Edit(trim=["0:0:20", "0:5:30"]), "cuts episode 0 twice"),
        (Edit(trim=["1:0:20"], delete="1"), "episode 1 is to be trimmed and to be left out"),
        (Edit(tasks=["0= "]), "has no words"),
        (Edit(license="not a licence"), "not the identifier of a licence"),
        (Edit(drop=["nonsense"]), "no feature 'nonsense'"),
        (Edit(rename={"nonsense": "a"}), "no feature 'nonsense'"),
        (Edit(rename={"action": "observation.state"}), "two features .* observation.state"),
        (Edit(rename={"action": "index"}), "every dataset has its own index"),
    ],
)
def test_wrong_requests_are_refused_and_leave_nothing(tmp_path, real, change, message):
    with pytest.raises(DpHubError, match=message):
        edit([real / "webp"], tmp_path / "new", change)
    assert list(tmp_path.iterdir()) == []


def test_a_new_dataset_inside_the_old_one_is_refused(real):
    with pytest.raises(DataError, match=r"is inside .*webp, which is only read"):
        edit([real / "webp"], real / "webp" / "new")
    assert not (real / "webp" / "new").exists()


def test_a_dataset_of_another_program_or_changed_by_one_is_refused(tmp_path, real, shared_data):
    with pytest.raises(DataError, match="made or changed by another program") as caught:
        edit([shared_data / "samples/lerobot_v30_pusht"], tmp_path / "new")
    assert "dp-hub convert lerobot" in caught.value.hint
    with pytest.raises(DataError, match="already exists"):
        edit([real / "webp"], real / "video")


LENGTHS = [[10, 20, 30], [5]]


def test_plans_are_plain():
    pieces = all_pieces(LENGTHS)
    assert [(p.source, p.episode, p.stop) for p in pieces] == [
        (0, 0, 10), (0, 1, 20), (0, 2, 30), (1, 0, 5)
    ]  # fmt: skip
    assert parse_episodes("3,0-1", 4, "--keep") == [3, 0, 1]
    assert [p.episode for p in chosen(pieces, keep="3,0", delete=None)] == [0, 0]
    cut = trimmed(pieces, ["1:5:", "2:0:30"])
    assert (cut[1].start, cut[1].stop, cut[1].whole) == (5, 20, False)
    assert cut[2] == pieces[2]
    told = with_tasks(pieces, ["all", "0,3=some = more"])
    assert [p.task for p in told] == ["some = more", "all", "all", "some = more"]


def test_shares_are_exact_and_a_seed_draws_them():
    pieces = all_pieces([[1] * 10])
    parts = split(pieces, ["a=0.3", "b=0.3", "c=40%"], seed=None)
    assert {name: [p.episode for p in some] for name, some in parts.items()} == {
        "a": [0, 1, 2], "b": [3, 4, 5], "c": [6, 7, 8, 9]
    }  # fmt: skip
    drawn = split(pieces, ["a=0.5", "b=0.5"], seed=3)
    assert drawn == split(pieces, ["a=0.5", "b=0.5"], seed=3)
    assert sorted(p.episode for some in drawn.values() for p in some) == list(range(10))
    assert [p.episode for p in drawn["a"]] != list(range(5))
    for wrong, message in (
        (["a=0.5"], "leaves 5 of 10 episodes in no part"),
        (["a=0.8", "b=0.8"], "more than 1"),
        (["a=1-3", "b=3", "c=1.0"], "episode 3 into two parts"),
        (["a=1.0", "b=0.0"], "the part b without episodes"),
        (["../a=1.0"], "is not NAME=EPISODES"),
    ):
        with pytest.raises(DataError, match=message):
            split(pieces, wrong, seed=None)


def write_in_order(folder, keys, offset=0):
    values = {
        "action": np.arange(24, dtype=np.float32).reshape(12, 2) + offset,
        "state": np.arange(24, dtype=np.float32).reshape(12, 2) + 100 + offset,
        "left": np.full((12, 16, 16, 3), 40, np.uint8),
        "right": np.full((12, 16, 16, 3), 200, np.uint8),
    }
    data = {key: values[key] for key in keys}
    with DatasetWriter(folder, plan_columns(data), fps=10) as writer:
        writer.add_episode(Episode(data, task="go"))
        writer.finish()


@pytest.mark.parametrize(
    "change", [Edit(), Edit(images="png"), Edit(trim=["1:2:9"]), Edit(measure=True)]
)
def test_features_in_another_order_stay_what_they_are(tmp_path, change):
    write_in_order(tmp_path / "a", ["action", "state", "left", "right"])
    write_in_order(tmp_path / "b", ["right", "state", "left", "action"], offset=50)
    edit([tmp_path / "a", tmp_path / "b"], tmp_path / "new", change)
    new = check_whole(tmp_path / "new")
    second = slice(int(new.episodes.starts[1]), int(new.episodes.stops[1]))
    assert (new.column("action")[second] >= 50).all() and (new.column("action") < 100).all()
    assert (new.column("observation.state")[second] >= 150).all()
    assert (new.column("observation.images.left") == 40).all()
    assert (new.column("observation.images.right") == 200).all()


@pytest.mark.parametrize("change", [Edit(delete="0"), Edit(trim=["0:2:"]), Edit(keep="3-8")])
def test_checksums_are_right_where_written_and_shared_videos_alternate(tmp_path, real, change):
    edit([real / "video"], tmp_path / "old")
    for _ in range(2):
        with DatasetWriter.resume(tmp_path / "old") as writer:
            for episode in some_episodes(real):
                writer.add_episode(episode)
            writer.finish()
    done = edit([tmp_path / "old"], tmp_path / "new", change)
    assert done.shared_files >= 2
    check_whole(tmp_path / "new")
    with DatasetWriter.resume(tmp_path / "new") as writer:
        writer.finish()
    check_whole(tmp_path / "new")


def some_episodes(real):
    """Two episodes with the keys of the source."""
    dataset = open_dataset(real / "video")
    for i in (0, 1):
        part = slice(int(dataset.episodes.starts[i]), int(dataset.episodes.stops[i]))
        yield Episode(
            {
                "action": dataset.column("action")[part],
                "state": dataset.column("observation.state")[part],
                "keypoint": dataset.column("observation.environment_state")[part].reshape(-1, 9, 2),
                "n_contacts": dataset.column("n_contacts")[part].reshape(-1, 1),
                "img": dataset.column("observation.image")[part],
            },
            task="push",
        )


def test_an_edit_leaves_a_conversion_to_the_same_place_alone(tmp_path, real, pusht_first5_zip):
    def interrupt(progress):
        if progress.episodes == 2:
            with pytest.raises(DataError, match="is being written by"):
                edit([real / "webp"], tmp_path / "x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert("zarr", pusht_first5_zip, tmp_path / "x", on_progress=interrupt)
    with pytest.raises(DataError, match="no episode would be left"):
        edit([real / "webp"], tmp_path / "x", Edit(delete="0-4"))
    assert open_dataset(tmp_path / ".x.partial").n_episodes == 2
    assert convert("zarr", pusht_first5_zip, tmp_path / "x").written.n_episodes == 5
