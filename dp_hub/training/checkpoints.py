"""Training checkpoints: folders of safetensors and JSON, written whole, from which a run continues
bit for bit.

A checkpoint holds the weights, the averaged weights, the optimiser's state and, in state.json, all
plain numbers. Nothing is pickled. Nothing random is stored either: all of it follows from the seed
and the step (dp_hub.training.chance).
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dp_hub.errors import PolicyError
from dp_hub.files import new_folder

STATE = "state.json"
PREFIX = "step_"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to continue.

    Args:
        tensors: groups of named tensors, one file each, such as ``model`` and ``optimizer``.
        state: plain JSON values.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Kept:
    """A checkpoint on the disk: its step and, where measured, its score (more is better)."""

    step: int
    score: float | None = None


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"{PREFIX}{step:08d}"


def write_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Write ``folder/step_...``, whole or not at all."""
    path = checkpoint_path(folder, step)
    with new_folder(path) as draft:
        for name, group in checkpoint.tensors.items():
            # Clones: tensors that share memory cannot be saved as two.
            save_file(
                {key: value.detach().cpu().clone() for key, value in group.items()},
                draft / f"{name}.safetensors",
            )
        text = json.dumps(checkpoint.state, indent=2)
        (draft / STATE).write_text(text + "\n", encoding="utf-8")
    return path


def read_checkpoint(path: Path, groups: Sequence[str]) -> Checkpoint:
    """Read the named groups and the state. Raises PolicyError if a file is missing."""
    for name in [STATE, *(f"{group}.safetensors" for group in groups)]:
        if not (path / name).is_file():
            raise PolicyError(
                f"checkpoint {path} has no {name}",
                hint="it was written by another configuration, or damaged; start a new run",
            )
    tensors = {group: load_file(path / f"{group}.safetensors") for group in groups}
    return Checkpoint(tensors, json.loads((path / STATE).read_text(encoding="utf-8")))


def list_checkpoints(folder: Path) -> list[int]:
    """The steps of the whole checkpoints in a folder, rising."""
    paths = folder.glob(f"{PREFIX}*") if folder.is_dir() else []
    return sorted(int(path.name.removeprefix(PREFIX)) for path in paths if (path / STATE).is_file())


def to_keep(kept: Sequence[Kept], *, last: int, best: int) -> list[Kept]:
    """Which of the checkpoints to keep: the ``last`` newest and the ``best`` highest scores."""
    by_step = sorted(kept, key=lambda one: one.step)
    scored = [one for one in by_step if one.score is not None]
    by_score = sorted(scored, key=lambda one: (one.score or 0.0, one.step))
    chosen = {one.step for one in [*_tail(by_step, last), *_tail(by_score, best)]}
    return [one for one in by_step if one.step in chosen]


def delete_checkpoints(folder: Path, keep: Sequence[Kept]) -> None:
    """Delete every checkpoint that is not kept, and what a killed run left half done."""
    for left in folder.glob(f".{PREFIX}*"):
        shutil.rmtree(left)
    steps = {one.step for one in keep}
    for step in list_checkpoints(folder):
        if step not in steps:
            path = checkpoint_path(folder, step)
            # Renamed first: killed in here, no half of it passes for a checkpoint.
            gone = path.rename(folder / f".{path.name}.gone")
            shutil.rmtree(gone)


def _tail(items: Sequence[Kept], n: int) -> Sequence[Kept]:
    return items[max(0, len(items) - n) :]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[Any]]:
    """An optimiser's state as named tensors, ``<parameter number>.<name>``, and its groups.

    Raises:
        PolicyError: it keeps something else than tensors per parameter.
    """
    state = optimizer.state_dict()
    tensors = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if not isinstance(value, Tensor):
                raise PolicyError(
                    f"{type(optimizer).__name__} keeps `{name}` as a {type(value).__name__}, "
                    "which a checkpoint cannot hold",
                    hint="use an optimiser whose state is tensors, such as AdamW",
                )
            tensors[f"{index}.{name}"] = value
    return tensors, state["param_groups"]


def load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: Sequence[Any]
) -> None:
    """Put back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": list(groups)})
