"""ACT (Zhao et al. 2023): chunks of actions predicted by a transformer, trained as a CVAE."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dp_hub.errors import PolicyError
from dp_hub.models.act import ActNetwork, Observed
from dp_hub.models.draws import Source, normal
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.act_config import ActConfig
from dp_hub.policies.act_observing import ActObserver
from dp_hub.policies.objectives import Generators
from dp_hub.policies.observing import checked, normalised, number_widths
from dp_hub.policies.realtime_chunking import Prefix
from dp_hub.policies.selection import Selection, Shape, parse_selection, selected_features

NETWORK_OPTIONS = {
    "hidden_dim",
    "feedforward_dim",
    "n_heads",
    "n_encoder_layers",
    "n_style_layers",
    "n_decoder_layers",
    "latent_dim",
    "dropout",
}


class ActPolicy(nn.Module):
    """Observations to a chunk of actions, both in raw units; normalisation is inside.

    Stateless, as `DiffusionPolicy`. Predictions are deterministic: the style is the prior's mean.

    Args:
        config: what the policy observes and predicts, and the steps of a chunk.
        features: shape of every feature the policy reads or predicts, ``config.action`` included.
        encoder: sorts normalised numbers and pictures into what the network is given.
        network: built for those.
        normalizer: over all ``features`` that are numbers.
    """

    def __init__(
        self,
        config: ActConfig,
        features: Mapping[str, Shape],
        *,
        encoder: ActObserver,
        network: ActNetwork,
        normalizer: Normalizer,
    ) -> None:
        super().__init__()
        self.config = config
        self.features = dict(features)
        self.action_dim = Selection(config.action).width(features)
        self.encoder = encoder
        self.network = network
        self.normalizer = normalizer

    def forward(self, batch: Mapping[str, Tensor], *, generator: Source = None) -> Tensor:
        """`compute_loss`; training goes through here so that DDP averages the gradients."""
        return self.compute_loss(batch, generator=generator)

    def compute_loss(self, batch: Mapping[str, Tensor], *, generator: Source = None) -> Tensor:
        """Mean absolute error of the chunk, normalised, plus the weighted divergence of the style.

        Args:
            batch: every observed feature, numbers float (B, 1, D) and pictures uint8
                (B, 1, H, W, 3); the action float (B, Tp, Da); ``action_is_pad`` bool (B, Tp).
            generator: for the style's noise, on the batch's device, or the rows of a larger
                batch's; None for torch's own.
        Returns:
            float32 scalar.
        """
        actions = self.normalizer.normalize(self.config.action, batch[self.config.action])
        padding = batch["action_is_pad"]
        seen = self._observe(batch)
        style = self.network.encode_style(actions, padding, seen.state)
        noise = normal(style.mu.shape, generator, style.mu.device)
        predicted = self.network.decode(style.sample(noise), seen)
        error = (predicted.float() - actions).abs() * ~padding[:, :, None]
        if self.config.count_padding:
            reconstruction = error.mean()
        else:
            reconstruction = error.sum() / ((~padding).sum() * self.action_dim).clamp(min=1)
        return reconstruction + self.config.kl_weight * style.divergence()

    @torch.inference_mode()
    def predict_action(
        self,
        obs: Mapping[str, Tensor],
        *,
        generator: Generators = None,
        noise: Tensor | None = None,
        prefix: Prefix | None = None,
    ) -> dict[str, Tensor]:
        """A chunk of actions for each row of observations.

        Args:
            obs: every observed feature, numbers (B, 1, D) in raw units and pictures uint8
                (B, 1, H, W, 3); other keys are ignored.
            generator, noise: taken and checked as by other policies; nothing is drawn.
            prefix: refused.
        Returns:
            ``action`` float32 (B, Ta, Da), the steps to execute, and ``action_pred`` float32
            (B, Tp, Da), the whole chunk.
        Raises:
            PolicyError: an observation is missing or misshapen, not one generator per row, or a
                prefix.
        """
        if prefix is not None:
            raise PolicyError(
                "ACT knows no real-time chunking: it predicts a chunk in one go, with no sampling "
                "that could be drawn to planned actions",
                hint="`merge: blend` or `merge: ensemble` joins its chunks",
            )
        device = next(self.parameters()).device
        names, n_obs_steps = self.encoder.names, self.config.n_obs_steps
        obs = checked(obs, self.features, names, n_obs_steps=n_obs_steps, device=device)
        rows = len(obs[names[0]])
        self._check_unused(rows, generator, noise)
        style = torch.zeros(rows, self.config.latent_dim, device=device)
        chunk = self.network.decode(style, self._observe(obs)).float()
        chunk = self.normalizer.unnormalize(self.config.action, chunk)
        return {"action": chunk[:, : self.config.n_action_steps], "action_pred": chunk}

    def _observe(self, obs: Mapping[str, Tensor]) -> Observed:
        observed = {name: obs[name] for name in self.encoder.names}
        return self.encoder(normalised(self.normalizer, observed))

    def _check_unused(self, rows: int, generator: Generators, noise: Tensor | None) -> None:
        if isinstance(generator, Sequence) and len(generator) != rows:
            raise PolicyError(f"{len(generator)} generators for {rows} rows of observations")
        shape = (rows, self.config.horizon, self.action_dim)
        if noise is not None and tuple(noise.shape) != shape:
            raise PolicyError(f"noise has shape {tuple(noise.shape)}, expected {shape}")


def make_policy(
    config: ActConfig,
    features: Mapping[str, Shape],
    *,
    normalizer: Normalizer | None = None,
) -> ActPolicy:
    """An ACT policy with fresh weights.

    Args:
        config: what to build.
        features: shape of every feature read or predicted; others are left out.
        normalizer: fitted to the data; None for the identity, to load weights into.
    Raises:
        PolicyError: a feature is missing or narrower than an observed slice.
    """
    selections = tuple(parse_selection(text) for text in config.observations)
    action_dim = Selection(config.action).width(features)
    for one in selections:
        if one.name not in features:
            one.width(features)  # says so
    names = dict.fromkeys([*selected_features(selections), config.action])
    shapes = {name: features[name] for name in names}
    encoder = ActObserver(selections, shapes, environment=config.environment, vision=config.vision)
    network = ActNetwork(
        action_dim,
        horizon=config.horizon,
        state_dim=encoder.state_dim,
        environment_dim=encoder.environment_dim,
        map_channels=encoder.map_channels,
        **config.model_dump(include=NETWORK_OPTIONS),
    )
    return ActPolicy(
        config,
        shapes,
        encoder=encoder,
        network=network,
        normalizer=normalizer or Normalizer.empty(number_widths(shapes)),
    )
