"""The running average of the weights that is evaluated and saved, on the original's schedule."""

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from dp_hub.config import Config

M = TypeVar("M", bound=nn.Module)


class EmaConfig(Config):
    """``decay = 1 - (1 + n / inv_gamma) ** -power``, kept within the two bounds."""

    inv_gamma: float = 1.0
    """Steps it takes for the average to lengthen."""
    power: float = 0.75
    """How fast it lengthens."""
    min_decay: float = 0.0
    """Lower bound of the decay."""
    max_decay: float = 0.9999
    """Upper bound of the decay, reached after some 216,000 steps."""
    update_after_step: int = 0
    """Until then the average is a copy of the weights."""


def ema_decay(step: int, config: EmaConfig) -> float:
    """The decay of update number ``step``, from 0. Source: EMAModel.get_decay of the original.

    Its first two updates copy the weights (diffusers' EMAModel is one step ahead of it).
    """
    n = max(0, step - config.update_after_step - 1)
    if n <= 0:
        return 0.0
    decay = 1 - (1 + n / config.inv_gamma) ** -config.power
    return max(config.min_decay, min(decay, config.max_decay))


class Ema(Generic[M]):
    """An averaged copy of a model, always in ``eval()``.

    Args:
        model: what to average; left as it is.
        config: the schedule.
    """

    def __init__(self, model: M, config: EmaConfig) -> None:
        self.config = config
        self.step = 0
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards ``model``'s weights; buffers (statistics) are copied."""
        decay = ema_decay(self.step, self.config)
        torch._foreach_lerp_(_parameters(self.model), _parameters(model), 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and, as ``step``, the number of updates so far."""
        return {"step": self.step, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`'s value, exactly."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])


def _parameters(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.data for parameter in model.parameters()]
