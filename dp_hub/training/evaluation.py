"""Numbers that tell how training goes, the same on every call for the same weights."""

import torch
from torch import Tensor

from dp_hub.policies.kinds import Policy
from dp_hub.training.data import Windows, fixed_rows

VALIDATION_WINDOWS = 2048
ACTION_ERROR_WINDOWS = 64


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
    # Inpainting's training windows observe more steps than a policy that acts.
    observed = {name: value[:, : policy.config.n_obs_steps] for name, value in batch.items()}
    predicted = policy.predict_action(observed, generator=generator)["action_pred"]
    return torch.nn.functional.mse_loss(predicted, batch["action"]).item()


def _on(device: torch.device, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in batch.items()}
