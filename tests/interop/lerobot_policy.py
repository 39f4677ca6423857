"""Runs in LeRobot's environment: makes its Diffusion Policy, or acts with a folder of one.

    python lerobot_policy.py make FOLDER {low-dim|image} {DDIM|DDPM}
    python lerobot_policy.py act FOLDER INPUT.safetensors OUTPUT.safetensors

INPUT has observations (B, To, ...), pictures uint8 (B, To, H, W, 3), and ``noise`` (B, Tp, Da);
OUTPUT gets ``action`` (B, Ta, Da).
"""

import sys
from pathlib import Path

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors
from lerobot.policies.factory import make_pre_post_processors
from safetensors.torch import load_file, save_file


def make(folder: Path, kind: str, scheduler: str) -> None:
    torch.manual_seed(0)
    features = {"observation.state": PolicyFeature(FeatureType.STATE, (2,))}
    features["observation.environment_state"] = PolicyFeature(FeatureType.ENV, (16,))
    if kind == "image":
        features["observation.image"] = PolicyFeature(FeatureType.VISUAL, (3, 96, 96))
    config = DiffusionConfig(
        input_features=features,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        device="cpu",
        down_dims=(32, 64),
        diffusion_step_embed_dim=32,
        crop_shape=(84, 84) if kind == "image" else None,
        noise_scheduler_type=scheduler,
        num_inference_steps=10 if scheduler == "DDIM" else None,
    )
    policy = DiffusionPolicy(config)
    stats = {}
    for name, shape in {"observation.state": (2,), "action": (2,)}.items():
        low = 100 * torch.rand(shape)
        stats[name] = {"min": low, "max": low + 400 * torch.rand(shape)}
    stats["observation.image"] = {
        "mean": torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1),
        "std": torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1),
    }
    policy.save_pretrained(folder)
    for processor in make_diffusion_pre_post_processors(config, stats):
        processor.save_pretrained(folder)


def act(folder: Path, source: Path, target: Path) -> None:
    given = load_file(source)
    noise = given.pop("noise")
    policy = DiffusionPolicy.from_pretrained(folder, strict=True).eval()
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    pictures = {k: v.float().movedim(-1, -3) / 255 for k, v in given.items() if v.ndim == 5}
    batch = before(given | pictures)
    if pictures:
        stacked = [batch[key] for key in policy.config.image_features]
        batch["observation.images"] = torch.stack(stacked, dim=-4)
    torch.manual_seed(4)  # DDPM's own noise
    with torch.no_grad():
        action = after(policy.diffusion.generate_actions(batch, noise=noise))
    save_file({"action": action.contiguous()}, target)


if __name__ == "__main__":
    {"make": make, "act": act}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
