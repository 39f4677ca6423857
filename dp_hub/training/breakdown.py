"""Training that breaks down stops with advice and a checkpoint of its last good step."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from dp_hub.errors import DpHubError, TrainingError
from dp_hub.training.config import TrainConfig
from dp_hub.training.meters import NotFiniteError
from dp_hub.training.run import Run, save_last_good

log = logging.getLogger(__name__)

MEMORY = "can't allocate memory", "not enough memory", "out of memory"
"""What torch says on a CPU, on others, and on GPUs, where it also has a class for it."""
PEER = "Connection closed by peer", "Connection reset by peer", "Broken pipe"
"""What gloo says when another process of the training has ended."""


@contextmanager
def rescued(run: Run, config: TrainConfig, *, main: bool) -> Iterator[None]:
    """Around the training loop: what breaks it down is explained, after saving what is good.

    Args:
        run: that trains.
        config: of the run.
        main: whether this is the first process, which saves.
    Raises:
        TrainingError: memory ran out, numbers became infinite, or another process ended.
    """
    try:
        yield
    except NotFiniteError as error:
        raise _not_finite(error, run.step, _saved(run, config, main)) from None
    except (RuntimeError, MemoryError) as error:
        text = next(iter(str(error).strip().splitlines()), "")
        if runs_out_of_memory(error):
            # What the network had in memory for the gradient is in the way of saving.
            traceback.clear_frames(error.__traceback__)
            run.optimizer.zero_grad(set_to_none=True)
            raise _no_memory(text, run.step, config, _saved(run, config, main)) from None
        if any(said in text for said in PEER):
            raise TrainingError(
                f"another process of this training ended in step {run.step + 1}; "
                + _saved(run, config, main),
                hint="its own message says why; --resume continues",
            ) from None
        raise


def runs_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in MEMORY)


def _saved(run: Run, config: TrainConfig, main: bool) -> str:
    try:
        path = save_last_good(run, Path(config.out_dir), config, main=main)
    except (OSError, RuntimeError, MemoryError, DpHubError, SafetensorError) as error:
        log.warning("no checkpoint could be saved: %s", error)
        return "nothing could be saved"
    return f"the newest checkpoint is {path}" if path else "there is no checkpoint yet"


def _not_finite(error: NotFiniteError, step: int, saved: str) -> TrainingError:
    return TrainingError(
        f"the loss or the gradient stopped being a finite number within the last {error.steps} "
        f"of {step} steps; {saved}",
        hint="lower optimizer.lr, set optimizer.max_grad_norm to 1, or mixed_precision to no, and "
        "--resume; if it breaks at once, delete the newest checkpoint to go back further",
    )


def _no_memory(said: str, step: int, config: TrainConfig, saved: str) -> TrainingError:
    size, calls = config.batch_size, config.grad_accumulation
    hint = "set mixed_precision to bf16, or choose a smaller network"
    if size % 2 == 0:
        hint = (
            f"--batch_size {size // 2} --grad_accumulation {2 * calls} learns the same with half "
            "the memory, and --resume goes on with it; mixed_precision bf16 needs less, too"
        )
    return TrainingError(f"out of memory in step {step + 1}: {said}; {saved}", hint=hint)
