"""Diffusion Policy (Chi et al. 2023): chunks of actions drawn by denoising, given observations."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from dp_hub.errors import PolicyError
from dp_hub.models.draws import Source, normal
from dp_hub.models.mlp import MlpDenoiser
from dp_hub.models.normalizer import Normalizer
from dp_hub.models.transformer import TransformerDenoiser
from dp_hub.models.unet1d import ConditionalUnet1d
from dp_hub.policies.config import DiffusionConfig, MlpConfig, TransformerConfig, UnetConfig
from dp_hub.policies.objectives import Fix, Objective, Predict, make_objective
from dp_hub.policies.observing import ObservationEncoder, checked, normalised, number_widths
from dp_hub.policies.realtime_chunking import Prefix, drawn_to, for_autograd, laid_out
from dp_hub.policies.selection import Selection, Shape, parse_selection, selected_features
from dp_hub.policies.solvers import Generators, draw_noise


class Denoiser(Protocol):
    """What a policy needs of its network. Any module with these three verbs will do.

    A condition is float (B, To, Do) for ``global`` conditioning, (B, Tp, Do) for ``local``, None
    for ``inpainting``.
    """

    def __call__(self, sample: Tensor, timestep: Tensor, cond: Tensor | None = None) -> Tensor:
        """float (B, Tp, D) of a noisy chunk (B, Tp, D), a step (B,) and a condition."""
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
        features: shape of every feature the policy reads or predicts, ``config.action`` included.
        encoder: turns normalised numbers and pictures into a vector per step.
        denoiser: the network (a module that is a `Denoiser`).
        objective: what it was trained for and how chunks are drawn.
        normalizer: over all ``features`` that are numbers.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        features: Mapping[str, Shape],
        *,
        encoder: ObservationEncoder,
        denoiser: nn.Module,
        objective: Objective,
        normalizer: Normalizer,
    ) -> None:
        super().__init__()
        self.config = config
        self.features = dict(features)
        self.selections = encoder.selections
        self.action_dim = Selection(config.action).width(features)
        self.objective = objective
        self.encoder = encoder
        self.denoiser = cast(Denoiser, denoiser)
        self.normalizer = normalizer

    def forward(self, batch: Mapping[str, Tensor], *, generator: Source = None) -> Tensor:
        """`compute_loss`; training goes through here so that DDP averages the gradients."""
        return self.compute_loss(batch, generator=generator)

    def compute_loss(self, batch: Mapping[str, Tensor], *, generator: Source = None) -> Tensor:
        """Mean squared error of the network's prediction, in normalised units.

        What inpainting gives the network counts as predicted without error (as in the original).

        Args:
            batch: every observed feature, numbers float (B, T, D) and pictures uint8
                (B, T, H, W, 3), with T = ``config.n_trained_obs_steps``; the action float
                (B, Tp, Da); with ``config.mask_padding`` also ``action_is_pad`` bool (B, Tp).
            generator: for noise and steps, on the batch's device, or the rows of a larger
                batch's; None for torch's own.
        Returns:
            float32 scalar.
        """
        action = self.normalizer.normalize(self.config.action, batch[self.config.action])
        seen = self._encode(batch)
        truth = torch.cat([action, seen], dim=-1) if self._inpaints else action
        clean = truth.detach()
        noise = normal(clean.shape, generator, clean.device)
        example = self.objective.corrupt(clean, noise, generator=generator)
        noisy, learned = example.noisy, None
        if self._inpaints:
            learned = ~self._known(clean.device)
            noisy = torch.where(learned, noisy, truth)
        predicted = self.denoiser(noisy, example.timestep, self._condition(seen)).float()
        if not self.config.mask_padding and learned is None:
            return nn.functional.mse_loss(predicted, example.target)
        error = (predicted - example.target).square()
        if learned is not None:
            error = error * learned
        if not self.config.mask_padding:
            return error.mean()
        real = ~batch["action_is_pad"][:, :, None]
        return (error * real).sum() / (real.sum() * error.shape[-1]).clamp(min=1)

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
            obs: every observed feature, numbers (B, To, D) in raw units and pictures uint8
                (B, To, H, W, 3); other keys are ignored.
            generator: one for the whole batch, or one per row, so that a row's actions do not
                depend on the rows beside it; None for torch's own.
            noise: the starting noise, float32 (B, Tp, Da), with inpainting (B, Tp, Da + Do); None
                to draw it.
            prefix: planned actions to go on from (real-time chunking); None changes nothing.
        Returns:
            ``action`` float32 (B, Ta, Da), the steps to execute, and ``action_pred`` float32
            (B, Tp, Da), the whole chunk.
        Raises:
            PolicyError: an observation or the prefix is missing or misshapen, or not one generator
                per row.
        """
        device = next(self.parameters()).device
        names, n_obs_steps = self.encoder.names, self.config.n_obs_steps
        obs = checked(obs, self.features, names, n_obs_steps=n_obs_steps, device=device)
        rows = len(obs[names[0]])
        start = self._noise(rows, generator, noise, device)
        chunk = self._sample(self._encode(obs), start, generator, prefix)[:, :, : self.action_dim]
        chunk = self.normalizer.unnormalize(self.config.action, chunk)
        first = self.config.n_obs_steps - 1
        return {
            "action": chunk[:, first : first + self.config.n_action_steps],
            "action_pred": chunk,
        }

    @property
    def _inpaints(self) -> bool:
        return self.config.conditioning == "inpainting"

    def _encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """float32 (B, T, Do): once per chunk, however many steps of denoising follow."""
        observed = {name: obs[name] for name in self.encoder.names}
        return self.encoder(normalised(self.normalizer, observed))

    def _condition(self, seen: Tensor) -> Tensor | None:
        """What the network is told of observations (B, T, Do)."""
        match self.config.conditioning:
            case "global":
                return seen
            case "local":  # beyond the observed steps there is nothing to tell: zeros
                return nn.functional.pad(seen, (0, 0, 0, self.config.horizon - seen.shape[1]))
            case "inpainting":
                return None

    def _known(self, device: torch.device) -> Tensor:
        """bool (Tp, Da + Do), True where inpainting gives the network the truth."""
        step = torch.arange(self.config.horizon, device=device)[:, None]
        entry = torch.arange(self.action_dim + self.encoder.out_dim, device=device)
        return (step < self.config.n_obs_steps) & (entry >= self.action_dim)

    def _sample(
        self, seen: Tensor, noise: Tensor, generator: Generators, prefix: Prefix | None
    ) -> Tensor:
        """A normalised chunk like ``noise``, of observations (B, To, Do)."""
        # The steps are the same for all rows and known in advance: embedded once, K rows.
        precision = self._precision(noise.device)
        with precision():
            embedded = self.denoiser.embed_step(self.objective.timesteps(noise.device))
        cond = self._condition(seen)
        if prefix is not None and prefix.how == "guidance":
            embedded = for_autograd(embedded)
            cond = None if cond is None else for_autograd(cond)

        def network(x: Tensor, step: int) -> Tensor:
            with precision():
                return self.denoiser.denoise(x, embedded[step].expand(len(x), -1), cond).float()

        predict: Predict = network
        if prefix is not None:
            action, normalizer = self.config.action, self.normalizer
            planned, weights = laid_out(
                prefix, noise, self.action_dim, lambda raw: normalizer.normalize(action, raw)
            )
            predict = drawn_to(network, self.objective, planned, weights, prefix)
        fix = self._fix(seen) if self._inpaints else None
        return self.objective.sample(predict, noise, generator=generator, fix=fix)

    def _precision(self, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
        """Arithmetic in bf16 where the network was loaded so; its inputs are float32 either way."""
        weights = cast(nn.Module, self.denoiser).parameters()
        if any(weight.dtype == torch.bfloat16 for weight in weights):
            return lambda: torch.autocast(device.type, torch.bfloat16)
        return nullcontext

    def _fix(self, seen: Tensor) -> Fix:
        known = self._known(seen.device)
        later = self.config.horizon - seen.shape[1]
        truth = nn.functional.pad(seen, (self.action_dim, 0, 0, later))
        return lambda chunk: torch.where(known, truth, chunk)

    def _noise(
        self, rows: int, generator: Generators, noise: Tensor | None, device: torch.device
    ) -> Tensor:
        if isinstance(generator, Sequence) and len(generator) != rows:
            raise PolicyError(f"{len(generator)} generators for {rows} rows of observations")
        width = self.action_dim + (self.encoder.out_dim if self._inpaints else 0)
        shape = (rows, self.config.horizon, width)
        if noise is None:
            return draw_noise(shape, generator, device)
        if tuple(noise.shape) != shape:
            raise PolicyError(f"noise has shape {tuple(noise.shape)}, expected {shape}")
        return noise.to(device=device, dtype=torch.float32)


def observed(config: DiffusionConfig) -> tuple[Selection, ...]:
    """What a configuration observes, parsed."""
    return tuple(parse_selection(text) for text in config.observations)


def required_features(config: DiffusionConfig) -> list[str]:
    """The features a policy reads or predicts: what it must be given the shapes of."""
    return list(dict.fromkeys([*selected_features(observed(config)), config.action]))


def make_denoiser(config: DiffusionConfig, *, action_dim: int, obs_dim: int) -> nn.Module:
    """The network a configuration names, with fresh weights.

    Args:
        config: of the policy.
        action_dim: Da.
        obs_dim: Do, numbers observed per step.
    """
    inpaints = config.conditioning == "inpainting"
    width = action_dim + (obs_dim if inpaints else 0)
    cond_dim = obs_dim if config.conditioning == "global" else 0
    options = config.denoiser.model_dump(exclude={"kind"})
    match config.denoiser:
        case UnetConfig():
            local = obs_dim if config.conditioning == "local" else 0
            flat = config.n_obs_steps * cond_dim
            return ConditionalUnet1d(width, flat, local_cond_dim=local, **options)
        case TransformerConfig():
            options |= {"horizon": config.horizon, "n_obs_steps": config.n_obs_steps}
            return TransformerDenoiser(width, cond_dim, **options)
        case MlpConfig():
            flat = config.n_obs_steps * cond_dim
            return MlpDenoiser(width, flat, horizon=config.horizon, **options)


def make_policy(
    config: DiffusionConfig,
    features: Mapping[str, Shape],
    *,
    normalizer: Normalizer | None = None,
) -> DiffusionPolicy:
    """A policy with fresh weights.

    Args:
        config: what to build.
        features: shape of every feature of `required_features`; others are left out.
        normalizer: fitted to the data; None for the identity, to load weights into.
    Raises:
        PolicyError: a feature is missing or narrower than an observed slice.
    """
    action_dim = Selection(config.action).width(features)
    for one in observed(config):
        if one.name not in features:
            one.width(features)  # says so
    shapes = {name: features[name] for name in required_features(config)}
    encoder = ObservationEncoder(observed(config), shapes, vision=config.vision)
    return DiffusionPolicy(
        config,
        shapes,
        encoder=encoder,
        denoiser=make_denoiser(config, action_dim=action_dim, obs_dim=encoder.out_dim),
        objective=make_objective(config.objective),
        normalizer=normalizer or Normalizer.empty(number_widths(shapes)),
    )
