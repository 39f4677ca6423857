"""A run that is killed anywhere and resumed ends as one that was not, bit for bit."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from dp_hub_recipes.train import main
from made_runs import (
    assert_same_run,
    configuration,
    demonstrations,
    end,
    kill,
    lines_of,
    newest_step,
    run_killed_anywhere,
    run_killed_in_a_checkpoint,
    run_made,
    start,
    weights,
)

from dp_hub.training.checkpoints import list_checkpoints
from dp_hub.training.run import alone_in

ROOT = Path(__file__).resolve().parents[2]

# Dropout, an average, two network calls a step, scores to choose the best two by; a checkpoint
# after every second step, so that many kills fall into the writing of one.
CHANGES = {
    "steps": 40,
    "save_every": 2,
    "keep_last": 2,
    "keep_best": 2,
    "eval_every": 4,
    "log_every": 1,
    "grad_accumulation": 2,
    "batch_size": 16,
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run that nobody kills."""
    out_dir = tmp_path_factory.mktemp("straight")
    end([start(run_made, out_dir, CHANGES, False)])
    return out_dir


def assert_ended_the_same(out_dir, straight):
    """Weights, average and its counter, optimiser and schedule, order of data, the kept list."""
    assert_same_run(straight, out_dir, leave_out=("elapsed_s", "config"))
    one, other = weights(straight), weights(out_dir)
    assert all(torch.equal(one[name], other[name]) for name in one)
    here, there = (
        sorted(path.name for path in folder.rglob("step_*")) for folder in (out_dir, straight)
    )
    assert here == there and len(here) >= 4  # checkpoints and the best policies
    state = json.loads((out_dir / "checkpoints/step_00000040/state.json").read_text())
    assert state["ema_step"] == 40 and state["optimizer_groups"][0]["lr"] < 1e-5
    assert len(state["kept"]) >= 3 and sum(one["score"] is not None for one in state["kept"]) >= 2


def was_killed(process):
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def test_run_killed_at_random_points_ends_the_same(tmp_path, straight):
    stopped_at = []
    for at in np.random.default_rng(0).integers(5, 80, 6):
        assert was_killed(start(run_killed_anywhere, tmp_path, CHANGES, int(at)))
        stopped_at.append(newest_step(tmp_path))
    end([start(run_made, tmp_path, CHANGES, True)])
    print(f"killed at {stopped_at}")
    assert len(set(stopped_at)) >= 4 and stopped_at[-1] < 40
    assert_ended_the_same(tmp_path, straight)
    steps = [line["step"] for line in lines_of(tmp_path) if "train/loss" in line]
    assert steps == list(range(1, 41))


def test_run_killed_while_it_writes_a_checkpoint_ends_the_same(tmp_path, straight):
    checkpoints = tmp_path / "checkpoints"
    for at in (1, 3, 6):
        assert was_killed(start(run_killed_in_a_checkpoint, tmp_path, CHANGES, at))
        assert list(checkpoints.glob(".step_*"))
        for step in list_checkpoints(checkpoints):  # what passes for one is one
            assert len(list((checkpoints / f"step_{step:08d}").iterdir())) == 4
    end([start(run_made, tmp_path, CHANGES, True)])
    assert not list(checkpoints.glob(".step_*"))
    assert_ended_the_same(tmp_path, straight)


def test_run_killed_before_its_policy_was_written_writes_it(tmp_path, straight):
    end([start(run_made, tmp_path, CHANGES, False)])
    (tmp_path / "policy").rename(tmp_path / "gone")
    end([start(run_made, tmp_path, CHANGES, True)])
    assert_ended_the_same(tmp_path, straight)


def test_another_seed_ends_otherwise(tmp_path, straight):
    end([start(run_made, tmp_path, {**CHANGES, "seed": 1}, False)])
    with pytest.raises(AssertionError):
        assert_ended_the_same(tmp_path, straight)
    assert configuration(tmp_path).seed == 42 and demonstrations().fingerprint == "f" * 64


def test_second_run_waits_its_turn_and_a_killed_one_blocks_nobody(tmp_path, capsys):
    out_dir, debug = tmp_path / "run", str(ROOT / "recipes" / "configs" / "debug.yaml")
    first = start(hold, out_dir)
    while not (tmp_path / "held").exists():
        assert first.is_alive()
    words = [debug, "--dataset", str(tmp_path / "nothing"), "--out_dir", str(out_dir)]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert f"{out_dir} is being written by" in said and f"process {first.pid}" in said
    assert "--resume then continues" in said
    kill([first])
    assert main(words) == 1  # for want of data now
    assert "is being written" not in capsys.readouterr().err
    assert not out_dir.exists()


def hold(out_dir):
    with alone_in(out_dir, main=True):
        (out_dir.parent / "held").touch()
        time.sleep(60)
