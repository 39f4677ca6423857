"""The training recipe: it learns, continues exactly, stops in order, and says what is wrong."""

import itertools
import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from dp_hub_recipes.train import main, train
from made_runs import (
    NO_CHANCE,
    assert_same_run,
    configuration,
    demonstrations,
    everything,
    largest_difference,
    lines_of,
    weights,
)
from safetensors.torch import load_file

from dp_hub.dataset.convert import convert
from dp_hub.errors import ConfigError
from dp_hub.policies.saving import load_policy, read_record
from dp_hub.training.metrics import JsonLines
from dp_hub.training.schedule import Stopwatch


@pytest.mark.parametrize("changes", [{}, {"grad_accumulation": 2}, {"mixed_precision": "bf16"}])
def test_resumed_run_equals_one_without_a_break(tmp_path, changes):
    train(configuration(tmp_path / "straight", **changes), demonstrations())
    part = configuration(tmp_path / "broken", save_every=10, keep_last=9, **changes)
    train(part, demonstrations())
    # As if it had been killed after its checkpoint at step 10.
    killed = tmp_path / "broken" / "checkpoints"
    for path in killed.iterdir():
        if path.name != "step_00000010":
            path.rename(tmp_path / path.name)
    torch.manual_seed(999)
    train(configuration(tmp_path / "broken", **changes), demonstrations(), resume=True)
    tensors, _ = everything(tmp_path / "straight")
    assert tensors["optimizer/0.step"] == 20  # one per optimiser step, also with accumulation
    assert_same_run(tmp_path / "straight", tmp_path / "broken")
    one, other = (
        load_file(tmp_path / name / "policy" / "model.safetensors")
        for name in ("straight", "broken")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_interrupted_run_saves_and_continues_exactly(tmp_path, caplog, monkeypatch):
    train(configuration(tmp_path / "straight", steps=40), demonstrations())
    step, calls = torch.optim.AdamW.step, itertools.count(1)

    def interrupted(*args, **options):
        if next(calls) == 17:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", interrupted)
        stopped = train(configuration(tmp_path / "broken", steps=40), demonstrations())
    assert stopped.step == 17 and not stopped.finished
    assert "--resume continues" in caplog.text
    assert not (tmp_path / "broken" / "policy").exists()
    again = train(configuration(tmp_path / "broken", steps=40), demonstrations(), resume=True)
    assert again.finished
    assert_same_run(tmp_path / "straight", tmp_path / "broken")


def test_run_in_short_sessions_equals_one_in_a_single_session(tmp_path):
    train(configuration(tmp_path / "straight"), demonstrations())
    short = configuration(tmp_path / "short", session_minutes=1e-6)
    sessions = [train(short, demonstrations(), resume=True) for _ in range(3)]
    assert [run.step for run in sessions] == [1, 2, 3]
    assert not any(run.finished or run.interrupted for run in sessions)
    assert train(configuration(tmp_path / "short"), demonstrations(), resume=True).finished
    assert_same_run(tmp_path / "straight", tmp_path / "short")


@pytest.mark.parametrize("conditioning", ["global", "inpainting"])
def test_every_conditioning_is_evaluated_on_the_way(tmp_path, conditioning):
    policy = {**NO_CHANCE, "conditioning": conditioning}
    run = train(configuration(tmp_path, policy=policy, steps=4, eval_every=2), demonstrations())
    assert run.finished
    measured = [line for line in lines_of(tmp_path) if "train/action_mse" in line]
    assert [line["step"] for line in measured] == [2, 4]


def test_evaluating_more_often_changes_nothing(tmp_path):
    for name, every in (("rarely", 0), ("often", 1)):
        config = configuration(tmp_path / name, eval_every=every, log_every=every or 9)
        train(config, demonstrations())
    assert_same_run(tmp_path / "rarely", tmp_path / "often")


def test_run_learns_and_leaves_a_policy_with_averaged_weights(tmp_path, capsys):
    config = configuration(
        tmp_path, steps=150, eval_every=30, optimizer={"lr": 1e-2, "warmup_steps": 3}
    )
    run = train(config, demonstrations(), command="python recipes/train.py x.yaml")
    lines = lines_of(tmp_path)
    losses = [line["val/loss"] for line in lines if "val/loss" in line]
    errors = [line["train/action_mse"] for line in lines if "val/loss" in line]
    assert len(losses) == 5 and losses[-1] < 0.8 * losses[0]
    assert errors[-1] < 0.75 * errors[0]
    assert max(line["train/lr"] for line in lines if "train/lr" in line) <= 1e-2
    policy = load_policy(tmp_path / "policy")
    averaged = run.ema.model.state_dict()
    assert all(torch.equal(value, averaged[name]) for name, value in policy.state_dict().items())
    assert not torch.equal(policy.denoiser.leave.weight, run.policy.denoiser.leave.weight)
    assert read_record(tmp_path / "policy").dataset.fingerprint == "f" * 64
    card = (tmp_path / "policy" / "README.md").read_text()
    assert "optimiser steps | 150" in card and "python recipes/train.py x.yaml" in card
    assert capsys.readouterr().out.strip() == str(tmp_path / "policy")


def test_policy_that_inpaints_is_trained_and_evaluated(tmp_path):
    policy = {**NO_CHANCE, "conditioning": "inpainting"}
    train(configuration(tmp_path, steps=2, policy=policy), demonstrations())
    assert {"train/action_mse", "val/loss"} <= lines_of(tmp_path)[-1].keys()


def test_normaliser_is_fitted_on_the_training_episodes_only(tmp_path):
    dataset = demonstrations()
    stops = dataset.episodes.stops
    held_out = np.random.default_rng(42).choice(8, size=2, replace=False)
    dataset.column("action")[stops[held_out[0]] - 1] = 1e6
    train(configuration(tmp_path), dataset)
    assert load_policy(tmp_path / "policy").normalizer["action"].max.max() < 1000


def test_newest_and_best_checkpoints_are_kept(tmp_path):
    train(configuration(tmp_path, save_every=5, eval_every=5, keep_best=1), demonstrations())
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    lines = lines_of(tmp_path)
    by_loss = {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}
    best = min(by_loss, key=by_loss.get)
    assert kept == sorted({f"step_{best:08d}", "step_00000020"})


def test_best_are_kept_whichever_steps_are_saved_otherwise(tmp_path):
    changes = {"save_every": 8, "eval_every": 3, "keep_best": 2}
    run = train(configuration(tmp_path, **changes), demonstrations())
    losses = {line["step"]: line["val/loss"] for line in lines_of(tmp_path) if "val/loss" in line}
    assert list(losses) == [3, 6, 9, 12, 15, 18, 20]
    best = set(sorted(losses, key=losses.get)[:2])
    assert any(step % 8 for step in best)
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {f"step_{step:08d}" for step in best | {20}}
    scores = {one.step: one.score for one in run.kept if one.score is not None}
    assert scores.items() >= {step: -losses[step] for step in best}.items()


def test_without_checkpoints_on_the_way_the_best_are_not_kept_either(tmp_path):
    train(configuration(tmp_path, save_every=0, eval_every=3), demonstrations())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000020"]


def test_policies_of_the_best_checkpoints_are_written_beside_the_last_one(tmp_path):
    changes = {"save_every": 4, "eval_every": 4, "keep_best": 2}
    run = train(configuration(tmp_path, **changes), demonstrations(), command="the command")
    losses = {line["step"]: line["val/loss"] for line in lines_of(tmp_path) if "val/loss" in line}
    best = {step for step in sorted(losses, key=losses.get)[:2] if step != run.step}
    assert best and {path.name for path in (tmp_path / "best").iterdir()} == {
        f"step_{step:08d}" for step in best
    }
    for step in best:
        folder = tmp_path / "best" / f"step_{step:08d}"
        averaged = load_file(tmp_path / "checkpoints" / folder.name / "ema.safetensors")
        chosen = load_policy(folder).state_dict()
        assert all(torch.equal(value, averaged[name]) for name, value in chosen.items())
        card = (folder / "README.md").read_text()
        assert f"optimiser steps | {step} " in card and f"{-losses[step]:.4g}" in card


def test_best_of_an_earlier_end_are_not_left_beside_those_of_a_later_one(tmp_path):
    changes = {"save_every": 4, "eval_every": 4, "keep_best": 2}
    train(configuration(tmp_path, **changes, steps=12), demonstrations())
    (tmp_path / "best" / "notes.txt").write_text("mine")
    run = train(configuration(tmp_path, **changes, steps=40), demonstrations(), resume=True)
    kept = {f"step_{one.step:08d}" for one in run.kept if one.step != run.step}
    found = {path.name for path in (tmp_path / "best").iterdir()} - {"notes.txt"}
    assert found <= kept and (tmp_path / "best" / "notes.txt").exists()


def test_numbers_of_a_run_tell_of_gradient_speed_waiting_and_memory(tmp_path):
    train(configuration(tmp_path, grad_accumulation=2), demonstrations())
    lines = [line for line in lines_of(tmp_path) if "train/loss" in line]
    assert len(lines) == 4
    for line in lines:
        assert (0 < line["train/grad_norm"] < 100 and 0 < line["train/lr"] <= 1e-3) or (
            line["step"] == 20
        )
        assert line["train/windows_per_s"] > 100
        assert 0 < line["train/data_wait_share"] < 1
        assert 0.05 < line["train/memory_gb"] < 50


def test_compiled_networks_train_as_others_and_weights_keep_their_names(tmp_path, monkeypatch):
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    policy = {**NO_CHANCE, "denoiser": {"kind": "mlp", "width": 8, "depth": 1}}
    changes = {"policy": policy, "steps": 6}
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # in this process
    train(configuration(tmp_path / "plain", **changes), demonstrations())
    train(configuration(tmp_path / "compiled", compile=True, **changes), demonstrations())
    one, other = (weights(tmp_path / name) for name in ("plain", "compiled"))
    assert largest_difference(one, other) < 1e-5
    assert not any("_orig_mod" in name for name in other)
    load_policy(tmp_path / "compiled" / "policy")


def test_compiling_without_a_compiler_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"none of g\+\+, clang\+\+ is there") as caught:
        train(configuration(tmp_path / "run", compile=True), demonstrations())
    assert caught.value.hint == "install g++, or leave compile out"


def test_run_limited_by_minutes_ends_in_time_with_a_falling_rate(tmp_path, monkeypatch):
    looks = itertools.count()  # 10 ms from look to look
    monkeypatch.setattr(Stopwatch, "elapsed_s", property(lambda self: 0.01 * next(looks)))
    config = configuration(tmp_path, steps=None, max_minutes=0.02, log_every=1)
    run = train(config, demonstrations())
    assert 1.2 <= run.stopwatch.elapsed_s < 1.4
    lines = lines_of(tmp_path)
    rates = [line["train/lr"] for line in lines if "train/lr" in line]
    assert rates[-1] < 0.02 * max(rates)


def test_second_run_into_the_same_folder_is_refused(tmp_path):
    train(configuration(tmp_path), demonstrations())
    with pytest.raises(ConfigError, match="already holds a run, at step 20"):
        train(configuration(tmp_path), demonstrations())


def test_resume_without_a_checkpoint_begins(tmp_path):
    assert train(configuration(tmp_path), demonstrations(), resume=True).step == 20


def test_resume_with_other_settings_names_the_setting(tmp_path):
    train(configuration(tmp_path, steps=5), demonstrations())
    policy = {**NO_CHANCE, "denoiser": {**NO_CHANCE["denoiser"], "width": 8}}
    with pytest.raises(ConfigError, match=r"`policy\.denoiser\.width` changed from 16 to 8 since"):
        train(configuration(tmp_path, policy=policy), demonstrations(), resume=True)
    other = {"lr": 1e-3, "warmup_steps": 3, "weight_decay": 0.1}
    with pytest.raises(ConfigError, match=r"`optimizer\.weight_decay` changed from 1e-06 to 0\.1"):
        train(configuration(tmp_path, optimizer=other), demonstrations(), resume=True)
    with pytest.raises(ConfigError, match="saw 32 windows and would now see 16") as caught:
        train(configuration(tmp_path, batch_size=16), demonstrations(), resume=True)
    assert "let the product stay" in caught.value.hint


def test_learning_rate_may_be_lowered_on_resume(tmp_path, caplog):
    train(configuration(tmp_path, steps=5), demonstrations())
    lower = {"lr": 1e-5, "warmup_steps": 0, "max_grad_norm": 1.0}
    train(configuration(tmp_path, optimizer=lower, log_every=1), demonstrations(), resume=True)
    assert "optimizer.lr was 0.001 before step 5" in caplog.text
    later = [line for line in lines_of(tmp_path) if line["step"] > 5]
    rates = [line["train/lr"] for line in later if "train/lr" in line]
    assert len(rates) >= 15 and max(rates) <= 1e-5


def test_resume_on_other_data_is_refused(tmp_path):
    train(configuration(tmp_path, steps=5), demonstrations())
    with pytest.raises(ConfigError, match="trained on other data"):
        train(configuration(tmp_path), demonstrations(fingerprint="0" * 64), resume=True)


def test_finished_run_can_be_continued_with_more_steps(tmp_path):
    train(configuration(tmp_path, steps=5), demonstrations())
    assert train(configuration(tmp_path, steps=8), demonstrations(), resume=True).step == 8


def test_feature_that_the_dataset_lacks_is_named_with_those_it_has(tmp_path):
    policy = {"observations": ["observation.touch"], "denoiser": {"kind": "mlp"}}
    with pytest.raises(ConfigError, match=r"no feature observation\.touch") as caught:
        train(configuration(tmp_path, policy=policy), demonstrations())
    assert caught.value.hint is not None
    assert "policy.observations: [observation.state]" in caught.value.hint
    assert caught.value.hint.endswith("the dataset has: observation.state, action")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no configuration was given"),
        (["nowhere.yaml"], "no configuration file at nowhere.yaml"),
        (
            ["recipes/configs/debug.yaml", "--stepz", "3"],
            "key `stepz`.*did you mean `steps`",
        ),
    ],
)
def test_mistakes_on_the_command_line_are_two_lines_and_status_1(arguments, message, capsys):
    assert main(arguments) == 1
    printed = capsys.readouterr().err
    assert re.search(message, printed, re.DOTALL) and "Traceback" not in printed


def test_folder_that_cannot_be_written_to_is_said_before_training(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    debug = str(Path(__file__).resolve().parents[2] / "recipes" / "configs" / "debug.yaml")
    for out_dir in (tmp_path / "file", tmp_path / "file" / "run", "/proc/run"):
        assert main([debug, "--dataset", "nowhere", "--out_dir", str(out_dir)]) == 1
        printed = capsys.readouterr().err
        assert printed.startswith("error: cannot write ") and str(out_dir) in printed
        assert "hint: choose another --out_dir" in printed and "Traceback" not in printed


def test_batch_larger_than_the_data_says_how_large_it_may_be(tmp_path):
    with pytest.raises(ConfigError, match="windows do not fill one batch of 4000") as caught:
        train(configuration(tmp_path, batch_size=4000), demonstrations())
    most = int(re.search(r"a batch_size of at most (\d+)", caught.value.hint)[1])
    assert "drop_last" not in caught.value.hint
    with pytest.raises(ConfigError, match="do not fill 2 batches") as caught:
        train(configuration(tmp_path, batch_size=most, grad_accumulation=2), demonstrations())
    assert f"at most {most // 2}," in caught.value.hint
    assert train(configuration(tmp_path, batch_size=most, steps=1), demonstrations()).finished


def test_metrics_of_a_resumed_run_hold_each_step_once(tmp_path):
    train(configuration(tmp_path, steps=10), demonstrations())
    JsonLines(tmp_path / "metrics.jsonl", resumed_step=10).log(17, {"train/loss": 1.0})
    train(configuration(tmp_path, steps=20), demonstrations(), resume=True)
    lines = lines_of(tmp_path)
    steps = [line["step"] for line in lines if "train/loss" in line]
    assert steps == [5, 10, 15, 20]


def test_command_trains_on_real_demonstrations_and_the_policy_acts(
    pusht_first5_zip, tmp_path, capsys
):
    convert("zarr", pusht_first5_zip, tmp_path / "pusht", drop=["img"])
    arguments = ["--dataset", str(tmp_path / "pusht"), "--out_dir", str(tmp_path / "run")]
    debug = Path(__file__).resolve().parents[2] / "recipes" / "configs" / "debug.yaml"
    arguments += ["--steps=30", "--rollout.every=20", "--rollout.episodes=2"]
    assert main([str(debug), *arguments, "--resume"]) == 0
    policy = load_policy(capsys.readouterr().out.strip())
    state = torch.tensor([200.0, 300, 250, 250, 0.5]).expand(1, 2, 5)
    keypoints = torch.full((1, 2, 18), 250.0)
    obs = {"observation.state": state, "observation.environment_state": keypoints}
    assert policy.predict_action(obs)["action"].shape == (1, 8, 2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    scored = [line for line in lines if "rollout/mean_max_reward" in line]
    assert [line["step"] for line in scored] == [20, 30]
    assert all(0 <= line["rollout/mean_max_reward"] <= 1 for line in scored)
    record = read_record(tmp_path / "run" / "policy")
    assert record.dataset.name == "pusht" and len(record.dataset.fingerprint) == 64
    assert record.features["observation.environment_state"] == 18
