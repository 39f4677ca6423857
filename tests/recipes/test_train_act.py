"""The training recipe on ACT: from numbers and pictures, resumed exactly, scored, saved, loaded."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from dp_hub_recipes.train import main
from safetensors.torch import load_file

import dp_hub
from dp_hub.config import build
from dp_hub.policies.act import ActPolicy
from dp_hub.policies.saving import load_policy
from dp_hub.rollout.evaluation import evaluate
from dp_hub.training.config import TrainConfig
from dp_hub.training.data import training_data

CPU = torch.device("cpu")
TINY = {
    "kind": "act",
    "horizon": 16,
    "n_action_steps": 8,
    "hidden_dim": 16,
    "feedforward_dim": 32,
    "n_heads": 2,
    "n_encoder_layers": 1,
    "n_style_layers": 1,
}
SEEING = {
    "observations": ["observation.image", "observation.state[:2]"],
    "vision": {"resize": [32, 32]},
}


def values(folder, out_dir, policy, **changes):
    return {
        "dataset": str(folder),
        "out_dir": str(out_dir),
        "policy": TINY | policy,
        "split": {"val_ratio": 0.2},
        "batch_size": 16,
        "steps": 6,
        "optimizer": {"lr": 1e-3, "warmup_steps": 2},
        "cpu_threads": 1,
        "log_every": 3,
        "save_every": 3,
        "keep_last": 9,
        "loggers": [],
    } | changes


def run(tmp_path, *arguments, **settings):
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(values(**settings)))
    assert main([str(path), *arguments]) == 0


@pytest.mark.parametrize("policy", [{}, SEEING], ids=["numbers", "pictures"])
def test_a_trained_policy_acts_in_the_simulator(pusht_webp, tmp_path, capsys, policy):
    rollout = {"every": 6, "episodes": 1}
    run(tmp_path, folder=pusht_webp, out_dir=tmp_path / "run", policy=policy, rollout=rollout)
    loaded = load_policy(capsys.readouterr().out.strip())
    assert isinstance(loaded, ActPolicy)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    (score,) = [line for line in lines if "rollout/mean_max_reward" in line]
    assert 0 <= score["rollout/mean_max_reward"] <= 1
    assert np.isfinite(score["val/loss"]) and np.isfinite(score["train/action_mse"])
    again = evaluate(loaded, env="pusht", episodes=1, seed=200000)
    assert again.mean_max_reward == pytest.approx(score["rollout/mean_max_reward"], abs=1e-6)


@pytest.mark.parametrize(
    ("policy", "precision"),
    [({}, "no"), ({}, "bf16"), (SEEING, "no")],
    ids=["numbers", "bf16", "pictures"],
)
def test_a_resumed_run_equals_one_without_a_break(pusht_webp, tmp_path, policy, precision):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    settings = {"folder": pusht_webp, "policy": policy, "mixed_precision": precision}
    run(tmp_path, out_dir=straight, **settings)
    shutil.copytree(straight, broken)
    shutil.rmtree(broken / "checkpoints" / "step_00000006")
    shutil.rmtree(broken / "policy")
    torch.manual_seed(999)
    run(tmp_path, "--resume", out_dir=broken, **settings)
    one, other = (
        load_file(folder / "policy" / "model.safetensors") for folder in (straight, broken)
    )
    assert len(one) > 30 and one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("n_action_steps", [1, 8])
def test_every_step_of_an_episode_begins_a_window(pusht_webp, n_action_steps):
    dataset = dp_hub.open_dataset(pusht_webp)
    settings = values(pusht_webp, "unused", {"n_action_steps": n_action_steps})
    settings["split"] = {"val_ratio": 0}
    data = training_data(dataset, build(TrainConfig, settings, where="the test"), device=CPU)
    stops = dataset.episodes.stops
    assert len(data.train) == stops[-1]
    batch = data.train.__getitems__(np.arange(stops[0]))
    left = np.minimum(np.arange(stops[0], 0, -1), 16)  # steps that are still to come
    assert batch["action_is_pad"].logical_not().sum(dim=1).tolist() == left.tolist()
    assert batch["observation.state"].shape == (stops[0], 1, 5)


def test_streamed_windows_are_those_read_from_the_folder(pusht_webp):
    whole, streamed = (
        build(TrainConfig, values(pusht_webp, "unused", {}, streaming=on), where="the test")
        for on in (False, True)
    )
    one = training_data(dp_hub.open_dataset(pusht_webp), whole, device=CPU)
    other = training_data(dp_hub.stream_dataset(str(pusht_webp)), streamed, device=CPU)
    assert len(other.batches) == len(one.batches)
    assert len(other.train) == len(one.train)
    for name in one.normalizer.names:
        torch.testing.assert_close(other.normalizer[name].scale, one.normalizer[name].scale)
