"""Noise schedules and solvers are those of diffusers, whatever the options."""

import itertools

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

from dp_hub.policies.config import DiffusionObjective
from dp_hub.policies.objectives import make_objective
from dp_hub.policies.solvers import draw_noise

SCHEDULES = ["squaredcos_cap_v2", "linear", "scaled_linear"]
PREDICTIONS = ["epsilon", "sample", "v"]


def peer(config):
    """diffusers' scheduler for a configuration."""
    common = {
        "num_train_timesteps": config.train_steps,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "beta_schedule": config.noise_schedule,
        "prediction_type": "v_prediction" if config.prediction == "v" else config.prediction,
    }
    match config.solver:
        case "ddpm":
            return DDPMScheduler(
                **common, clip_sample=config.clip_sample, variance_type="fixed_small"
            )
        case "ddim":
            return DDIMScheduler(**common, clip_sample=config.clip_sample, set_alpha_to_one=True)
        case "dpmsolver++":
            return DPMSolverMultistepScheduler(
                **common, algorithm_type="dpmsolver++", solver_order=2, lambda_min_clipped=-5.1
            )


def predict(x, timestep):
    """Something like a network: bounded, different for every step and place."""
    place = torch.arange(x.numel(), dtype=torch.float32).view_as(x)
    return torch.sin(2 * x + 0.1 * timestep + place)


def peers_steps(config, noise, generators, fix=None):
    """The chunks before each step and at the end, by diffusers."""
    scheduler = peer(config)
    scheduler.set_timesteps(config.num_inference_steps)
    x, seen = noise, []
    for timestep in scheduler.timesteps:
        x = fix(x) if fix else x
        seen.append(x)
        x = scheduler.step(predict(x, timestep), timestep, x, generator=generators).prev_sample
    return [*seen, fix(x) if fix else x], scheduler.timesteps


def our_steps(config, noise, generators, fix=None):
    objective, seen = make_objective(config), []
    timesteps = objective.timesteps(noise.device)

    def watched(x, step):
        seen.append(x)
        return predict(x, timesteps[step])

    last = objective.sample(watched, noise, generator=generators, fix=fix)
    return [*seen, last], timesteps


def rows(n):
    return [torch.Generator().manual_seed(seed) for seed in range(n)]


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmsolver++"])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 10, 16, 20, 64, 98, 100])
def test_steps_and_chunks_are_those_of_diffusers(solver, steps):
    if solver == "dpmsolver++" and steps == 100:
        pytest.skip("diffusers gives nan")
    noise = torch.randn(3, 16, 2, generator=torch.Generator().manual_seed(7))
    n_compared = 0
    for kind, clip, schedule in itertools.product(PREDICTIONS, [True, False], SCHEDULES):
        config = DiffusionObjective(
            prediction=kind,
            clip_sample=clip,
            noise_schedule=schedule,
            solver=solver,
            num_inference_steps=steps,
        )
        theirs, their_timesteps = peers_steps(config, noise, rows(3))
        ours, our_timesteps = our_steps(config, noise, rows(3))
        assert torch.equal(our_timesteps, their_timesteps)
        assert worst(ours, theirs) < 2e-5, config  # rounding, as often amplified as there are steps
        each = each_step_from(theirs, config, noise, rows(3))
        assert worst(each, theirs) < 1e-6, config
        n_compared += len(each)
    assert n_compared == 18 * (len(our_timesteps) + 1)


def worst(ours, theirs):
    """The largest error, relative where chunks grow beyond 1, as they do without clipping."""
    assert len(ours) == len(theirs)
    return max(
        ((mine - other).abs().max() / other.abs().max().clamp(min=1)).item()
        for mine, other in zip(ours, theirs, strict=True)
    )


def each_step_from(chunks, config, noise, generators):
    """What each of our steps makes of the chunk that diffusers had before it."""
    made, given = [], iter(chunks)

    def replace(chunk):
        made.append(chunk)
        return next(given)

    our_steps(config, noise, generators, replace)
    return made


@pytest.mark.parametrize("train_steps", [7, 50, 1000])
@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmsolver++"])
def test_schedules_of_other_lengths_are_those_of_diffusers(solver, train_steps):
    config = DiffusionObjective(solver=solver, train_steps=train_steps, num_inference_steps=6)
    noise = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(7))
    theirs, their_timesteps = peers_steps(config, noise, rows(2))
    ours, our_timesteps = our_steps(config, noise, rows(2))
    assert torch.equal(our_timesteps, their_timesteps)
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("generator", ["none", "one", "one per row"])
def test_ddpm_draws_the_noise_that_diffusers_draws(generator):
    noise = torch.randn(3, 16, 2, generator=torch.Generator().manual_seed(7))

    def draw(steps):
        torch.manual_seed(5)
        given = {"none": None, "one": torch.Generator().manual_seed(3), "one per row": rows(3)}
        return steps(DiffusionObjective(), noise, given[generator])[0][-1]

    torch.testing.assert_close(draw(our_steps), draw(peers_steps), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmsolver++"])
def test_what_is_known_is_put_into_every_chunk(solver):
    config = DiffusionObjective(solver=solver, num_inference_steps=10)
    noise = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(7))

    def fix(chunk):
        chunk = chunk.clone()
        chunk[:, :2, 1:] = 0.25
        return chunk

    ours, _ = our_steps(config, noise, rows(2), fix)
    theirs, _ = peers_steps(config, noise, rows(2), fix)
    assert all((chunk[:, :2, 1:] == 0.25).all() for chunk in ours)
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_noising_is_that_of_diffusers_in_every_bit(schedule, kind):
    config = DiffusionObjective(noise_schedule=schedule, prediction=kind)
    scheduler = peer(config)
    clean, noise = torch.randn(2, 500, 4, 2, generator=torch.Generator().manual_seed(0))
    example = make_objective(config).corrupt(
        clean, noise, generator=torch.Generator().manual_seed(1)
    )
    assert len(set(example.timestep.tolist())) > 95
    assert torch.equal(example.noisy, scheduler.add_noise(clean, noise, example.timestep))
    learned = {
        "epsilon": noise,
        "sample": clean,
        "v": scheduler.get_velocity(clean, noise, example.timestep),
    }
    assert torch.equal(example.target, learned[kind])


def test_more_steps_than_there_are_leave_out_the_repeated_ones():
    config = DiffusionObjective(solver="dpmsolver++", num_inference_steps=100)
    noise = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(7))
    chunks, timesteps = our_steps(config, noise, None)
    assert timesteps.tolist() == list(range(98, 0, -1))
    assert chunks[-1].isfinite().all()


def test_rows_with_their_own_generator_do_not_depend_on_each_other():
    both = draw_noise((2, 4, 2), rows(2), torch.device("cpu"))
    assert torch.equal(both[1:], draw_noise((1, 4, 2), rows(2)[1:], torch.device("cpu")))
