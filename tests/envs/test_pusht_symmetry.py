"""The mirror over x + y = 512, checked against the physics and the real demonstrations."""

from pathlib import Path

import numpy as np
import pytest

from dp_hub.envs.pusht.physics import PushTPhysics, coverage_of, keypoints_of, start_state
from dp_hub.envs.pusht.symmetry import mirrored
from dp_hub.errors import DataError
from dp_hub.replay.buffer import open_replay


def test_mirroring_twice_gives_back_the_frames() -> None:
    states = np.stack([start_state(seed) for seed in range(50)])
    states[:, 4] %= 2 * np.pi
    points = keypoints_of(*states[:, 2:].T).reshape(-1, 18)
    columns = {
        "observation.state": states,
        "observation.environment_state": points,
        "action": states[:, :2],
    }
    twice = mirrored(mirrored(columns))
    for name, column in columns.items():
        np.testing.assert_allclose(twice[name], column, atol=1e-9)


def test_mirrored_keypoints_are_those_of_the_mirrored_pose() -> None:
    states = np.stack([start_state(seed) for seed in range(50)])
    points = keypoints_of(*states[:, 2:].T).reshape(-1, 18)
    twin = mirrored({"observation.state": states, "observation.environment_state": points})
    expected = keypoints_of(*twin["observation.state"][:, 2:].T).reshape(-1, 18)
    np.testing.assert_allclose(twin["observation.environment_state"], expected, atol=1e-9)


def test_mirror_keeps_the_coverage() -> None:
    states = np.stack([start_state(seed) for seed in range(50)])
    states[:, 2:4] = 256 + (states[:, 2:4] - 256) / 5
    twin = mirrored({"observation.state": states})["observation.state"]
    for before, after in zip(states, twin, strict=True):
        assert coverage_of(*after[2:]) == pytest.approx(coverage_of(*before[2:]), abs=1e-12)


def test_mirrored_real_demonstrations_move_the_block_the_same_way(pusht_first5_zip: Path) -> None:
    replay = open_replay(pusht_first5_zip)
    stop = int(replay.episode_ends[0])
    columns = {
        "observation.state": replay.read("state", 0, stop).astype(np.float64),
        "action": replay.read("action", 0, stop).astype(np.float64),
    }
    twin = mirrored(columns)
    table = PushTPhysics()
    table.set_state(twin["observation.state"][0], legacy=False)
    for action in twin["action"]:
        table.step(*action)
    original = PushTPhysics()
    original.set_state(columns["observation.state"][0], legacy=False)
    for action in columns["action"]:
        original.step(*action)
    assert table.coverage() == pytest.approx(original.coverage(), abs=0.05)


def test_unknown_feature_is_refused() -> None:
    with pytest.raises(DataError, match=r"observation\.depth"):
        mirrored({"observation.depth": np.zeros((2, 4, 4, 3))})
