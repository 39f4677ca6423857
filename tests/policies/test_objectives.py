"""Every solver draws the right distribution when the network is perfect."""

import subprocess
import sys

import pytest
import torch

from dp_hub.policies.config import DiffusionObjective, FlowObjective
from dp_hub.policies.objectives import FLOW_TIME_SCALE, make_objective
from dp_hub.policies.solvers import alphas_cumprod

MEAN, STD = 0.2, 0.25  # of the data, a Gaussian: the best prediction is then known in closed form


def perfect_prediction(objective, kind):
    """The expected target given a noisy chunk, for data N(MEAN, STD^2)."""
    alphas = alphas_cumprod(objective.config)

    def predict(x, step):
        alpha = alphas[objective.timesteps_used[step]]
        a, s = alpha.sqrt(), (1 - alpha).sqrt()
        clean = MEAN + a * STD**2 / (a**2 * STD**2 + s**2) * (x - a * MEAN)
        noise = (x - a * clean) / s
        return {"epsilon": noise, "sample": clean, "v": a * noise - s * clean}[kind]

    return predict


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v"])
@pytest.mark.parametrize(
    ("solver", "steps"), [("ddpm", 100), ("ddim", 100), ("ddim", 20), ("dpmsolver++", 20)]
)
def test_diffusion_solver_draws_the_data_distribution(kind, solver, steps):
    objective = make_objective(
        DiffusionObjective(prediction=kind, solver=solver, num_inference_steps=steps)
    )
    objective.timesteps_used = objective.timesteps(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(500, 4, 2, generator=generator)
    drawn = objective.sample(perfect_prediction(objective, kind), noise, generator=generator)
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert drawn.std().item() == pytest.approx(STD, rel=0.15)


def test_euler_draws_the_data_distribution():
    objective = make_objective(FlowObjective(num_inference_steps=64))

    def predict(x, step):
        t = objective.timesteps(torch.device("cpu"))[step] / FLOW_TIME_SCALE
        gain = (t * STD**2 - (1 - t)) / (t**2 * STD**2 + (1 - t) ** 2)
        return MEAN + gain * (x - t * MEAN)

    noise = torch.randn(500, 4, 2, generator=torch.Generator().manual_seed(0))
    drawn = objective.sample(predict, noise, generator=None)
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert drawn.std().item() == pytest.approx(STD, rel=0.15)


def test_noising_follows_the_squared_cosine():
    objective = make_objective(DiffusionObjective())
    clean, noise = torch.ones(4096, 1, 1), torch.zeros(4096, 1, 1)
    example = objective.corrupt(clean, noise, generator=torch.Generator().manual_seed(0))
    assert set(example.timestep.tolist()) == set(range(100))
    # alpha_bar from the betas min(1 - f(t+1)/f(t), 0.999), f(t) = cos^2((t + .008)/1.008 pi/2)
    f = torch.cos((torch.arange(101) / 100 + 0.008) / 1.008 * torch.pi / 2) ** 2
    betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    expected = (1 - betas).cumprod(0).sqrt()[example.timestep]
    torch.testing.assert_close(example.noisy.flatten(), expected, atol=1e-4, rtol=0)
    assert torch.equal(example.target, noise)


def test_flow_path_runs_from_noise_to_data():
    objective = make_objective(FlowObjective())
    clean, noise = torch.full((1000, 2, 1), 5.0), torch.full((1000, 2, 1), -3.0)
    example = objective.corrupt(clean, noise, generator=torch.Generator().manual_seed(0))
    time = example.timestep / FLOW_TIME_SCALE
    torch.testing.assert_close(example.noisy[:, 0, 0], -3 + 8 * time)
    assert torch.equal(example.target, clean - noise)
    assert 0 <= time.min() < 0.01 and 0.99 < time.max() < 1


def test_objectives_do_not_import_diffusers():
    code = (
        "import sys; from dp_hub.policies.config import DiffusionObjective, FlowObjective\n"
        "from dp_hub.policies.diffusion import make_objective\n"
        "make_objective(FlowObjective()), make_objective(DiffusionObjective())\n"
        "assert 'diffusers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
