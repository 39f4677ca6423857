"""The convolutional denoiser of Diffusion Policy (Chi et al. 2023, section III-A).

Modules carry the original's names (``down_modules.0.1.blocks.0.block.0.weight``), so weights of
the original's checkpoints fit by name.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dp_hub.errors import ConfigError
from dp_hub.models.conv import Conv1d, ConvTranspose1d
from dp_hub.models.steps import step_encoder


class ConvBlock(nn.Module):
    """Conv1d, GroupNorm, Mish over float (B, C, T)."""

    def __init__(self, channels_in: int, channels_out: int, *, kernel: int, n_groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Conv1d(channels_in, channels_out, kernel, padding=kernel // 2),
            nn.GroupNorm(n_groups, channels_out),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """float (B, channels_out, T) of a float (B, channels_in, T)."""
        return self.block(x)


class ResidualBlock(nn.Module):
    """Two convolution blocks, the first modulated by the condition (FiLM), and a residual path."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        cond_dim: int,
        *,
        kernel: int,
        n_groups: int,
        predict_scale: bool,
    ) -> None:
        super().__init__()
        self.predict_scale = predict_scale
        self.blocks = nn.ModuleList(
            [
                ConvBlock(channels_in, channels_out, kernel=kernel, n_groups=n_groups),
                ConvBlock(channels_out, channels_out, kernel=kernel, n_groups=n_groups),
            ]
        )
        film_dim = 2 * channels_out if predict_scale else channels_out
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(cond_dim, film_dim))
        self.residual_conv = (
            Conv1d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        )

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """float (B, channels_out, T) of float (B, channels_in, T) and a condition (B, cond_dim)."""
        out = self.blocks[0](x)
        film = self.cond_encoder(cond)[:, :, None]
        if self.predict_scale:
            scale, bias = film.chunk(2, dim=1)
            # LEGACY: a plain scale, not 1 + scale.
            out = scale * out + bias
        else:
            out = out + film
        return self.blocks[1](out) + self.residual_conv(x)


class ConditionalUnet1d(nn.Module):
    """The paper's U-Net over time: FiLM on the step and, where there is one, a global condition.

    A local condition instead goes along the trajectory, a vector for each of its steps, and is
    added to the features of the first level.

    Args:
        input_dim: width of one trajectory step, Da (Da + Do with inpainting).
        global_cond_dim: width of the condition vector, To * Do; 0 for none.
        local_cond_dim: width of one step of the local condition; 0 for none.
        step_embed_dim: width of the step embedding.
        down_dims: channels per level; each further level halves time.
        kernel_size: of the convolutions, odd.
        n_groups: of the group norms; divides every entry of ``down_dims``.
        cond_predict_scale: FiLM scales and shifts rather than only shifts.
    Raises:
        ConfigError: both a global and a local condition.
    """

    def __init__(
        self,
        input_dim: int,
        global_cond_dim: int = 0,
        *,
        local_cond_dim: int = 0,
        step_embed_dim: int = 256,
        down_dims: Sequence[int] = (256, 512, 1024),
        kernel_size: int = 5,
        n_groups: int = 8,
        cond_predict_scale: bool = True,
    ) -> None:
        super().__init__()
        if global_cond_dim and local_cond_dim:
            raise ConfigError(
                f"a U-Net with a global condition ({global_cond_dim} wide) takes no local one "
                f"({local_cond_dim} wide)"
            )
        self.local = local_cond_dim > 0
        cond_dim = step_embed_dim + global_cond_dim

        def residual(channels_in: int, channels_out: int) -> ResidualBlock:
            return ResidualBlock(
                channels_in,
                channels_out,
                cond_dim,
                kernel=kernel_size,
                n_groups=n_groups,
                predict_scale=cond_predict_scale,
            )

        widths = [input_dim, *down_dims]
        pairs = list(itertools.pairwise(widths))
        self.diffusion_step_encoder = step_encoder(step_embed_dim)
        self.down_modules = nn.ModuleList(
            nn.ModuleList(
                [
                    residual(below, above),
                    residual(above, above),
                    Conv1d(above, above, 3, stride=2, padding=1)
                    if level < len(pairs) - 1
                    else nn.Identity(),
                ]
            )
            for level, (below, above) in enumerate(pairs)
        )
        if self.local:
            # LEGACY: the original means the second block for the decoder, but never adds what it
            # gives. It is here so that checkpoints fit; frozen, as DDP waits for every gradient.
            self.local_cond_encoder = nn.ModuleList(
                [residual(local_cond_dim, widths[1]), residual(local_cond_dim, widths[1])]
            )
            self.local_cond_encoder[1].requires_grad_(False)
        top = widths[-1]
        self.mid_modules = nn.ModuleList([residual(top, top), residual(top, top)])
        self.up_modules = nn.ModuleList(
            nn.ModuleList(
                [
                    residual(2 * above, below),
                    residual(below, below),
                    ConvTranspose1d(below, below, 4, stride=2, padding=1),
                ]
            )
            for below, above in reversed(pairs[1:])
        )
        first = widths[1]
        self.final_conv = nn.Sequential(
            ConvBlock(first, first, kernel=kernel_size, n_groups=n_groups),
            Conv1d(first, input_dim, 1),
        )

    def embed_step(self, timestep: Tensor) -> Tensor:
        """float (n, step_embed_dim) of a timestep (n,)."""
        return self.diffusion_step_encoder(timestep)

    def denoise(self, sample: Tensor, step: Tensor, cond: Tensor | None = None) -> Tensor:
        """`forward` for an already embedded step, float (B, step_embed_dim)."""
        features, local = step, None
        if cond is not None and self.local:
            local = self.local_cond_encoder[0](cond.transpose(1, 2), step)  # (B, C, T)
        elif cond is not None:
            features = torch.cat([step, cond.flatten(1)], dim=-1)
        x = sample.transpose(1, 2)  # (B, D, T)
        skips: list[Tensor] = []
        for level in self.down_modules:
            first, second, down = cast(Iterable[nn.Module], level)
            x = first(x, features)
            if local is not None and not skips:
                x = x + local
            x = second(x, features)
            skips.append(x)
            x = down(x)
        for block in self.mid_modules:
            x = block(x, features)
        for level in self.up_modules:
            first, second, up = cast(Iterable[nn.Module], level)
            x = torch.cat([x, skips.pop()], dim=1)
            x = up(second(first(x, features), features))
        return self.final_conv(x).transpose(1, 2)  # (B, T, D)

    def forward(self, sample: Tensor, timestep: Tensor, cond: Tensor | None = None) -> Tensor:
        """The network's prediction for a noisy trajectory.

        Args:
            sample: float (B, T, input_dim); T a multiple of ``2 ** (len(down_dims) - 1)``.
            timestep: (B,), the diffusion step, or the flow time on the same scale.
            cond: float (B, To, Do) or (B, global_cond_dim); with a local condition float
                (B, T, local_cond_dim); None where there is none.
        Returns:
            float (B, T, input_dim).
        """
        return self.denoise(sample, self.embed_step(timestep), cond)
