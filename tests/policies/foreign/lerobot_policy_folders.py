"""Folders with the files and names that LeRobot's Diffusion Policy is saved with, random weights.

Two generations: with the statistics in processors (LeRobot 0.4), and among the weights (2024).
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from original_networks import encoder_state, unet_state
from safetensors.torch import save_file
from torch import Tensor

WIDTHS = {"observation.state": 2, "observation.environment_state": 16, "action": 2}
KINDS = {"observation.state": "STATE", "observation.environment_state": "ENV", "action": "ACTION"}
STEP_DIM, DIMS, CROP = 8, (16, 32), (84, 84)


def statistics(seed: int = 3) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, width in WIDTHS.items():
        low = 100 * torch.rand(width, generator=generator)
        high = low + 50 + 300 * torch.rand(width, generator=generator)
        result[name] = {"min": low, "max": high, "mean": (low + high) / 2, "std": (high - low) / 5}
    picture = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    result["observation.image"] = {k: torch.tensor(v).view(3, 1, 1) for k, v in picture.items()}
    return result


def network(
    image: bool, *, environment: bool, seed: int = 0, scale: bool = True
) -> dict[str, Tensor]:
    """The state dict, by LeRobot's names."""
    obs_dim = 2 + (64 if image else 0) + (16 if environment else 0)
    state = unet_state(
        2, global_cond_dim=2 * obs_dim, dims=DIMS, step_dim=STEP_DIM, scale=scale, seed=seed
    )
    result = {}
    for name, value in state.items():
        name = re.sub(r"\.blocks\.([01])\.", lambda m: f".conv{int(m[1]) + 1}.", name)
        result["diffusion.unet." + name.replace(".2.conv.", ".2.")] = value
    prefix = "obs_encoder.obs_nets.image."
    for name, value in (encoder_state("image", seed=seed) if image else {}).items():
        name = name.removeprefix(prefix)
        if name.startswith("backbone.nets."):
            result["diffusion.rgb_encoder.backbone." + name.removeprefix("backbone.nets.")] = value
        elif name.startswith("pool.nets."):
            result["diffusion.rgb_encoder." + name] = value
        elif name.startswith("nets.3."):
            result["diffusion.rgb_encoder.out." + name.removeprefix("nets.3.")] = value
    if image:
        grid = torch.linspace(-1, 1, 3)
        down, across = torch.meshgrid(grid, grid, indexing="ij")
        places = torch.stack([across.flatten(), down.flatten()], dim=1)
        result["diffusion.rgb_encoder.pool.pos_grid"] = places
    return result


def settings(image: bool, *, environment: bool, **changes: Any) -> dict[str, Any]:
    """config.json of LeRobot 0.4."""
    inputs: dict[str, Any] = {"observation.state": {"type": "STATE", "shape": [2]}}
    if environment:
        inputs["observation.environment_state"] = {"type": "ENV", "shape": [16]}
    if image:
        inputs["observation.image"] = {"type": "VISUAL", "shape": [3, 96, 96]}
    mapping = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}
    return {
        "type": "diffusion",
        "n_obs_steps": 2,
        "input_features": inputs,
        "output_features": {"action": {"type": "ACTION", "shape": [2]}},
        "device": "cuda",
        "use_amp": False,
        "push_to_hub": True,
        "repo_id": None,
        "license": None,
        "horizon": 8,
        "n_action_steps": 4,
        "normalization_mapping": mapping,
        "drop_n_last_frames": 7,
        "vision_backbone": "resnet18",
        "resize_shape": None,
        "crop_ratio": 1.0,
        "crop_shape": list(CROP) if image else None,
        "crop_is_random": True,
        "pretrained_backbone_weights": None,
        "use_group_norm": True,
        "spatial_softmax_num_keypoints": 32,
        "use_separate_rgb_encoder_per_camera": False,
        "down_dims": list(DIMS),
        "kernel_size": 5,
        "n_groups": 8,
        "diffusion_step_embed_dim": STEP_DIM,
        "use_film_scale_modulation": True,
        "noise_scheduler_type": "DDPM",
        "num_train_timesteps": 20,
        "beta_schedule": "squaredcos_cap_v2",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "prediction_type": "epsilon",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "num_inference_steps": None,
        "compile_model": False,
        "do_mask_loss_for_padding": False,
        "optimizer_lr": 0.0001,
        "optimizer_betas": [0.95, 0.999],
        "scheduler_name": "cosine",
        **changes,
    }


def processors(config: dict[str, Any], stats: dict[str, dict[str, Tensor]]) -> dict[str, Any]:
    """The two JSON files by name, and under ``tensors`` what their state files hold."""
    device = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
    shared = {"eps": 1e-8, "norm_map": config["normalization_mapping"]}
    features = config["input_features"] | config["output_features"]
    before = {"registry_name": "normalizer_processor", "config": shared | {"features": features}}
    before["state_file"] = "policy_preprocessor_step_3_normalizer_processor.safetensors"
    after: dict[str, Any] = {"registry_name": "unnormalizer_processor"}
    after["config"] = shared | {"features": config["output_features"]}
    after["state_file"] = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
    rename = {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}}
    batch: dict[str, Any] = {"registry_name": "to_batch_processor", "config": {}}
    return {
        "policy_preprocessor": [rename, batch, device, before],
        "policy_postprocessor": [after, device],
        "tensors": {f"{name}.{k}": v for name, one in stats.items() for k, v in one.items()},
    }


def write(
    folder: Path,
    config: dict[str, Any],
    weights: dict[str, Tensor],
    made: dict[str, Any] | None,
) -> Path:
    """The folder; without processors where ``made`` is None."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    for name, steps in (made or {}).items():
        if name == "tensors":
            continue
        (folder / f"{name}.json").write_text(json.dumps({"name": name, "steps": steps}))
        for step in steps:
            if "state_file" in step and "/" not in step["state_file"]:
                save_file(made["tensors"], folder / step["state_file"])
    return folder


def of_2024(config: dict[str, Any], stats: dict[str, dict[str, Tensor]]) -> tuple[dict, dict]:
    """config.json as it was in 2024, and the statistics as buffers among the weights."""
    new = {name: value for name, value in config.items() if name not in NEWER}
    inputs, outputs = config["input_features"], config["output_features"]
    new["input_shapes"] = {name: feature["shape"] for name, feature in inputs.items()}
    new["output_shapes"] = {name: feature["shape"] for name, feature in outputs.items()}
    mapping = config["normalization_mapping"]
    new["input_normalization_modes"] = {
        name: mapping[feature["type"]].lower()
        for name, feature in inputs.items()
        if feature["type"] in mapping
    }
    new["output_normalization_modes"] = {"action": mapping["ACTION"].lower()}
    buffers = {}
    for name, one in stats.items():
        key = name.replace(".", "_")
        which = ["normalize_targets", "unnormalize_outputs"] if name == "action" else []
        for prefix in which or ["normalize_inputs"]:
            if name == "action" or name in inputs:
                buffers |= {f"{prefix}.buffer_{key}.{k}": v.clone() for k, v in one.items()}
    return new, buffers


NEWER = ("type", "input_features", "output_features", "normalization_mapping", "device", "use_amp")
NEWER += ("push_to_hub", "repo_id", "license", "resize_shape", "crop_ratio", "drop_n_last_frames")
NEWER += ("compile_model", "optimizer_lr", "optimizer_betas", "scheduler_name")
