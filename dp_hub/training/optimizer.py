"""AdamW over groups of weights: which decay, which learn slowly; and gradients kept finite."""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dp_hub.training.config import OptimizerConfig


def make_optimizer(
    policy: nn.Module, settings: OptimizerConfig, device: torch.device
) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`, fused where torch can."""
    return torch.optim.AdamW(
        parameter_groups(policy, settings),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        fused=device.type in ("cpu", "cuda"),
    )


def parameter_groups(policy: nn.Module, settings: OptimizerConfig) -> list[dict[str, Any]]:
    """The weights, with their decay and, as ``lr_factor``, what multiplies their learning rate.

    The encoder of observations (``encoder.*``) may have a decay and a rate of its own, as in the
    paper's image transformers. A network that says which of its weights decay (minGPT's rule for
    transformers) is asked; all weights of the others do.
    """
    own = settings.encoder_weight_decay
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for part, name, parameter in _trained(policy):
        seen = part == "encoder"
        decay = own if seen and own is not None else settings.weight_decay
        if not _decays(getattr(policy, part, None), name):
            decay = 0.0
        key = (decay, settings.encoder_lr_factor if seen else 1.0)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_factor": factor}
        for (decay, factor), parameters in groups.items()
    ]


def _trained(policy: nn.Module) -> Iterator[tuple[str, str, nn.Parameter]]:
    """Each trained weight with the part of the policy it is in and its name there."""
    for name, parameter in policy.named_parameters():
        part, _, inner = name.partition(".")
        if parameter.requires_grad:
            yield part, inner, parameter


def _decays(part: nn.Module | None, name: str) -> bool:
    decays = getattr(part, "decays", None)
    return decays is None or bool(decays(name))


def set_rate(optimizer: Any, rate: float) -> None:
    """Give every group the learning rate ``rate`` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_factor", 1.0)


def clip_gradient(accelerator: Accelerator, model: nn.Module, most: float | None) -> Tensor:
    """Scale the gradient down to the norm ``most``, if given; its norm before, on the device."""
    if most is not None:
        norm = accelerator.clip_grad_norm_(model.parameters(), most)
        assert isinstance(norm, Tensor), norm
        return norm
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def leave_out_if_broken(optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
    """Let the next step change nothing if the gradient's norm is not a finite number.

    A fused optimiser finds out on the device, so the host waits for nothing.
    """
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
    elif not norm.isfinite():
        optimizer.zero_grad(set_to_none=True)
