"""The noise of diffusion and the solvers that take it away again, as numbers computed beforehand.

A chunk at step t is ``alpha_t clean + sigma_t noise``, float32 throughout. A solver is a list of
steps; each says what the network is told and how its prediction and the chunk make the next chunk.
Schedules, steps and results are those of diffusers (DDPMScheduler with the small fixed variance,
DDIMScheduler, DPMSolverMultistepScheduler of order 2), which the tests hold them to; importing
that library takes seconds, which a robot or a command has no use for.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dp_hub.policies.config import DiffusionObjective, DiffusionSolver, Prediction

Generators = torch.Generator | Sequence[torch.Generator] | None

MAX_BETA = 0.999
MIN_LOG_SNR = -5.1
"""The squared cosine ends in all but pure noise, where DPM-Solver++ must not start."""


def draw_noise(shape: tuple[int, ...], generator: Generators, device: torch.device) -> Tensor:
    """Standard normal float32 noise; with a generator per row, each row comes from its own."""
    if isinstance(generator, Sequence):
        return torch.cat([draw_noise((1, *shape[1:]), one, device) for one in generator])
    source = device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=source).to(device)


def alphas_cumprod(config: DiffusionObjective) -> Tensor:
    """float32 (train_steps,): ``alpha_t ** 2``, the share of the clean chunk's variance left."""
    n_steps, first, last = config.train_steps, config.beta_start, config.beta_end
    match config.noise_schedule:
        case "squaredcos_cap_v2":
            edges = [_squared_cosine(step / n_steps) for step in range(n_steps + 1)]
            ratios = zip(edges[1:], edges[:-1], strict=True)
            betas = torch.tensor(
                [min(1 - after / before, MAX_BETA) for after, before in ratios], device="cpu"
            )
        case "linear":
            betas = torch.linspace(first, last, n_steps, device="cpu")
        case "scaled_linear":
            betas = torch.linspace(first**0.5, last**0.5, n_steps, device="cpu") ** 2
    return torch.cumprod(1 - betas, dim=0)


def _squared_cosine(time: float) -> float:
    """Nichol & Dhariwal 2021, eq. 17."""
    return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2


@dataclass(frozen=True)
class Estimate:
    """The clean chunk and the noise in a noisy one, from what the network predicts there."""

    prediction: Prediction
    alpha: float
    sigma: float
    clip: bool

    def clean(self, x: Tensor, predicted: Tensor) -> Tensor:
        """The clean chunk, within [-1, 1] where it is clipped."""
        clean = self.unclipped(x, predicted)
        return clean.clamp(-1, 1) if self.clip else clean

    def unclipped(self, x: Tensor, predicted: Tensor) -> Tensor:
        """The clean chunk as it comes out."""
        match self.prediction:
            case "epsilon":
                return (x - self.sigma * predicted) / self.alpha
            case "sample":
                return predicted
            case "v":
                return self.alpha * x - self.sigma * predicted

    def moved(self, predicted: Tensor, by: Tensor) -> Tensor:
        """The prediction of a clean chunk that is ``by`` more, of the same noisy one."""
        match self.prediction:
            case "epsilon":
                return predicted - (self.alpha / self.sigma) * by
            case "sample":
                return predicted + by
            case "v":
                return predicted - by / self.sigma

    def noise(self, x: Tensor, predicted: Tensor) -> Tensor:
        """The noise; clipping the clean chunk does not change it (as in diffusers)."""
        match self.prediction:
            case "epsilon":
                return predicted
            case "sample":
                return (x - self.alpha * predicted) / self.sigma
            case "v":
                return self.alpha * predicted + self.sigma * x


@dataclass(frozen=True)
class SolverStep:
    """``x <- of_x x + of_clean clean + of_noise noise + of_change (clean - last) + of_fresh z``.

    ``last`` is the clean chunk estimated in the step before, ``z`` fresh standard normal noise.
    """

    timestep: int
    estimate: Estimate
    of_x: float = 0.0
    of_clean: float = 0.0
    of_noise: float = 0.0
    of_change: float = 0.0
    of_fresh: float = 0.0

    def __call__(
        self, x: Tensor, predicted: Tensor, last: Tensor | None, generator: Generators
    ) -> tuple[Tensor, Tensor]:
        """The next chunk and the estimated clean one, float32 (B, Tp, Da) like the arguments."""
        clean = self.estimate.clean(x, predicted)
        following = self.of_clean * clean
        if self.of_x:
            following = following + self.of_x * x
        if self.of_noise:
            following = following + self.of_noise * self.estimate.noise(x, predicted)
        if self.of_change:
            assert last is not None, self
            following = following + self.of_change * (clean - last)
        if self.of_fresh:
            z = draw_noise(tuple(x.shape), generator, x.device)
            following = following + self.of_fresh * z
        return following, clean


def solver_steps(config: DiffusionObjective, n_steps: int) -> list[SolverStep]:
    """The steps of the configured solver, from noise to a chunk.

    Args:
        config: schedule, prediction, clipping and solver.
        n_steps: network calls; DPM-Solver++ leaves out what would be the same step twice.
    """
    return _SOLVERS[config.solver](config, n_steps)


def _leading(config: DiffusionObjective, n_steps: int) -> list[int]:
    """Falling steps with equal distances, the last of them 0."""
    distance = config.train_steps // n_steps
    return [distance * step for step in reversed(range(n_steps))]


def _estimate(config: DiffusionObjective, alpha_squared: Tensor) -> Estimate:
    alpha, sigma = alpha_squared**0.5, (1 - alpha_squared) ** 0.5
    return Estimate(config.prediction, alpha.item(), sigma.item(), config.clip_sample)


def _ddpm(config: DiffusionObjective, n_steps: int) -> list[SolverStep]:
    """Ho et al. 2020, eq. 7: the mean and the smaller of the two variances."""
    table, timesteps, steps = alphas_cumprod(config), _leading(config, n_steps), []
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        now = table[timestep]
        after = torch.ones_like(now) if following is None else table[following]
        alpha, beta = now / after, 1 - now / after
        variance = ((1 - after) / (1 - now) * beta).clamp(min=1e-20)
        step = SolverStep(
            timestep,
            _estimate(config, now),
            of_x=(alpha**0.5 * (1 - after) / (1 - now)).item(),
            of_clean=(after**0.5 * beta / (1 - now)).item(),
            of_fresh=0.0 if following is None else (variance**0.5).item(),
        )
        steps.append(step)
    return steps


def _ddim(config: DiffusionObjective, n_steps: int) -> list[SolverStep]:
    """Song et al. 2021, eq. 12 with eta = 0."""
    table, timesteps, steps = alphas_cumprod(config), _leading(config, n_steps), []
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        after = torch.ones_like(table[0]) if following is None else table[following]
        step = SolverStep(
            timestep,
            _estimate(config, table[timestep]),
            of_clean=(after**0.5).item(),
            of_noise=((1 - after) ** 0.5).item(),
        )
        steps.append(step)
    return steps


def _dpmsolver(config: DiffusionObjective, n_steps: int) -> list[SolverStep]:
    """Lu et al. 2022 (DPM-Solver++), algorithm 2: second order, but the first and last step."""
    table = alphas_cumprod(config)
    timesteps = _rounded(table, n_steps)
    # As diffusers: alpha and sigma from their quotient; at the end there is no noise at all.
    quotient = torch.cat([((1 - table) / table).sqrt()[timesteps], torch.zeros(1, device="cpu")])
    alpha = 1 / (quotient**2 + 1) ** 0.5
    sigma = quotient * alpha
    log_snr = alpha.log() - sigma.log()
    width = log_snr[1:] - log_snr[:-1]
    gain = -alpha[1:] * ((-width).exp() - 1)
    steps = []
    for k, timestep in enumerate(timesteps):
        second_order = 0 < k < len(timesteps) - 1
        change = 0.5 * gain[k] / (width[k - 1] / width[k]) if second_order else torch.zeros(())
        step = SolverStep(
            timestep,
            # Clipping would break the multistep formula.
            Estimate(config.prediction, alpha[k].item(), sigma[k].item(), clip=False),
            of_x=(sigma[k + 1] / sigma[k]).item(),
            of_clean=gain[k].item(),
            of_change=change.item(),
        )
        steps.append(step)
    return steps


def _rounded(table: Tensor, n_steps: int) -> list[int]:
    """Falling steps of equal distance, rounded, from where there is enough signal down to > 0."""
    log_snr = (table.sqrt() / (1 - table).sqrt()).log()
    first = int((log_snr >= MIN_LOG_SNR).sum()) - 1
    evenly = np.linspace(0, first, n_steps + 1).round()[:0:-1].astype(int)
    return list(dict.fromkeys(evenly.tolist()))


_SOLVERS: dict[DiffusionSolver, Callable[[DiffusionObjective, int], list[SolverStep]]] = {
    "ddpm": _ddpm,
    "ddim": _ddim,
    "dpmsolver++": _dpmsolver,
}
