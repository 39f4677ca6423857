"""What a denoiser learns and how chunks are drawn from it: diffusion, or flow matching.

An objective works on normalised chunks and knows nothing of observations or networks. A network
sees the step on the scale of the paper's hundred diffusion steps, whichever the objective.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dp_hub.models.draws import Source, integers, uniform
from dp_hub.policies.config import DiffusionObjective, FlowObjective, ObjectiveConfig
from dp_hub.policies.solvers import Estimate, Generators, alphas_cumprod, solver_steps

Predict = Callable[[Tensor, int], Tensor]
"""The network: (noisy chunk (B, Tp, Da), number of the sampling step) -> its prediction."""

Fix = Callable[[Tensor], Tensor]
"""Puts what is known into a noisy chunk, for inpainting."""

FLOW_TIME_SCALE = 100.0


@dataclass(frozen=True)
class Corrupted:
    """A training example: float32 (B, Tp, Da) ``noisy`` and ``target``, and ``timestep`` (B,)."""

    noisy: Tensor
    timestep: Tensor
    target: Tensor


class Estimated(Protocol):
    """What a prediction says of a chunk ``alpha clean + sigma noise``."""

    @property
    def alpha(self) -> float:
        """Share of the clean chunk."""
        ...

    @property
    def sigma(self) -> float:
        """Share of the noise."""
        ...

    def clean(self, x: Tensor, predicted: Tensor) -> Tensor:
        """The clean chunk, clipped if sampling clips it; all float32 (B, Tp, Da)."""
        ...

    def unclipped(self, x: Tensor, predicted: Tensor) -> Tensor:
        """The clean chunk as it comes out."""
        ...

    def moved(self, predicted: Tensor, by: Tensor) -> Tensor:
        """The prediction whose clean chunk is ``by`` more, of the same noisy one."""
        ...


class Objective(Protocol):
    """Corrupts clean chunks for training, and turns noise into chunks by calling the network."""

    def corrupt(self, clean: Tensor, noise: Tensor, *, generator: Source) -> Corrupted:
        """Mix each chunk with noise at a random step; both float32 (B, Tp, Da)."""
        ...

    def timesteps(self, device: torch.device) -> Tensor:
        """(K,): what the network is told at each of the K sampling steps."""
        ...

    def estimate(self, step: int) -> Estimated:
        """What predictions at the sampling step of this number say."""
        ...

    def sample(
        self, predict: Predict, noise: Tensor, *, generator: Generators, fix: Fix | None = None
    ) -> Tensor:
        """A clean chunk (B, Tp, Da) from pure noise, float32 (B, Tp, Da).

        ``fix`` is applied before every call of the network, and to the result.
        """
        ...


def make_objective(config: ObjectiveConfig) -> Objective:
    """The objective a configuration names."""
    match config:
        case DiffusionObjective():
            return Diffusion(config)
        case FlowObjective():
            return FlowMatching(config.num_inference_steps)


@dataclass(frozen=True)
class FlowEstimate:
    """`Estimated` of ``(1 - time) noise + time clean`` from ``clean - noise``; ``time`` < 1."""

    time: float

    @property
    def alpha(self) -> float:
        """See `Estimated.alpha`."""
        return self.time

    @property
    def sigma(self) -> float:
        """See `Estimated.sigma`."""
        return 1 - self.time

    def clean(self, x: Tensor, predicted: Tensor) -> Tensor:
        """See `Estimated.clean`; nothing is clipped."""
        return x + self.sigma * predicted

    def unclipped(self, x: Tensor, predicted: Tensor) -> Tensor:
        """See `Estimated.unclipped`."""
        return self.clean(x, predicted)

    def moved(self, predicted: Tensor, by: Tensor) -> Tensor:
        """See `Estimated.moved`."""
        return predicted + by / self.sigma


class FlowMatching:
    """Straight paths ``x_t = (1 - t) noise + t clean``; the network gives ``clean - noise``.

    Args:
        num_inference_steps: Euler steps from t = 0 to t = 1.
    """

    def __init__(self, num_inference_steps: int) -> None:
        self.num_inference_steps = num_inference_steps

    def corrupt(self, clean: Tensor, noise: Tensor, *, generator: Source) -> Corrupted:
        """See `Objective.corrupt`; t is uniform in [0, 1)."""
        time = uniform(len(clean), generator, clean.device)
        noisy = torch.lerp(noise, clean, time[:, None, None])
        return Corrupted(noisy, time * FLOW_TIME_SCALE, clean - noise)

    def timesteps(self, device: torch.device) -> Tensor:
        """float32 (K,): the start of every Euler step."""
        steps = torch.arange(self.num_inference_steps, device=device)
        return steps * (FLOW_TIME_SCALE / self.num_inference_steps)

    def estimate(self, step: int) -> FlowEstimate:
        """See `Objective.estimate`."""
        return FlowEstimate(step / self.num_inference_steps)

    def sample(
        self,
        predict: Predict,
        noise: Tensor,
        *,
        generator: Generators = None,
        fix: Fix | None = None,
    ) -> Tensor:
        """See `Objective.sample`; nothing random beyond the first noise."""
        x = noise
        for step in range(self.num_inference_steps):
            x = fix(x) if fix else x
            x = x + predict(x, step) / self.num_inference_steps
        return fix(x) if fix else x


class Diffusion:
    """Denoising diffusion; `dp_hub.policies.solvers` has the schedules and solvers."""

    def __init__(self, config: DiffusionObjective) -> None:
        self.config = config
        self.num_inference_steps = config.num_inference_steps
        kept = alphas_cumprod(config)
        self._alpha, self._sigma = kept.sqrt(), (1 - kept).sqrt()
        self._steps = solver_steps(config, config.num_inference_steps)

    def corrupt(self, clean: Tensor, noise: Tensor, *, generator: Source) -> Corrupted:
        """See `Objective.corrupt`; the step is uniform over the whole schedule."""
        device = clean.device
        timestep = integers(self.config.train_steps, len(clean), generator, device)
        # Kept where they are used: without that, every batch would wait for a copy.
        self._alpha, self._sigma = self._alpha.to(device), self._sigma.to(device)
        alpha, sigma = self._alpha[timestep][:, None, None], self._sigma[timestep][:, None, None]
        noisy = alpha * clean + sigma * noise
        match self.config.prediction:
            case "epsilon":
                return Corrupted(noisy, timestep, noise)
            case "sample":
                return Corrupted(noisy, timestep, clean)
            case "v":
                return Corrupted(noisy, timestep, alpha * noise - sigma * clean)

    def timesteps(self, device: torch.device) -> Tensor:
        """int64 (K,): the solver's steps, falling."""
        return torch.tensor([step.timestep for step in self._steps], device=device)

    def estimate(self, step: int) -> Estimate:
        """See `Objective.estimate`."""
        return self._steps[step].estimate

    def sample(
        self, predict: Predict, noise: Tensor, *, generator: Generators, fix: Fix | None = None
    ) -> Tensor:
        """See `Objective.sample`; DDPM draws fresh noise at every step from ``generator``."""
        x, clean = noise, None
        for k, step in enumerate(self._steps):
            x = fix(x) if fix else x
            x, clean = step(x, predict(x, k), clean, generator)
        return fix(x) if fix else x
