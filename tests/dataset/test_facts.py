"""What ``dp-hub info`` says, from meta/ alone, for any dataset in any state."""

import shutil
import subprocess
import sys

import pyarrow as pa
import pytest
from made_datasets import (
    edit_json,
    episodes,
    rewrite_episodes,
    with_leftover_row,
    without_hashes,
    write,
)

from dp_hub.dataset.checksums import covered_files, encode_checksums, file_sum
from dp_hub.dataset.facts import duration, megabytes, read_facts
from dp_hub.dataset.located import Located, meta_folder
from dp_hub.errors import DataError
from dp_hub.hub.origin import Origin, write_origin


@pytest.fixture
def dataset(tmp_path):
    made = episodes(size=(16, 16))
    made[1] = type(made[1])(made[1].data, task="pull", metadata={})
    source = {"converter": "zarr", "file": "x.zarr.zip"}
    return write(tmp_path / "ds", made, source=source, robot_type="sim")


def test_facts_are_those_that_were_written(dataset):
    facts = read_facts(dataset)
    assert (facts.n_episodes, facts.n_frames, facts.fps, facts.duration_s) == (4, 27, 10, 2.7)
    assert (facts.lengths.min, facts.lengths.median, facts.lengths.max) == (3, 6, 12)
    assert facts.tasks == {"push": 3, "pull": 1}
    assert (facts.robot_type, facts.state, facts.codebase_version) == ("sim", "finished", "v3.0")
    assert facts.source["file"] == "x.zarr.zip"
    assert facts.fingerprint_fits is True
    features = {feature.name: feature for feature in facts.features}
    assert features["action"].names == ("action_0", "action_1")
    assert features["action"].key == "action"
    assert (features["observation.image"].encoding, features["observation.image"].lossy) == (
        "webp", False,
    )  # fmt: skip
    assert features["timestamp"].index and not features["action"].index


def test_sizes_are_those_on_disk(dataset):
    size = read_facts(dataset).size
    for part in ("data", "meta"):
        files = [path for path in (dataset / part).rglob("*") if path.is_file()]
        assert files
        assert getattr(size, part) == sum(path.stat().st_size for path in files)
    assert (size.videos, size.here) == (0, ("data", "meta"))


def test_meta_alone_is_enough_and_sizes_come_from_the_checksums(dataset):
    expected = read_facts(dataset)
    sums = {name: file_sum(dataset / name) for name in covered_files(dataset)}
    (dataset / "meta" / "checksums.json").write_bytes(encode_checksums(sums))
    shutil.rmtree(dataset / "data")
    (dataset / "README.md").unlink()
    facts = read_facts(dataset)
    assert (facts.size.data, facts.size.here) == (expected.size.data, ("meta",))
    assert facts.features == expected.features  # the encoding of pictures is recorded
    assert facts.tasks == expected.tasks


def test_encoding_is_looked_up_in_the_pictures_where_it_was_not_recorded(dataset):
    (dataset / "meta" / "dp_hub.json").unlink()
    [picture] = [f for f in read_facts(dataset).features if f.dtype == "image"]
    assert (picture.encoding, picture.lossy) == ("webp", None)


def test_rows_that_a_killed_writer_left_do_not_count(dataset):
    expected = read_facts(dataset)
    facts = read_facts(with_leftover_row(dataset))
    assert (facts.n_episodes, facts.lengths, facts.tasks) == (
        expected.n_episodes, expected.lengths, expected.tasks,
    )  # fmt: skip


def test_an_open_dataset_without_episodes_has_facts(dataset):
    edit_json(dataset / "meta" / "dp_hub.json", state="open", fingerprint=None)
    edit_json(dataset / "meta" / "info.json", total_episodes=0, total_frames=0)
    shutil.rmtree(dataset / "meta" / "episodes")
    facts = read_facts(dataset)
    assert (facts.state, facts.fingerprint, facts.lengths, facts.tasks) == ("open", None, None, {})


def test_missing_rows_are_an_error(dataset):
    edit_json(dataset / "meta" / "info.json", total_episodes=5)
    with pytest.raises(DataError, match=r"says there are 5 episodes, meta/episodes has 4"):
        read_facts(dataset)


def test_a_fingerprint_that_another_program_left_behind_is_noticed(dataset):
    edit_json(dataset / "meta" / "dp_hub.json", fingerprint="0" * 64)
    assert read_facts(dataset).fingerprint_fits is False


def test_the_licence_comes_from_the_readme_if_meta_has_none(dataset):
    assert read_facts(dataset).license is None
    (dataset / "README.md").write_text("---\nlicense: mit\n---\n")
    assert read_facts(dataset).license == "mit"
    (dataset / "README.md").write_text("---\n: [\n---\n")
    assert read_facts(dataset).license is None


def test_a_pulled_folder_says_which_version_it_is(dataset):
    write_origin(dataset, Origin("x", "me/a", "dataset", "f" * 40, "data-v2", {}))
    assert meta_folder(dataset) == Located(dataset, "me/a", "f" * 40, "data-v2")
    facts = read_facts(meta_folder(str(dataset)))
    assert (facts.name, facts.tag) == ("me/a", "data-v2")
    (dataset / ".dp_hub" / "remote.json").write_text("[broken")
    assert meta_folder(dataset) == Located(dataset)


def test_a_dataset_of_another_program_has_facts(shared_data):
    facts = read_facts(shared_data / "samples" / "lerobot_v30_pusht")  # its videos are not there
    assert (facts.n_episodes, facts.n_frames, facts.lengths.median) == (206, 25650, 122)
    assert facts.robot_type is None  # "unknown" is LeRobot's word for that
    assert facts.fingerprint is None
    features = {feature.name: feature for feature in facts.features}
    assert features["action"].names == ("motor_0", "motor_1")
    assert (features["observation.image"].encoding, features["observation.image"].lossy) == (
        "av1 yuv420p", True,
    )  # fmt: skip
    assert "videos" not in facts.size.here


def test_a_dataset_without_hashes_has_facts(dataset):
    assert read_facts(without_hashes(dataset)).tasks == {"push": 3, "pull": 1}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.5, "0.5 s"), (59.94, "59.9 s"), (59.97, "1 min 00 s"), (3599.6, "1 h 00 min")],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [(0, "0 bytes"), (1234, "1.23 kB"), (999_900_000, "1,000 MB"), (2_345_000_000, "2.35 GB")],
)
def test_sizes_in_words(n_bytes, words):
    assert megabytes(n_bytes) == words


def test_facts_load_neither_torch_nor_datasets_nor_matplotlib(dataset):
    code = (
        "import sys; from pathlib import Path; from dp_hub.dataset.facts import read_facts; "
        f"read_facts(Path({str(dataset)!r})); "
        "print({'torch', 'datasets', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize("length", [None, 0, -5])
def test_an_episode_without_a_length_is_an_error(dataset, length):
    def forget(table):
        values = [length, *table.column("length").to_pylist()[1:]]
        at = table.schema.names.index("length")
        return table.set_column(at, "length", pa.array(values, pa.int64()))

    rewrite_episodes(dataset, forget)
    with pytest.raises(DataError, match="how long every episode is"):
        read_facts(dataset)
