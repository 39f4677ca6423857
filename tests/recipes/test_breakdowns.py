"""Training that breaks down says what to do and leaves its last good step."""

import ctypes
import os
import resource
import signal
from pathlib import Path

import dp_hub_recipes.train as recipe
import numpy as np
import pytest
import torch
from dp_hub_recipes.train import train
from made_runs import (
    NO_CHANCE,
    assert_same_run,
    configuration,
    demonstrations,
    end,
    largest_difference,
    newest_step,
    run_made,
    start,
    start_together,
    weights,
)
from safetensors.torch import load_file

from dp_hub.errors import TrainingError
from dp_hub.training.breakdown import runs_out_of_memory
from dp_hub.training.checkpoints import list_checkpoints

M_MMAP_THRESHOLD = -3
MB = 1_000_000
WIDE = {
    "policy": {**NO_CHANCE, "denoiser": {"kind": "mlp", "width": 64, "depth": 6}},
    "batch_size": 4096,
    "steps": 9,
    "save_every": 4,
    "eval_every": 0,
}
"""A hundred megabytes for the gradient, and next to none for anything else."""


def many():
    return demonstrations(300)  # so that an epoch has one batch of 4096, or two of 2048


def spiked():
    """One action is so large that its square is not a float; it trains (6 and 0 validate)."""
    held_out = np.random.default_rng(42).choice(8, size=2, replace=False)
    assert 1 not in held_out
    made = demonstrations()
    made.column("action")[made.episodes.stops[0] + 5] = 1e30
    return made


def spiked_configuration(out_dir, **changes):
    policy = {**NO_CHANCE, "normalization": "identity"}
    return configuration(out_dir, **({"policy": policy, "batch_size": 8} | changes))


def all_finite(folder):
    files = list(folder.rglob("*.safetensors"))
    assert files
    return all(value.isfinite().all() for file in files for value in load_file(file).values())


def run_short_of_memory(out_dir):
    """Train until the system gives no more memory in step 7; what was said goes to a file."""
    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MB // 10)  # what is freed is given back
    calls, agree = [], recipe.agree

    def agree_and_run_short(*arguments):
        calls.append(1)
        if len(calls) == 6:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            size = pages * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + 16 * MB, -1))
        return agree(*arguments)

    recipe.agree = agree_and_run_short
    try:
        train(configuration(out_dir, **WIDE), many())
    except TrainingError as error:
        (out_dir / "said.txt").write_text(str(error))


def run_wide(out_dir, changes, resume):
    torch.set_num_threads(1)
    train(configuration(out_dir, **(WIDE | changes)), many(), resume=resume)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_run_out_of_memory_saves_its_last_step_and_goes_on_as_advised(tmp_path):
    straight, short, advised = tmp_path / "straight", tmp_path / "short", tmp_path / "advised"
    end([start(run_wide, straight, {}, False), start(run_short_of_memory, short)])
    said = (short / "said.txt").read_text()
    assert "out of memory in step 7: " in said and "allocate" in said
    assert f"the newest checkpoint is {short / 'checkpoints' / 'step_00000006'}" in said
    advice = "--batch_size 2048 --grad_accumulation 2"
    assert advice in said
    assert list_checkpoints(short / "checkpoints") == [4, 6]  # nothing was deleted for it
    short.rename(advised)
    end([start(run_wide, advised, {"batch_size": 2048, "grad_accumulation": 2}, True)])
    assert newest_step(advised) == 9
    assert largest_difference(weights(straight), weights(advised)) < 1e-5


def test_step_saved_when_memory_ran_out_is_that_of_an_unbroken_run(tmp_path):
    end([start(run_short_of_memory, tmp_path / "short")])
    end([start(run_wide, tmp_path / "straight", {}, False)])
    end([start(run_wide, tmp_path / "short", {}, True)])
    assert_same_run(tmp_path / "straight", tmp_path / "short")


def test_what_says_that_memory_ran_out():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert runs_out_of_memory(caught.value)
    assert runs_out_of_memory(MemoryError()) and runs_out_of_memory(torch.OutOfMemoryError("x"))
    assert not runs_out_of_memory(RuntimeError("shapes differ"))


def test_other_errors_pass_as_they_are(tmp_path, monkeypatch):
    made = demonstrations()
    monkeypatch.setattr("dp_hub_recipes.train.agree", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(configuration(tmp_path), made)


def test_gradient_that_is_not_finite_stops_with_advice_and_spares_the_weights(tmp_path):
    changes = {"seed": 2}  # the spike is first seen in step 4
    config = spiked_configuration(tmp_path, save_every=1, keep_last=1, **changes)
    with pytest.raises(TrainingError, match="stopped being a finite number") as caught:
        train(config, spiked())
    assert "lower optimizer.lr" in caught.value.hint and "--resume" in caught.value.hint
    steps = list_checkpoints(tmp_path / "checkpoints")
    assert steps == [3, 4]  # the regular one, and that of the step it stopped at
    said = str(caught.value)
    assert f"the newest checkpoint is {tmp_path / 'checkpoints' / 'step_00000004'}" in said
    three, four = (tmp_path / "checkpoints" / f"step_0000000{step}" for step in steps)
    before, after = (load_file(path / "model.safetensors") for path in (three, four))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all_finite(tmp_path / "checkpoints")
    # The data mended (and so called the same), the run goes on to its end.
    run = train(spiked_configuration(tmp_path, **changes), demonstrations(), resume=True)
    assert run.finished and all_finite(tmp_path)


def test_broken_steps_between_two_looks_leave_weights_and_optimizer_as_they_were(tmp_path):
    config = spiked_configuration(tmp_path, log_every=20)
    with pytest.raises(TrainingError, match="within the last 20 of 20 steps"):
        train(config, spiked())
    [step] = list_checkpoints(tmp_path / "checkpoints")
    assert step == 20 and all_finite(tmp_path / "checkpoints")
    moments = load_file(tmp_path / "checkpoints" / "step_00000020" / "optimizer.safetensors")
    assert 5 < moments["0.step"] < 20  # so many of the twenty were good


def test_rate_that_is_far_too_high_stops_and_never_saves_what_is_not_finite(tmp_path):
    config = configuration(tmp_path, optimizer={"lr": 1e30, "warmup_steps": 0}, save_every=1)
    with pytest.raises(TrainingError):
        train(config, demonstrations())
    assert all_finite(tmp_path / "checkpoints")


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    run = train(configuration(tmp_path), demonstrations())
    with torch.no_grad():
        next(run.policy.parameters()).fill_(torch.inf)
    run.step = 30
    with pytest.raises(TrainingError, match=r"encoder|denoiser\..* not finite at step 30"):
        recipe.save_run(run, tmp_path, configuration(tmp_path), score=None)
    assert list_checkpoints(tmp_path / "checkpoints") == [20] and len(run.kept) == 1


def test_end_of_another_process_saves_the_last_step_of_the_first(tmp_path):
    changes = {"batch_size": 16, "steps": 5000}
    first, second = start_together(2, run_and_tell, tmp_path, changes)
    while not (tmp_path / "metrics.jsonl").exists() or not (
        tmp_path / "metrics.jsonl"
    ).read_text().count("\n"):
        assert first.is_alive()
    os.kill(second.pid, signal.SIGKILL)
    end([first])
    said = (tmp_path / "said.txt").read_text()
    assert "another process of this training ended in step" in said
    assert f"the newest checkpoint is {tmp_path}/checkpoints/step_" in said
    step = newest_step(tmp_path)
    assert 5 <= step < 5000
    end(start_together(2, run_made, tmp_path, changes | {"steps": step + 3}, True))
    assert newest_step(tmp_path) == step + 3


def run_and_tell(out_dir, changes):
    try:
        run_made(out_dir, changes, False)
    except TrainingError as error:
        (out_dir / "said.txt").write_text(str(error))
