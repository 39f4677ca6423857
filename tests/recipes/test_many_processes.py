"""Several processes, or several network calls, learn what one does with the whole batch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from dp_hub_recipes.train import main, train
from made_runs import (
    NO_CHANCE,
    assert_same_run,
    configuration,
    demonstrations,
    end,
    everything,
    kill,
    largest_difference,
    newest_step,
    note_patience,
    run_made,
    start,
    start_together,
    weights,
)

from dp_hub.dataset.features import plan_columns
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.errors import ConfigError
from dp_hub.replay.episode import Episode
from dp_hub.training.machine import join_processes

ROOT = Path(__file__).resolve().parents[2]
DIFFUSION = {"kind": "diffusion", "solver": "ddim", "num_inference_steps": 2}
ROUNDING = 1e-5


def whole(**changes):
    """A run of which the weights do not depend on how its batches are split."""
    # Of gradients that are rounding alone, as those of the biases of attention's keys (softmax),
    # Adam makes whole steps unless its eps is above them.
    optimizer = {"lr": 1e-2, "warmup_steps": 0, "eps": 1e-4} | changes.pop("optimizer", {})
    return {"policy": NO_CHANCE, "batch_size": 32, "steps": 12, "optimizer": optimizer} | changes


def trained(out_dir, **changes):
    train(configuration(out_dir, **whole(**changes)), demonstrations())
    return weights(out_dir)


@pytest.fixture
def dataset_folder(tmp_path):
    """The demonstrations as a dataset on the disk, for commands."""
    made = demonstrations()
    columns = {name: made.column(name) for name in made.features}
    stops = made.episodes.stops
    episodes = [
        Episode({name: column[a:b] for name, column in columns.items()}, task="walk")
        for a, b in zip([0, *stops[:-1]], stops, strict=True)
    ]
    with DatasetWriter(tmp_path / "walks", plan_columns(episodes[0].data), fps=10) as writer:
        for episode in episodes:
            writer.add_episode(episode)
        writer.finish()
    return tmp_path / "walks"


def test_two_processes_with_half_the_batch_learn_what_one_does(dataset_folder, tmp_path, capsys):
    values = configuration(tmp_path, **whole(policy={**NO_CHANCE, "objective": DIFFUSION}))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values.model_dump(mode="json")))
    words = [str(tmp_path / "run.yaml"), "--dataset", str(dataset_folder)]
    two = tmp_path / "two"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    command += [str(ROOT / "recipes/accelerate/two_cpus.yaml"), str(ROOT / "recipes/train.py")]
    done = subprocess.run(
        [*command, *words, "--batch_size=16", "--out_dir", str(two)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(two / "policy")]  # one of the two speaks
    assert everything(two)[1]["batches"]["world_size"] == 2
    assert main([*words, "--out_dir", str(tmp_path / "one")]) == 0
    assert main([*words, "--seed=43", "--out_dir", str(tmp_path / "other")]) == 0
    one, other = weights(tmp_path / "one"), weights(tmp_path / "other")
    assert largest_difference(one, weights(two)) < ROUNDING
    assert largest_difference(one, other) > 100 * ROUNDING  # so the comparison can fail


@pytest.mark.parametrize("changes", [{}, {"optimizer": {"max_grad_norm": 0.01}}])
def test_two_calls_with_half_the_batch_learn_what_one_does(tmp_path, changes):
    one = trained(tmp_path / "one", batch_size=48, **changes)  # of 3 or 4 epochs
    two = trained(tmp_path / "two", batch_size=24, grad_accumulation=2, **changes)
    assert largest_difference(one, two) < ROUNDING
    half = trained(tmp_path / "half", batch_size=24, **changes)
    assert largest_difference(one, half) > 100 * ROUNDING


ACT = {
    "kind": "act",
    "observations": ["observation.state"],
    "environment": [],
    "horizon": 8,
    "n_action_steps": 4,
    "hidden_dim": 16,
    "feedforward_dim": 32,
    "n_heads": 2,
    "n_encoder_layers": 1,
    "n_style_layers": 1,
    "latent_dim": 4,
    "dropout": 0.0,
}


@pytest.mark.parametrize("policy", [NO_CHANCE, ACT], ids=["diffusion", "act"])
def test_two_processes_with_two_calls_each_learn_what_one_does(tmp_path, policy):
    changes = {"policy": policy}
    one = trained(tmp_path / "one", **changes)
    split = whole(batch_size=8, grad_accumulation=2, **changes)
    end(start_together(2, run_made, tmp_path / "four", split, False))
    assert largest_difference(one, weights(tmp_path / "four")) < ROUNDING
    other = trained(tmp_path / "other", seed=43, **changes)
    assert largest_difference(one, other) > 100 * ROUNDING


def test_two_processes_killed_and_resumed_are_as_two_that_were_not(tmp_path):
    changes = {"batch_size": 16, "steps": 30, "save_every": 3}  # with dropout
    end(start_together(2, run_made, tmp_path / "straight", changes, False))
    pair = start_together(2, run_made, tmp_path / "broken", changes, False)
    while newest_step(tmp_path / "broken") < 9:
        assert all(process.is_alive() for process in pair)
    assert kill(pair)
    assert 9 <= newest_step(tmp_path / "broken") < 30
    end(start_together(2, run_made, tmp_path / "broken", changes, True))
    assert_same_run(tmp_path / "straight", tmp_path / "broken", leave_out=("elapsed_s", "config"))


def test_run_goes_on_with_smaller_batches_and_as_many_windows_per_step(tmp_path):
    one = trained(tmp_path / "one")
    trained(tmp_path / "parts", save_every=5, keep_last=9)
    for step in (10, 12):  # as if killed after step 5
        shutil.rmtree(tmp_path / "parts" / "checkpoints" / f"step_{step:08d}")
    smaller = whole(batch_size=8, grad_accumulation=2)
    end(start_together(2, run_made, tmp_path / "parts", smaller, True))
    assert newest_step(tmp_path / "parts") == 12
    assert largest_difference(one, weights(tmp_path / "parts")) < ROUNDING


def test_processes_that_see_other_checkpoints_are_refused(tmp_path):
    trained(tmp_path / "seen", steps=2)
    end(start_together(2, run_where_rank_says, tmp_path / "seen", tmp_path / "empty"))
    for rank in (0, 1):
        said = (tmp_path / f"{rank}.txt").read_text()
        assert "process 0 sees step_00000002, process 1 sees no checkpoint" in said


def run_where_rank_says(*folders):
    rank = int(os.environ["RANK"])
    try:
        run_made(folders[rank], whole(batch_size=16), True)
    except ConfigError as error:
        (folders[0].parent / f"{rank}.txt").write_text(str(error))


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_splitting_weights_over_processes_is_refused(name):
    with pytest.raises(ConfigError, match="does not train with") as caught:
        join_processes({f"ACCELERATE_USE_{name}": "true"})
    assert (ROOT / "recipes/accelerate/four_gpus.yaml").exists()
    assert "recipes/accelerate/four_gpus.yaml" in caught.value.hint


def test_noise_of_a_window_is_the_same_whoever_trains_on_it():
    from dp_hub.models.draws import integers, normal, uniform
    from dp_hub.training.chance import Chance

    device = torch.device("cpu")

    def draws(batch_size, calls, world_size):
        settings = configuration("x", batch_size=batch_size, grad_accumulation=calls)
        found = []
        for call in range(calls):
            for rank in range(world_size):
                chance = Chance(settings, rank=rank, world_size=world_size, device=device)
                rows = chance.rows(7, call)
                noise = normal((batch_size, 3, 2), rows, device)
                found.append((noise, uniform(batch_size, rows, device)))
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    noise, time = draws(24, 1, 1)
    assert noise.shape == (24, 3, 2) and len(np.unique(noise)) == noise.numel()
    for split in ((12, 2, 1), (12, 1, 2), (4, 3, 2)):
        parts = draws(*split)
        assert torch.equal(parts[0], noise) and torch.equal(parts[1], time), split
    chance = Chance(configuration("x"), rank=0, world_size=1, device=device)
    steps = [integers(100, 32, chance.rows(step, 0), device) for step in (7, 8, 7)]
    assert torch.equal(steps[0], steps[2]) and not torch.equal(steps[0], steps[1])


def test_dropout_of_a_step_follows_from_seed_step_and_rank():
    from dp_hub.training.chance import Chance

    def drawn(step, rank, seed=42):
        settings = configuration("x", seed=seed)
        Chance(settings, rank=rank, world_size=2, device=torch.device("cpu")).begin(step)
        return tuple(torch.rand(3).tolist())

    assert drawn(5, 0) == drawn(5, 0)
    assert len({drawn(5, 0), drawn(6, 0), drawn(5, 1), drawn(5, 0, seed=43)}) == 4


def test_command_alone_starts_one_process(tmp_path):
    process = start(run_made, tmp_path, whole(steps=1), False)
    end([process])
    assert everything(tmp_path)[1]["batches"]["world_size"] == 1


def test_processes_wait_hours_for_each_other_as_rollouts_of_one_may_take(tmp_path):
    end(start_together(2, note_patience, tmp_path))
    found = [float((tmp_path / rank).read_text()) for rank in ("0", "1")]
    assert found == [12 * 3600.0] * 2
