"""The page that shows the loop of a rollout: it runs, and says what is wrong."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.config import DiffusionConfig, FlowObjective, MlpConfig
from dp_hub.policies.diffusion import make_policy
from dp_hub.policies.saving import save_policy
from dp_hub.robot.config import find_robot

pytestmark = pytest.mark.alone  # against the wall clock

RECIPE = Path(__file__).parents[2] / "recipes" / "run_robot.py"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained one that observes the state."""
    torch.manual_seed(0)
    config = DiffusionConfig(
        observations=["observation.state"],
        denoiser=MlpConfig(width=16, depth=1, step_embed_dim=8),
        objective=FlowObjective(num_inference_steps=2),
    )
    rows = np.random.default_rng(0).uniform(50, 450, (40, 5)).astype(np.float32)
    normalizer = Normalizer.fit({"observation.state": rows, "action": rows[:, :2]})
    features = {"observation.state": 5, "action": 2}
    made = make_policy(config, features, normalizer=normalizer)
    return save_policy(made, tmp_path_factory.mktemp("policies") / "state")


def robot(folder: Path, observes: dict[str, str]) -> Path:
    values = yaml.safe_load(find_robot("pusht").read_text())
    values |= {"cameras": {}, "observations": observes, "episode_s": 2, "hold_after_s": 10}
    values["arms"]["arm"] |= {"max_age_s": 10, "options": {"silent_s": 10}}
    file = folder / "robot.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RECIPE), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


def test_a_short_episode_runs(policy: Path, tmp_path: Path) -> None:
    ended = run(policy, "--robot", robot(tmp_path, {"observation.state": "arm.state"}))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("episode 0: reward ") and "answers" in ended.stdout


def test_what_does_not_fit_is_a_sentence(policy: Path, tmp_path: Path) -> None:
    ended = run(policy, "--robot", robot(tmp_path, {"observation.other": "arm.state"}))
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "error: the policy observes observation.state (5 numbers)" in ended.stderr
    ended = run(policy, "--robot", "pushed")
    assert ended.returncode == 1 and "did you mean `pusht`?" in ended.stderr
