"""Minari datasets in HDF5 and Arrow become datasets; the last observation has no action."""

import json

import numpy as np
import pytest
from dp_hub_converters.minari import Minari
from hdf5_written import box, jpeg, moving, write_minari_arrow, write_minari_hdf5

from dp_hub.dataset.convert import convert
from dp_hub.dataset.episodes_io import episode_rows, open_folder
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError

GOAL = {
    "type": "Dict",
    "subspaces": {
        "observation": box((4,)),
        "arms": {"type": "Tuple", "subspaces": [box((2,)), box((3, 2))]},
    },
}
PICTURED = {"type": "Dict", "subspaces": {"img": box((40, 36, 3), "uint8", 0, 255)}}


def goal(n, rng):
    return {
        "observation": rng.normal(size=(n, 4)),
        "arms": (rng.normal(size=(n, 2)), rng.normal(size=(n, 3, 2))),
    }


def facts(dataset):
    return [json.loads(row["metadata"]) for row in episode_rows(open_folder(dataset))]


def arrow_episodes(observations, lengths=(3, 5, 2)):
    rng = np.random.default_rng(1)
    return [
        {
            "observations": observations(n + 1, rng),
            "actions": rng.normal(size=(n, 2)).astype(np.float32),
            "rewards": rng.normal(size=n),
            "terminations": np.arange(n) == n - 1,
            "truncations": np.zeros(n, bool),
        }
        for n in lengths
    ]


def assert_same(dataset, episodes):
    expected = {
        "action": [one["actions"] for one in episodes],
        "next.reward": [one["rewards"] for one in episodes],
        "next.terminated": [one["terminations"] for one in episodes],
        "observation.state": [one["observations"]["observation"][:-1] for one in episodes],
        "observation.arms.0": [one["observations"]["arms"][0][:-1] for one in episodes],
        "observation.arms.1": [one["observations"]["arms"][1][:-1] for one in episodes],
    }
    for feature, parts in expected.items():
        values = np.concatenate(parts)
        got = dataset.column(feature)
        assert got.dtype == values.dtype
        np.testing.assert_array_equal(got.reshape(values.shape), values)


def test_hdf5_episodes_lose_only_their_last_observation(tmp_path):
    episodes = write_minari_hdf5(tmp_path / "door", goal, space=GOAL)
    assert Minari().recognises(tmp_path / "door")
    done = convert("minari", tmp_path / "door", tmp_path / "ds", fps=30)
    assert (done.written.n_episodes, done.written.n_frames) == (11, 46)
    assert_same(open_dataset(tmp_path / "ds"), episodes)
    told = facts(tmp_path / "ds")
    assert [one["seed"] for one in told] == list(range(100, 111))
    assert [one["id"] for one in told] == list(range(11))
    attrs = open_folder(tmp_path / "ds").provenance["source"]["attrs"]
    assert attrs["dataset_id"] == "door/test-v0"
    assert attrs["env_spec"]["id"] == "Door-v1"


def test_arrow_episodes_lose_only_what_was_padded(tmp_path):
    episodes = arrow_episodes(goal, lengths=(3, 5, 2, 4, 3, 2, 2, 3, 4, 5, 6))
    write_minari_arrow(tmp_path / "door", episodes, space=GOAL)
    done = convert("minari", tmp_path / "door", tmp_path / "ds", fps=30)
    assert (done.written.n_episodes, done.written.n_frames) == (11, 39)
    assert_same(open_dataset(tmp_path / "ds"), episodes)
    assert [one["seed"] for one in facts(tmp_path / "ds")] == list(range(7, 18))


@pytest.mark.parametrize("form", ["hdf5", "arrow"])
def test_jpeg_pictures_are_decoded(tmp_path, form):
    def observations(n, rng):
        return {"img": [jpeg(p) for p in moving(n, n, (40, 36))]}

    if form == "hdf5":
        write_minari_hdf5(tmp_path / "d", observations, space=PICTURED, jpeg_encoding=True)
    else:
        write_minari_arrow(tmp_path / "d", arrow_episodes(observations), space=PICTURED)
    [first, *_] = Minari().episodes(tmp_path / "d")
    pictures = first.data["observations/img"]
    assert pictures.shape == (3, 40, 36, 3)
    difference = pictures[:].astype(int) - moving(4, 4, (40, 36))[:3]
    assert np.abs(difference).mean() < 8
    done = convert("minari", tmp_path / "d", tmp_path / "ds", fps=30)
    assert [c.feature for c in done.written.columns if c.is_visual] == ["observation.images.img"]


def test_pictures_that_are_not_encoded_are_taken_as_they_are(tmp_path):
    space = box((40, 36, 3), "uint8", 0, 255)
    write_minari_hdf5(tmp_path / "d", lambda n, rng: moving(n, n, (40, 36)), space=space)
    [first, *_] = Minari().episodes(tmp_path / "d")
    np.testing.assert_array_equal(first.data["observations"][:], moving(4, 4, (40, 36))[:3])
    assert Minari().describe(tmp_path / "d").features["observations"] == "observation.image"


def test_a_mission_is_the_task_and_infos_that_are_not_numbers_are_left_out(tmp_path):
    space = {"type": "Dict", "subspaces": {"s": box((2,)), "mission": {"type": "Text"}}}

    def observations(n, rng):
        return {"s": rng.normal(size=(n, 2)), "mission": [f"go {n}"] * n}

    def infos(n, rng):
        return {"qpos": np.arange(n * 2.0).reshape(n, 2), "what": ["a", "b"] * n}

    write_minari_hdf5(tmp_path / "d", observations, space=space, infos=infos)
    [first, *_] = Minari().episodes(tmp_path / "d")
    assert first.task == "go 4"
    np.testing.assert_array_equal(first.data["infos/qpos"], np.arange(6.0).reshape(3, 2))
    source = Minari().describe(tmp_path / "d")
    assert "infos/what" not in source.dtypes
    assert any("infos/what" in note for note in source.notes)


def test_several_datasets_are_one_source(tmp_path):
    for name in ("door/human-v10", "door/human-v2"):
        write_minari_hdf5(tmp_path / "all" / name, goal, space=GOAL)
    done = convert("minari", tmp_path / "all", tmp_path / "ds", fps=30)
    assert done.written.n_episodes == 22
    told = facts(tmp_path / "ds")
    assert (told[0]["source"], told[-1]["source"]) == ("door/human-v2/data", "door/human-v10/data")


def test_a_number_of_episodes_that_is_not_there_is_told(tmp_path):
    write_minari_hdf5(tmp_path / "d", goal, space=GOAL)
    path = tmp_path / "d/data/metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"total_episodes": 12}))
    with pytest.raises(DataError, match="speaks of 12 episodes, there are 11"):
        Minari().describe(tmp_path / "d")
