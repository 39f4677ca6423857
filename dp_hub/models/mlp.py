"""A residual MLP over the whole flattened chunk: the denoiser for machines without a GPU.

Where observations are a few dozen numbers and the chunk is short, it reaches a good score in a
fraction of the U-Net's time, because two CPU cores spend it in a few large matrix products.
"""

import torch
from torch import Tensor, nn

from dp_hub.models.steps import SinusoidalEmbedding


class ResidualMlpBlock(nn.Module):
    """``h + W2 drop(silu(W1 (norm(h) * (1 + scale) + shift)))``, scaled and shifted by the step."""

    def __init__(self, width: int, step_dim: int, *, expansion: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.film = nn.Linear(step_dim, 2 * width)
        self.expand = nn.Linear(width, expansion * width)
        self.dropout = nn.Dropout(dropout)
        self.contract = nn.Linear(expansion * width, width)
        nn.init.zeros_(self.contract.weight)
        nn.init.zeros_(self.contract.bias)

    def forward(self, hidden: Tensor, step: Tensor) -> Tensor:
        """float (B, width) of a float (B, width) and an embedded step, float (B, step_dim)."""
        scale, shift = self.film(step).chunk(2, dim=-1)
        x = torch.addcmul(shift, self.norm(hidden), 1 + scale)
        x = nn.functional.silu(self.expand(x))
        return hidden + self.contract(self.dropout(x))


class MlpDenoiser(nn.Module):
    """Residual MLP on the flattened chunk, the condition vector and the step.

    Args:
        input_dim: Da, width of one action.
        global_cond_dim: width of the condition vector, To * Do; 0 for none.
        horizon: Tp, steps in the chunk.
        width: of the residual stream.
        depth: number of residual blocks.
        expansion: hidden width of a block over ``width``.
        dropout: probability, inside each block.
        step_embed_dim: width of the step embedding.
    """

    def __init__(
        self,
        input_dim: int,
        global_cond_dim: int = 0,
        *,
        horizon: int,
        width: int = 384,
        depth: int = 4,
        expansion: int = 2,
        dropout: float = 0.0,
        step_embed_dim: int = 128,
    ) -> None:
        super().__init__()
        self.step_encoder = nn.Sequential(
            SinusoidalEmbedding(step_embed_dim),
            nn.Linear(step_embed_dim, step_embed_dim),
            nn.SiLU(),
            nn.Linear(step_embed_dim, step_embed_dim),
            nn.SiLU(),
        )
        self.enter = nn.Linear(horizon * input_dim + global_cond_dim, width)
        self.blocks = nn.ModuleList(
            ResidualMlpBlock(width, step_embed_dim, expansion=expansion, dropout=dropout)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, horizon * input_dim)

    def embed_step(self, timestep: Tensor) -> Tensor:
        """float (n, step_embed_dim) of a timestep (n,)."""
        return self.step_encoder(timestep)

    def denoise(self, sample: Tensor, step: Tensor, cond: Tensor | None = None) -> Tensor:
        """`forward` for an already embedded step, float (B, step_embed_dim)."""
        flat = sample.flatten(1)  # (B, Tp * Da)
        hidden = self.enter(flat if cond is None else torch.cat([flat, cond.flatten(1)], dim=-1))
        for block in self.blocks:
            hidden = block(hidden, step)
        return self.leave(self.norm(hidden)).view_as(sample)

    def forward(self, sample: Tensor, timestep: Tensor, cond: Tensor | None = None) -> Tensor:
        """The network's prediction for a noisy chunk.

        Args:
            sample: float (B, Tp, Da).
            timestep: (B,), the diffusion step, or the flow time on the same scale.
            cond: float (B, To, Do) or (B, global_cond_dim), or None where there is none.
        Returns:
            float (B, Tp, Da).
        """
        return self.denoise(sample, self.embed_step(timestep), cond)
