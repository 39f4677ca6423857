"""Open datasets of real demonstrations; refuse, in words, those that are not whole."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from plain_dataset import write_dataset

import dp_hub
from dp_hub.dataset.convert import convert
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError
from dp_hub.hub import LocalHub
from dp_hub.sampling import WindowDataset, window_table


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def arrays(pusht_first5_zip):
    group = zarr.open_group(zarr.storage.ZipStore(pusht_first5_zip), mode="r")
    return {key: group[f"data/{key}"][:] for key in ("action", "state", "keypoint", "img")} | {
        "ends": group["meta/episode_ends"][:]
    }


def columns_of(arrays):
    return {
        "action": arrays["action"],
        "observation.state": arrays["state"],
        "observation.environment_state": arrays["keypoint"].reshape(-1, 18),
        "next.reward": np.arange(len(arrays["action"]), dtype=np.float32),
        "next.done": np.arange(len(arrays["action"])) % 7 == 0,
    }


@pytest.fixture(scope="module")
def written(arrays, tmp_path_factory):
    """Five real demonstrations with pictures, in two data files."""
    return write_dataset(
        tmp_path_factory.mktemp("pusht") / "dataset",
        columns_of(arrays) | {"observation.image": arrays["img"]},
        arrays["ends"],
    )


@pytest.fixture
def small(tmp_path):
    """Four small episodes in two files, to be broken."""
    ends = np.array([3, 7, 9, 14])
    columns = {
        "action": np.arange(28, dtype=np.float32).reshape(14, 2),
        "observation.state": np.arange(14, dtype=np.float64)[:, None] * np.ones((1, 3)),
    }
    return write_dataset(tmp_path / "small", columns, ends, episodes_per_file=2, fingerprint=False)


def stored_fingerprint(root):
    return json.loads((root / "meta/dp_hub.json").read_text())["fingerprint"]


def edit_info(root, **changes):
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_table(path, change):
    pq.write_table(change(pq.read_table(path)), path)


def episodes_file(root):
    return root / "meta/episodes/chunk-000/file-000.parquet"


def data_file(root, number=0):
    return root / f"data/chunk-000/file-{number:03d}.parquet"


def with_column(name, values):
    def change(table):
        return table.set_column(table.schema.names.index(name), name, [values(table[name])])

    return change


def test_columns_of_real_demonstrations_are_bit_equal(written, arrays):
    dataset = dp_hub.open_dataset(str(written))
    n_compared = 0
    for name, expected in columns_of(arrays).items():
        column = dataset.column(name)
        assert column.dtype == expected.dtype and column.shape == expected.shape
        assert column.tobytes() == expected.tobytes()
        assert column.flags.c_contiguous and not column.flags.writeable
        assert dataset.column(name) is column
        n_compared += 1
    assert n_compared == 5
    np.testing.assert_array_equal(dataset.column("timestamp")[:3], np.float32([0, 0.1, 0.2]))


def test_pictures_of_real_demonstrations_are_bit_equal(written, arrays):
    images = open_dataset(written).column("observation.image")
    assert isinstance(images, np.memmap) and images.dtype == np.uint8
    assert images.shape == (738, 96, 96, 3)
    np.testing.assert_array_equal(images, arrays["img"])
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_a_dataset_tells_what_it_is(written, arrays):
    dataset = open_dataset(written)
    assert (dataset.n_frames, dataset.n_episodes, dataset.fps) == (738, 5, 10.0)
    assert dataset.fingerprint == stored_fingerprint(written)
    assert dataset.repo_id is None and dataset.revision is None
    feature = dataset.features["observation.environment_state"]
    assert (feature.dtype, feature.shape) == ("float32", (18,))
    episodes = dataset.episodes
    np.testing.assert_array_equal(episodes.stops, arrays["ends"])
    np.testing.assert_array_equal(episodes.starts[1:], arrays["ends"][:-1])
    np.testing.assert_array_equal(episodes.lengths, np.diff(arrays["ends"], prepend=0))
    assert episodes.tasks == ["push"] * 5 and episodes.metadata[4] == {"seed": 4}
    assert episodes.sha256[3] == f"{3:064x}" and len(episodes) == 5
    assert "5 episodes, 738 frames" in repr(dataset)


def test_windows_read_through_a_dataset_are_those_of_the_source(written, arrays):
    dataset = open_dataset(written)
    names = ["action", "observation.state", "observation.image"]
    table = window_table(dataset.episodes.stops, 16, pad_before=1, pad_after=7)
    windows = WindowDataset(
        {name: dataset.column(name) for name in names}, table, horizon=16, n_obs_steps=2
    )
    rows = np.arange(0, len(windows), 13)
    batch, frames = windows.__getitems__(rows), table.frames(rows)
    np.testing.assert_array_equal(batch["action"], arrays["action"][frames])
    np.testing.assert_array_equal(batch["observation.state"], arrays["state"][frames[:, :2]])
    np.testing.assert_array_equal(batch["observation.image"], arrays["img"][frames[:, :2]])


def test_the_public_lerobot_pusht_opens_and_equals_the_zarr(shared_data, pusht_zip):
    dataset = open_dataset(shared_data / "samples" / "lerobot_v30_pusht")
    group = zarr.open_group(zarr.storage.ZipStore(pusht_zip), mode="r")
    np.testing.assert_array_equal(dataset.column("action"), group["data/action"][:])
    np.testing.assert_array_equal(dataset.column("observation.state"), group["data/state"][:, :2])
    np.testing.assert_array_equal(dataset.episodes.stops, group["meta/episode_ends"][:])
    assert dataset.column("next.success").dtype == bool
    assert dataset.column("next.reward").shape == (25_650,)
    assert dataset.episodes.metadata[0] == {} and dataset.episodes.sha256[0] == ""
    assert dataset.episodes.tasks[205] == "Push the T-shaped block onto the T-shaped target."
    with pytest.raises(DataError, match=r"file-000.mp4 is missing"):
        dataset.column("observation.image")


def test_columns_are_found_whatever_kind_of_list_holds_them(small):
    expected = open_dataset(small).column("action")

    def as_lists(table):
        values = pa.array(table["action"].to_pylist(), pa.list_(pa.float32()))
        return table.set_column(table.schema.names.index("action"), "action", [values])

    edit_table(data_file(small, 1), as_lists)
    np.testing.assert_array_equal(open_dataset(small).column("action"), expected)


def test_matrices_keep_their_shape(small):
    def as_matrices(table):
        rows = [[[a, b], [b, a]] for a, b in table["action"].to_pylist()]
        values = pa.array(rows, pa.list_(pa.list_(pa.float32())))
        return table.append_column("pose", values)

    for number in range(2):
        edit_table(data_file(small, number), as_matrices)
    features = json.loads((small / "meta/info.json").read_text())["features"]
    edit_info(small, features=features | {"pose": {"dtype": "float32", "shape": [2, 2]}})
    dataset = open_dataset(small)
    action, pose = dataset.column("action"), dataset.column("pose")
    assert pose.shape == (14, 2, 2)
    np.testing.assert_array_equal(pose[:, 0], action)
    np.testing.assert_array_equal(pose[:, 1], action[:, ::-1])


def test_texts_can_be_read(small):
    for number in range(2):
        edit_table(
            data_file(small, number),
            lambda table: table.append_column("note", pa.array(["go"] * len(table))),
        )
    features = json.loads((small / "meta/info.json").read_text())["features"]
    edit_info(small, features=features | {"note": {"dtype": "string", "shape": [1]}})
    assert open_dataset(small).column("note").tolist() == ["go"] * 14


def test_a_fingerprint_of_foreign_files_changes_with_them_and_only_with_them(small, tmp_path):
    first = open_dataset(small).fingerprint
    copy = shutil.copytree(small, tmp_path / "copy")
    assert len(first) == 64 and open_dataset(copy).fingerprint == first
    edit_table(
        data_file(copy), with_column("action", lambda a: pa.array([[0.0, 0.0]] * len(a), a.type))
    )
    assert open_dataset(copy).fingerprint != first
    assert open_dataset(small).fingerprint == first


def test_a_stored_fingerprint_is_not_believed_once_the_episodes_changed(written, tmp_path):
    def episodes(change):
        return lambda root: edit_table(episodes_file(root), change)

    last = "9" * 64
    changes = {
        "removed": episodes(with_column("sha256", lambda c: [*c.to_pylist()[:-1], None])),
        "replaced": episodes(with_column("sha256", lambda c: [*c.to_pylist()[:-1], last])),
        "dropped": episodes(lambda table: table.drop_columns("sha256")),
        "rate": lambda root: edit_info(root, fps=20),
    }
    for name, change in changes.items():
        copy = shutil.copytree(written, tmp_path / name)
        assert open_dataset(copy).fingerprint == stored_fingerprint(copy)
        change(copy)
        assert open_dataset(copy).fingerprint != stored_fingerprint(copy), name


def test_a_dataset_that_is_still_being_written_has_the_fingerprint_of_its_episodes(
    written, tmp_path, caplog
):
    copy = shutil.copytree(written, tmp_path / "open")
    path = copy / "meta/dp_hub.json"
    provenance = json.loads(path.read_text())
    path.write_text(json.dumps(provenance | {"state": "open", "fingerprint": None}))
    assert open_dataset(copy).fingerprint == provenance["fingerprint"]
    edit_table(episodes_file(copy), lambda table: table.drop_columns("sha256"))
    assert open_dataset(copy).fingerprint not in (None, provenance["fingerprint"])
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def more_rows(root):
    """What an appending writer leaves that was stopped before it wrote meta/info.json."""
    extra = pq.read_table(episodes_file(root)).slice(2)
    pq.write_table(extra, root / "meta/episodes/chunk-000/file-001.parquet")
    shutil.copy(data_file(root, 1), data_file(root, 2))
    video = root / "videos/observation.image/chunk-000/file-007.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"half a video")


def in_the_same_file(root):
    table = pq.read_table(episodes_file(root))
    pq.write_table(pa.concat_tables([table, table.slice(3)]), episodes_file(root))


def half_a_file(root):
    more_rows(root)
    cut(root / "meta/episodes/chunk-000/file-001.parquet")
    data_file(root, 2).write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("interrupt", "words"),
    [
        (more_rows, "an interrupted write left 2 further rows in meta/episodes; ignored"),
        (in_the_same_file, "an interrupted write left 1 further rows"),
        (half_a_file, "file-001.parquet cannot be read as Parquet.*; ignored, no episode"),
    ],
)
def test_what_an_interrupted_write_left_is_ignored(interrupt, words, small, caplog):
    before = open_dataset(small)
    columns, fingerprint = [before.column(name) for name in before.features], before.fingerprint
    interrupt(small)
    caplog.set_level(logging.INFO)
    after = open_dataset(small)
    assert after.n_episodes == 4 and after.episodes.metadata == before.episodes.metadata
    for name, column in zip(after.features, columns, strict=True):
        np.testing.assert_array_equal(after.column(name), column)
    assert after.fingerprint == fingerprint
    assert any(re.search(words, record.getMessage()) for record in caplog.records)


def test_only_the_columns_that_are_needed_are_read_from_the_episode_index(small):
    expected = open_dataset(small).episodes
    path = episodes_file(small)
    histograms = pa.array([bytes(1_000_000)] * 4, pa.binary())
    table = pq.read_table(path).append_column("histogram/observation.image", histograms)
    # A writer may use whatever encoding for a column that nobody here looks at: garbage will do.
    pq.write_table(table, path, compression="none", use_dictionary=False)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(len(table.schema.names) - 1)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset : chunk.data_page_offset + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises((OSError, pa.ArrowException)):
        pq.read_table(path)
    episodes = open_dataset(small).episodes
    assert episodes.tasks == expected.tasks and episodes.sha256 == expected.sha256
    np.testing.assert_array_equal(episodes.stops, expected.stops)


def shuffled(table):
    return table.take(list(reversed(range(len(table)))))


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


BREAKS = {
    "no info": (lambda r: (r / "meta/info.json").unlink(), "is not a dataset: it has no meta"),
    "info no JSON": (lambda r: (r / "meta/info.json").write_text("{"), "is not valid JSON"),
    "version 2": (lambda r: edit_info(r, codebase_version="v2.1"), "version 2.1; v3.0 is read"),
    "no version": (lambda r: edit_info(r, codebase_version=None), "version unknown; v3.0 is read"),
    "no rate": (lambda r: edit_info(r, fps=0), "`fps` in .* is 0, not a rate"),
    "no features": (lambda r: edit_info(r, features=[]), "`features` in .* is "),
    "path as name": (
        lambda r: edit_info(r, features={"../x": {"dtype": "image", "shape": [1]}}),
        "'../x' in meta/info.json is not a feature",
    ),
    "no shape": (
        lambda r: edit_info(r, features={"x": {"dtype": "image", "shape": "big"}}),
        "feature x has the dtype 'image' and the shape 'big'",
    ),
    "frames": (lambda r: edit_info(r, total_frames=15), "total_frames is 15, .* has 14"),
    "fewer episodes": (
        lambda r: edit_info(r, total_episodes=5), "total_episodes is 5, .* has 4"
    ),
    "other frames": (
        lambda r: edit_info(r, total_episodes=3), "total_frames is 14, meta/episodes has 9"
    ),
    "no episodes": (lambda r: edit_info(r, total_episodes=0), "has no episodes"),
    "no index": (lambda r: episodes_file(r).unlink(), "has no episode index"),
    "index cut": (lambda r: cut(episodes_file(r)), "cannot be read as Parquet"),
    "index order": (lambda r: edit_table(episodes_file(r), shuffled), "row 0 .* is episode 3"),
    "index column": (
        lambda r: edit_table(episodes_file(r), lambda t: t.drop_columns("dataset_to_index")),
        "meta/episodes has no column 'dataset_to_index'",
    ),
    "index gap": (
        lambda r: edit_table(
            episodes_file(r), with_column("dataset_from_index", lambda _: pa.array([0, 4, 7, 9]))
        ),
        "episode 1 is frames 4 to 7, the one before ends at 3",
    ),
    "index length": (
        lambda r: edit_table(
            episodes_file(r), with_column("length", lambda _: pa.array([3, 4, 3, 5]))
        ),
        "episode 2 has 2 frames by its bounds, but its length is 3",
    ),
    "index empty": (
        lambda r: edit_table(
            episodes_file(r), with_column("data/file_index", lambda _: pa.array([0, 0, None, 1]))
        ),
        "data/file_index in meta/episodes is empty for 1",
    ),
    "metadata": (
        lambda r: edit_table(
            episodes_file(r), with_column("metadata", lambda _: pa.array(["{}", "x", "{}", "{}"]))
        ),
        "metadata of episode 1 is not valid JSON",
    ),
    "data missing": (lambda r: data_file(r, 1).unlink(), "file-001.parquet is missing"),
    "data cut": (lambda r: cut(data_file(r, 1)), "file-001.parquet cannot be read as Parquet"),
    "data short": (
        lambda r: edit_table(data_file(r, 1), lambda t: t.slice(0, 6)),
        "has 6 rows, but its episodes 2 to 3 have 7 frames",
    ),
    "data order": (
        lambda r: edit_table(data_file(r, 1), shuffled),
        "is not in order: index is 13 in the row of frame 7, not 7",
    ),
    "other episode": (
        lambda r: edit_table(
            data_file(r), with_column("episode_index", lambda c: pa.array([0] * len(c)))
        ),
        "episode_index is 0 in the row of frame 3, not 1",
    ),
    "no column": (
        lambda r: edit_table(data_file(r, 1), lambda t: t.drop_columns("action")),
        "file-001.parquet has no column for the feature action",
    ),
    "template": (lambda r: edit_info(r, data_path="../{file_index}"), "leads out of the dataset"),
    "formatting": (
        lambda r: edit_info(r, data_path="{file_index.__class__}"), "has the path template"
    ),
    "fingerprint": (
        lambda r: (r / "meta/dp_hub.json").write_text('{"fingerprint": "../../x"}'),
        "has the fingerprint '../../x', not a sha256",
    ),
    "no fingerprint": (
        lambda r: (r / "meta/dp_hub.json").write_text('{"fingerprint": null}'),
        "has the fingerprint None, not a sha256",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_dataset_that_is_not_whole_does_not_open(name, small):
    change, words = BREAKS[name]
    open_dataset(small)
    change(small)
    with pytest.raises(DataError, match=words):
        open_dataset(small)


COLUMN_BREAKS = {
    "empty entry": (
        lambda c: pa.array([[1.0, 2.0], None, *c.to_pylist()[2:]], c.type),
        "action in .* has 1 empty entries",
    ),
    "ragged": (
        lambda c: pa.array([[1.0], [1.0, 2.0, 3.0], *c.to_pylist()[2:]], pa.list_(pa.float32())),
        "has from 1 to 3 numbers a frame",
    ),
    "narrow": (
        lambda c: pa.array([row[:1] for row in c.to_pylist()]),
        r"has 1 numbers a frame; .* shape is \[2\]",
    ),
    "text": (lambda c: pa.array([["a", "b"]] * len(c)), "is object; meta/info.json says float32"),
}


@pytest.mark.parametrize("name", COLUMN_BREAKS)
def test_a_column_that_does_not_fit_its_feature_is_refused(name, small):
    change, words = COLUMN_BREAKS[name]
    edit_table(data_file(small), with_column("action", change))
    with pytest.raises(DataError, match=words):
        open_dataset(small).column("action")


def test_damage_inside_a_data_file_is_told(small):
    path = data_file(small)
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"file-000.parquet is damaged"):
        open_dataset(small).column("action")


def test_unknown_features_and_types_are_named(small):
    dataset = open_dataset(small)
    with pytest.raises(DataError, match=r"no feature 'reward'[^$]*it has: action"):
        dataset.column("reward")
    with pytest.raises(DataError, match="action holds float32 numbers, not pictures"):
        dataset.cached_frames("action")
    features = json.loads((small / "meta/info.json").read_text())["features"]
    features["action"]["dtype"] = "float31"
    edit_info(small, features=features)
    with pytest.raises(DataError, match="action is of the unknown type 'float31'"):
        open_dataset(small).column("action")


def test_a_folder_has_no_revision(small):
    with pytest.raises(DataError, match="is a folder, which has no revision 'data-v1'"):
        open_dataset(small, revision="data-v1")


def test_a_folder_without_a_dataset_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match="it has no meta"):
        open_dataset(tmp_path)


def test_a_name_that_is_neither_folder_nor_on_a_hub_is_told(tmp_path):
    with pytest.raises(DataError, match=r"no folder nowhere, [^$]*user/name@revision"):
        open_dataset("nowhere")
    with pytest.raises(DataError, match="there is no folder"):
        open_dataset(tmp_path / "a" / "b")


READ_FROM_HUB = """
import sys
from dp_hub import open_dataset
from dp_hub.hub import push
one, other = sys.argv[1:]
first = push(one, "me/pusht", license="mit")
pushed = [first, push(other, "me/pusht", onto=first.tag)]
for name, revision in (
    ("me/pusht", None), ("me/pusht", first.tag), (f"me/pusht@{first.sha}", None)
):
    dataset = open_dataset(name, revision=revision)
    which = [p.sha for p in pushed].index(dataset.revision)
    print(dataset.repo_id, which, dataset.n_episodes, dataset.column("action").sum())
"""


def test_a_dataset_on_the_hub_is_read_at_the_revision_asked_for(small, tmp_path):
    more = write_dataset(
        tmp_path / "more", {"action": np.ones((9, 2), np.float32)}, np.array([4, 9])
    )
    with LocalHub(tmp_path / "hub") as hub:
        done = subprocess.run(
            [sys.executable, "-c", READ_FROM_HUB, str(small), str(more)],
            env=os.environ | hub.env | {"HF_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "me/pusht 1 2 18.0",
        "me/pusht 0 4 378.0",
        "me/pusht 0 4 378.0",
    ]


@pytest.mark.parametrize("images", ["webp", "video"])
def test_what_convert_writes_opens_and_equals_the_source(
    images, arrays, pusht_first5_zip, tmp_path
):
    written = convert("zarr", pusht_first5_zip, tmp_path / "converted", images=images).written
    dataset = open_dataset(written.path)
    assert dataset.fingerprint == written.fingerprint == stored_fingerprint(written.path)
    for name, expected in columns_of(arrays).items():
        if not name.startswith("next."):
            assert dataset.column(name).tobytes() == expected.tobytes()
    frames = dataset.column("observation.image")
    if images == "webp":
        np.testing.assert_array_equal(frames, arrays["img"])
    else:
        assert np.abs(frames - arrays["img"].astype(np.float32)).mean() < 1.5
    assert all(len(sha256) == 64 for sha256 in dataset.episodes.sha256)
