"""RLDS datasets: what TensorFlow Datasets wrote is read value by value, without TensorFlow."""

import json
import shutil
import struct
import zlib

import numpy as np
import pytest
import rlds_writer as tfds
from dp_hub_converters.rlds import Rlds
from dp_hub_converters.tfrecords.records import parse_example, records
from PIL import Image
from source_mutations import mutations

from dp_hub.dataset.convert import convert
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError

STEPS = {
    "action": tfds.tensor("float32", 3),
    "observation": tfds.group(
        image=tfds.image(16, 20, 3),
        depth=tfds.image(16, 20, 1, dtype="uint16"),
        grip=tfds.tensor("float64"),
    ),
    "is_first": tfds.FLAG,
    "is_last": tfds.FLAG,
    "is_terminal": tfds.FLAG,
    "code": tfds.tensor("uint8", 2, 2),
    "big": tfds.tensor("int64"),
    "language_instruction": tfds.TEXT,
    "note": tfds.TEXT,
}
FACTS = {
    "file_path": tfds.TEXT,
    "episode_id": tfds.tensor("int32"),
    "success": tfds.FLAG,
    "weights": tfds.sequence(tfds.tensor("float32")),
}


def episode(n, number=0, *, last=-1):
    rng = np.random.default_rng(number)
    data = {
        "action": rng.normal(size=(n, 3)).astype(np.float32),
        "observation/image": rng.integers(0, 256, (n, 16, 20, 3), dtype=np.uint8),
        "observation/depth": rng.integers(0, 2**16, (n, 16, 20, 1), dtype=np.uint16),
        "observation/grip": rng.normal(size=n).astype(np.float32).astype(np.float64),
        "is_first": tfds.flags(n, 0).astype(bool),
        "is_last": tfds.flags(n, last).astype(bool),
        "is_terminal": np.zeros(n, bool),
        "code": rng.integers(0, 256, (n, 2, 2), dtype=np.uint8),
        "big": rng.integers(-(2**63), 2**63 - 1, n),
    }
    features = {}
    for key, values in data.items():
        if key in ("observation/image", "observation/depth"):
            values = [tfds.png(picture) for picture in values]
        elif values.dtype.kind in "bu":
            values = values.astype(np.int64)
        features[f"steps/{key}"] = values
    features["steps/language_instruction"] = [f"pick up {number}"] * n
    features["steps/note"] = ["clear day"] * n
    features["episode_metadata/file_path"] = [f"/raw/{number}.npy"]
    features["episode_metadata/episode_id"] = np.array([number])
    features["episode_metadata/success"] = np.array([number % 2])
    features["episode_metadata/weights"] = np.array([0.5, 0.25], np.float32)
    return data, features


def made(folder, lengths=((4, 6), (3,)), **options):
    numbers = iter(range(100))
    shards = [[episode(n, next(numbers)) for n in shard] for shard in lengths]
    written = [[features for _, features in shard] for shard in shards]
    tfds.write_tfds(folder, STEPS, written, metadata=FACTS, **options)
    return [data for shard in shards for data, _ in shard]


def assert_same(found, expected):
    assert set(found.data) == set(expected)
    for key, values in expected.items():
        assert found.data[key].dtype == values.dtype, key
        np.testing.assert_array_equal(found.data[key], values, err_msg=key)


@pytest.fixture
def bridge(shared_data):
    return shared_data / "samples" / "rlds_bridge"


def test_the_writer_of_these_tests_gives_the_bytes_of_the_real_sample(bridge):
    file = next(bridge.rglob("*.tfrecord-*"))
    count, again = 0, []
    for data in records(file):
        parsed = parse_example(data, "sample")
        assert tfds.example({name: f.values for name, f in parsed.items()}) == data
        again.append(tfds.record(data) if count < 3 else None)
        count += 1
    assert count == 25
    assert file.read_bytes().startswith(b"".join(again[:3]))


def test_all_real_episodes_are_read_with_their_instructions_and_pictures(bridge):
    source = Rlds()
    assert source.recognises(bridge)
    found = source.describe(bridge)
    assert (found.n_episodes, "fps" in found.attrs) == (25, False)
    assert "--fps" in found.fps_hint
    assert any("val" in note for note in found.notes)
    episodes = list(source.episodes(bridge))
    assert len(episodes) == 25
    features = json.loads(next(bridge.rglob("features.json")).read_text())
    steps = features["featuresDict"]["features"]["steps"]["sequence"]["feature"]
    assert len(steps["featuresDict"]["features"]) == 9
    for one in episodes:
        assert one.length == 10
        assert one.data["action"].shape == (10, 7)
        assert one.data["observation/state"].dtype == np.float32
        assert one.data["observation/image_0"].shape == (10, 64, 64, 3)
        assert one.data["observation/image_0"][3:5].std() > 5
        assert one.task and one.metadata["file_path"].endswith("out.npy")
    assert episodes[0].task == "put cup from counter or drying rack into sink"
    assert {type(one.metadata["has_image_0"]) for one in episodes} == {bool}


def test_the_real_sample_becomes_a_dataset(tmp_path, bridge):
    done = convert("rlds", bridge, tmp_path / "ds", fps=5, drop=["language_embedding"])
    assert (done.written.n_episodes, done.written.n_frames, done.written.fps) == (25, 250, 5)
    dataset = open_dataset(tmp_path / "ds")
    expected = [one.data["action"] for one in Rlds().episodes(bridge)]
    np.testing.assert_array_equal(dataset.column("action"), np.concatenate(expected))
    assert len(done.written.tasks) == 4


def test_every_kind_of_value_is_read_as_it_was_written(tmp_path):
    expected = made(tmp_path / "made" / "1.0.0")
    found = list(Rlds().episodes(tmp_path))
    assert [one.length for one in found] == [4, 6, 3]
    for number, (one, data) in enumerate(zip(found, expected, strict=True)):
        assert_same(one, data)
        assert one.task == f"pick up {number}"
        facts = dict(one.metadata)
        assert facts["source"].endswith(f"tfrecord-0000{number // 2}-of-00002")
        assert (facts["split"], facts["record"]) == ("train", number % 2)
        assert (facts["file_path"], facts["episode_id"]) == (f"/raw/{number}.npy", number)
        assert (facts["success"], facts["weights"]) == (bool(number % 2), [0.5, 0.25])
        assert facts["note"] == "clear day"


def test_numbers_that_are_not_packed_are_read_too():
    values = {"f": np.array([1.5, -2], np.float32), "i": np.array([-1, 2**40])}
    parsed = parse_example(tfds.example(values, packed=False), "here")
    assert parsed["f"].values.tolist() == [1.5, -2]
    assert parsed["i"].values.tolist() == [-1, 2**40]


@pytest.mark.parametrize("start", range(4))
def test_reading_may_begin_at_any_episode_and_leave_keys_out(tmp_path, start):
    expected = made(tmp_path)[start:]
    found = list(Rlds().episodes(tmp_path, drop={"observation/image", "big"}, start=start))
    assert len(found) == len(expected) == 3 - start
    for one, data in zip(found, expected, strict=True):
        kept = {k: v for k, v in data.items() if k not in ("observation/image", "big")}
        assert_same(one, kept)


def test_splits_come_in_their_order_or_one_by_one(tmp_path):
    made(tmp_path, ((4,),), split="train")
    made(tmp_path, ((5,), (6,)), split="a_val")
    lengths = [one.length for one in Rlds().episodes(tmp_path)]
    assert lengths == [4, 5, 6]
    assert [one.length for one in Rlds(split="a_val").episodes(tmp_path)] == [5, 6]
    assert Rlds(split="a_val").describe(tmp_path).n_episodes == 2
    with pytest.raises(DataError, match="split 'test'") as caught:
        Rlds(split="test").describe(tmp_path)
    assert "a_val, train" in (caught.value.hint or "")
    file = tmp_path / "made-a_val.tfrecord-00001-of-00002"
    assert [one.length for one in Rlds().episodes(file)] == [6]


def test_the_last_step_is_left_out_when_asked_where_it_is_marked(tmp_path):
    [data] = made(tmp_path, ((5,),))
    [found] = Rlds(last_step="drop").episodes(tmp_path)
    assert_same(found, {key: values[:4] for key, values in data.items()})
    cut = [episode(5, last=99 + 1)]  # is_last marks step 0: not one episode
    tfds.write_tfds(tmp_path / "b", STEPS, [[cut[0][1]]], metadata=FACTS)
    with pytest.raises(DataError, match="is_last is true at step 0"):
        next(Rlds().episodes(tmp_path / "b"))


def test_an_episode_without_a_marked_last_step_is_kept_whole(tmp_path):
    _, features = episode(5)
    features["steps/is_last"] = np.zeros(5, np.int64)
    tfds.write_tfds(tmp_path, STEPS, [[features]], metadata=FACTS)
    [found] = Rlds(last_step="drop").episodes(tmp_path)
    assert found.length == 5


def test_nested_sequences_of_one_length_become_vectors(tmp_path):
    steps = {
        "action": tfds.tensor("float32", 1),
        "points": tfds.sequence(tfds.tensor("float32", 2)),
        "deep": tfds.sequence(tfds.sequence(tfds.tensor("int32"))),
        "fixed": tfds.sequence(tfds.tensor("int32"), 4),
    }
    points = np.arange(3 * 5 * 2, dtype=np.float32).reshape(3, 5, 2)
    deep = np.arange(3 * 2 * 3).reshape(3, 2, 3)
    fixed = np.arange(12).reshape(3, 4)
    features = {
        "steps/action": np.zeros(3, np.float32),
        "steps/points/ragged_flat_values": points,
        "steps/points/ragged_row_lengths_0": np.full(3, 5),
        "steps/deep/ragged_flat_values": deep,
        "steps/deep/ragged_row_lengths_0": np.full(3, 2),
        "steps/deep/ragged_row_lengths_1": np.full(6, 3),
        "steps/fixed": fixed,
    }
    tfds.write_tfds(tmp_path / "a", steps, [[features]])
    [found] = Rlds().episodes(tmp_path / "a")
    np.testing.assert_array_equal(found.data["points"], points)
    np.testing.assert_array_equal(found.data["deep"], deep)
    np.testing.assert_array_equal(found.data["fixed"], fixed)
    features["steps/points/ragged_row_lengths_0"] = np.array([4, 6, 5])
    tfds.write_tfds(tmp_path / "b", steps, [[features]])
    with pytest.raises(DataError, match="from 4 to 6 values") as caught:
        next(Rlds().episodes(tmp_path / "b"))
    assert "--drop points" in (caught.value.hint or "")


def test_arrays_written_as_bytes_are_unpacked(tmp_path):
    steps = {
        "raw": tfds.tensor("float32", 2, 3, encoding="bytes"),
        "zipped": tfds.tensor("uint16", 50, encoding="zlib"),
    }
    raw = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    zipped = np.arange(200, dtype=np.uint16).reshape(4, 50)
    features = {
        "steps/raw": [value.tobytes() for value in raw],
        "steps/zipped": [zlib.compress(value.tobytes()) for value in zipped],
    }
    tfds.write_tfds(tmp_path / "a", steps, [[features]])
    [found] = Rlds().episodes(tmp_path / "a")
    np.testing.assert_array_equal(found.data["raw"], raw)
    np.testing.assert_array_equal(found.data["zipped"], zipped)
    features["steps/zipped"][2] = zlib.compress(b"\0" * 10**8)
    tfds.write_tfds(tmp_path / "b", steps, [[features]])
    with pytest.raises(DataError, match="101 bytes, not 100"):
        next(Rlds().episodes(tmp_path / "b"))


def test_pictures_without_a_stated_size_have_that_of_the_first(tmp_path):
    steps = {"cam": tfds.image(-1, -1, 3), "is_first": tfds.FLAG}
    pictures = [np.full((12, 14, 3), n, np.uint8) for n in range(3)]
    features = {"steps/cam": [tfds.png(p) for p in pictures], "steps/is_first": tfds.flags(3, 0)}
    tfds.write_tfds(tmp_path / "a", steps, [[features]])
    [found] = Rlds().episodes(tmp_path / "a")
    np.testing.assert_array_equal(found.data["cam"][:], np.stack(pictures))
    np.testing.assert_array_equal(found.data["cam"][::-1], np.stack(pictures)[::-1])
    features["steps/cam"][1] = tfds.png(np.zeros((12, 15, 3), np.uint8))
    tfds.write_tfds(tmp_path / "b", steps, [[features]])
    [found] = Rlds().episodes(tmp_path / "b")
    with pytest.raises(DataError, match=r"picture 1 of cam .* 12x15, not 12x14"):
        found.data["cam"][:]


def test_several_datasets_below_one_folder_are_one_source_if_they_agree(tmp_path):
    made(tmp_path / "goal" / "1.0.0", ((4,),))
    made(tmp_path / "spatial" / "1.0.0", ((5,),))
    found = list(Rlds().episodes(tmp_path))
    assert [(one.length, one.metadata["source"].split("/")[0]) for one in found] == [
        (4, "goal"),
        (5, "spatial"),
    ]
    made(tmp_path / "goal" / "1.1.0", ((4,),))
    with pytest.raises(DataError, match="two versions"):
        Rlds().describe(tmp_path)
    shutil.rmtree(tmp_path / "goal" / "1.1.0")
    other = {"action": tfds.tensor("float32", 4)}
    values = {"steps/action": np.zeros(8, np.float32)}
    tfds.write_tfds(tmp_path / "ten" / "1.0.0", other, [[values]])
    with pytest.raises(DataError, match=r"differ in steps/action.*\[3\] and float32 \[4\]"):
        Rlds().describe(tmp_path)


def damage_missing_shard(folder):
    (folder / "made-train.tfrecord-00000-of-00002").unlink()


def damage_end(folder):
    file = folder / "made-train.tfrecord-00001-of-00002"
    file.write_bytes(file.read_bytes()[:-9])


def damage_byte(folder):
    file = folder / "made-train.tfrecord-00000-of-00002"
    data = bytearray(file.read_bytes())
    data[500] ^= 1
    file.write_bytes(data)


def damage_count(folder):
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["3", "1"]
    (folder / "dataset_info.json").write_text(json.dumps(info))


def damage_features(folder):
    (folder / "features.json").write_text('{"featuresDict": {"features": [1]}}')


def damage_kind(folder):
    for file in folder.glob("*.tfrecord*"):
        file.rename(str(file).replace("tfrecord", "array_record"))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damage_missing_shard, "has 1 of 2 files; number 0 is missing"),
        (damage_end, "cut short"),
        (damage_byte, "wrong checksum"),
        (damage_count, "holds 2 records; dataset_info.json says 3"),
        (damage_features, "not as TensorFlow Datasets writes it"),
        (damage_kind, "array_record"),
    ],
)
def test_damage_is_told_with_its_place(tmp_path, damage, told):
    made(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match=told):
        Rlds().describe(tmp_path)
        list(Rlds().episodes(tmp_path))


def test_missing_and_miscounted_values_are_told_and_can_be_left_out(tmp_path):
    _, features = episode(4)
    features["steps/action"] = features["steps/action"][:3]
    del features["steps/observation/grip"]
    tfds.write_tfds(tmp_path, STEPS, [[features]], metadata=FACTS)
    with pytest.raises(DataError, match=r"action in record 0 .* has 9 values"):
        list(Rlds().episodes(tmp_path))
    with pytest.raises(DataError, match="has no steps/observation/grip") as caught:
        list(Rlds().episodes(tmp_path, drop={"action"}))
    assert caught.value.hint == "leave it out with --drop observation/grip"
    [found] = Rlds().episodes(tmp_path, drop={"action", "observation/grip"})
    assert found.length == 4


def test_texts_that_change_within_an_episode_are_refused(tmp_path):
    _, features = episode(4)
    features["steps/note"] = ["a", "a", "b", "b"]
    tfds.write_tfds(tmp_path, STEPS, [[features]], metadata=FACTS)
    Rlds().describe(tmp_path)
    with pytest.raises(DataError, match="note is text that changes"):
        list(Rlds().episodes(tmp_path))
    [found] = Rlds().episodes(tmp_path, drop={"note"})
    assert "note" not in found.metadata


def test_an_instruction_that_is_no_feature_is_still_the_task(tmp_path):
    data, features = episode(4)
    tfds.write_tfds(tmp_path / "a", STEPS, [[features]], metadata=FACTS)
    [found] = Rlds().episodes(tmp_path / "a", drop={*data, "language_instruction"} - {"action"})
    assert (found.task, set(found.data)) == ("pick up 0", {"action"})
    features["steps/language_instruction"] = ["a", "b", "c", "d"]
    tfds.write_tfds(tmp_path / "b", STEPS, [[features]], metadata=FACTS)
    [found] = Rlds().episodes(tmp_path / "b", drop={"language_instruction"})
    assert found.task is None


def test_other_folders_are_not_recognised(tmp_path):
    assert not Rlds().recognises(tmp_path)
    assert not Rlds().recognises(tmp_path / "nothing")
    (tmp_path / "x.tfrecord").write_bytes(b"")
    assert not Rlds().recognises(tmp_path / "x.tfrecord")
    with pytest.raises(DataError, match=r"features\.json"):
        Rlds().describe(tmp_path)
    with pytest.raises(DataError, match="nothing at"):
        Rlds().describe(tmp_path / "nothing")


def read_all(folder):
    """Everything there is, decoded."""
    Rlds().describe(folder)
    for one in Rlds().episodes(folder):
        for values in one.data.values():
            np.asarray(values[:])


def test_mutated_files_are_read_or_refused(tmp_path):
    made(tmp_path / "a", ((2, 2),))
    file = next((tmp_path / "a").glob("*.tfrecord-*"))
    original, refused = file.read_bytes(), 0
    for data in mutations(original, 100):
        file.write_bytes(data)
        refused += refuses(tmp_path / "a")
    assert refused >= 95  # nearly everything is under a checksum
    file.write_bytes(original)
    features = tmp_path / "a" / "features.json"
    for data in mutations(features.read_bytes(), 50):
        features.write_bytes(data)
        refused += refuses(tmp_path / "a")
    assert refused >= 110


def test_mutated_messages_with_right_checksums_are_read_or_refused(tmp_path):
    made(tmp_path, ((2,),))
    file = next(tmp_path.glob("*.tfrecord-*"))
    [message] = records(file)
    seen = [0, 0]
    for data in mutations(message, 200):
        head = struct.pack("<Q", len(data))
        sums = [struct.pack("<I", tfds.masked(part)) for part in (head, data)]
        file.write_bytes(head + sums[0] + data + sums[1])
        seen[refuses(tmp_path)] += 1
    assert sum(seen) == 200 and min(seen) > 0


def refuses(folder):
    try:
        read_all(folder)
    except DataError as error:
        assert str(error)
        return True
    return False


def test_pictures_of_another_kind_are_refused():
    from dp_hub_converters.shared.encoded_pictures import EncodedPictures

    picture = tfds.png(np.zeros((4, 4, 1), np.uint16))
    with pytest.raises(DataError, match="are not uint8"):
        EncodedPictures(lambda a, b: [picture][a:b], 1, "cam")
    gray = EncodedPictures(lambda a, b: [tfds.png(np.ones((4, 5, 1), np.uint8))][a:b], 1, "cam")
    assert gray.shape == (1, 4, 5, 1)
    assert Image.fromarray(gray[:][0, ..., 0]).size == (5, 4)
