"""What a run leaves for others: its policy, and those of its best checkpoints."""

import copy
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dp_hub.policies.card import CardFacts
from dp_hub.policies.kinds import Policy
from dp_hub.policies.saving import save_policy
from dp_hub.training.checkpoints import PREFIX, checkpoint_path, read_checkpoint
from dp_hub.training.config import TrainConfig
from dp_hub.training.progress import clock_time
from dp_hub.training.run import CHECKPOINTS, Run, best_kept

log = logging.getLogger(__name__)

POLICY, BEST = "policy", "best"


def save_result(run: Run, folder: Path, config: TrainConfig, command: str | None = None) -> Path:
    """Write the policy of the run as it is: the averaged weights, and a card with its numbers."""
    facts = {"optimiser steps": f"{run.step:,}"}
    facts["training time"] = f"{clock_time(run.stopwatch.elapsed_s)} on {hardware()}"
    facts |= {name: f"{value:.4g}" for name, value in run.numbers.items()}
    return _save(run.evaluated, folder, run, config, facts, command)


def save_best(run: Run, config: TrainConfig, command: str | None = None) -> list[Path]:
    """Write the policies of the best checkpoints to ``best/``, the best first.

    The final one is left out: it is in ``policy/``. Their scores come from the seeds (or windows)
    that they were chosen by, so what is reported of them must be measured on others.
    """
    out_dir, folders = Path(config.out_dir), []
    for earlier in (out_dir / BEST).glob(f"{PREFIX}*"):
        shutil.rmtree(earlier)
    group = "ema" if run.ema else "model"
    for one in best_kept(run.kept, config.keep_best):
        path = checkpoint_path(out_dir / CHECKPOINTS, one.step)
        if one.step == run.step or not path.is_dir():
            continue
        checkpoint = read_checkpoint(path, [group])
        policy = _with_weights(run.evaluated, checkpoint.tensors[group])
        facts = {"optimiser steps": f"{one.step:,}", "chosen by a score of": f"{one.score:.4g}"}
        folders.append(_save(policy, out_dir / BEST / path.name, run, config, facts, command))
    return folders


def hardware() -> str:
    """The device that trained, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} CPU threads"


def _with_weights(policy: Policy, weights: Mapping[str, Tensor]) -> Policy:
    other = copy.deepcopy(policy)
    other.load_state_dict(dict(weights))
    return other.eval()


def _save(
    policy: Policy,
    folder: Path,
    run: Run,
    config: TrainConfig,
    facts: Mapping[str, str],
    command: str | None,
) -> Path:
    return save_policy(
        policy,
        folder,
        card=CardFacts(dataset=run.record, numbers=facts, command=command),
        train_config=config.model_dump(mode="json"),
    )
