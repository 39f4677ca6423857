"""ACT (Zhao et al. 2023): chunks of actions predicted by a transformer, trained as a CVAE."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dp_hub.errors import PolicyError
from dp_hub.models.act import ActNetwork, Observed
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.act_config import ActConfig
from dp_hub.policies.objectives import Generators
from dp_hub.policies.selection import Selection, parse_selection, selected_features

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
        features: width of every feature the policy reads or predicts, ``config.action`` included.
        network: built for these widths.
        normalizer: over all ``features``.
    Raises:
        PolicyError: a feature is missing or narrower than an observed slice.
    """

    def __init__(
        self,
        config: ActConfig,
        features: Mapping[str, int],
        *,
        network: ActNetwork,
        normalizer: Normalizer,
    ) -> None:
        super().__init__()
        self.config = config
        self.features = dict(features)
        self.selections = tuple(parse_selection(text) for text in config.observations)
        self.action_dim = Selection(config.action).width(features)
        self.network = network
        self.normalizer = normalizer

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """`compute_loss`; training goes through here so that DDP averages the gradients."""
        return self.compute_loss(batch)

    def compute_loss(
        self, batch: Mapping[str, Tensor], *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean absolute error of the chunk, normalised, plus the weighted divergence of the style.

        Args:
            batch: every observed feature float (B, 1, D); the action float (B, Tp, Da);
                ``action_is_pad`` bool (B, Tp).
            generator: for the style's noise, on the batch's device; None for torch's own.
        Returns:
            float32 scalar.
        """
        actions = self.normalizer.normalize(self.config.action, batch[self.config.action])
        padding = batch["action_is_pad"]
        seen = self._observed(batch)
        style = self.network.encode_style(actions, padding, seen.state)
        noise = torch.randn(style.mu.shape, generator=generator, device=style.mu.device)
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
    ) -> dict[str, Tensor]:
        """A chunk of actions for each row of observations.

        Args:
            obs: every observed feature, numbers (B, 1, D) in raw units; other keys are ignored.
            generator, noise: taken and checked as by other policies; nothing is drawn.
        Returns:
            ``action`` float32 (B, Ta, Da), the steps to execute, and ``action_pred`` float32
            (B, Tp, Da), the whole chunk.
        Raises:
            PolicyError: an observation is missing or misshapen, or not one generator per row.
        """
        device = next(self.parameters()).device
        obs = self._checked(obs, device)
        rows = len(obs[self.selections[0].name])
        self._check_unused(rows, generator, noise)
        style = torch.zeros(rows, self.config.latent_dim, device=device)
        chunk = self.network.decode(style, self._observed(obs)).float()
        chunk = self.normalizer.unnormalize(self.config.action, chunk)
        return {"action": chunk[:, : self.config.n_action_steps], "action_pred": chunk}

    def _observed(self, obs: Mapping[str, Tensor]) -> Observed:
        """The numbers observed, normalised and put together."""
        parts: dict[str, list[Tensor]] = {}
        for selection in self.selections:
            value = self.normalizer.normalize(selection.name, obs[selection.name])
            parts.setdefault(_kind(self.config, selection), []).append(selection.take(value)[:, 0])
        joined = {kind: torch.cat(values, dim=-1) for kind, values in parts.items()}
        return Observed(joined.get("state"), joined.get("environment"))

    def _checked(self, obs: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        checked: dict[str, Tensor] = {}
        for name in selected_features(self.selections):
            if name not in obs:
                raise PolicyError(
                    f"the policy observes {name}, which was not given",
                    hint=f"given: {', '.join(obs) or 'nothing'}",
                )
            value = torch.as_tensor(obs[name])
            expected = (self.config.n_obs_steps, self.features[name])
            if value.ndim != 3 or tuple(value.shape[1:]) != expected:
                raise PolicyError(
                    f"{name} has shape {tuple(value.shape)}, expected (B, {expected[0]}, "
                    f"{expected[1]}): a batch of {expected[0]} observed steps"
                )
            checked[name] = value.to(device=device, dtype=torch.float32)
        return checked

    def _check_unused(self, rows: int, generator: Generators, noise: Tensor | None) -> None:
        if isinstance(generator, Sequence) and len(generator) != rows:
            raise PolicyError(f"{len(generator)} generators for {rows} rows of observations")
        shape = (rows, self.config.horizon, self.action_dim)
        if noise is not None and tuple(noise.shape) != shape:
            raise PolicyError(f"noise has shape {tuple(noise.shape)}, expected {shape}")


def make_act(
    config: ActConfig, features: Mapping[str, int], *, normalizer: Normalizer | None = None
) -> ActPolicy:
    """A policy with fresh weights, as `make_policy`."""
    widths = observed_widths(config, features)
    network = ActNetwork(
        Selection(config.action).width(features),
        horizon=config.horizon,
        state_dim=widths["state"],
        environment_dim=widths["environment"],
        **config.model_dump(include=NETWORK_OPTIONS),
    )
    empty = Normalizer.empty(features) if normalizer is None else normalizer
    return ActPolicy(config, features, network=network, normalizer=empty)


def observed_widths(config: ActConfig, features: Mapping[str, int]) -> dict[str, int]:
    """How many numbers are observed of the robot's ``state`` and of the ``environment``.

    Raises:
        PolicyError: a feature is missing or narrower than an observed slice.
    """
    widths = {"state": 0, "environment": 0}
    for selection in map(parse_selection, config.observations):
        widths[_kind(config, selection)] += selection.width(features)
    return widths


def _kind(config: ActConfig, selection: Selection) -> str:
    return "environment" if selection.name in config.environment else "state"
