"""LeRobot's side of benchmarks/policies.py; runs in an environment with LeRobot 0.4.4.

python policy_lerobot.py train|image|predict '{"threads": 2, ...}'
"""

import json
import sys
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from serving import serve

STATE, ENVIRONMENT, IMAGE = (
    "observation.state",
    "observation.environment_state",
    "observation.image",
)
STATE_NET = {"down_dims": (256, 512, 1024), "diffusion_step_embed_dim": 256}
IMAGE_NET = {"down_dims": (512, 1024, 2048), "diffusion_step_embed_dim": 128}


def make(part: str, **changes: Any) -> DiffusionPolicy:
    """The paper's networks."""
    inputs = {STATE: PolicyFeature(FeatureType.STATE, (2,))}
    if part == "image":
        inputs[IMAGE] = PolicyFeature(FeatureType.VISUAL, (3, 96, 96))
        changes = {"crop_shape": (84, 84), **IMAGE_NET, **changes}
    else:
        inputs[ENVIRONMENT] = PolicyFeature(FeatureType.ENV, (18,))
        changes = {**STATE_NET, **changes}
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (2,))}
    config = DiffusionConfig(
        input_features=inputs, output_features=outputs, device="cpu", **changes
    )
    return DiffusionPolicy(config)


def numbers(size: int) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of random numbers: reading data costs this side nothing."""
    batch = {
        STATE: torch.randn(size, 2, 2),
        ENVIRONMENT: torch.randn(size, 2, 18),
        "action": torch.randn(size, 16, 2),
        "action_is_pad": torch.zeros(size, 16, dtype=torch.bool),
    }
    return repeat(batch)


def pictures(folder: str, size: int) -> Iterator[dict[str, torch.Tensor]]:
    """Batches from the dataset folder, through LeRobotDataset and a DataLoader."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    past, chunk = [-0.1, 0.0], [(k - 1) / 10 for k in range(16)]
    dataset = LeRobotDataset(
        "local/pusht",
        root=folder,
        delta_timestamps={IMAGE: past, STATE: past, "action": chunk},
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=size, shuffle=True, drop_last=True)
    for batch in chain.from_iterable(repeat(loader)):
        yield {**batch, STATE: batch[STATE][..., :2]}


def train(part: str, options: dict[str, Any]) -> None:
    """Serve training steps as lerobot-train takes them."""
    policy = make(part)
    policy.train()
    size = options["batch_size"]
    batches = pictures(options["folder"], size) if part == "image" else numbers(size)
    preset = policy.config.get_optimizer_preset()
    optimizer = preset.build(policy.get_optim_params())
    scheduler = policy.config.get_scheduler_preset().build(optimizer, 10_000)

    def step() -> None:
        loss, _ = policy.forward(next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), preset.grad_clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        loss.item()

    serve(step, parameters=sum(one.numel() for one in policy.parameters()))


def predict() -> None:
    """Serve chunks: by the paper's sampler, or by DDIM."""
    policies: dict[tuple[str, int], DiffusionPolicy] = {}
    weights = None
    for solver, steps in (("DDPM", 100), ("DDIM", 10)):
        policy = make("predict", noise_scheduler_type=solver, num_inference_steps=steps).eval()
        weights = weights or policy.state_dict()
        policy.load_state_dict(weights, assign=True)
        policies[solver.lower(), steps] = policy

    @torch.no_grad()
    def run(solver: str, steps: int, rows: int, **_: Any) -> None:
        obs = {STATE: torch.zeros(rows, 2, 2), ENVIRONMENT: torch.zeros(rows, 2, 18)}
        policies[solver, steps].diffusion.generate_actions(obs)

    serve(run)


def main() -> None:
    part, options = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(options["threads"])
    if part == "predict":
        predict()
    else:
        train(part, options)


if __name__ == "__main__":
    main()
