"""Recording the demonstrator: only successes, whole files, the same arrays again."""

import numpy as np
import pytest

from dp_hub.envs.pusht.demonstration import demonstrate
from dp_hub.envs.pusht.expert import ExpertConfig
from dp_hub.envs.pusht.recorder import record_expert
from dp_hub.errors import DataError
from dp_hub.replay.buffer import open_replay

# In a hurry: some seeds fail within 90 steps, some do not.
SHORT = ExpertConfig(
    max_steps=90, walk_speed=24.0, push_speed=14.0, clearance_px=15.0, run_up_px=15.0, tremor=0.0
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "a.zarr.zip"
    return path, record_expert(path, n_episodes=3, seed=3000, config=SHORT)


def test_arrays_are_the_originals_keys_shapes_and_types(recorded):
    replay = open_replay(recorded[0])
    assert {key: (replay.shape(key), str(replay.dtype(key))) for key in sorted(replay.keys())} == {
        "state": ((5,), "float32"),
        "keypoint": ((9, 2), "float32"),
        "action": ((2,), "float32"),
    }
    assert replay.n_episodes == 3
    assert replay.n_steps == recorded[1].n_steps


def test_failed_seeds_are_skipped_and_listed(recorded):
    path, made = recorded
    kept = [episode["seed"] for episode in made.episodes]
    assert made.skipped_seeds, "choose seeds of which some fail"
    assert sorted(kept + made.skipped_seeds) == list(range(3000, max(kept) + 1))
    attrs = open_replay(path).attrs
    assert attrs["skipped_seeds"] == made.skipped_seeds
    assert not any(demonstrate(seed, SHORT).success for seed in made.skipped_seeds)


def test_each_episode_says_its_seed_and_success(recorded):
    path, made = recorded
    facts = open_replay(path).episode_metadata()
    assert facts == made.episodes
    assert all(fact["success"] and fact["max_coverage"] > 0.95 for fact in facts)


def test_attributes_say_how_to_record_it_again(recorded):
    attrs = open_replay(recorded[0]).attrs
    assert attrs["command"] == "dp-hub record pusht --expert --episodes 3 --seed 3000"
    assert (attrs["seed"], attrs["fps"]) == (3000, 10)
    assert attrs["dp_hub_version"]


def test_two_workers_record_the_same_bytes(recorded, tmp_path):
    path = tmp_path / "b.zarr.zip"
    record_expert(path, n_episodes=3, seed=3000, config=SHORT, workers=2)
    assert path.read_bytes() == recorded[0].read_bytes()


def test_an_interrupted_recording_leaves_nothing(tmp_path):
    def interrupt(demo):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_expert(
            tmp_path / "a.zarr.zip", n_episodes=2, seed=3000, config=SHORT, progress=interrupt
        )
    assert list(tmp_path.iterdir()) == []


def test_an_existing_target_is_refused_and_kept(recorded):
    before = recorded[0].read_bytes()
    with pytest.raises(DataError, match="exists"):
        record_expert(recorded[0], n_episodes=1, seed=0)
    assert recorded[0].read_bytes() == before


@pytest.mark.parametrize(
    "bad", [{"n_episodes": 0}, {"seed": -1}, {"seed": 2**32}, {"workers": 0}], ids=str
)
def test_numbers_out_of_range_are_refused(bad, tmp_path):
    with pytest.raises(DataError, match=r"--(episodes|seed|workers) is"):
        record_expert(tmp_path / "a.zarr.zip", **({"n_episodes": 1, "seed": 0} | bad))


def test_seeds_of_the_evaluation_are_pointed_out(tmp_path, caplog):
    record_expert(tmp_path / "a.zarr.zip", n_episodes=1, seed=100_003)
    assert "evaluated" in caplog.text


def test_images_are_frames_of_the_states(tmp_path):
    path = tmp_path / "a.zarr.zip"
    made = record_expert(path, n_episodes=1, seed=3000, images=True)
    replay = open_replay(path)
    images = replay.read("img", 0, replay.n_steps)
    assert images.shape == (made.n_steps, 96, 96, 3)
    assert images.dtype == np.uint8
    assert (images[0] != images[-1]).any()
