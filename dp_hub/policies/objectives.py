"""What a denoiser learns and how chunks are drawn from it: diffusion, or flow matching.

An objective works on normalised chunks and knows nothing of observations or networks. A network
sees the step on the scale of the paper's hundred diffusion steps, whichever the objective.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dp_hub.models.draws import Source, integers, uniform
from dp_hub.policies.config import DiffusionObjective, FlowObjective, ObjectiveConfig

Generators = torch.Generator | Sequence[torch.Generator] | None
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


class Objective(Protocol):
    """Corrupts clean chunks for training, and turns noise into chunks by calling the network."""

    def corrupt(self, clean: Tensor, noise: Tensor, *, generator: Source) -> Corrupted:
        """Mix each chunk with noise at a random step; both float32 (B, Tp, Da)."""
        ...

    def timesteps(self, device: torch.device) -> Tensor:
        """(K,): what the network is told at each of the K sampling steps."""
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
    """Denoising diffusion with the schedules and solvers of diffusers."""

    def __init__(self, config: DiffusionObjective) -> None:
        self.config = config
        self.num_inference_steps = config.num_inference_steps
        with torch.device("cpu"):  # also where the network is being built without weights
            self._noising = _ddpm(config)
            self._solver = _SOLVERS[config.solver](config)

    def corrupt(self, clean: Tensor, noise: Tensor, *, generator: Source) -> Corrupted:
        """See `Objective.corrupt`; the step is uniform over the whole schedule."""
        timestep = integers(self.config.train_steps, len(clean), generator, clean.device)
        noisy = self._noising.add_noise(clean, noise, timestep)
        match self.config.prediction:
            case "epsilon":
                return Corrupted(noisy, timestep, noise)
            case "sample":
                return Corrupted(noisy, timestep, clean)
            case "v":
                return Corrupted(
                    noisy, timestep, self._noising.get_velocity(clean, noise, timestep)
                )

    def timesteps(self, device: torch.device) -> Tensor:
        """int64 (K,): the solver's steps, falling."""
        self._solver.set_timesteps(self.num_inference_steps, device=device)
        return self._solver.timesteps

    def sample(
        self, predict: Predict, noise: Tensor, *, generator: Generators, fix: Fix | None = None
    ) -> Tensor:
        """See `Objective.sample`; DDPM draws fresh noise at every step from ``generator``."""
        # Setting the steps again also forgets the multistep solver's history.
        timesteps = self.timesteps(noise.device)
        rows = list(generator) if isinstance(generator, Sequence) else generator
        x = noise * self._solver.init_noise_sigma
        for step, timestep in enumerate(timesteps):
            x = fix(x) if fix else x
            x = self._solver.step(predict(x, step), timestep, x, generator=rows).prev_sample
        return fix(x) if fix else x


def _common(config: DiffusionObjective) -> dict[str, Any]:
    return {
        "num_train_timesteps": config.train_steps,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "beta_schedule": config.noise_schedule,
        "prediction_type": "v_prediction" if config.prediction == "v" else config.prediction,
    }


# diffusers is imported where a schedule is built: it costs more than two seconds.


def _ddpm(config: DiffusionObjective) -> Any:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    return DDPMScheduler(
        **_common(config), clip_sample=config.clip_sample, variance_type="fixed_small"
    )


def _ddim(config: DiffusionObjective) -> Any:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler(
        **_common(config), clip_sample=config.clip_sample, set_alpha_to_one=True, steps_offset=0
    )


def _dpmsolver(config: DiffusionObjective) -> Any:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    # The squared cosine ends in all but pure noise, where the solver's log-SNR must be clipped.
    return DPMSolverMultistepScheduler(
        **_common(config), algorithm_type="dpmsolver++", solver_order=2, lambda_min_clipped=-5.1
    )


_SOLVERS: dict[str, Callable[[DiffusionObjective], Any]] = {
    "ddpm": _ddpm,
    "ddim": _ddim,
    "dpmsolver++": _dpmsolver,
}
