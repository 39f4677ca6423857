"""robomimic's HDF5 and its relatives become datasets, number by number, and go back."""

import json

import h5py
import numpy as np
import pytest
from dp_hub_converters.robomimic import Robomimic
from hdf5_written import ENV_ARGS, moving, write_robomimic

from dp_hub.dataset.convert import convert
from dp_hub.dataset.episodes_io import episode_rows, open_folder
from dp_hub.dataset.exporting.hdf5 import export_hdf5
from dp_hub.dataset.exporting.zarr import export_zarr
from dp_hub.dataset.features import plan_columns
from dp_hub.dataset.inspection.inspecting import inspect
from dp_hub.dataset.reader import open_dataset
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.errors import DataError
from dp_hub.replay.buffer import open_replay
from dp_hub.replay.episode import Episode

IMAGE = "obs/agentview_image"


def facts(dataset):
    return [json.loads(row["metadata"]) for row in episode_rows(open_folder(dataset))]


def absolute():
    config = {"type": "OSC_POSE", "control_delta": False}
    return ENV_ARGS | {"env_kwargs": {"control_freq": 20, "controller_configs": config}}


def test_numbers_and_pictures_arrive_as_they_are_in_the_order_of_the_numbers(tmp_path):
    demos = write_robomimic(tmp_path / "a.hdf5", (0, 10, 2))
    done = convert("robomimic", tmp_path / "a.hdf5", tmp_path / "ds")
    assert (done.written.n_episodes, done.written.fps) == (3, 20)
    dataset = open_dataset(tmp_path / "ds")
    names = {
        "actions": "action",
        "rewards": "next.reward",
        "dones": "next.done",
        "states": "states",
        "obs/object": "observation.environment_state",
        "obs/robot0_eef_pos": "observation.robot0_eef_pos",
    }
    for key, feature in names.items():
        expected = np.concatenate([demos[f"demo_{i}"][key] for i in (0, 2, 10)])
        got = dataset.column(feature)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got.reshape(expected.shape), expected)
    assert [one["demo"] for one in facts(tmp_path / "ds")] == ["demo_0", "demo_2", "demo_10"]
    export_zarr(tmp_path / "ds", tmp_path / "out.zarr")
    pictures = open_replay(tmp_path / "out.zarr").read(IMAGE, 0, done.written.n_frames)
    expected = np.concatenate([demos[f"demo_{i}"][IMAGE] for i in (0, 2, 10)])
    np.testing.assert_array_equal(pictures, expected)


def test_simulator_and_kind_of_actions_are_kept_with_the_dataset(tmp_path):
    write_robomimic(tmp_path / "a.hdf5")
    attrs = Robomimic().describe(tmp_path / "a.hdf5").attrs
    assert attrs["env_args"] == ENV_ARGS
    assert (attrs["action_kind"], attrs["robot_type"], attrs["fps"]) == ("delta", "Panda", 20)
    write_robomimic(tmp_path / "b.hdf5", env_args=absolute())
    assert Robomimic().describe(tmp_path / "b.hdf5").attrs["action_kind"] == "absolute"


def test_newer_robosuite_says_the_kind_of_its_actions_for_each_part_of_the_body(tmp_path):
    parts = {"right": {"type": "OSC_POSE", "input_type": "absolute"}}
    config = {"type": "BASIC", "body_parts": parts}
    kwargs = {"control_freq": 20, "controller_configs": config}
    write_robomimic(tmp_path / "a.hdf5", env_args=ENV_ARGS | {"env_kwargs": kwargs})
    assert Robomimic().describe(tmp_path / "a.hdf5").attrs["action_kind"] == "absolute"


def test_filter_keys_choose_demos_and_are_kept_as_metadata(tmp_path):
    write_robomimic(tmp_path / "a.hdf5", (0, 1, 2, 3))
    done = convert(
        "robomimic", tmp_path / "a.hdf5", tmp_path / "ds", options={"filter_key": "valid"}
    )
    assert done.written.n_episodes == 1
    [only] = facts(tmp_path / "ds")
    assert (only["demo"], only["masks"]) == ("demo_3", ["valid"])
    with pytest.raises(DataError, match="no filter key 'test'") as told:
        Robomimic(filter_key="test").describe(tmp_path / "a.hdf5")
    assert "train, valid" in told.value.hint


def test_rotation_vectors_of_absolute_actions_become_six_numbers_as_in_diffusion_policy(tmp_path):
    demos = write_robomimic(tmp_path / "a.hdf5", env_args=absolute(), pictures=False)
    convert("robomimic", tmp_path / "a.hdf5", tmp_path / "ds", options={"rotation": "rot6d"})
    actions = np.concatenate([one["actions"] for one in demos.values()])
    got = open_dataset(tmp_path / "ds").column("action")
    assert got.shape == (len(actions), 10)
    np.testing.assert_array_equal(got[:, :3], actions[:, :3])
    np.testing.assert_array_equal(got[:, 9], actions[:, 6])
    for row, vector in zip(got[:, 3:9], actions[:, 3:6], strict=True):
        np.testing.assert_allclose(row, rodrigues(vector)[:2].ravel(), atol=1e-12)


def rodrigues(vector):
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def test_delta_actions_are_not_taken_for_rotations_unless_the_user_says_so(tmp_path):
    write_robomimic(tmp_path / "a.hdf5", pictures=False)
    with pytest.raises(DataError, match="the file says delta") as told:
        Robomimic(rotation="rot6d").describe(tmp_path / "a.hdf5")
    assert "actions=absolute" in told.value.hint
    said = Robomimic(rotation="rot6d", actions="absolute")
    assert len(said.describe(tmp_path / "a.hdf5").names["actions"]) == 10
    [episode, *_] = said.episodes(tmp_path / "a.hdf5")
    assert episode.data["actions"].shape[1] == 10


@pytest.mark.parametrize(
    ("flip", "turned"),
    [("vertical", lambda p: p[:, ::-1]), ("rotate180", lambda p: p[:, ::-1, ::-1])],
)
def test_upside_down_renders_are_turned(tmp_path, flip, turned):
    demos = write_robomimic(tmp_path / "a.hdf5", (0,))
    [episode] = Robomimic(flip_images=flip).episodes(tmp_path / "a.hdf5")
    expected = turned(demos["demo_0"][IMAGE])
    np.testing.assert_array_equal(np.asarray(episode.data[IMAGE]), expected)
    np.testing.assert_array_equal(episode.data[IMAGE][1:4], expected[1:4])


def test_next_observations_are_left_out_unless_asked_for(tmp_path):
    write_robomimic(tmp_path / "a.hdf5", (0,), pictures=False)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["data/demo_0/next_obs/object"] = file["data/demo_0/obs/object"][:]
    source = Robomimic().describe(tmp_path / "a.hdf5")
    assert "next_obs/object" not in source.dtypes
    assert any("next_obs=true" in note for note in source.notes)
    assert "next_obs/object" in Robomimic(next_obs=True).describe(tmp_path / "a.hdf5").dtypes


def test_files_of_a_folder_are_one_dataset_with_the_tasks_of_libero(tmp_path):
    for number in (10, 2):
        path = tmp_path / f"libero/task_{number}_demo.hdf5"
        write_robomimic(path, (0, 1), seed=number)
        with h5py.File(path, "a") as file:
            info = {"language_instruction": f"open drawer {number}", "domain_name": "robosuite"}
            file["data"].attrs["problem_info"] = json.dumps(info)
            file["data"].attrs["macros_image_convention"] = "opengl"
            file["data"].attrs["num_demos"] = 2
            file["data/demo_0"].attrs["init_state"] = np.arange(3.0)
            file["data/demo_0"].attrs["model_file"] = "<mujoco>" * 10_000
    done = convert("robomimic", tmp_path / "libero", tmp_path / "ds")
    assert done.written.tasks == ("open drawer 2", "open drawer 10")
    notes = " ".join(done.source.notes)
    assert "flip_images=vertical" in notes
    assert "model_file" in notes
    first, second, third, _ = facts(tmp_path / "ds")
    assert first["source"] == "task_2_demo.hdf5"
    assert (first["init_state"], second["demo"]) == ([0.0, 1.0, 2.0], "demo_1")
    assert third["source"] == "task_10_demo.hdf5"
    kept = Robomimic(keep_long=True).episodes(tmp_path / "libero")
    assert next(iter(kept)).metadata["model_file"] == "<mujoco>" * 10_000


def test_files_of_different_rates_are_not_mixed(tmp_path):
    write_robomimic(tmp_path / "f/a.hdf5", (0,))
    slower = ENV_ARGS | {"env_kwargs": {"control_freq": 10}}
    write_robomimic(tmp_path / "f/b.hdf5", (0,), env_args=slower)
    with pytest.raises(DataError, match=r"fps differs: 20 in .*a.hdf5, 10 in .*b.hdf5"):
        Robomimic().describe(tmp_path / "f")


def test_a_key_that_some_demos_lack_or_have_otherwise_must_be_dropped(tmp_path):
    path = tmp_path / "a.hdf5"
    write_robomimic(path, (0, 1), pictures=False)
    with h5py.File(path, "a") as file:
        del file["data/demo_1/obs/object"]
        del file["data/demo_1/states"]
        file["data/demo_1/states"] = np.zeros((len(file["data/demo_1/actions"]), 3))
    with pytest.raises(DataError, match=r"demo_1.*has no obs/object"):
        convert("robomimic", path, tmp_path / "ds", drop=["states"])
    with pytest.raises(DataError, match=r"demo_1/states is float64 \(3,\)"):
        convert("robomimic", path, tmp_path / "ds", drop=["obs/object"])
    assert not (tmp_path / "ds").exists()
    done = convert("robomimic", path, tmp_path / "ds", drop=["obs/object", "states"])
    assert done.written.n_episodes == 2


def test_a_rate_nobody_states_must_be_given(tmp_path, shared_data):
    source = shared_data / "samples" / "robosuite_hdf5"
    with pytest.raises(DataError, match="does not say its frames per second") as told:
        convert("robomimic", source, tmp_path / "ds")
    assert "--fps 20" in told.value.hint


def test_a_real_raw_robosuite_demonstration_becomes_a_dataset(tmp_path, shared_data):
    source = shared_data / "samples" / "robosuite_hdf5"
    assert Robomimic().recognises(source)
    done = convert("robomimic", source, tmp_path / "ds", fps=20, task="wipe the table")
    assert (done.written.n_episodes, done.written.n_frames) == (1, 174)
    with h5py.File(source / "wipe_panda_demo.hdf5") as file:
        expected = {key: array[:] for key, array in file["data/demo_1"].items()}
    assert len(expected) == 3
    dataset = open_dataset(tmp_path / "ds")
    named = {"actions": "action", "states": "observation.environment_state"}
    for key, values in expected.items():
        np.testing.assert_array_equal(dataset.column(named.get(key, key)), values)
    info = json.loads((tmp_path / "ds/meta/dp_hub.json").read_text())
    assert info["source"]["attrs"]["action_kind"] == "delta"
    assert json.loads((tmp_path / "ds/meta/info.json").read_text())["robot_type"] == "Panda"


@pytest.mark.parametrize(
    ("numbers", "train"),
    [((0, 1, 2), [b"demo_0", b"demo_1"]), ((4, 10, 7), [b"demo_0", b"demo_2"])],
)
def test_a_dataset_exported_and_converted_again_has_the_same_fingerprint(tmp_path, numbers, train):
    write_robomimic(tmp_path / "a.hdf5", numbers)
    before = convert("robomimic", tmp_path / "a.hdf5", tmp_path / "ds", task="lift").written
    done = export_hdf5(tmp_path / "ds", tmp_path / "b.hdf5")
    assert (done.n_episodes, done.n_frames, done.lossy) == (3, before.n_frames, ())
    after = convert("robomimic", tmp_path / "b.hdf5", tmp_path / "ds2").written
    assert after.fingerprint == before.fingerprint
    assert after.tasks == ("lift",)
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert json.loads(file["data"].attrs["env_args"]) == ENV_ARGS
        assert file["data"].attrs["total"] == before.n_frames
        assert list(file["mask/train"][:]) == train
        assert file["data/demo_2"].attrs["num_samples"] == len(file["data/demo_2/actions"])


def test_facts_that_hdf5_has_no_type_for_are_exported_as_json(tmp_path):
    facts = {"zero": "a\0b", "half": "\ud800", "large": 1 << 70, "many": ["a", "b\0"], "plain": 3}
    episode = Episode({"action": np.zeros((4, 2), np.float32)}, "t", facts)
    with DatasetWriter(tmp_path / "ds", plan_columns(episode.data), fps=10) as writer:
        writer.add_episode(episode)
        writer.finish()
    export_hdf5(tmp_path / "ds", tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5") as file:
        stored = dict(file["data/demo_0"].attrs)
    assert stored["plain"] == facts.pop("plain")
    assert {key: json.loads(stored[key]) for key in facts} == facts


def test_any_dataset_exported_and_converted_again_has_the_same_fingerprint(
    tmp_path, pusht_first5_zip
):
    before = convert("zarr", pusht_first5_zip, tmp_path / "ds", task="Push the T.").written
    export_hdf5(tmp_path / "ds", tmp_path / "pusht.hdf5")
    with h5py.File(tmp_path / "pusht.hdf5") as file:
        assert file["data/demo_4/actions"].shape[1] == 2
    after = convert("robomimic", tmp_path / "pusht.hdf5", tmp_path / "ds2").written
    assert after.fingerprint == before.fingerprint


def test_an_export_is_whole_or_not_there(tmp_path):
    write_robomimic(tmp_path / "a.hdf5")
    convert("robomimic", tmp_path / "a.hdf5", tmp_path / "ds")
    with pytest.raises(DataError, match="already exists"):
        export_hdf5(tmp_path / "ds", tmp_path / "a.hdf5")
    with pytest.raises(DataError, match="not the name of an HDF5 file"):
        export_hdf5(tmp_path / "ds", tmp_path / "out")

    def stop(episodes, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_hdf5(tmp_path / "ds", tmp_path / "b.hdf5", on_progress=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.hdf5", "ds"]


def test_pictures_are_read_in_blocks_whatever_the_chunks(tmp_path):
    frames = moving(50)
    for number, chunks in enumerate([(7, 12, 32, 3), (1, 24, 32, 3), None]):
        path = tmp_path / f"{number}.hdf5"
        with h5py.File(path, "w") as file:
            demo = file.create_group("data/demo_0")
            demo["actions"] = np.zeros((50, 2))
            packing = {"compression": "gzip"} if chunks else {}
            demo.create_dataset("obs/image", data=frames, chunks=chunks, **packing)
        [episode] = Robomimic().episodes(path)
        rows = episode.data["obs/image"]
        assert not isinstance(rows, np.ndarray)
        for part in (slice(0, 9), slice(9, 30), slice(45, 60), slice(3, 3), slice(0, 50, 7)):
            np.testing.assert_array_equal(rows[part], frames[part])
        np.testing.assert_array_equal(np.asarray(rows), frames)


def test_files_and_demos_that_cannot_be_read_are_left_out_when_asked(tmp_path):
    folder = tmp_path / "a"
    good = write_robomimic(folder / "1.hdf5")
    write_robomimic(folder / "2.hdf5")
    write_robomimic(folder / "3.hdf5")
    whole = (folder / "2.hdf5").read_bytes()
    (folder / "2.hdf5").write_bytes(whole[: len(whole) // 2])
    with h5py.File(folder / "3.hdf5", "a") as file:
        del file["data/demo_1/obs/object"]
    with pytest.raises(DataError, match=r"2.hdf5 is cut short"):
        convert("robomimic", folder, tmp_path / "ds")
    done = convert("robomimic", folder, tmp_path / "ds", skip_bad=True)
    assert [one.number for one in done.bad] == [3, 5]
    assert "2.hdf5 is cut short" in done.bad[0].reason
    assert "data/demo_1 has no obs/object" in done.bad[1].reason
    assert done.written.n_episodes == 5
    actions = open_dataset(tmp_path / "ds").column("action")
    np.testing.assert_array_equal(actions[:5], good["demo_0"]["actions"])


def test_what_only_the_simulator_knows_is_not_proposed_as_state(tmp_path):
    write_robomimic(tmp_path / "1.hdf5")
    text = inspect(tmp_path / "1.hdf5").mapping
    state = text.partition("observation.state:")[2].partition("action:")[0]
    assert "robot0_eef_pos" in state and "- states" not in state
    assert "#   states: {from: states}" in text
