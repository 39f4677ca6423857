"""The network of ACT, action chunking with transformers (Zhao et al. 2023, section IV-C).

A conditional variational autoencoder. Its encoder, used in training only, sums up a demonstrated
chunk in a style variable; its decoder predicts the chunk from the style and the observations.
Modules carry the original's names (``transformer.decoder.layers.0.self_attn.in_proj_weight``).
Left out is the original's head that predicts padding, for no loss trains it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dp_hub.models.detr import Encoder, Transformer, sinusoid, sinusoid_2d


class Style(NamedTuple):
    """A diagonal normal distribution over the style variable."""

    mu: Tensor
    """float32 (B, latent_dim), its mean."""
    logvar: Tensor
    """float32 (B, latent_dim), the logarithm of its variance."""

    def sample(self, noise: Tensor) -> Tensor:
        """float32 (B, latent_dim) from standard normal noise (B, latent_dim)."""
        return self.mu + (self.logvar / 2).exp() * noise

    def divergence(self) -> Tensor:
        """KL divergence from the standard normal: summed over dimensions, mean over rows."""
        each = 0.5 * (self.mu.square() + self.logvar.exp() - 1 - self.logvar)
        return each.sum(dim=1).mean()


class Observed(NamedTuple):
    """What the decoder is given, all of it normalised; None or empty where there is none."""

    state: Tensor | None = None
    """float (B, state_dim), of the robot."""
    environment: Tensor | None = None
    """float (B, environment_dim), of the surroundings."""
    maps: Sequence[Tensor] = ()
    """A feature map float (B, map_channels, h, w) of each camera."""


class ActNetwork(nn.Module):
    """Encoder of style and decoder of actions.

    Args:
        action_dim: Da, width of one action.
        horizon: Tp, steps in a chunk.
        state_dim: width of the robot's own state; 0 for none.
        environment_dim: width of the surroundings' state; 0 for none.
        map_channels: channels of the cameras' feature maps; 0 for no cameras.
        hidden_dim: width of every token, a multiple of 4 and of ``n_heads``.
        feedforward_dim: of the layers' inner networks.
        n_heads: of every attention.
        n_encoder_layers: over the observed tokens.
        n_style_layers: of the style's encoder.
        n_decoder_layers: over the queries. LEGACY: the original builds 7 and then takes the output
            of the first, so that 1 is what was trained and published.
        latent_dim: width of the style variable.
        dropout: probability, in every layer.
    """

    def __init__(
        self,
        action_dim: int,
        *,
        horizon: int,
        state_dim: int = 0,
        environment_dim: int = 0,
        map_channels: int = 0,
        hidden_dim: int = 512,
        feedforward_dim: int = 3200,
        n_heads: int = 8,
        n_encoder_layers: int = 4,
        n_style_layers: int = 4,
        n_decoder_layers: int = 1,
        latent_dim: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.transformer = Transformer(
            hidden_dim,
            feedforward_dim,
            n_heads=n_heads,
            n_encoder_layers=n_encoder_layers,
            n_decoder_layers=n_decoder_layers,
            dropout=dropout,
        )
        self.encoder = Encoder(
            n_style_layers, hidden_dim, feedforward_dim, n_heads=n_heads, dropout=dropout
        )
        self.cls_embed = nn.Embedding(1, hidden_dim)
        self.encoder_action_proj = nn.Linear(action_dim, hidden_dim)
        self.encoder_joint_proj = nn.Linear(state_dim, hidden_dim) if state_dim else None
        self.latent_proj = nn.Linear(hidden_dim, 2 * latent_dim)

        n_vectors = 1 + bool(state_dim) + bool(environment_dim)
        self.latent_out_proj = nn.Linear(latent_dim, hidden_dim)
        self.input_proj_robot_state = nn.Linear(state_dim, hidden_dim) if state_dim else None
        self.input_proj_env_state = (
            nn.Linear(environment_dim, hidden_dim) if environment_dim else None
        )
        self.input_proj = nn.Conv2d(map_channels, hidden_dim, 1) if map_channels else None
        self.additional_pos_embed = nn.Embedding(n_vectors, hidden_dim)
        self.query_embed = nn.Embedding(horizon, hidden_dim)
        self.action_head = nn.Linear(hidden_dim, action_dim)

    def encode_style(self, actions: Tensor, padding: Tensor, state: Tensor | None = None) -> Style:
        """The style of demonstrated chunks.

        Args:
            actions: float (B, Tp, Da), normalised.
            padding: bool (B, Tp), True for steps past the episode's end; nothing attends to them.
            state: float (B, state_dim), normalised; None where the network was built without.
        Returns:
            float32 mean and log-variance, (B, latent_dim) each.
        """
        rows = len(actions)
        tokens = [self.cls_embed.weight.expand(rows, 1, -1)]
        if self.encoder_joint_proj is not None:
            assert state is not None
            tokens.append(self.encoder_joint_proj(state)[:, None])
        seen = padding.new_zeros(rows, len(tokens))
        x = torch.cat([*tokens, self.encoder_action_proj(actions)], dim=1)  # (B, 1 or 2 + Tp, H)
        positions = sinusoid(torch.arange(x.shape[1], device=x.device), x.shape[2])
        x = self.encoder(x, positions.to(x), torch.cat([seen, padding], dim=1))
        mu, logvar = self.latent_proj(x[:, 0]).float().chunk(2, dim=-1)
        return Style(mu, logvar)

    def decode(self, style: Tensor, observed: Observed) -> Tensor:
        """Chunks of actions.

        Args:
            style: float (B, latent_dim); zeros, the mean of the prior, when acting.
            observed: what the network was built for.
        Returns:
            float (B, Tp, Da), normalised.
        """
        vectors = [self.latent_out_proj(style)]
        if self.input_proj_robot_state is not None:
            vectors.append(self.input_proj_robot_state(observed.state))
        if self.input_proj_env_state is not None:
            vectors.append(self.input_proj_env_state(observed.environment))
        tokens, positions = [torch.stack(vectors, dim=1)], [self.additional_pos_embed.weight]
        for one in observed.maps:
            assert self.input_proj is not None
            tokens.append(self.input_proj(one).flatten(2).transpose(1, 2))  # (B, h * w, H)
            height, width = one.shape[2:]
            hidden_dim = self.query_embed.embedding_dim
            positions.append(sinusoid_2d(height, width, hidden_dim, device=one.device))
        out = self.transformer(
            torch.cat(tokens, dim=1), torch.cat(positions), self.query_embed.weight
        )
        return self.action_head(out)
