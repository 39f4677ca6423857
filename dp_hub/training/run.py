"""A run's state as one thing, and its way to the disk and back, bit for bit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor

from dp_hub.errors import ConfigError
from dp_hub.policies.card import DatasetRecord
from dp_hub.policies.kinds import Policy
from dp_hub.training.checkpoints import (
    Checkpoint,
    Kept,
    checkpoint_path,
    delete_checkpoints,
    list_checkpoints,
    load_optimizer,
    optimizer_tensors,
    random_states,
    read_checkpoint,
    set_random_states,
    to_keep,
    write_checkpoint,
)
from dp_hub.training.config import MAY_CHANGE_ON_RESUME, TrainConfig
from dp_hub.training.data import Batches
from dp_hub.training.ema import Ema
from dp_hub.training.schedule import Stopwatch

CHECKPOINTS = "checkpoints"


@dataclass
class Run:
    """All that changes while training, and so all that a checkpoint holds.

    Attributes:
        policy: the trained weights.
        ema: their average, or None.
        optimizer: over the policy's parameters.
        batches: where the data's order has got to.
        record: the dataset's; a run continues on the same content only.
        step: optimiser steps done.
        stopwatch: seconds of training.
        kept: the checkpoints on the disk.
        numbers: what the last evaluation measured.
        finished: whether the run reached its end, rather than having been stopped.
    """

    policy: Policy
    ema: Ema[Policy] | None
    optimizer: torch.optim.Optimizer
    batches: Batches
    record: DatasetRecord
    step: int = 0
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    kept: list[Kept] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    finished: bool = False

    @property
    def evaluated(self) -> Policy:
        """What is evaluated and saved: the averaged policy, or else the trained one."""
        return self.policy if self.ema is None else self.ema.model


def newest_checkpoint(out_dir: Path, *, resume: bool) -> Path | None:
    """The checkpoint to continue from, or None to begin.

    Raises:
        ConfigError: there is one, but nobody asked to continue.
    """
    steps = list_checkpoints(out_dir / CHECKPOINTS)
    if steps and not resume:
        raise ConfigError(
            f"{out_dir} already holds a run, at step {steps[-1]:,}",
            hint="continue it with --resume, or begin another with --out_dir",
        )
    return checkpoint_path(out_dir / CHECKPOINTS, steps[-1]) if steps else None


def precision_before(path: Path | None) -> str | None:
    """What ``mixed_precision: auto`` came to when a run began; None for a run that begins."""
    if path is None:
        return None
    return read_checkpoint(path, []).state["config"]["mixed_precision"]


def save_run(
    run: Run, out_dir: Path, config: TrainConfig, accelerator: Accelerator, *, score: float | None
) -> None:
    """Write a checkpoint from all processes, and delete those no longer wanted.

    Args:
        score: of the weights at this very step, higher is better; None if not measured.
    """
    states = _gathered_random_states(accelerator)
    if not accelerator.is_main_process:
        return
    scored = score if score is not None and math.isfinite(score) else None
    # A step saved twice (an interrupted run at its end) keeps one entry.
    others = [one for one in run.kept if one.step != run.step]
    run.kept = to_keep(
        [*others, Kept(run.step, scored)], last=config.keep_last, best=config.keep_best
    )
    write_checkpoint(out_dir / CHECKPOINTS, run.step, _checkpoint(run, config, states))
    delete_checkpoints(out_dir / CHECKPOINTS, run.kept)


def load_run(run: Run, path: Path, config: TrainConfig, accelerator: Accelerator) -> None:
    """Continue from a checkpoint, exactly.

    Raises:
        ConfigError: the configuration, the data or the number of processes is another.
        PolicyError: the checkpoint is damaged.
    """
    groups = ["model", "optimizer", "random", *(["ema"] if run.ema else [])]
    checkpoint = read_checkpoint(path, groups)
    state = checkpoint.state
    _refuse_changes(state, config, run.record, path)
    run.batches.load_state_dict(state["batches"])
    run.policy.load_state_dict(checkpoint.tensors["model"])
    load_optimizer(run.optimizer, checkpoint.tensors["optimizer"], state["optimizer_groups"])
    if run.ema:
        weights = dict(checkpoint.tensors["ema"])
        run.ema.load_state_dict({"step": state["ema_step"], "model": weights})
    run.step = state["step"]
    run.stopwatch = Stopwatch(state["elapsed_s"])
    run.kept = [Kept(**one) for one in state["kept"]]
    run.numbers = state["numbers"]
    rank = accelerator.process_index
    mine = {
        name.removesuffix(f".{rank}"): value
        for name, value in checkpoint.tensors["random"].items()
        if name.endswith(f".{rank}")
    }
    set_random_states(mine, accelerator.device)


def agree(accelerator: Accelerator, elapsed_s: float, stop: bool) -> tuple[float, bool]:
    """The first process's clock and wish to stop, the same on all of them.

    Clocks differ a little between processes, and a learning rate that differs with them would
    let the copies of the weights drift apart.
    """
    if accelerator.num_processes == 1:
        return elapsed_s, stop
    # float64 does not exist on every device; whole milliseconds do.
    mine = torch.tensor([round(elapsed_s * 1000), int(stop)], device=accelerator.device)
    milliseconds, wish = broadcast(mine, from_process=0).tolist()
    return milliseconds / 1000, bool(wish)


def _checkpoint(run: Run, config: TrainConfig, states: dict[str, Tensor]) -> Checkpoint:
    optimizer, groups = optimizer_tensors(run.optimizer)
    tensors = {"model": run.policy.state_dict(), "optimizer": optimizer, "random": states}
    if run.ema:
        tensors["ema"] = run.ema.model.state_dict()
    state = {
        "step": run.step,
        "elapsed_s": run.stopwatch.elapsed_s,
        "ema_step": run.ema.step if run.ema else None,
        "batches": run.batches.state_dict(),
        "optimizer_groups": groups,
        "kept": [{"step": one.step, "score": one.score} for one in run.kept],
        "numbers": run.numbers,
        "fingerprint": run.record.fingerprint,
        "config": config.model_dump(mode="json"),
    }
    return Checkpoint(tensors, state)


def _gathered_random_states(accelerator: Accelerator) -> dict[str, Tensor]:
    gathered: dict[str, Tensor] = {}
    for name, value in random_states(accelerator.device).items():
        rows = accelerator.gather(value[None].to(accelerator.device))
        gathered |= {f"{name}.{rank}": row.cpu() for rank, row in enumerate(rows)}
    return gathered


def _refuse_changes(
    state: Mapping[str, Any], config: TrainConfig, record: DatasetRecord, path: Path
) -> None:
    if state["fingerprint"] != record.fingerprint:
        raise ConfigError(
            f"{path} was trained on other data: fingerprint {state['fingerprint'][:12]}, "
            f"now {record.fingerprint[:12]}",
            hint="begin a new run with another --out_dir",
        )
    now = config.model_dump(mode="json")
    for key in _changed(state["config"], now):
        raise ConfigError(
            f"`{key}` changed from {state['config'].get(key)!r} to {now.get(key)!r} since {path}",
            hint="a run continues with the settings it began with; begin another with --out_dir",
        )


def _changed(before: dict[str, Any], now: dict[str, Any]) -> Sequence[str]:
    keys = [key for key in now if key not in MAY_CHANGE_ON_RESUME]
    return [key for key in keys if before.get(key) != now[key]]
