"""The bundled demonstrations are what data/README.md says they are."""

from pathlib import Path

import numpy as np
import pytest

from dp_hub.envs.pusht.demonstration import demonstrate
from dp_hub.envs.pusht.expert_search import distance_of
from dp_hub.envs.pusht.physics import SUCCESS_COVERAGE, PushTPhysics
from dp_hub.envs.pusht.recorder import FIRST_EVALUATION_SEED
from dp_hub.replay.buffer import ReplayBuffer, open_replay

PATH = Path(__file__).resolve().parents[2] / "data" / "pusht_scripted.zarr.zip"


@pytest.fixture(scope="module")
def replay() -> ReplayBuffer:
    return open_replay(PATH)


@pytest.fixture(scope="module")
def episodes(replay) -> list[dict[str, np.ndarray]]:
    return list(replay.episodes())


def test_there_are_500_episodes_in_a_few_megabytes(replay, episodes):
    assert replay.n_episodes == len(episodes) == 500
    assert PATH.stat().st_size < 5_000_000
    assert {key: (replay.shape(key), str(replay.dtype(key))) for key in sorted(replay.keys())} == {
        "state": ((5,), "float32"),
        "keypoint": ((9, 2), "float32"),
        "action": ((2,), "float32"),
    }


def test_no_seed_is_one_that_policies_are_evaluated_on(replay):
    seeds = [fact["seed"] for fact in replay.episode_metadata()]
    assert len(set(seeds)) == 500
    assert max(seeds) < FIRST_EVALUATION_SEED


def test_every_episode_replays_exactly_and_is_a_success(replay, episodes):
    for fact, episode in zip(replay.episode_metadata(), episodes, strict=True):
        table = PushTPhysics()
        table.reset(fact["seed"])
        best = 0.0
        for k, action in enumerate(episode["action"].tolist()):
            np.testing.assert_array_equal(table.state().astype(np.float32), episode["state"][k])
            table.step(*action)
            if distance_of(table.block_pose()) < 6:  # farther away nothing is covered well
                best = max(best, table.coverage())
        assert best > SUCCESS_COVERAGE, fact
        assert round(best, 4) == fact["max_coverage"]


@pytest.mark.parametrize("number", [0, 250])
def test_the_command_in_its_attributes_makes_it_again(replay, episodes, number):
    assert replay.attrs["command"] == "dp-hub record pusht --expert --episodes 500 --seed 0"
    demo = demonstrate(replay.episode_metadata()[number]["seed"])
    for key, value in episodes[number].items():
        np.testing.assert_array_equal(demo.arrays[key], value)
