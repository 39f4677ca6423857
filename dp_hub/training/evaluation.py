"""Numbers that tell how training goes, the same on every call for the same weights."""

import math

import torch
from accelerate import Accelerator
from torch import Tensor

from dp_hub.errors import PolicyError
from dp_hub.policies.kinds import Policy
from dp_hub.training.data import Windows, fixed_rows

VALIDATION_WINDOWS = 2048
ACTION_ERROR_WINDOWS = 64


class LossMeter:
    """Mean loss since the last look, added up on the device so that no step waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._clear()

    def add(self, loss: Tensor) -> None:
        """Count a loss, a scalar."""
        self._sum += loss.detach()
        self._n += 1

    def take(self, accelerator: Accelerator, step: int) -> float:
        """The mean over all processes; counting begins anew.

        Raises:
            PolicyError: it is not a finite number: training has broken down.
        """
        mean = accelerator.reduce(self._sum / max(1, self._n), "mean").item()
        self._clear()
        if not math.isfinite(mean):
            raise PolicyError(
                f"the loss became {mean} before step {step}; nothing was saved since",
                hint="lower optimizer.lr, set optimizer.max_grad_norm to 1, or mixed_precision "
                "to no; then --resume from the last checkpoint or start again",
            )
        return mean

    def _clear(self) -> None:
        self._sum = torch.zeros((), device=self._device)
        self._n = 0


@torch.no_grad()
def validation_loss(policy: Policy, windows: Windows, *, batch_size: int) -> float:
    """Mean loss over held-out windows, with the same noise and steps at every call.

    Args:
        policy: in ``eval()``.
        windows: of the held-out episodes; at most 2,048 evenly spread ones are used.
        batch_size: windows per network call.
    """
    device = next(policy.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    rows = fixed_rows(windows, VALIDATION_WINDOWS)
    total = 0.0
    for first in range(0, len(rows), batch_size):
        part = rows[first : first + batch_size]
        batch = _on(device, windows.__getitems__(part))
        total += policy.compute_loss(batch, generator=generator).item() * len(part)
    return total / len(rows)


def action_error(policy: Policy, windows: Windows) -> float:
    """Mean squared error of predicted chunks over fixed training windows, in squared raw units.

    Args:
        policy: in ``eval()``.
        windows: of the training episodes; 64 evenly spread ones are used.
    """
    device = next(policy.parameters()).device
    batch = _on(device, windows.__getitems__(fixed_rows(windows, ACTION_ERROR_WINDOWS)))
    generator = torch.Generator(device).manual_seed(0)
    predicted = policy.predict_action(batch, generator=generator)["action_pred"]
    return torch.nn.functional.mse_loss(predicted, batch["action"]).item()


def _on(device: torch.device, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in batch.items()}
