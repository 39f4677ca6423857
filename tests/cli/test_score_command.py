"""``dp-hub score`` as a person calls it."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dp_hub.cli.main import app
from dp_hub.dataset.features import plan_columns
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.envs.pusht.physics import GOAL_POSE
from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode
from dp_hub.rollout.intervals import bootstrap_mean, wilson


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Four episodes of the simulated robot, three of which end on the goal."""
    away = (400.0, 100.0, 1.0)
    ends = [GOAL_POSE, GOAL_POSE, away, GOAL_POSE]
    episodes = []
    for number, end in enumerate(ends):
        state = np.array([(0.0, 0.0, *away), (0.0, 0.0, *end)])
        data = {"observation.state": state, "action": state[:, :2]}
        episodes.append(Episode(data, metadata={"seed": number, "success": end == GOAL_POSE}))
    columns = plan_columns(episodes[0].data)
    with DatasetWriter(tmp_path / "D", columns, fps=10, robot_type="pusht") as writer:
        for episode in episodes:
            writer.add_episode(episode)
        writer.finish()
    return tmp_path / "D"


def test_sums_and_intervals_are_those_of_the_episodes(recorded: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    result = CliRunner().invoke(app, ["score", str(recorded), "--each", "--json", str(file)])
    assert result.exit_code == 0, result.output
    assert "success rate" in result.stdout and "75.0%" in result.stdout
    values = json.loads(file.read_text())
    iou = [one["iou"] for one in values["episodes"]]
    assert iou == pytest.approx([1.0, 1.0, 0.0, 1.0])
    assert values["sums"]["success"] == wilson(3, 4).as_dict()
    assert values["sums"]["iou"]["value"] == pytest.approx(0.75)
    assert values["sums"]["max_reward"] == bootstrap_mean(np.array([1.0, 1.0, 0.0, 1.0])).as_dict()
    assert values["by"]["block"] == "observation.state"
    assert len(values["fingerprint"]) == 64


def test_seeds_choose_episodes_and_the_interval_can_be_another(
    recorded: Path, tmp_path: Path
) -> None:
    file = tmp_path / "scores.json"
    words = ["score", str(recorded), "--seeds", "2-3", "--interval", "beta", "--json", str(file)]
    assert CliRunner().invoke(app, words).exit_code == 0
    values = json.loads(file.read_text())
    assert [one["seed"] for one in values["episodes"]] == [2, 3]
    assert values["sums"]["success"]["method"] == "Jeffreys beta"


def test_what_cannot_be_is_refused_before_anything_is_read(recorded: Path) -> None:
    for words in (["--hsv", "red"], ["--seeds", "9-1"], ["--json", "scores.txt"]):
        result = CliRunner().invoke(app, ["score", str(recorded), *words])
        assert result.exit_code == 1 and result.exception is not None
    result = CliRunner().invoke(app, ["score", str(recorded), "--reference", "none.png"])
    assert isinstance(result.exception, DataError)
