"""Valid v3.0 datasets that other tools write in other ways than dp_hub: all of them open."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from plain_dataset import write_dataset

from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError

NAME = "observation.images.top"
ENDS = np.array([20, 21, 40])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def columns(pusht_first5_zip):
    """Forty real frames."""
    group = zarr.open_group(zarr.storage.ZipStore(pusht_first5_zip), mode="r")
    return {
        "action": group["data/action"][:240:6],
        "observation.state": group["data/state"][:240:6],
        NAME: group["data/img"][:240:6],
    }


@pytest.fixture
def dataset(tmp_path, columns):
    """Three episodes with embedded pictures in two files, without anything of dp_hub."""
    return write(tmp_path / "dataset", columns)


@pytest.fixture
def videos(tmp_path, columns):
    return write(tmp_path / "dataset", columns, video={"codec": "libx264", "gop": 12})


def write(root, columns, **options):
    options = {"episodes_per_file": 2, "fingerprint": False, "images": "PNG"} | options
    root = write_dataset(root, columns, ENDS, **options)
    episodes = root / "meta/episodes/chunk-000/file-000.parquet"
    edit_table(episodes, lambda table: table.drop_columns(["sha256", "metadata"]))
    return root


def edit_info(root, **changes):
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_feature(root, **changes):
    features = json.loads((root / "meta/info.json").read_text())["features"]
    edit_info(root, features=features | {NAME: features[NAME] | changes})


def edit_table(path, change):
    pq.write_table(change(pq.read_table(path)), path)


def edit_data(root, change):
    files = sorted((root / "data").rglob("*.parquet"))
    assert len(files) == 2
    for path in files:
        edit_table(path, change)


def edit_episodes(root, change):
    edit_table(root / "meta/episodes/chunk-000/file-000.parquet", change)


def replaced(name, kind):
    """A change of a table: the column as another Arrow type."""

    def change(table):
        values = pa.array(table[name].to_pylist(), kind)
        return table.set_column(table.schema.names.index(name), name, [values])

    return change


def assert_reads(root, columns):
    opened = open_dataset(root)
    for name in ("action", "observation.state"):
        column = opened.column(name)
        assert column.dtype == np.float32 and column.flags.c_contiguous
        np.testing.assert_array_equal(column, columns[name])
    pictures = opened.column(NAME)
    assert pictures.shape == columns[NAME].shape
    if opened.features[NAME].dtype == "image":
        np.testing.assert_array_equal(pictures, columns[NAME])
    else:
        assert np.abs(pictures - columns[NAME].astype(np.float32)).mean() < 4
    return opened


KINDS_OF_LISTS = {
    "lists": pa.list_(pa.float32()),
    "large lists": pa.large_list(pa.float32()),
    "lists of one length": pa.list_(pa.float32(), 2),
    "doubles": pa.list_(pa.float64()),
}


@pytest.mark.parametrize("kind", KINDS_OF_LISTS)
def test_vectors_may_be_lists_of_any_kind(kind, dataset, columns):
    edit_data(dataset, replaced("action", KINDS_OF_LISTS[kind]))
    assert_reads(dataset, columns)


def test_pictures_may_be_large_binaries_with_paths_and_columns_in_another_order(dataset, columns):
    kind = pa.struct({"path": pa.string(), "bytes": pa.large_binary()})
    edit_data(dataset, replaced(NAME, kind))
    edit_data(dataset, lambda table: table.select(sorted(table.schema.names, reverse=True)))
    assert_reads(dataset, columns)


def test_index_columns_may_be_of_smaller_integers_and_dictionaries(dataset, columns):
    for name in ("index", "episode_index", "frame_index"):
        edit_data(dataset, replaced(name, pa.int32()))
    edit_episodes(dataset, replaced("dataset_from_index", pa.int32()))
    edit_episodes(dataset, replaced("data/file_index", pa.int8()))
    assert_reads(dataset, columns)


def test_columns_that_no_feature_names_and_unknown_facts_do_no_harm(dataset, columns):
    edit_data(dataset, lambda t: t.append_column("extra", pa.array(["x"] * len(t))))
    edit_episodes(dataset, lambda t: t.append_column("success", pa.array([True, False, None])))
    edit_info(dataset, tools=["a"], robot_type=None, splits={"train": "0:3"}, total_tasks=1)
    assert_reads(dataset, columns)


@pytest.mark.parametrize("version", ["v3.0", "3.0", "v3.1"])
def test_the_version_and_the_rate_may_be_spelled_otherwise(version, videos, columns):
    edit_info(videos, codebase_version=version, fps=10.0)
    assert assert_reads(videos, columns).fps == 10.0


def test_files_may_lie_elsewhere(videos, columns):
    (videos / "data").rename(videos / "rows")
    (videos / "rows/chunk-000").rename(videos / "rows/0")
    for path in sorted((videos / "rows/0").iterdir()):
        path.rename(path.with_name(f"{int(path.stem.split('-')[1])}.parquet"))
    shutil.move(videos / f"videos/{NAME}/chunk-000", videos / f"films-{NAME}-c0")
    edit_info(
        videos,
        data_path="rows/{chunk_index}/{file_index}.parquet",
        video_path="films-{video_key}-c{chunk_index}/file-{file_index:03d}.mp4",
    )
    assert_reads(videos, columns)


def test_absent_path_templates_are_the_usual_ones(videos, columns):
    edit_info(videos, data_path=None, video_path=None)
    assert_reads(videos, columns)


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1", "libx265"])
@pytest.mark.parametrize("gop", [1, 2, 250])
def test_videos_of_any_codec_and_any_distance_of_key_frames(codec, gop, tmp_path, columns):
    quiet = {"libx265": {"x265-params": "log-level=none"}, "libsvtav1": {"preset": "12"}}
    video = {"codec": codec, "gop": gop, "options": quiet.get(codec, {})}
    assert_reads(write(tmp_path / "other", columns, video=video), columns)


SHAPES = {
    "channels first": ([3, 96, 96], ["channels", "height", "width"]),
    "channel first": ([3, 96, 96], ["channel", "height", "width"]),
    "c first": ([3, 96, 96], ["C", "H", "W"]),
    "first without names": ([3, 96, 96], None),
    "last without names": ([96, 96, 3], None),
    "names that do not fit": ([96, 96, 3], ["channels", "height", "width"]),
    "nor do these": ([3, 96, 96], ["height", "width", "channel"]),
}


@pytest.mark.parametrize("which", SHAPES)
def test_pictures_are_found_whichever_axis_holds_the_channels(which, videos, columns):
    shape, names = SHAPES[which]
    edit_feature(videos, shape=shape, names=names)
    assert_reads(videos, columns)


def no_tasks(table):
    return table.drop_columns("tasks")


def write_tasks(root, texts, name="task"):
    path = root / "meta/tasks.parquet"
    pq.write_table(pa.table({"task_index": list(range(len(texts))), name: texts}), path)


def test_tasks_of_an_episode_may_be_one_text_or_several(dataset):
    edit_episodes(dataset, lambda t: t.set_column(
        t.schema.names.index("tasks"), "tasks", [pa.array([["a", "b"], [], None])]
    ))  # fmt: skip
    assert open_dataset(dataset).episodes.tasks == ["a; b", "", ""]
    edit_episodes(dataset, lambda t: t.set_column(
        t.schema.names.index("tasks"), "tasks", [pa.array(["push", "pull", None])]
    ))  # fmt: skip
    assert open_dataset(dataset).episodes.tasks == ["push", "pull", ""]


@pytest.mark.parametrize("name", ["task", "__index_level_0__"])
def test_tasks_missing_from_the_index_are_found_by_the_frames(name, dataset):
    edit_episodes(dataset, no_tasks)
    assert open_dataset(dataset).episodes.tasks == ["", "", ""]
    numbers = {0: 1, 1: 0, 2: 1}

    def by_episode(table):
        values = [numbers[number] for number in table["episode_index"].to_pylist()]
        position = table.schema.names.index("task_index")
        return table.set_column(position, "task_index", [pa.array(values)])

    edit_data(dataset, by_episode)
    write_tasks(dataset, ["pull", "push"], name)
    assert open_dataset(dataset).episodes.tasks == ["push", "pull", "push"]
    write_tasks(dataset, ["pull"], name)
    with pytest.raises(DataError, match=r"tasks.parquet has no task 1, but there are frames"):
        open_dataset(dataset)
    write_tasks(dataset, ["pull", "push"], "text")
    with pytest.raises(DataError, match=r"has the columns .*'text'.*, not `task` and"):
        open_dataset(dataset)


def test_several_files_of_the_episode_index_may_differ_in_what_else_they_hold(dataset, columns):
    path = dataset / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 1), path)
    rest = table.slice(1).append_column("success", pa.array([True, False]))
    pq.write_table(rest, path.with_name("file-001.parquet"))
    opened = assert_reads(dataset, columns)
    np.testing.assert_array_equal(opened.episodes.stops, ENDS)
