"""dp_hub policies as LeRobot's folders: config.json, model.safetensors and two processors.

The layout is that of LeRobot 0.4; its loader refuses settings that it does not know.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dp_hub.errors import PolicyError
from dp_hub.files import new_folder
from dp_hub.policies.config import DiffusionObjective, PixelScale, UnetConfig
from dp_hub.policies.diffusion import DiffusionPolicy
from dp_hub.policies.foreign.checkpoint import Converted
from dp_hub.policies.foreign.lerobot_config import ACTION, ENVIRONMENT, STATE
from dp_hub.policies.foreign.lerobot_folder import CONFIG, POSTPROCESSOR, PREPROCESSOR, WEIGHTS
from dp_hub.policies.foreign.lerobot_names import their_name
from dp_hub.policies.foreign.lerobot_norm import Mode, statistics
from dp_hub.policies.foreign.loading import check_new
from dp_hub.policies.foreign.pixels import pixel_scale
from dp_hub.policies.saving import load_policy
from dp_hub.policies.selection import Selection

_KINDS = {STATE: "STATE", ENVIRONMENT: "ENV", ACTION: "ACTION"}


def export_lerobot(source: str | Path, to: Path) -> Converted:
    """Write a folder that LeRobot loads as a Diffusion Policy, of a dp_hub policy.

    Args:
        source: a policy folder, or a name on the Hub.
        to: the folder to make; it must not be there, or be empty.
    Raises:
        PolicyError: LeRobot has no such policy; what it lacks is named, and nothing is written.
    """
    check_new(to)
    policy = load_policy(source)
    if not isinstance(policy, DiffusionPolicy):
        raise PolicyError(f"{source} is no diffusion policy; only those are converted")
    _check(policy)
    order = _order(policy)
    notes = [
        f"LeRobot has no parts of features: {one.name} is numbers {one.start} to {one.stop} only"
        for one in order
        if not one.whole
    ]
    with new_folder(to) as draft:
        _write_json(draft / CONFIG, _config(policy, order))
        save_file(_weights(policy, order), draft / WEIGHTS, metadata={"format": "pt"})
        _write_processors(draft, policy, order)
        (draft / "README.md").write_text(_card(str(source), notes), encoding="utf-8")
    return Converted(to, policy, {"converted from": f"`{source}`"}, notes)


def _check(policy: DiffusionPolicy) -> None:
    """Raises PolicyError unless LeRobot can do what the policy does."""
    config, network, objective = policy.config, policy.config.denoiser, policy.config.objective
    wrong = None
    if not isinstance(network, UnetConfig):
        wrong = f"has only the U-Net, this is a `{network.kind}`"
    elif network.n_groups != 8:
        wrong = f"has eight groups in the last convolution, this has {network.n_groups}"
    elif config.horizon % 2 ** len(network.down_dims):
        factor = 2 ** len(network.down_dims)
        wrong = f"wants a horizon that is a multiple of {factor}, this is {config.horizon}"
    elif config.conditioning != "global":
        wrong = f"conditions globally only, this is `{config.conditioning}`"
    elif not isinstance(objective, DiffusionObjective):
        wrong = f"learns by diffusion only, this did by {objective.kind}"
    elif objective.prediction == "v":
        wrong = "predicts the noise or the sample, this predicts `v`"
    elif objective.solver not in ("ddpm", "ddim"):
        wrong = f"samples with ddpm or ddim, this does with {objective.solver}"
    if wrong:
        raise PolicyError(f"LeRobot's Diffusion Policy {wrong}")
    if policy.encoder.cameras:
        _check_vision(policy)


def _check_vision(policy: DiffusionPolicy) -> None:
    vision = policy.config.vision
    sizes = {shape for shape in policy.features.values() if not isinstance(shape, int)}
    if len(sizes) > 1:
        raise PolicyError(f"LeRobot's pictures are all of one size; these are of {sizes}")
    fits = vision.pool == "spatial_softmax" and vision.output_relu
    if not fits or vision.feature_dim != 2 * vision.n_keypoints:
        raise PolicyError(
            "LeRobot's picture encoder is a spatial softmax, as many numbers as the keypoints have "
            "coordinates, and a ReLU; this is another one"
        )
    if vision.resize is not None and vision.crop is not None:
        raise PolicyError("LeRobot gives the crop of resized pictures as one ratio for both sides")


def _order(policy: DiffusionPolicy) -> list[Selection]:
    """What is observed, as LeRobot lines it up. Raises PolicyError for other features."""
    chosen = {one.name: one for one in policy.selections}
    pictures = [name for name in chosen if not isinstance(policy.features[name], int)]
    numbers = set(chosen) - set(pictures)
    named_well = all(name.startswith("observation.image") for name in pictures)
    if STATE not in numbers or numbers - {STATE, ENVIRONMENT} or not named_well:
        raise PolicyError(
            f"LeRobot's policy observes {STATE}, {ENVIRONMENT} and pictures named "
            f"observation.image...; this observes {', '.join(policy.config.observations)}"
        )
    if len(chosen) != len(policy.selections) or policy.config.action != ACTION:
        raise PolicyError(f"LeRobot observes a feature once, and predicts {ACTION}")
    if not pictures and ENVIRONMENT not in numbers:
        raise PolicyError(f"LeRobot's policy needs pictures or {ENVIRONMENT}")
    return [
        chosen[name]
        for name in (STATE, *pictures, *([ENVIRONMENT] if ENVIRONMENT in numbers else []))
    ]


def _weights(policy: DiffusionPolicy, order: list[Selection]) -> dict[str, Tensor]:
    columns = _columns(policy, order)
    cameras = list(policy.encoder.cameras)
    result = {}
    for name, value in policy.state_dict().items():
        if name.startswith("normalizer."):
            continue
        if name.endswith("cond_encoder.1.weight"):
            value = value[:, columns]
        result[their_name(name, cameras)] = value.detach().cpu().contiguous()
    for name in [name for name in result if name.endswith("pool.nets.weight")]:
        result[name.replace("nets.weight", "pos_grid")] = _grid(policy)
    return result


def _columns(policy: DiffusionPolicy, order: list[Selection]) -> Tensor:
    """Which of our columns of the condition is LeRobot's first, second...: int64 (C,)."""
    assert isinstance(policy.config.denoiser, UnetConfig)
    step = policy.config.denoiser.step_embed_dim
    widths = dict(zip((one.name for one in policy.selections), policy.encoder.widths, strict=True))
    starts, at = {}, 0
    for one in policy.selections:
        starts[one.name] = at
        at += widths[one.name]
    of_one_step = torch.cat(
        [torch.arange(starts[one.name], starts[one.name] + widths[one.name]) for one in order]
    )
    steps = [step + at * number + of_one_step for number in range(policy.config.n_obs_steps)]
    return torch.cat([torch.arange(step), *steps])


def _grid(policy: DiffusionPolicy) -> Tensor:
    """Places of the last feature map, x and y from -1 to 1, float32 (h * w, 2)."""
    vision = policy.config.vision
    picture = next(shape for shape in policy.features.values() if not isinstance(shape, int))
    height, width = (-(-side // 32) for side in vision.crop or vision.resize or picture[:2])
    down, across = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    return torch.stack([across.flatten(), down.flatten()], dim=1)


def _features(policy: DiffusionPolicy, order: list[Selection]) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for one in order:
        shape = policy.features[one.name]
        if isinstance(shape, int):
            result[one.name] = {"type": _KINDS[one.name], "shape": [one.width(policy.features)]}
        else:
            result[one.name] = {"type": "VISUAL", "shape": [3, shape[0], shape[1]]}
    return result


def _config(policy: DiffusionPolicy, order: list[Selection]) -> dict[str, Any]:
    config, network, objective = policy.config, policy.config.denoiser, policy.config.objective
    assert isinstance(network, UnetConfig) and isinstance(objective, DiffusionObjective)
    values = {
        "type": "diffusion",
        "n_obs_steps": config.n_obs_steps,
        "horizon": config.horizon,
        "n_action_steps": config.n_action_steps,
        "input_features": _features(policy, order),
        "output_features": {ACTION: {"type": "ACTION", "shape": [policy.action_dim]}},
        "normalization_mapping": _mapping(policy),
        "down_dims": list(network.down_dims),
        "kernel_size": network.kernel_size,
        "n_groups": network.n_groups,
        "diffusion_step_embed_dim": network.step_embed_dim,
        "use_film_scale_modulation": network.cond_predict_scale,
        "noise_scheduler_type": objective.solver.upper(),
        "num_train_timesteps": objective.train_steps,
        "num_inference_steps": objective.num_inference_steps,
        "beta_schedule": objective.noise_schedule,
        "beta_start": objective.beta_start,
        "beta_end": objective.beta_end,
        "prediction_type": objective.prediction,
        "clip_sample": objective.clip_sample,
        "do_mask_loss_for_padding": config.mask_padding,
        "device": "cpu",
    }
    if not policy.encoder.cameras:
        return values
    vision = config.vision
    return values | {
        "vision_backbone": "resnet18",
        "pretrained_backbone_weights": None,
        "resize_shape": vision.resize,
        "crop_shape": vision.crop,
        "use_group_norm": vision.norm == "group",
        "spatial_softmax_num_keypoints": vision.n_keypoints,
        "use_separate_rgb_encoder_per_camera": len(policy.encoder.cameras) > 1,
    }


def _mode(policy: DiffusionPolicy) -> Mode:
    """A rule that can say how all numbers are scaled, each by statistics of its own."""
    if policy.config.normalization == "gaussian":
        return "MEAN_STD"
    every = [policy.normalizer[name] for name in policy.normalizer.names]
    same = all(bool((one.scale == 1).all() and (one.offset == 0).all()) for one in every)
    return "IDENTITY" if same else "MIN_MAX"


def _mapping(policy: DiffusionPolicy) -> dict[str, Mode]:
    mode = _mode(policy)
    return {"VISUAL": "MEAN_STD", "STATE": mode, "ENV": mode, "ACTION": mode}


def _write_processors(folder: Path, policy: DiffusionPolicy, order: list[Selection]) -> None:
    stats: dict[str, Tensor] = {}
    mode = _mode(policy)
    for one in [*order, Selection(ACTION)]:
        for name, value in _statistics(policy, one, mode).items():
            stats[f"{one.name}.{name}"] = value.contiguous()
    action = {ACTION: {"type": "ACTION", "shape": [policy.action_dim]}}
    config = {"eps": 1e-8, "norm_map": _mapping(policy)}
    device = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}
    before = {
        "registry_name": "normalizer_processor",
        "config": config | {"features": _features(policy, order) | action},
        "state_file": "policy_preprocessor_step_3_normalizer_processor.safetensors",
    }
    after = {
        "registry_name": "unnormalizer_processor",
        "config": config | {"features": action},
        "state_file": "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
    }
    rename = {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}}
    batch: dict[str, Any] = {"registry_name": "to_batch_processor", "config": {}}
    for step in (before, after):
        save_file(stats, folder / str(step["state_file"]))
    name = "policy_preprocessor"
    _write_json(folder / PREPROCESSOR, {"name": name, "steps": [rename, batch, device, before]})
    name = "policy_postprocessor"
    _write_json(folder / POSTPROCESSOR, {"name": name, "steps": [after, device]})


def _statistics(policy: DiffusionPolicy, one: Selection, mode: Mode) -> dict[str, Tensor]:
    if isinstance(policy.features[one.name], int):
        return statistics(policy.normalizer[one.name], mode, slice(one.start, one.stop))
    given = policy.config.vision.normalization
    mean, std = pixel_scale(given.model_dump() if isinstance(given, PixelScale) else given)
    return {
        name: torch.tensor(value).view(3, 1, 1) for name, value in (("mean", mean), ("std", std))
    }


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _card(source: str, notes: list[str]) -> str:
    lines = [
        "---",
        "library_name: lerobot",
        "pipeline_tag: robotics",
        "tags: [robotics, diffusion]",
    ]
    lines += ["---", "", "# Diffusion policy", "", f"Converted from `{source}` by dp_hub.", ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes), ""])
