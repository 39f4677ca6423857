"""A run's state as one thing, and its way to the disk and back, bit for bit."""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast, gather_object

from dp_hub.dataset.lock import InUseError, WriterLock
from dp_hub.errors import ConfigError, DataError, TrainingError
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
    read_checkpoint,
    to_keep,
    write_checkpoint,
)
from dp_hub.training.config import TrainConfig
from dp_hub.training.data import Batches
from dp_hub.training.ema import Ema
from dp_hub.training.resuming import refuse_changes, regrouped
from dp_hub.training.schedule import Stopwatch

CHECKPOINTS = "checkpoints"
_ELSEWHERE = "choose another --out_dir, or see who may write there"


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
        position: of ``batches`` after that step; within a step they are further already.
        whole: whether weights, average and optimiser are all those of ``step``.
        stopwatch: seconds of training.
        kept: the checkpoints on the disk.
        numbers: what the last evaluation measured.
        finished: whether the run reached its end.
        interrupted: whether a signal stopped it.
    """

    policy: Policy
    ema: Ema[Policy] | None
    optimizer: torch.optim.Optimizer
    batches: Batches
    record: DatasetRecord
    step: int = 0
    position: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = True
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    kept: list[Kept] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    interrupted: bool = False

    @property
    def evaluated(self) -> Policy:
        """What is evaluated and saved: the averaged policy, or else the trained one."""
        return self.policy if self.ema is None else self.ema.model

    @contextmanager
    def one_step(self) -> Iterator[None]:
        """Around the change of the weights: what breaks off inside leaves nothing to save."""
        self.whole = False
        yield
        if self.ema:
            self.ema.update(self.policy)
        self.step += 1
        self.position = self.batches.state_dict()
        self.whole = True


@contextmanager
def alone_in(out_dir: Path, *, main: bool) -> Iterator[None]:
    """Let no other run write to ``out_dir`` meanwhile; the first process of each keeps watch.

    Launchers that are killed leave their processes training.

    Raises:
        ConfigError: another run does (the message says which), or nothing can be written there.
    """
    if not main:
        yield
        return
    try:
        lock = WriterLock(out_dir.resolve())
    except InUseError as error:
        hint = "wait until that run has ended, or stop it; --resume then continues"
        raise ConfigError(error.message, hint=hint) from None
    except DataError as error:
        raise ConfigError(error.message, hint=_ELSEWHERE) from None
    try:
        _check_writable(out_dir)
        yield
    finally:
        lock.release()


def _check_writable(out_dir: Path) -> None:
    """Before hours of training, not after."""
    if out_dir.exists():
        try:
            with tempfile.TemporaryFile(dir=out_dir):
                pass
        except OSError as error:
            raise ConfigError(
                f"cannot write into {out_dir}: {error.strerror}", hint=_ELSEWHERE
            ) from None


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


def check_same_start(checkpoint: Path | None, process: PartialState) -> None:
    """Refuse to train together with processes that begin elsewhere.

    Raises:
        ConfigError: their machines do not see the same checkpoints.
    """
    if process.num_processes == 1:
        return
    seen = gather_object([checkpoint.name if checkpoint else "no checkpoint"])
    if len(set(seen)) > 1:
        found = ", ".join(f"process {rank} sees {name}" for rank, name in enumerate(seen))
        raise ConfigError(
            f"the processes would continue from different places: {found}",
            hint="out_dir must be the same folder on all machines; share it or copy it to them",
        )


def precision_before(path: Path | None) -> str | None:
    """What ``mixed_precision: auto`` came to when a run began; None for a run that begins."""
    if path is None:
        return None
    return read_checkpoint(path, []).state["config"]["mixed_precision"]


def is_among_best(run: Run, config: TrainConfig, score: float | None) -> bool:
    """Whether the weights just measured belong to the ``keep_best`` best so far."""
    if score is None or not math.isfinite(score):
        return False
    best = best_kept([*run.kept, Kept(run.step, score)], config.keep_best)
    return any(one.step == run.step for one in best)


def save_run(run: Run, out_dir: Path, config: TrainConfig, *, score: float | None) -> Path:
    """Write a checkpoint, and delete those no longer wanted. For the first process only.

    Args:
        score: of the weights at this very step, higher is better; None if not measured.
    Raises:
        TrainingError: weights are not finite; nothing was written.
    """
    scored = score if score is not None and math.isfinite(score) else None
    # A step saved twice (an interrupted run at its end) keeps one entry.
    others = [one for one in run.kept if one.step != run.step]
    kept = to_keep([*others, Kept(run.step, scored)], last=config.keep_last, best=config.keep_best)
    path = _write(run, out_dir, config, kept)
    delete_checkpoints(out_dir / CHECKPOINTS, run.kept)
    return path


def save_last_good(run: Run, out_dir: Path, config: TrainConfig, *, main: bool) -> Path | None:
    """What can be saved of a run that broke down, deleting nothing; the newest checkpoint.

    Args:
        main: whether this is the first process, which does the saving.
    Raises:
        TrainingError: weights are not finite; nothing was written.
    """
    steps = list_checkpoints(out_dir / CHECKPOINTS)
    if main and run.whole and run.step > max(steps, default=0):
        return _write(run, out_dir, config, [*run.kept, Kept(run.step)])
    return checkpoint_path(out_dir / CHECKPOINTS, steps[-1]) if steps else None


def _write(run: Run, out_dir: Path, config: TrainConfig, kept: list[Kept]) -> Path:
    for policy in {id(one): one for one in (run.policy, run.evaluated)}.values():
        for name, weight in policy.named_parameters():
            if not weight.isfinite().all():
                raise TrainingError(
                    f"{name} holds values that are not finite at step {run.step}; not saved",
                    hint="lower optimizer.lr, or set optimizer.max_grad_norm to 1",
                )
    run.kept = kept
    return write_checkpoint(out_dir / CHECKPOINTS, run.step, _checkpoint(run, config))


def load_run(run: Run, path: Path, config: TrainConfig, process: PartialState) -> None:
    """Continue from a checkpoint, exactly.

    Raises:
        ConfigError: the configuration or the data is another, or an optimiser step would see
            another number of windows.
        PolicyError: the checkpoint is damaged.
    """
    checkpoint = read_checkpoint(path, ["model", "optimizer", *(["ema"] if run.ema else [])])
    state = checkpoint.state
    refuse_changes(state, config, run.record, path)
    position = state["batches"]
    run.batches.load_state_dict(regrouped(position, state["config"], config, process.num_processes))
    run.position = run.batches.state_dict()
    run.policy.load_state_dict(checkpoint.tensors["model"])
    load_optimizer(run.optimizer, checkpoint.tensors["optimizer"], state["optimizer_groups"])
    if run.ema:
        weights = dict(checkpoint.tensors["ema"])
        run.ema.load_state_dict({"step": state["ema_step"], "model": weights})
    run.step = state["step"]
    run.stopwatch = Stopwatch(state["elapsed_s"])
    run.kept = [Kept(**one) for one in state["kept"]]
    run.numbers = state["numbers"]


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


def _checkpoint(run: Run, config: TrainConfig) -> Checkpoint:
    optimizer, groups = optimizer_tensors(run.optimizer)
    tensors = {"model": run.policy.state_dict(), "optimizer": optimizer}
    if run.ema:
        tensors["ema"] = run.ema.model.state_dict()
    state = {
        "step": run.step,
        "elapsed_s": run.stopwatch.elapsed_s,
        "ema_step": run.ema.step if run.ema else None,
        "batches": dict(run.position),
        "optimizer_groups": groups,
        "kept": [{"step": one.step, "score": one.score} for one in run.kept],
        "numbers": run.numbers,
        "fingerprint": run.record.fingerprint,
        "config": config.model_dump(mode="json"),
    }
    return Checkpoint(tensors, state)


def best_kept(kept: Sequence[Kept], most: int) -> list[Kept]:
    """The at most ``most`` kept checkpoints with the highest scores, the best first."""
    scored = [one for one in kept if one.score is not None]
    return sorted(scored, key=lambda one: (one.score or 0.0, one.step), reverse=True)[:most]
