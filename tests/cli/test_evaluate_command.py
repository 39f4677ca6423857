import json
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from dp_hub.hub import LocalHub
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.config import DiffusionConfig, FlowObjective, MlpConfig
from dp_hub.policies.diffusion import make_policy
from dp_hub.policies.saving import save_policy


@pytest.fixture(scope="module")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained policy that looks at the agent and the nine keypoints."""
    torch.manual_seed(0)
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
    return save_policy(policy, tmp_path_factory.mktemp("policies") / "pusht")


def dp_hub(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("dp-hub")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_eval_writes_scores_picture_and_video(policy_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "eval"
    done = dp_hub("eval", str(policy_folder), "--episodes", "3", "--out", str(out), "--each")
    assert done.returncode == 0, done.stderr
    scores = json.loads((out / "scores.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == [
        "contact_sheet.png",
        "scores.json",
        "video.mp4",
    ]
    assert f"{scores['metrics']['mean_max_reward']['value']:.4f}" in done.stdout
    assert all(str(row["seed"]) in done.stdout for row in scores["episodes"])
    assert scores["config"]["policy"] == str(policy_folder)
    assert len(scores["config"]["weights_sha256"]) == 64
    assert scores["config"]["policy_config"]["n_action_steps"] == 8
    assert Image.open(out / "contact_sheet.png").width > 600
    with av.open(str(out / "video.mp4")) as video:
        stream = video.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.average_rate == 10
        n_frames = sum(1 for _ in video.decode(stream))
    longest = max(row["steps"] for row in scores["episodes"])
    assert n_frames >= longest + 1


def test_eval_prints_the_same_scores_again(policy_folder: Path, tmp_path: Path) -> None:
    scores = []
    for name in ("one", "two"):
        file = tmp_path / f"{name}.json"
        done = dp_hub("eval", str(policy_folder), "--episodes", "2", "--json", str(file))
        assert done.returncode == 0, done.stderr
        scores.append(json.loads(file.read_text())["episodes"])
    assert scores[0] == scores[1]


def test_eval_of_nothing_says_what_it_wants(tmp_path: Path) -> None:
    done = dp_hub("eval", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "error:" in done.stderr and "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_eval_of_a_mistyped_folder_that_may_be_a_name_says_both(tmp_path: Path) -> None:
    with LocalHub(tmp_path / "hub") as hub:
        env = {**os.environ, **hub.env, "HF_HOME": str(tmp_path / "cache")}
        done = dp_hub("eval", "no/where", env=env)
    assert done.returncode == 1
    assert "there is no folder no/where, and as a name on the Hub" in done.stderr


def test_eval_refuses_a_wrong_file_name_before_it_starts(policy_folder: Path) -> None:
    done = dp_hub("eval", str(policy_folder), "--video", "show.gif")
    assert done.returncode == 1
    assert "show.gif does not end in .mp4" in done.stderr


def test_eval_of_an_impossible_device_names_one_that_works(policy_folder: Path) -> None:
    done = dp_hub("eval", str(policy_folder), "--device", "abacus")
    assert done.returncode == 1
    assert "'abacus'" in done.stderr and "--device cpu" in done.stderr


def test_eval_of_a_pushed_policy_notes_the_commit(policy_folder: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    with LocalHub(tmp_path / "hub") as hub:
        env = {**os.environ, **hub.env, "HF_HOME": str(tmp_path / "cache")}
        pushed = dp_hub("push", str(policy_folder), "me/pusht", env=env)
        assert pushed.returncode == 0, pushed.stderr
        done = dp_hub("eval", "me/pusht", "--episodes", "1", "--json", str(scores), env=env)
    assert done.returncode == 0, done.stderr
    config = json.loads(scores.read_text())["config"]
    assert config["policy"] == "me/pusht"
    assert re.fullmatch(r"[0-9a-f]{40}", config["sha"])
