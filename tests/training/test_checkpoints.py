"""Checkpoints: exact, whole, and no more of them than asked for."""

import copy

import pytest
import torch
from torch import nn

from dp_hub.errors import PolicyError
from dp_hub.training.checkpoints import (
    Checkpoint,
    Kept,
    checkpoint_path,
    delete_checkpoints,
    list_checkpoints,
    load_optimizer,
    optimizer_tensors,
    read_checkpoint,
    to_keep,
    write_checkpoint,
)

EMPTY = Checkpoint({}, {"step": 1})


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("fused", [True, False])
def test_optimizer_continues_exactly_from_the_disk(tmp_path, fused):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.95, 0.999), fused=fused)
    train(model, optimizer, 5)
    tensors, groups = optimizer_tensors(optimizer)
    write_checkpoint(tmp_path, 5, Checkpoint({"optimizer": tensors}, {"groups": groups}))
    twin = copy.deepcopy(model)
    other = torch.optim.AdamW(twin.parameters(), lr=0.5, fused=fused)
    loaded = read_checkpoint(checkpoint_path(tmp_path, 5), ["optimizer"])
    load_optimizer(other, loaded.tensors["optimizer"], loaded.state["groups"])
    for one, its_optimizer in ((model, optimizer), (twin, other)):
        torch.manual_seed(1)
        train(one, its_optimizer, 5)
    assert torch.equal(model.weight, twin.weight)
    assert other.param_groups[0]["lr"] == 0.01


def test_newest_and_best_are_kept():
    scores = [(100, 0.2), (200, 0.9), (300, None), (400, 0.8), (500, 0.1)]
    kept = [Kept(step, score) for step, score in scores]
    assert [one.step for one in to_keep(kept, last=1, best=2)] == [200, 400, 500]
    assert [one.step for one in to_keep(kept, last=2, best=0)] == [400, 500]
    assert [one.step for one in to_keep(kept, last=9, best=9)] == [100, 200, 300, 400, 500]


def test_others_are_deleted_and_strangers_left(tmp_path):
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step, EMPTY)
    (tmp_path / "notes").mkdir()
    (tmp_path / ".step_00000002.x7").mkdir()  # a run was killed while it wrote
    delete_checkpoints(tmp_path, [Kept(2)])
    assert list_checkpoints(tmp_path) == [2]
    assert {path.name for path in tmp_path.iterdir()} == {"notes", "step_00000002"}


def test_half_written_checkpoint_is_not_seen(tmp_path):
    with pytest.raises(TypeError):
        write_checkpoint(tmp_path, 7, Checkpoint({}, {"odd": object()}))
    assert list_checkpoints(tmp_path) == [] and list(tmp_path.iterdir()) == []


def test_missing_file_is_named(tmp_path):
    path = write_checkpoint(tmp_path, 1, EMPTY)
    with pytest.raises(PolicyError, match=r"no ema\.safetensors"):
        read_checkpoint(path, ["ema"])
