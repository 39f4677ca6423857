"""The dataset on disk: every rule whose breach LeRobot and the Hub's viewers let pass silently."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dp_hub.dataset import writer as writer_module
from dp_hub.dataset.features import fingerprint_header, plan_columns
from dp_hub.dataset.hashing import fingerprint
from dp_hub.dataset.images import decode_image
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode

LENGTHS = (7, 3, 12)


def make_episodes(lengths=LENGTHS, *, size=16, seed=0):
    rng = np.random.default_rng(seed)
    for i, n in enumerate(lengths):
        yield Episode(
            {
                "action": rng.normal(size=(n, 2)).astype(np.float32),
                "state": rng.normal(size=(n, 5)),
                "done": np.arange(n) == n - 1,
                "img": rng.integers(0, 256, (n, size, size, 3)).astype(np.uint8),
            },
            task="push" if i % 2 == 0 else "pull ü",
            metadata={"seed": i, "success": True},
        )


def write(target, episodes=None, **options):
    episodes = list(episodes or make_episodes())
    images = options.pop("images", "auto")
    columns = plan_columns(episodes[0].data, images=images)
    with DatasetWriter(target, columns, fps=options.pop("fps", 10), **options) as writer:
        for episode in episodes:
            writer.add_episode(episode)
        return writer.finish()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    target = tmp_path_factory.mktemp("writer") / "ds"
    write(target, source={"converter": "zarr", "file": "x.zarr.zip"}, robot_type="sim")
    return target


def frames(dataset):
    return pq.read_table(dataset / "data/chunk-000/file-000.parquet")


def rows(dataset):
    return pq.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet")


def info(dataset):
    return json.loads((dataset / "meta/info.json").read_text())


def test_tasks_text_is_the_pandas_index_and_row_i_is_task_i(dataset):
    tasks = pq.read_table(dataset / "meta/tasks.parquet").to_pandas()
    assert tasks.index.name == "task"
    assert [tasks.iloc[i].name for i in range(2)] == ["push", "pull ü"]
    assert tasks["task_index"].tolist() == [0, 1]


def test_episode_rows_are_in_order_with_every_location_column(dataset):
    table = rows(dataset)
    expected = [
        *("episode_index", "tasks", "length", "data/chunk_index", "data/file_index"),
        *("dataset_from_index", "dataset_to_index"),
    ]
    assert table.column_names[: len(expected)] == expected
    assert table.column_names[-4:] == [
        *("meta/episodes/chunk_index", "meta/episodes/file_index", "sha256", "metadata")
    ]
    assert table["episode_index"].to_pylist() == [0, 1, 2]
    assert table["tasks"].to_pylist() == [["push"], ["pull ü"], ["push"]]
    assert table["dataset_from_index"].to_pylist() == [0, 7, 10]
    assert table["dataset_to_index"].to_pylist() == [7, 10, 22]
    assert json.loads(table["metadata"][2].as_py()) == {"seed": 2, "success": True}


def test_every_feature_has_all_ten_statistics_per_episode(dataset):
    table, features = rows(dataset), info(dataset)["features"]
    stats = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")
    assert len(features) == 9
    for feature in features:
        assert all(f"stats/{feature}/{stat}" in table.column_names for stat in stats)
    assert table["stats/action/count"].to_pylist() == [[7], [3], [12]]
    assert np.shape(table["stats/observation.image/mean"][0].as_py()) == (3, 1, 1)
    first = next(make_episodes()).data
    np.testing.assert_allclose(
        table["stats/observation.state/q10"][0].as_py(), np.quantile(first["state"], 0.1, axis=0)
    )


def test_parquet_carries_the_hubs_schema(dataset):
    metadata = json.loads(frames(dataset).schema.metadata[b"huggingface"])
    features = metadata["info"]["features"]
    assert features["observation.image"] == {"_type": "Image"}
    assert features["observation.state"]["length"] == 5
    assert features["index"] == {"dtype": "int64", "_type": "Value"}


def test_columns_are_exactly_the_declared_features(dataset):
    assert sorted(frames(dataset).column_names) == sorted(info(dataset)["features"])


def test_one_row_group_per_episode(dataset):
    file = pq.ParquetFile(dataset / "data/chunk-000/file-000.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == list(LENGTHS)


def test_vectors_are_fixed_size_lists_and_scalars_plain(dataset):
    schema = frames(dataset).schema
    assert schema.field("action").type == pa.list_(pa.float32(), 2)
    assert schema.field("observation.state").type == pa.list_(pa.float64(), 5)
    assert schema.field("done").type == pa.bool_()


def test_timestamps_are_frame_number_over_fps(dataset):
    table = frames(dataset)
    frame = table["frame_index"].to_numpy()
    assert frame.tolist() == [i for n in LENGTHS for i in range(n)]
    expected = (frame / 10).astype(np.float32)
    np.testing.assert_array_equal(table["timestamp"].to_numpy(), expected)
    assert table["timestamp"].type == pa.float32()
    assert table["index"].to_pylist() == list(range(22))
    assert table["task_index"].to_pylist() == [0] * 7 + [1] * 3 + [0] * 12


def test_compression_is_one_browsers_can_read(dataset):
    group = pq.ParquetFile(dataset / "data/chunk-000/file-000.parquet").metadata.row_group(0)
    kinds = {group.column(i).compression for i in range(group.num_columns)}
    assert kinds == {"SNAPPY", "UNCOMPRESSED"}


def test_info_states_what_loaders_need(dataset):
    found = info(dataset)
    assert found["codebase_version"] == "v3.0"
    assert (found["fps"], found["robot_type"]) == (10, "sim")
    totals = [found[f"total_{what}"] for what in ("episodes", "frames", "tasks")]
    assert totals == [3, 22, 2]
    assert found["splits"] == {"train": "0:3"}
    assert found["video_path"] is None
    image = found["features"]["observation.image"]
    assert image["dtype"] == "image"
    assert image["names"] == ["height", "width", "channels"]
    assert found["features"]["observation.state"]["names"][4] == "state_4"


def test_dataset_statistics_are_over_all_frames(dataset):
    stats = json.loads((dataset / "meta/stats.json").read_text())
    whole = np.concatenate([e.data["state"] for e in make_episodes()])
    np.testing.assert_allclose(stats["observation.state"]["std"], whole.std(axis=0))
    np.testing.assert_allclose(stats["observation.state"]["q90"], np.quantile(whole, 0.9, axis=0))
    assert stats["action"]["count"] == [22]
    pictures = np.concatenate([e.data["img"] for e in make_episodes()]) / 255
    mean = np.array(stats["observation.image"]["mean"])
    assert mean.shape == (3, 1, 1)
    np.testing.assert_allclose(mean.ravel(), pictures.mean(axis=(0, 1, 2)))


def test_pictures_are_webp_and_bit_equal(dataset):
    cells = frames(dataset)["observation.image"].to_pylist()
    whole = np.concatenate([e.data["img"] for e in make_episodes()])
    assert len(cells) == len(whole)
    for cell, picture in zip(cells, whole, strict=True):
        assert cell["bytes"][8:12] == b"WEBP"
        np.testing.assert_array_equal(decode_image(cell["bytes"], (16, 16, 3)), picture)


def test_card_keeps_metadata_tables_out_of_the_data(dataset):
    text = (dataset / "README.md").read_text()
    assert text.startswith("---\n")
    assert "data_files: data/*/*.parquet" in text


def test_datasets_loads_the_folder_with_equal_values(dataset, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(dataset), split="train", cache_dir=str(tmp_path))
    assert loaded.num_rows == 22
    assert loaded.features["action"].length == 2
    whole = {k: np.concatenate([e.data[k] for e in make_episodes()]) for k in ("action", "img")}
    np.testing.assert_array_equal(np.array(loaded["action"][:], np.float32), whole["action"])
    np.testing.assert_array_equal(np.asarray(loaded[21]["observation.image"]), whole["img"][21])
    files = str(dataset / "data/*/*.parquet")
    again = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path)
    )
    assert again[9]["timestamp"] == np.float32(0.2)


def test_provenance_names_keys_and_fingerprint(dataset):
    found = json.loads((dataset / "meta/dp_hub.json").read_text())
    assert found["format"] == 1
    assert found["source"] == {"converter": "zarr", "file": "x.zarr.zip"}
    assert found["keys"]["img"] == {
        "feature": "observation.image",
        "shape": [16, 16, 3],
        "dtype": "uint8",
        "encoding": "webp",
    }
    assert found["license"] is None
    columns = plan_columns(next(make_episodes()).data)
    hashes = rows(dataset)["sha256"].to_pylist()
    assert found["fingerprint"] == fingerprint(fingerprint_header(columns, 10), hashes)


def test_fingerprint_is_of_content_not_of_encoding(tmp_path):
    webp, png = (write(tmp_path / kind, images=kind) for kind in ("webp", "png"))
    assert webp.fingerprint == png.fingerprint
    changed = list(make_episodes())
    changed[1].data["action"][0, 0] += 1e-6
    assert write(tmp_path / "other", changed).fingerprint != webp.fingerprint
    assert write(tmp_path / "fps", fps=20).fingerprint != webp.fingerprint


def test_episode_hash_is_the_documented_one(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    columns = plan_columns({"action": values})
    with DatasetWriter(tmp_path / "ds", columns, fps=10) as writer:
        found = writer.add_episode(Episode({"action": values}, task="go"))
    header = {"features": [["action", "float32", [2]]], "length": 3, "task": "go"}
    expected = hashlib.sha256(json.dumps(header, sort_keys=True).encode() + values.tobytes())
    assert found == expected.hexdigest()


def test_full_files_roll_over_gapless(tmp_path, monkeypatch):
    shards = writer_module.ParquetShards
    monkeypatch.setattr(
        writer_module,
        "ParquetShards",
        lambda *args: shards(*args, limit_bytes=1),
    )
    monkeypatch.setattr(writer_module, "_ROWS_PER_FLUSH", 2)
    write(tmp_path / "ds")
    names = sorted(str(p.relative_to(tmp_path / "ds")) for p in tmp_path.rglob("*.parquet"))
    assert names == [
        *(f"data/chunk-000/file-00{i}.parquet" for i in range(3)),
        *(f"meta/episodes/chunk-000/file-00{i}.parquet" for i in range(2)),
        "meta/tasks.parquet",
    ]
    tables = [
        pq.read_table(tmp_path / f"ds/meta/episodes/chunk-000/file-00{i}.parquet") for i in (0, 1)
    ]
    table = pa.concat_tables(tables)
    assert table["data/file_index"].to_pylist() == [0, 1, 2]
    assert table["meta/episodes/file_index"].to_pylist() == [0, 0, 1]


def test_nan_in_an_action_names_key_episode_and_step_and_leaves_nothing(tmp_path):
    episodes = list(make_episodes())
    episodes[1].data["action"][2, 0] = np.nan
    with pytest.raises(DataError, match=r"action of episode 1 .* at step 2"):
        write(tmp_path / "ds", episodes)
    assert list(tmp_path.iterdir()) == []


def test_nan_elsewhere_is_kept_and_told(tmp_path):
    episodes = list(make_episodes())
    episodes[1].data["state"][2, 0] = np.inf
    assert write(tmp_path / "ds", episodes).nonfinite == {"observation.state": 1}
    stats = json.loads((tmp_path / "ds/meta/stats.json").read_text())
    assert np.isfinite(stats["observation.state"]["max"]).all()


def test_leaving_without_finishing_leaves_nothing(tmp_path):
    columns = plan_columns(next(make_episodes()).data)
    with pytest.raises(KeyboardInterrupt), DatasetWriter(tmp_path / "ds", columns, fps=10) as w:
        w.add_episode(next(make_episodes()))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_existing_target_is_refused_and_kept(tmp_path):
    (tmp_path / "ds").mkdir()
    with pytest.raises(DataError, match="already exists"):
        write(tmp_path / "ds")
    assert list(tmp_path.iterdir()) == [tmp_path / "ds"]


def test_episode_of_another_shape_is_refused(tmp_path):
    episodes = [*make_episodes((4,)), *make_episodes((4,), size=20)]
    with pytest.raises(DataError, match="img of episode 1"):
        write(tmp_path / "ds", episodes)


def test_no_episodes_is_an_error(tmp_path):
    columns = plan_columns(next(make_episodes()).data)
    with (
        pytest.raises(DataError, match="no episodes"),
        DatasetWriter(tmp_path / "ds", columns, fps=10) as writer,
    ):
        writer.finish()
