"""Our side and the original's way of benchmarks/policies.py, each in a process of its own.

    python policy_sides.py ours|original train|image|predict '{"threads": 2, ...}'

The original can't be installed from a package registry, so its way is taken here: our networks,
which have its names and arithmetic (tests compare them with independent computations), with torch's
own convolutions, in float32, and around them what its workspace does: windows one at a time from
memory through torch's DataLoader, pictures as float32 over the whole horizon, diffusers' noising
and DDPM, AdamW that is not fused, a schedule stepped per batch, an average of the weights
parameter by parameter. Its policy embeds the step anew at every step of denoising.
"""

import json
import sys
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from serving import serve
from torch import Tensor, nn
from torch.utils.data import DataLoader
from windows import HORIZON, PAD_AFTER, PAD_BEFORE, PerItem

from dp_hub.dataset.reader import open_dataset
from dp_hub.models import conv
from dp_hub.policies.config import DiffusionConfig, DiffusionObjective, UnetConfig, VisionConfig
from dp_hub.policies.diffusion import DiffusionPolicy
from dp_hub.policies.kinds import make_policy
from dp_hub.policies.objectives import make_objective
from dp_hub.policies.saving import load_policy
from dp_hub.sampling.windows import create_indices
from dp_hub.training.config import TrainConfig
from dp_hub.training.data import TrainingData, training_data
from dp_hub.training.ema import Ema, EmaConfig, ema_decay

IMAGE = "observation.image"
POLICIES = {
    "train": DiffusionConfig(),
    "image": DiffusionConfig(
        observations=(IMAGE, "observation.state[:2]"),
        vision=VisionConfig(crop=(84, 84)),
        denoiser=UnetConfig(step_embed_dim=128, down_dims=(512, 1024, 2048)),
    ),
}
ADAMW: dict[str, Any] = {"lr": 1e-4, "betas": (0.95, 0.999), "eps": 1e-8, "weight_decay": 1e-6}


def prepare(part: str, options: dict[str, Any]) -> tuple[DiffusionPolicy, TrainingData]:
    """A fresh policy of the paper's size and what it learns from."""
    config = TrainConfig(
        dataset=options["folder"],
        out_dir="unused",
        policy=POLICIES[part],
        steps=1_000_000,
        batch_size=options["batch_size"],
    )
    data = training_data(open_dataset(config.dataset), config, device=torch.device("cpu"))
    torch.manual_seed(0)
    policy = make_policy(config.policy, data.features, normalizer=data.normalizer)
    assert isinstance(policy, DiffusionPolicy)
    return policy.train(), data


def n_parameters(policy: DiffusionPolicy) -> int:
    return sum(one.numel() for one in policy.parameters())


def train_ours(part: str, options: dict[str, Any]) -> None:
    """Serve training steps as recipes/train.py takes them."""
    policy, data = prepare(part, options)
    ema = Ema(policy, EmaConfig())
    optimizer = torch.optim.AdamW(policy.parameters(), **ADAMW, fused=True)

    def step(precision: str) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = policy(next(data.batches))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.update(policy)

    serve(step, parameters=n_parameters(policy))


def train_original(part: str, options: dict[str, Any]) -> None:
    """Serve training steps as the original's workspaces take them."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    policy, _ = prepare(part, options)
    with_torchs_convolutions(policy)
    batches = per_item_batches(options)
    noising = DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    optimizer = torch.optim.AdamW(policy.parameters(), **ADAMW)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, step / 500))
    ema = Ema(policy, EmaConfig())

    def step() -> None:
        batch = next(batches)
        if IMAGE in batch:  # our encoder takes them as the camera gives them
            batch[IMAGE] = batch[IMAGE][:, :2].mul(255).byte()
        loss = original_loss(policy, noising, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        average(ema, policy)
        loss.item()

    serve(step, parameters=n_parameters(policy))


def with_torchs_convolutions(policy: DiffusionPolicy) -> None:
    """Put torch's own layers in the place of ours, which only compute in another way."""
    replaced = 0
    for module in policy.modules():
        for ours, theirs in ((conv.Conv1d, nn.Conv1d), (conv.ConvTranspose1d, nn.ConvTranspose1d)):
            if type(module) is ours:
                module.__class__ = theirs
                replaced += 1
    assert replaced > 30, replaced


def per_item_batches(options: dict[str, Any]) -> Iterator[dict[str, Tensor]]:
    """Windows one by one, cut and padded as the original does, stacked by torch's collate."""
    dataset = open_dataset(options["folder"])
    names = ["observation.environment_state", "observation.state", "action"]
    columns = {name: np.asarray(dataset.column(name)) for name in names}
    if options["pictures"]:
        columns[IMAGE] = np.asarray(dataset.column(IMAGE)).astype(np.float32) / 255
    ends = np.asarray(dataset.episodes.stops)
    indices = create_indices(ends, HORIZON, np.ones(len(ends), bool), PAD_BEFORE, PAD_AFTER)
    windows = PerItem(columns, indices)
    loader = DataLoader(windows, batch_size=options["batch_size"], shuffle=True, drop_last=True)
    return chain.from_iterable(repeat(loader))


def original_loss(policy: DiffusionPolicy, noising: Any, batch: dict[str, Tensor]) -> Tensor:
    """The original's compute_loss with a global condition."""
    action = policy.normalizer.normalize("action", batch["action"])
    seen = {name: batch[name][:, :2] for name in policy.encoder.names}
    cond = policy._encode(seen)
    noise = torch.randn(action.shape)
    timestep = torch.randint(0, 100, (len(action),))
    noisy = noising.add_noise(action, noise, timestep)
    predicted = policy.denoiser(noisy, timestep, cond)
    return nn.functional.mse_loss(predicted, noise, reduction="none").flatten(1).mean(1).mean()


@torch.no_grad()
def average(ema: Ema[DiffusionPolicy], policy: DiffusionPolicy) -> None:
    """The original's way: every module, every parameter."""
    decay = ema_decay(ema.step, ema.config)
    for mine, theirs in zip(ema.model.modules(), policy.modules(), strict=True):
        pairs = zip(mine.parameters(recurse=False), theirs.parameters(recurse=False), strict=True)
        for averaged, parameter in pairs:
            averaged.mul_(decay)
            averaged.add_(parameter.data.to(dtype=averaged.dtype), alpha=1 - decay)
    ema.step += 1


def observations(rows: int) -> dict[str, Tensor]:
    shapes = {"observation.environment_state": 18, "observation.state": 5}
    return {name: torch.zeros(rows, 2, width) for name, width in shapes.items()}


def predict_ours(options: dict[str, Any]) -> None:
    """Serve chunks by any solver, in float32 or bf16, from policies loaded once."""
    loaded: dict[tuple[str, str], Any] = {}

    def run(policy: str, solver: str, steps: int, rows: int, precision: str = "no") -> None:
        made = loaded[policy, precision]
        if solver != "euler":
            made.objective = make_objective(
                DiffusionObjective(solver=solver, num_inference_steps=steps)
            )
        made.predict_action(observations(rows))

    for name in ("unet", "mlp"):
        for precision in ("no", "bf16", *(["compiled"] if options["compile"] else [])):
            stored: Any = "bf16" if precision == "bf16" else "no"
            made: Any = load_policy(Path(options[name]), precision=stored)
            if precision == "compiled":
                made.denoiser.denoise = torch.compile(made.denoiser.denoise)
            loaded[name, precision] = made
    serve(run)


def predict_original(options: dict[str, Any]) -> None:
    """Serve chunks by the original's loop over diffusers' DDPM."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    policy: Any = load_policy(Path(options["unet"]))
    with_torchs_convolutions(policy)
    scheduler = DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")

    @torch.no_grad()
    def run(solver: str, steps: int, rows: int, **_: Any) -> None:
        assert solver == "ddpm", solver
        cond = policy._encode(observations(rows))
        scheduler.set_timesteps(steps)
        x = torch.randn(rows, HORIZON, 2)
        for timestep in scheduler.timesteps:
            predicted = policy.denoiser(x, timestep.expand(rows), cond)
            x = scheduler.step(predicted, timestep, x).prev_sample
        policy.normalizer.unnormalize("action", x)

    serve(run)


def main() -> None:
    side, part, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    torch.set_num_threads(options["threads"])
    if part == "predict":
        sides: dict[str, Callable[..., None]] = {"ours": predict_ours, "original": predict_original}
        sides[side](options)
    else:
        sides = {"ours": train_ours, "original": train_original}
        sides[side](part, options)


if __name__ == "__main__":
    main()
