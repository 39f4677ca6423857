"""Datasets as other programs write them: what is merely different is no fault, and what is missing
is made by --fix so that the strict reader takes the result."""

import json
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checks_helpers import (
    LENGTHS,
    as_others_write,
    copy,
    edit_data,
    edit_json,
    edit_rows,
    examined,
    healthy_episodes,
    ids,
    write_episodes,
)
from plain_dataset import write_dataset

from dp_hub.dataset.checks.fix import fix
from dp_hub.dataset.reader import open_dataset
from dp_hub.dataset.stats import picture_counts

INFO = "meta/info.json"


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("others") / "healthy"
    return as_others_write(write_episodes(root, healthy_episodes()))


def other_types(root, change):
    """Give columns of data/ other Arrow types."""

    def apply(table):
        for name, kind in change.items():
            at = table.schema.get_field_index(name)
            table = table.set_column(at, name, pa.array(table[name].to_pylist(), kind))
        return table

    edit_data(root, apply)


def test_lists_of_any_length_and_large_strings_are_taken(healthy, tmp_path):
    root = copy(healthy, tmp_path / "ds")
    lists = pa.list_(pa.float32())
    other_types(root, {"observation.state": lists, "action": pa.large_list(pa.float32())})
    assert not ids(examined(root), "fail")


def test_lists_of_changing_length_are_found(healthy, tmp_path):
    root = copy(healthy, tmp_path / "ds")

    def apply(table):
        values = table["action"].to_pylist()
        values[50] = values[50] + [1.0]
        at = table.schema.get_field_index("action")
        return table.set_column(at, "action", pa.array(values, pa.list_(pa.float32())))

    edit_data(root, apply)
    report = examined(root)
    assert ids(report, "fail") == {"STRUCT-012"}
    assert any("action" in text for text in report.unchecked)


def test_nested_names_and_channels_first_are_taken(healthy, tmp_path):
    root = copy(healthy, tmp_path / "ds")

    def change(info):
        info["features"]["action"]["names"] = [["x", "y"]]
        info["features"]["observation.state"]["names"] = {"motors": ["x", "y", "z"]}
        camera = info["features"]["observation.image"]
        camera["shape"], camera["names"] = [3, 16, 16], ["channels", "height", "width"]

    edit_json(root, INFO, change)
    report = examined(root)
    assert not ids(report, "fail")
    assert report.facts["action_leads_frames"] == 2
    assert "action.x" in report.facts["max_step"]


def test_several_row_groups_cut_anywhere_are_taken(healthy, tmp_path):
    root = copy(healthy, tmp_path / "ds")
    path = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=17)
    assert ids(examined(root)) == {"SUM-003"}


def test_further_columns_of_episodes_and_keys_of_info_are_taken_and_kept(healthy, tmp_path):
    root = copy(healthy, tmp_path / "ds")
    edit_json(root, INFO, lambda info: info.update(robot_weight_kg=3, total_frames=1))
    success = pa.array([True, False] * 3)
    edit_rows(root, lambda rows: rows.append_column("success", success))
    report = examined(root)
    assert ids(report, "fail") == {"STRUCT-007"}
    new = fix(root, tmp_path / "new", report).path
    rows = pq.read_table(new / "meta/episodes/chunk-000/file-000.parquet")
    assert rows["success"].to_pylist() == [True, False] * 3
    assert '"robot_weight_kg": 3' in (new / INFO).read_text()


@pytest.mark.parametrize("images", ["WEBP", "video"])
def test_a_bare_dataset_is_completed(tmp_path, images):
    """Written with pyarrow and PyAV alone: no tasks, no statistics, no card, no counts of tasks."""
    episodes = healthy_episodes(32)
    columns = {
        "action": np.concatenate([e["action"] for e in episodes]),
        "observation.state": np.concatenate([e["state"] for e in episodes]),
        "observation.image": np.concatenate([e["img"] for e in episodes]),
    }
    video = {"codec": "libx264"} if images == "video" else None
    root = write_dataset(
        tmp_path / "ds", columns, np.cumsum(LENGTHS), video=video, fingerprint=False
    )
    report = examined(root)
    assert ids(report, "fail") == {"TASK-001"}
    assert {"STATS-001", "CARD-001", "STRUCT-019"} <= ids(report, "warn")
    fixed = fix(root, tmp_path / "new", report)
    after = examined(fixed.path)
    assert not ids(after, "fail")
    # Statistics of the pictures would need their pixels.
    assert ids(after, "warn") == {"STATS-005", "CARD-002"}
    assert any("observation.image" in text for text in fixed.left)
    old, new = open_dataset(root), open_dataset(fixed.path)
    assert np.array_equal(old.column("action"), new.column("action"))
    assert new.episodes.tasks == ["push"] * len(LENGTHS)
    names = pq.read_schema(fixed.path / "meta/tasks.parquet").pandas_metadata["index_columns"]
    assert names == ["task"]
    videos = sorted(p.relative_to(root) for p in (root / "videos").rglob("*.mp4"))
    assert len(videos) == (2 if video else 0)
    for name in videos:
        assert (fixed.path / name).stat().st_ino == (root / name).stat().st_ino


def test_statistics_of_pictures_are_merged_from_the_histograms_of_episodes(healthy, tmp_path):
    """As dp_hub keeps them: zlib-compressed int32 (C, 256) for each episode."""
    root = copy(healthy, tmp_path / "ds")
    before = json.loads((root / "meta/stats.json").read_text())["observation.image"]
    blobs = []
    for episode in healthy_episodes():
        counts, _ = picture_counts(episode["img"])
        blobs.append(zlib.compress(counts.astype("<i4").tobytes()))
    name = "histogram/observation.image"
    have = pq.read_schema(root / "meta/episodes/chunk-000/file-000.parquet").names
    if name not in have:
        edit_rows(root, lambda rows: rows.append_column(name, pa.array(blobs, pa.binary())))
    (root / "meta/stats.json").unlink()
    new = fix(root, tmp_path / "new", examined(root)).path
    after = json.loads((new / "meta/stats.json").read_text())["observation.image"]
    assert after.keys() == before.keys()
    for key in before:
        assert np.allclose(after[key], before[key], atol=1e-9), key
    assert ids(examined(new)) == set()


def test_without_histograms_moments_are_merged_and_quantiles_left_out(healthy, tmp_path):
    root = copy(healthy, tmp_path / "ds")
    before = json.loads((root / "meta/stats.json").read_text())["observation.image"]
    name = "histogram/observation.image"
    edit_rows(root, lambda r: r.drop_columns([name]) if name in r.schema.names else r)
    (root / "meta/stats.json").unlink()
    new = fix(root, tmp_path / "new", examined(root)).path
    after = json.loads((new / "meta/stats.json").read_text())["observation.image"]
    assert after.keys() == {"min", "max", "mean", "std", "count"}
    for key in after:
        assert np.allclose(after[key], before[key], atol=1e-6), key
    assert ids(examined(new)) == {"STATS-006"}


def test_undeclared_pictures_and_vectors_are_declared_as_they_are(healthy, tmp_path):
    root = copy(healthy, tmp_path / "ds")
    before = json.loads((root / INFO).read_text())["features"]
    for name in ("observation.image", "action"):
        edit_json(root, INFO, lambda info, name=name: info["features"].pop(name))
    report = examined(root)
    assert ids(report, "fail") == {"STRUCT-011"}
    new = fix(root, tmp_path / "new", report).path
    after = json.loads((new / INFO).read_text())["features"]
    for name in ("observation.image", "action"):
        for key in ("dtype", "shape"):
            assert after[name][key] == before[name][key]
    assert not ids(examined(new), "fail")
