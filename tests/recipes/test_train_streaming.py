"""The training recipe on a dataset that stays on the Hub but for the files it needs."""

import json
from pathlib import Path

import pytest
import torch
from dp_hub_recipes.train import main
from safetensors.torch import load_file

from dp_hub.hub import push

DEBUG = str(Path(__file__).resolve().parents[2] / "recipes" / "configs" / "debug.yaml")


def run(out_dir, *more):
    arguments = f"--dataset me/data --out_dir {out_dir} --steps 40 --log_every 4 --eval_every 20"
    arguments += " --save_every 15 --keep_last 9 --cpu_threads 1 --loggers [] --batch_size 32"
    return main([DEBUG, *arguments.split(), "--split.val_ratio=0.2", *more])


def metrics(out_dir):
    lines = [json.loads(line) for line in (out_dir / "metrics.jsonl").open()]
    for line in lines:
        timed = ("elapsed_s", "windows_per_s", "data_wait_share", "memory_gb")
        for key in ("time", *(f"train/{name}" for name in timed)):
            line.pop(key, None)
    return lines


@pytest.mark.parametrize("augment", ["null", "pusht_mirror"])
def test_streamed_run_stopped_and_resumed_equals_one_without_a_break(
    local_hub, pusht_webp, tmp_path, monkeypatch, capsys, augment
):
    push(pusht_webp, "me/data", license="mit")
    # A pool is an episode, and the store holds two files of five.
    options = ["--streaming.pool_mb=1", "--streaming.store_gb=2.1e-4", f"--augment={augment}"]
    monkeypatch.setattr("dp_hub.training.streamed_data.MB", 20_000)
    assert run(tmp_path / "straight", *options) == 0
    assert run(tmp_path / "broken", *options, "--steps=17") == 0
    checkpoints = tmp_path / "broken" / "checkpoints"
    (checkpoints / "step_00000017").rename(tmp_path / "gone")  # as if killed after step 15
    torch.manual_seed(999)
    assert run(tmp_path / "broken", *options, "--resume") == 0
    assert metrics(tmp_path / "straight") == metrics(tmp_path / "broken")
    one, other = (
        load_file(tmp_path / name / "policy" / "model.safetensors")
        for name in ("straight", "broken")
    )
    assert len(one) > 10 and all(torch.equal(one[name], other[name]) for name in one)


def test_run_does_not_continue_by_streaming_what_began_in_memory(
    local_hub, pusht_webp, tmp_path, capsys
):
    push(pusht_webp, "me/data", license="mit")
    assert run(tmp_path / "run", "--steps=5") == 0
    assert run(tmp_path / "run", "--streaming=true", "--resume") == 1
    assert "it was not drawn by streaming" in capsys.readouterr().err
    assert run(tmp_path / "other", "--steps=5", "--streaming=true") == 0
    assert run(tmp_path / "other", "--resume") == 1
    assert "it was drawn by streaming" in capsys.readouterr().err
