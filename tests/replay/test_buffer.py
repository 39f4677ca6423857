"""Replay buffers: what reads back, and what is refused and why."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from dp_hub.errors import DataError
from dp_hub.replay.buffer import ReplayWriter, open_replay, write_replay, write_replay_zip
from dp_hub.replay.episode import Episode


def episodes(lengths=(5, 9, 3), seed=0):
    rng = np.random.default_rng(seed)
    for n in lengths:
        yield {
            "action": rng.normal(size=(n, 2)).astype(np.float32),
            "pose": rng.normal(size=(n, 3, 3)),
            "flag": rng.integers(0, 2, n).astype(bool),
            "img": rng.integers(0, 256, (n, 16, 12, 3)).astype(np.uint8),
        }


def make_zarr(path, *, ends=(5, 14), rows=14, zarr_format=2, chunks=4, **arrays):
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    data = {"action": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2) + 1, **arrays}
    for key, value in data.items():
        array = root.create_array(
            f"data/{key}", shape=value.shape, chunks=(chunks, *value.shape[1:]), dtype=value.dtype
        )
        array[:] = value
    ends_array = root.create_array("meta/episode_ends", shape=(len(ends),), dtype=np.int64)
    ends_array[:] = np.array(ends)
    return path


def assert_equal(found, expected):
    expected = list(expected)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            assert one[key].dtype == value.dtype
            np.testing.assert_array_equal(one[key], value)


@pytest.mark.parametrize("name", ["out.zarr.zip", "out.zarr"])
def test_written_replay_reads_back_bit_for_bit(tmp_path, name):
    write_replay(tmp_path / name, episodes(), {"fps": 10})
    buffer = open_replay(tmp_path / name)
    assert buffer.attrs == {"fps": 10}
    assert buffer.episode_ends.dtype == np.int64
    assert buffer.episode_ends.tolist() == [5, 14, 17]
    assert_equal(list(buffer.episodes(["action", "pose", "flag", "img"])), episodes())


def test_written_zip_is_plain_zarr_v2_for_zarr_itself(tmp_path):
    path = write_replay_zip(tmp_path / "a.zarr.zip", episodes(), {"note": "x"})
    root = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r", zarr_format=2)
    whole = np.concatenate([e["pose"] for e in episodes()])
    np.testing.assert_array_equal(root["data/pose"][:], whole)
    config = json.loads(zipfile.ZipFile(path).read("data/pose/.zarray"))["compressor"]
    assert (config["id"], config["cname"], config["shuffle"]) == ("blosc", "zstd", 2)


def test_same_episodes_make_the_same_zip(tmp_path):
    one = write_replay_zip(tmp_path / "a.zarr.zip", episodes(), {})
    two = write_replay_zip(tmp_path / "b.zarr.zip", episodes(), {})
    assert one.read_bytes() == two.read_bytes()


def test_rows_longer_than_a_chunk_are_split_and_read_back(tmp_path):
    long = [{"x": np.random.default_rng(i).normal(size=(700, 900))} for i in range(2)]
    buffer = open_replay(write_replay(tmp_path / "a.zarr", long, {}))
    np.testing.assert_array_equal(buffer.read("x", 690, 710)[:10], long[0]["x"][690:])
    assert_equal(list(buffer.episodes()), long)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("chunks", [1, 4, 100])
def test_zarr_versions_and_chunkings_read_alike(tmp_path, zarr_format, chunks):
    path = make_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, chunks=chunks)
    buffer = open_replay(path)
    whole = np.concatenate([e["action"] for e in buffer.episodes()])
    np.testing.assert_array_equal(whole, np.arange(28, dtype=np.float32).reshape(14, 2) + 1)


def test_group_one_folder_down_in_a_zip_is_found(tmp_path):
    folder = make_zarr(tmp_path / "inner.zarr")
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"inner.zarr/{file.relative_to(folder)}")
    assert open_replay(path).episode_ends.tolist() == [5, 14]


def test_nested_arrays_are_keys_with_slashes(tmp_path):
    path = make_zarr(tmp_path / "a.zarr", **{"obs/pose": np.ones((14, 3))})
    assert sorted(open_replay(path)) == ["action", "obs/pose"]


def test_real_pictures_come_compact_and_unchanged(pusht_zip):
    buffer = open_replay(pusht_zip)
    plain = next(buffer.episodes(["img"]))["img"]
    small = next(buffer.episodes(["img"], compact=["img"]))["img"]
    assert (plain.dtype, small.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(plain, small)


def test_real_low_dimensional_arrays_have_the_published_sums(pusht_zip):
    import hashlib

    buffer = open_replay(pusht_zip)
    sums = {
        "action": "6691b085749144b8db1aede97a80fb380afd08953fcd03660b441d0ffe9d6a8f",
        "state": "dcdc539bfdba9fc01cba8d2fe91cc580539ec046a88b0ffbe91be5511948d4dc",
        "keypoint": "2419980734c1d41050f8fbf7513031e6e784168bafbe42bcec81fdebe44c6611",
    }
    for key, expected in sums.items():
        whole = np.concatenate([e[key] for e in buffer.episodes([key])])
        assert hashlib.sha256(whole.tobytes()).hexdigest() == expected
    assert (buffer.n_episodes, buffer.n_steps) == (206, 25_650)


@pytest.mark.parametrize("name", ["multimodal_push_seed.zarr", "multimodal_push_seed_abs.zarr"])
def test_real_buffer_with_a_missing_chunk_is_refused(shared_data, name):
    with pytest.raises(DataError, match=r"data/obs has no chunk 0\.0 .*114961"):
        open_replay(shared_data / "samples" / "blockpush" / name)


def test_chunk_zarr_left_out_is_refused_unless_said_to_be_fill(tmp_path):
    contacts = np.zeros((14, 1), np.float32)
    contacts[9:] = 3
    path = make_zarr(tmp_path / "a.zarr", n_contacts=contacts)
    with pytest.raises(DataError, match=r"n_contacts has no chunk .*rows 0\.\.3") as caught:
        open_replay(path)
    assert "--option missing_chunks=fill" in caught.value.hint
    buffer = open_replay(path, missing="fill")
    assert buffer.filled == {"data/n_contacts": 2}
    np.testing.assert_array_equal(buffer.read("n_contacts", 0, 14), contacts)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ((5, 5, 14), "does not increase at episode 1"),
        ((9, 5), "does not increase at episode 1"),
        ((5, 20), "data/action has 14 rows .* episode 1 and later are cut short"),
        ((5, 9), "14 rows, 5 more than"),
    ],
)
def test_episode_ends_that_do_not_fit_are_refused(tmp_path, ends, message):
    path = make_zarr(tmp_path / "a.zarr", ends=ends)
    with pytest.raises(DataError, match=message):
        open_replay(path)


def test_arrays_of_unequal_length_are_refused_by_name(tmp_path):
    path = make_zarr(tmp_path / "a.zarr", state=np.ones((11, 2)))
    with pytest.raises(DataError, match=r"data/state has 11 rows .* episode 1"):
        open_replay(path)


def test_damaged_chunk_is_named(tmp_path):
    path = write_replay(tmp_path / "a.zarr", episodes(), {})
    (path / "data/pose/0.0.0").write_bytes(b"garbage!" * 8)
    with pytest.raises(DataError, match=r"rows 0\.\.16 of data/pose cannot be decoded"):
        list(open_replay(path).episodes())


def test_unknown_codec_is_named(tmp_path):
    path = write_replay(tmp_path / "a.zarr", episodes(), {})
    header = json.loads((path / "data/img/.zarray").read_text())
    header["compressor"] = {"id": "imagecodecs_nonsense"}
    (path / "data/img/.zarray").write_text(json.dumps(header))
    with pytest.raises(DataError, match="imagecodecs_nonsense") as caught:
        list(open_replay(path).episodes())
    assert "imagecodecs" in (caught.value.hint or "")


def test_things_that_are_no_replay_buffer_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is nothing at"):
        open_replay(tmp_path / "absent.zarr")
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DataError, match="neither a folder nor a readable"):
        open_replay(tmp_path / "half.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is not a replay buffer"):
        open_replay(tmp_path / "empty")
    path = write_replay(tmp_path / "a.zarr", episodes(), {})
    shutil.rmtree(path / "meta")
    with pytest.raises(DataError, match="meta"):
        open_replay(path)


def test_failed_write_leaves_nothing(tmp_path):
    def broken():
        yield from episodes((4,))
        yield {"action": np.zeros((3, 2), np.float32)}

    for name in ("a.zarr.zip", "a.zarr"):
        with pytest.raises(DataError, match="episode 1 has the keys"):
            write_replay(tmp_path / name, broken(), {})
    assert list(tmp_path.iterdir()) == []


def test_existing_target_is_refused_and_kept(tmp_path):
    path = tmp_path / "a.zarr.zip"
    path.write_text("mine")
    with pytest.raises(DataError, match="already exists"):
        write_replay_zip(path, episodes(), {})
    assert path.read_text() == "mine"


def test_recorder_resumes_by_counting_and_cuts_an_unfinished_episode(tmp_path):
    path = tmp_path / "a.zarr"
    first, second, third = episodes()
    with ReplayWriter(path, attrs={"fps": 10}) as writer:
        writer.add_episode(first)
        writer.add_episode(second)
    # As a crash leaves it: rows of the third episode are there, its end is not.
    for key, array in zarr.open_group(path / "data", mode="a").arrays():
        array.resize((16, *array.shape[1:]))
        array[14:16] = third[key][:2]
    with ReplayWriter(path) as writer:
        assert writer.n_episodes == 2
        writer.add_episode(third)
    buffer = open_replay(path)
    assert buffer.attrs == {"fps": 10}
    assert_equal(list(buffer.episodes(["action", "pose", "flag", "img"])), episodes())


def test_recorder_refuses_an_episode_of_another_shape(tmp_path):
    with ReplayWriter(tmp_path / "a.zarr") as writer:
        writer.add_episode({"action": np.zeros((3, 2))})
        with pytest.raises(DataError, match="action of episode 1 is float64"):
            writer.add_episode({"action": np.zeros((3, 4))})
        assert writer.n_episodes == 1
    assert open_replay(tmp_path / "a.zarr").episode_ends.tolist() == [3]


def test_per_episode_facts_under_meta_are_kept(tmp_path):
    path = make_zarr(tmp_path / "a.zarr")
    root = zarr.open_group(path, mode="a")
    root.create_array("meta/seed", shape=(2,), dtype=np.int64)[:] = np.array([7, 8])
    root.attrs["episodes"] = [{"success": True}, {"success": False}]
    facts = open_replay(path).episode_metadata()
    assert facts == [{"seed": 7, "success": True}, {"seed": 8, "success": False}]


def test_episode_needs_equal_lengths_and_steps():
    with pytest.raises(DataError, match="a 3, b 2"):
        Episode({"a": np.zeros(3), "b": np.zeros(2)})
    with pytest.raises(DataError, match="no steps"):
        Episode({"a": np.zeros((0, 2))})
    assert Episode({"a": np.zeros((3, 2))}).length == 3


def test_paths_may_be_text(tmp_path):
    path = write_replay_zip(str(tmp_path / "a.zarr.zip"), episodes(), {})
    assert isinstance(path, Path)
    assert open_replay(str(path)).n_episodes == 3
