"""``dp-hub compare``, ``dp-hub runs`` and scores in a policy's card, as they are typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dp_hub.hub import LocalHub
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.config import DiffusionConfig, FlowObjective, MlpConfig
from dp_hub.policies.diffusion import make_policy
from dp_hub.policies.saving import save_policy


def make_folder(folder: Path, *, seed: int) -> Path:
    """An untrained policy that looks at the agent and the nine keypoints."""
    torch.manual_seed(seed)
    config = DiffusionConfig(
        observations=["observation.environment_state", "observation.state[:2]"],
        denoiser=MlpConfig(width=16, depth=1, step_embed_dim=8),
        objective=FlowObjective(num_inference_steps=2),
    )
    rows = np.random.default_rng(0).uniform(50, 450, (40, 18)).astype(np.float32)
    columns = {
        "observation.environment_state": rows,
        "observation.state": rows[:, :5],
        "action": rows[:, :2],
    }
    widths = {name: values.shape[1] for name, values in columns.items()}
    policy = make_policy(config, widths, normalizer=Normalizer.fit(columns))
    return save_policy(policy, folder)


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("policies")
    return [make_folder(root / name, seed=seed) for seed, name in enumerate(("one", "two"))]


def dp_hub(
    *arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("dp-hub")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=cwd)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_two_policies_are_compared_on_the_same_seeds(policies: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "comparison.json"
    done = dp_hub("compare", *policies, "--episodes", 4, "--json", out)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["n_episodes"] == 4 and found["seed"] == 100_000
    assert found["wins"] + found["ties"] + found["losses"] == 4
    difference = found["a"]["mean_max_reward"] - found["b"]["mean_max_reward"]
    assert found["mean_max_reward_difference"]["value"] == pytest.approx(difference)
    assert f"{difference:+.4f}" in done.stdout and "McNemar" in done.stdout


def test_a_file_is_compared_with_a_policy_on_the_files_seeds(
    policies: list[Path], tmp_path: Path
) -> None:
    scores, out = tmp_path / "scores.json", tmp_path / "comparison.json"
    late = ("--episodes", 2, "--seed", 7, "--latency-steps", 1, "--interval", "beta")
    assert dp_hub("eval", policies[0], *late, "--json", scores).returncode == 0
    values = json.loads(scores.read_text())
    assert values["metrics"]["success_rate"]["method"] == "Jeffreys beta"
    assert values["config"]["latency_steps"] == 1 and values["config"]["scheduler"] == "euler"
    done = dp_hub("compare", scores, policies[0], "--json", out)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["seed"] == 7
    assert "latency_steps" in done.stdout and "differs" in done.stdout
    done = dp_hub("compare", scores, policies[1], "--episodes", 5)
    assert done.returncode == 1 and done.stdout == ""
    assert "seeds 7 to 8, not 7 to 11" in done.stderr and "episodes" not in done.stderr[:8]


def test_scores_go_to_the_card_of_a_folder(policies: list[Path]) -> None:
    card = policies[0] / "README.md"
    before = card.read_text()
    for _ in range(2):
        done = dp_hub("eval", policies[0], "--episodes", 2, "--to-card")
        assert done.returncode == 0, done.stderr
    text = card.read_text()
    assert text.count("| pusht | 100000 to 100001 |") == 1
    assert before.partition("\n---\n")[2].rstrip("\n") in text
    assert "solver euler, steps 2, executed steps 8" in text


def test_scores_of_a_policy_of_the_hub_go_to_a_pull_that_can_be_pushed(
    policies: list[Path], tmp_path: Path
) -> None:
    with LocalHub(tmp_path / "hub") as hub:
        env = {**os.environ, **hub.env, "HF_HOME": str(tmp_path / "cache")}
        assert dp_hub("push", policies[1], "me/two", env=env).returncode == 0
        options = ("me/two", "--episodes", 1, "--to-card")
        done = dp_hub("eval", *options, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "dp-hub push two me/two" in done.stderr
        pushed = dp_hub("push", "two", "me/two", env=env, cwd=tmp_path)
        assert pushed.returncode == 0, pushed.stderr
        (tmp_path / "again").mkdir()
        done = dp_hub("pull", "me/two", "--to", tmp_path / "again" / "two", env=env)
        assert done.returncode == 0, done.stderr
        assert "| pusht | 100000 to 100000 |" in (tmp_path / "again/two/README.md").read_text()
        (tmp_path / "again/two/model.safetensors").unlink()
        done = dp_hub("eval", *options, env=env, cwd=tmp_path / "again")
    assert done.returncode == 1 and done.stdout == ""
    assert "me/two would be pulled to two" in done.stderr


def test_runs_are_summed_up_drawn_and_told_when_they_cannot(
    policies: list[Path], tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    for seed in (42, 43):
        folder = sweep / f"seed_{seed}"
        folder.mkdir(parents=True)
        lines = [
            {"step": step, "train/loss": 1 / step, "train/elapsed_s": 60 * step} for step in (1, 2)
        ]
        lines += [{"step": 2, "val/loss": 1.0, "rollout/mean_max_reward": seed / 100}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        episode = {"seed": 7, "max_reward": 0.5, "success": False}
        scores = {"env": "pusht", "config": {"max_steps": 300}, "episodes": [episode]}
        (folder / "ev").mkdir()
        (folder / "ev/scores.json").write_text(json.dumps(scores))
    out, plot = tmp_path / "runs.json", tmp_path / "plot.png"
    done = dp_hub("runs", sweep, "--json", out, "--plot", plot)
    assert done.returncode == 0, done.stderr
    values = json.loads(out.read_text())
    assert values["summary"]["max"] == {
        "each": [0.42, 0.43],
        "mean": pytest.approx(0.425),
        "std": pytest.approx(0.01 / 2**0.5),
    }
    held_out = values["held_out"]["ev/scores.json"]["mean_max_reward"]
    assert held_out["low"] == held_out["value"] == held_out["high"]  # the same scores twice
    assert "seed_42" in done.stdout and "0.4250" in done.stdout and "ev/scores.json" in done.stdout
    assert Image.open(plot).format == "PNG"
    done = dp_hub("runs", sweep, "--metric", "rollout/speed")
    assert done.returncode == 0 and "left out" in done.stderr and "ev/scores.json" in done.stdout
    done = dp_hub("runs", tmp_path / "nowhere")
    assert done.returncode == 1 and "there is no folder" in done.stderr
    done = dp_hub("runs", policies[0])
    assert done.returncode == 1 and "holds no training run" in done.stderr
