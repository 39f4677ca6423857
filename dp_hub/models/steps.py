"""The embedding of a diffusion or flow step, shared by all denoisers."""

import math

import torch
from torch import Tensor, nn


def sinusoidal_embedding(timestep: Tensor, dim: int) -> Tensor:
    """Sines and cosines of the step at geometrically spaced frequencies, 1 down to 1e-4.

    Args:
        timestep: (n,), integers or floats.
        dim: an even width of at least 4.
    Returns:
        float32 (n, dim): ``dim / 2`` sines, then ``dim / 2`` cosines.
    """
    half = dim // 2
    exponent = torch.arange(half, device=timestep.device, dtype=torch.float32)
    angle = timestep.float()[:, None] * torch.exp(exponent * (-math.log(10000.0) / (half - 1)))
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class SinusoidalEmbedding(nn.Module):
    """`sinusoidal_embedding` as a layer without weights."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, timestep: Tensor) -> Tensor:
        """float32 (n, dim) of a timestep (n,)."""
        return sinusoidal_embedding(timestep, self.dim)


def step_encoder(dim: int) -> nn.Sequential:
    """The paper's encoder of a step: sinusoidal, then two linear layers with Mish between.

    Its numbering (1 and 3 hold weights) is the original's, whose checkpoints so fit by name.
    """
    return nn.Sequential(
        SinusoidalEmbedding(dim), nn.Linear(dim, dim * 4), nn.Mish(), nn.Linear(dim * 4, dim)
    )
