"""The transformer denoiser of Diffusion Policy (Chi et al. 2023, section III-A).

Modules carry the names of the original's ``TransformerForDiffusion``
(``decoder.layers.0.self_attn.in_proj_weight``), so weights of its checkpoints fit by name.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dp_hub.models.decay import weight_decay_groups
from dp_hub.models.steps import SinusoidalEmbedding

INITIAL_STD = 0.02
LAYER: dict[str, Any] = {"activation": "gelu", "batch_first": True, "norm_first": True}


class TransformerDenoiser(nn.Module):
    """A transformer over the steps of a chunk, pre-norm, with GELU.

    With observations it is a decoder: each action is a token, which attends to its predecessors
    and to the condition's tokens, the diffusion step and the observed steps. Without (as in
    inpainting, where observations are part of the sample) it is an encoder whose first token is
    the diffusion step.

    Args:
        input_dim: width of one step of the sample, Da (Da + Do with inpainting).
        obs_dim: Do, width of one observed step; 0 for no condition.
        horizon: Tp, steps of the sample.
        n_obs_steps: To, observed steps; of no consequence without a condition.
        n_layer: of the decoder, or of the encoder where there is no condition.
        n_head: attention heads; divides ``n_emb``.
        n_emb: width of a token, even; feed-forward layers are four times as wide.
        p_drop_emb: dropout of the embedded tokens.
        p_drop_attn: dropout inside the layers.
        causal_attn: an action sees only itself, the actions before it and what had been observed
            by then. Off, everything sees everything.
        n_cond_layers: transformer layers over the condition's tokens, which all see each other; 0
            for a small MLP on each token alone.
    """

    mask: Tensor | None
    memory_mask: Tensor | None

    def __init__(
        self,
        input_dim: int,
        obs_dim: int = 0,
        *,
        horizon: int,
        n_obs_steps: int,
        n_layer: int = 8,
        n_head: int = 4,
        n_emb: int = 256,
        p_drop_emb: float = 0.0,
        p_drop_attn: float = 0.01,
        causal_attn: bool = True,
        n_cond_layers: int = 0,
    ) -> None:
        super().__init__()
        self.conditioned = obs_dim > 0
        n_tokens = horizon if self.conditioned else 1 + horizon
        self.time_emb = SinusoidalEmbedding(n_emb)
        self.input_emb = nn.Linear(input_dim, n_emb)
        self.pos_emb = nn.Parameter(torch.empty(1, n_tokens, n_emb))
        self.drop = nn.Dropout(p_drop_emb)
        memory_mask = None
        if self.conditioned:
            self.cond_obs_emb = nn.Linear(obs_dim, n_emb)
            self.cond_pos_emb = nn.Parameter(torch.empty(1, 1 + n_obs_steps, n_emb))
            self.encoder = (
                _encoder(n_emb, n_head, p_drop_attn, n_cond_layers)
                if n_cond_layers
                else _token_mlp(n_emb)
            )
            self.decoder = _decoder(n_emb, n_head, p_drop_attn, n_layer)
            memory_mask = _not_yet_observed(horizon, n_obs_steps)
        else:
            self.encoder = _encoder(n_emb, n_head, p_drop_attn, n_layer)
        self.ln_f = nn.LayerNorm(n_emb)
        self.head = nn.Linear(n_emb, input_dim)
        self.register_buffer("mask", _later(n_tokens) if causal_attn else None, persistent=False)
        self.register_buffer("memory_mask", memory_mask if causal_attn else None, persistent=False)
        self.apply(_initialise)
        for name, positions in self.named_parameters(recurse=False):
            assert name in ("pos_emb", "cond_pos_emb"), name
            nn.init.normal_(positions, std=INITIAL_STD)
        self._decayed = frozenset(weight_decay_groups(self)[0])

    def decays(self, name: str) -> bool:
        """Whether weight decay applies to the parameter ``name``, as `named_parameters` has it."""
        return name in self._decayed

    def embed_step(self, timestep: Tensor) -> Tensor:
        """float32 (n, n_emb) of a timestep (n,)."""
        return self.time_emb(timestep)

    def denoise(self, sample: Tensor, step: Tensor, cond: Tensor | None = None) -> Tensor:
        """`forward` for an already embedded step, float (B, n_emb)."""
        tokens = self.input_emb(sample)
        step = step[:, None]  # (B, 1, n_emb)
        causal = self.mask is not None  # said rather than left to be found by comparing masks
        if self.conditioned:
            memory = torch.cat([step, self.cond_obs_emb(cond)], dim=1)  # (B, 1 + To, n_emb)
            memory = self.encoder(self.drop(memory + self.cond_pos_emb))
            tokens = self.drop(tokens + self.pos_emb)
            out = self.decoder(tokens, memory, self.mask, self.memory_mask, tgt_is_causal=causal)
        else:
            tokens = torch.cat([step, tokens], dim=1)  # (B, 1 + Tp, n_emb)
            tokens = self.drop(tokens + self.pos_emb)
            out = self.encoder(tokens, mask=self.mask, is_causal=causal)[:, 1:]
        return self.head(self.ln_f(out))

    def forward(self, sample: Tensor, timestep: Tensor, cond: Tensor | None = None) -> Tensor:
        """The network's prediction for a noisy chunk.

        Args:
            sample: float (B, Tp, input_dim).
            timestep: (B,), the diffusion step, or the flow time on the same scale.
            cond: float (B, To, obs_dim), or None where there is none.
        Returns:
            float (B, Tp, input_dim).
        """
        return self.denoise(sample, self.embed_step(timestep), cond)


def _encoder(n_emb: int, n_head: int, dropout: float, n_layer: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(n_emb, n_head, 4 * n_emb, dropout, **LAYER)
    return nn.TransformerEncoder(layer, n_layer, enable_nested_tensor=False)


def _decoder(n_emb: int, n_head: int, dropout: float, n_layer: int) -> nn.Module:
    layer = nn.TransformerDecoderLayer(n_emb, n_head, 4 * n_emb, dropout, **LAYER)
    return nn.TransformerDecoder(layer, n_layer)


def _token_mlp(n_emb: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_emb, 4 * n_emb), nn.Mish(), nn.Linear(4 * n_emb, n_emb))


def _later(n_tokens: int) -> Tensor:
    """bool (n_tokens, n_tokens), True where the column comes after the row: not to be seen."""
    return torch.ones(n_tokens, n_tokens, dtype=torch.bool).triu(1)


def _not_yet_observed(horizon: int, n_obs_steps: int) -> Tensor:
    """bool (Tp, 1 + To), True where step t of the chunk may not see token s of the condition.

    Token 0 is the diffusion step, seen by all; token s is observation s - 1, seen from t = s - 1.
    """
    t = torch.arange(horizon)[:, None]
    s = torch.arange(1 + n_obs_steps)[None, :]
    return t < s - 1


def _initialise(module: nn.Module) -> None:
    """minGPT's: weights from N(0, 0.02), biases 0; layer norms start as torch makes them."""
    if isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=INITIAL_STD)
        nn.init.zeros_(module.in_proj_bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INITIAL_STD)
        nn.init.zeros_(module.bias)
