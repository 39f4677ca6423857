"""``--help`` of the recipes: what a person can set, and nothing is done."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from dp_hub_recipes.train import main

from dp_hub.config import build, with_overrides
from dp_hub.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def printed(capsys):
    assert main(["nowhere.yaml", "--help"]) == 0
    result = capsys.readouterr()
    assert result.err == ""
    return result.out


def test_help_of_training_shows_usage_and_settings_with_defaults(printed):
    assert printed.startswith("usage: train.py CONFIG.yaml [--resume]")
    one_line = " ".join(printed.split())
    assert "--steps N|null Optimiser steps of the whole run. (null)" in one_line
    assert "--out_dir TEXT Where checkpoints, metrics and the policy go. (required)" in one_line
    assert "--optimizer.betas [X, X] Of Adam's two averages. ([0.95, 0.999])" in one_line
    assert "with --policy.denoiser.kind unet (default): --policy.denoiser.step_embed" in one_line
    assert "--policy.latent_dim N Width of the style variable. (32)" in one_line
    assert max(map(len, printed.splitlines())) <= 100


def test_every_setting_is_told_once_for_each_kind_and_is_one(printed):
    names = re.findall(r"^  --([\w.]+) ", printed, flags=re.MULTILINE)
    assert len(names) > 90
    tops = {name.partition(".")[0] for name in names}
    assert tops == set(TrainConfig.model_fields)
    assert max(names.count(name) for name in names) == 2  # of diffusion and of act
    values = {"dataset": "d", "out_dir": "o", "epochs": 1}
    once = [name for name in names if name.startswith(("split.", "ema.", "rollout.", "streaming."))]
    assert len(once) > 10
    for name in once:
        default = re.search(rf"--{re.escape(name)} .*?\(([^()]*)\)\n  ", printed, re.DOTALL)[1]
        build(TrainConfig, with_overrides(values, [f"--{name}", default]), where="the test")


@pytest.mark.parametrize(
    ("recipe", "words"),
    [("sweep.py", ["--seeds", "CONFIG.yaml", "train.py --help"]), ("demo.py", ["make demo"])],
)
def test_other_recipes_answer_too_and_do_nothing(tmp_path, recipe, words):
    command = [sys.executable, str(ROOT / "recipes" / recipe), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: " in done.stdout and all(word in done.stdout for word in words)
    assert list(tmp_path.iterdir()) == []
