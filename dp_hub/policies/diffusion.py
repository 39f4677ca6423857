"""Diffusion Policy (Chi et al. 2023): chunks of actions drawn by denoising, given observations."""

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from dp_hub.errors import PolicyError
from dp_hub.models.mlp import MlpDenoiser
from dp_hub.models.normalizer import Normalizer
from dp_hub.models.unet1d import ConditionalUnet1d
from dp_hub.policies.config import DiffusionConfig, MlpConfig, UnetConfig
from dp_hub.policies.objectives import Generators, Objective, make_objective
from dp_hub.policies.selection import Selection, parse_selection, selected_features


class Denoiser(Protocol):
    """What a policy needs of its network. Any module with these three verbs will do."""

    def __call__(self, sample: Tensor, timestep: Tensor, cond: Tensor | None = None) -> Tensor:
        """float (B, Tp, Da) of a noisy chunk (B, Tp, Da), a step (B,) and a condition (B, C)."""
        ...

    def embed_step(self, timestep: Tensor) -> Tensor:
        """float (n, E) of steps (n,)."""
        ...

    def denoise(self, sample: Tensor, step: Tensor, cond: Tensor | None = None) -> Tensor:
        """The same as calling it, with the step already embedded, float (B, E)."""
        ...


class DiffusionPolicy(nn.Module):
    """Observations to a chunk of actions, both in raw units; normalisation is inside.

    Stateless: history and the queue of actions belong to whoever drives the robot.

    Args:
        config: what the policy observes and predicts, and the steps of a chunk.
        features: width of every feature the policy reads or predicts, ``config.action`` included.
        denoiser: the network (a module that is a `Denoiser`).
        objective: what it was trained for and how chunks are drawn.
        normalizer: over all ``features``.
    Raises:
        PolicyError: a feature is missing or narrower than an observed slice.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        features: Mapping[str, int],
        *,
        denoiser: nn.Module,
        objective: Objective,
        normalizer: Normalizer,
    ) -> None:
        super().__init__()
        self.config = config
        self.features = dict(features)
        self.selections = observed(config)
        self.action_dim, _ = chunk_and_condition_dims(config, features)
        self.objective = objective
        self.denoiser = cast(Denoiser, denoiser)
        self.normalizer = normalizer

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """`compute_loss`; training goes through here so that DDP averages the gradients."""
        return self.compute_loss(batch)

    def compute_loss(
        self, batch: Mapping[str, Tensor], *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean squared error of the network's prediction, in normalised units.

        Args:
            batch: every observed feature float (B, To, D); the action float (B, Tp, Da); with
                ``config.mask_padding`` also ``action_is_pad`` bool (B, Tp).
            generator: for noise and steps, on the batch's device; None for torch's own.
        Returns:
            float32 scalar.
        """
        clean = self.normalizer.normalize(self.config.action, batch[self.config.action])
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        example = self.objective.corrupt(clean, noise, generator=generator)
        predicted = self.denoiser(example.noisy, example.timestep, self._condition(batch))
        if not self.config.mask_padding:
            return nn.functional.mse_loss(predicted.float(), example.target)
        error = (predicted.float() - example.target).square()
        real = ~batch["action_is_pad"][:, :, None]
        return (error * real).sum() / (real.sum() * self.action_dim).clamp(min=1)

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
            obs: every observed feature, numbers (B, To, D) in raw units; other keys are ignored.
            generator: one for the whole batch, or one per row, so that a row's actions do not
                depend on the rows beside it; None for torch's own.
            noise: the starting noise, float32 (B, Tp, Da); None to draw it.
        Returns:
            ``action`` float32 (B, Ta, Da), the steps to execute, and ``action_pred`` float32
            (B, Tp, Da), the whole chunk.
        Raises:
            PolicyError: an observation is missing or misshapen, or not one generator per row.
        """
        device = self._device()
        obs = self._checked(obs, device)
        rows = len(obs[self.selections[0].name])
        start = self._noise(rows, generator, noise, device)
        chunk = self.conditional_sample(self._condition(obs), start, generator=generator)
        chunk = self.normalizer.unnormalize(self.config.action, chunk)
        first = self.config.n_obs_steps - 1
        return {
            "action": chunk[:, first : first + self.config.n_action_steps],
            "action_pred": chunk,
        }

    def conditional_sample(
        self, cond: Tensor, noise: Tensor, *, generator: Generators = None
    ) -> Tensor:
        """A normalised chunk float32 (B, Tp, Da) from a condition (B, C) and noise (B, Tp, Da)."""
        # The steps are the same for all rows and known in advance: embedded once, K rows.
        embedded = self.denoiser.embed_step(self.objective.timesteps(noise.device))

        def predict(x: Tensor, step: int) -> Tensor:
            return self.denoiser.denoise(x, embedded[step].expand(len(x), -1), cond).float()

        return self.objective.sample(predict, noise, generator=generator)

    def _condition(self, obs: Mapping[str, Tensor]) -> Tensor:
        parts = {
            name: self.normalizer.normalize(name, obs[name])
            for name in selected_features(self.selections)
        }
        selected = [selection.take(parts[selection.name]) for selection in self.selections]
        return torch.cat(selected, dim=-1).flatten(1)  # (B, To * Do)

    def _device(self) -> torch.device:
        return next(self.parameters()).device

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

    def _noise(
        self, rows: int, generator: Generators, noise: Tensor | None, device: torch.device
    ) -> Tensor:
        if isinstance(generator, Sequence) and len(generator) != rows:
            raise PolicyError(f"{len(generator)} generators for {rows} rows of observations")
        shape = (rows, self.config.horizon, self.action_dim)
        if noise is None:
            return draw_noise(shape, generator, device)
        if tuple(noise.shape) != shape:
            raise PolicyError(f"noise has shape {tuple(noise.shape)}, expected {shape}")
        return noise.to(device=device, dtype=torch.float32)


def draw_noise(shape: tuple[int, ...], generator: Generators, device: torch.device) -> Tensor:
    """Standard normal float32 noise; with a generator per row, each row comes from its own."""
    if isinstance(generator, Sequence):
        return torch.cat([draw_noise((1, *shape[1:]), one, device) for one in generator])
    source = device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=source).to(device)


def observed(config: DiffusionConfig) -> tuple[Selection, ...]:
    """What a configuration observes, parsed."""
    return tuple(parse_selection(text) for text in config.observations)


def required_features(config: DiffusionConfig) -> list[str]:
    """The features a policy reads or predicts: what it must be given the widths of."""
    return list(dict.fromkeys([*selected_features(observed(config)), config.action]))


def chunk_and_condition_dims(
    config: DiffusionConfig, features: Mapping[str, int]
) -> tuple[int, int]:
    """Da and the width of the condition vector, To * Do.

    Raises:
        PolicyError: a feature is missing or narrower than an observed slice.
    """
    action_dim = Selection(config.action).width(features)
    return action_dim, config.n_obs_steps * sum(one.width(features) for one in observed(config))


def make_denoiser(config: DiffusionConfig, features: Mapping[str, int]) -> nn.Module:
    """The network a configuration names, with fresh weights."""
    action_dim, cond_dim = chunk_and_condition_dims(config, features)
    options = config.denoiser.model_dump(exclude={"kind"})
    match config.denoiser:
        case UnetConfig():
            return ConditionalUnet1d(action_dim, cond_dim, **options)
        case MlpConfig():
            return MlpDenoiser(action_dim, cond_dim, horizon=config.horizon, **options)


def make_policy(
    config: DiffusionConfig, features: Mapping[str, int], *, normalizer: Normalizer | None = None
) -> DiffusionPolicy:
    """A policy with fresh weights.

    Args:
        config: what to build.
        features: width of every feature of `required_features`; others are left out.
        normalizer: fitted to the data; None for the identity, to load weights into.
    Raises:
        PolicyError: a feature is missing or narrower than an observed slice.
    """
    for name in required_features(config):
        Selection(name).width(features)
    dims = {name: features[name] for name in required_features(config)}
    return DiffusionPolicy(
        config,
        dims,
        denoiser=make_denoiser(config, dims),
        objective=make_objective(config.objective),
        normalizer=Normalizer.empty(dims) if normalizer is None else normalizer,
    )
