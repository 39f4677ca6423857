"""LeRobot's config.json of a Diffusion Policy as a dp_hub configuration.

Two generations: features by type (since February 2025), and shapes with a mode of normalisation
each (2024). Settings are taken from a closed list; an unknown one ends the conversion.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp_hub.config import build, read_json
from dp_hub.errors import ConfigError, PolicyError
from dp_hub.policies.config import DiffusionConfig
from dp_hub.policies.foreign.lerobot_norm import Mode, mode_of
from dp_hub.policies.foreign.settings import Options
from dp_hub.policies.selection import MOST_NUMBERS, MOST_PX, Shape

STATE, ENVIRONMENT, ACTION = "observation.state", "observation.environment_state", "action"
TRAINING_ONLY = (
    *("device", "use_amp", "use_peft", "push_to_hub", "repo_id", "private", "tags", "license"),
    *("pretrained_path", "drop_n_last_frames", "pretrained_backbone_weights"),
    *("compile_model", "compile_mode", "optimizer_lr", "optimizer_betas", "optimizer_eps"),
    *("optimizer_weight_decay", "scheduler_name", "scheduler_warmup_steps"),
)


@dataclass(frozen=True)
class LerobotPlan:
    """What a policy of LeRobot's becomes.

    Args:
        values: of the policy's configuration, but for the scale of pictures.
        features: shape of everything it observes or predicts, in LeRobot's order.
        modes: how each is normalised, by config.json.
        notes: what is different here, in sentences.
    """

    values: dict[str, Any]
    features: dict[str, Shape]
    modes: dict[str, Mode]
    notes: tuple[str, ...]

    @property
    def pictures(self) -> list[str]:
        """The features that are pictures, in LeRobot's order."""
        return [name for name, shape in self.features.items() if not isinstance(shape, int)]

    def config(self, normalization: Any, where: str) -> DiffusionConfig:
        """The configuration, with ``vision.normalization``. Raises PolicyError."""
        values = self.values
        if self.pictures:
            values = values | {"vision": values["vision"] | {"normalization": normalization}}
        try:
            return build(DiffusionConfig, values, where=where)
        except ConfigError as error:
            raise PolicyError(error.message, hint=error.hint) from None


def lerobot_plan(path: Path) -> LerobotPlan:
    """Read config.json. Raises PolicyError where something in it has no counterpart here."""
    try:
        values = read_json(path)
    except ConfigError as error:
        raise PolicyError(error.message, hint=error.hint) from None
    if "denoiser" in str(values.get("policy")):
        raise PolicyError(f"{path} is of a dp_hub policy already")
    options = Options(values, str(path))
    kind = options.raw("type", "diffusion")
    if kind != "diffusion":
        raise PolicyError(f"{path} is of a policy of type {kind!r}; only diffusion is converted")
    features, modes = _features(options)
    ordered = _in_order(features, path)
    result = _steps(options) | {"conditioning": "global", "denoiser": _unet(options)}
    result["objective"] = _objective(options)
    result["observations"] = [name for name in ordered if name != ACTION]
    vision, notes = _vision(options)
    if any(not isinstance(shape, int) for shape in ordered.values()):
        result["vision"] = vision
    else:
        notes = []
    # Matters only if it is trained anew.
    result["normalization"] = {"MEAN_STD": "gaussian", "IDENTITY": "identity"}.get(
        modes[ACTION], "limits"
    )
    result["mask_padding"] = options.flag("do_mask_loss_for_padding", False)
    options.without_meaning(*TRAINING_ONLY)
    options.end()
    return LerobotPlan(result, ordered, modes, tuple(notes))


def _steps(options: Options) -> dict[str, Any]:
    usual = {"horizon": 16, "n_obs_steps": 2, "n_action_steps": 8}
    return {name: options.whole(name, default) for name, default in usual.items()}


def _features(options: Options) -> tuple[dict[str, Shape], dict[str, Mode]]:
    old = options.raw("input_shapes", None)
    if old is not None:
        return _features_of_2024(options, old)
    usual = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}
    mapping = options.raw("normalization_mapping", usual)
    mapping = Options(mapping, "`normalization_mapping`").rest()
    features: dict[str, Shape] = {}
    modes: dict[str, Mode] = {}
    for which in ("input_features", "output_features"):
        given = options.raw(which)
        for name in given if isinstance(given, dict) else ():
            one = Options(given[name], f"`{which}.{name}`")
            kind = str(one.raw("type"))
            features[name] = _shape(name, one.wholes("shape"))
            # What the mapping does not speak of, such as ENV, LeRobot leaves as it is.
            modes[name] = mode_of(mapping.get(kind, "IDENTITY"), name)
    return features, modes


def _features_of_2024(options: Options, shapes: Any) -> tuple[dict[str, Shape], dict[str, Mode]]:
    shapes = {**Options(shapes, "`input_shapes`").rest(), **options.part("output_shapes").rest()}
    modes = options.part("input_normalization_modes").rest()
    modes |= options.part("output_normalization_modes").rest()
    features = {
        name: _shape(name, Options(shapes, "`input_shapes`").wholes(name)) for name in shapes
    }
    return features, {name: mode_of(modes.get(name, "IDENTITY"), name) for name in features}


def _shape(name: str, shape: tuple[int, ...]) -> Shape:
    if max(shape, default=0) > (MOST_NUMBERS if len(shape) == 1 else MOST_PX):
        raise PolicyError(f"{name} has shape {shape}, larger than any feature is here")
    if len(shape) == 1:
        return shape[0]
    if len(shape) == 3 and shape[0] == 3:
        return (shape[1], shape[2], 3)
    raise PolicyError(f"{name} has shape {shape}; only numbers and colour pictures are converted")


def _in_order(features: dict[str, Shape], path: Path) -> dict[str, Shape]:
    """As LeRobot lines them up: the state, the pictures, the environment's state."""
    pictures = [name for name, shape in features.items() if not isinstance(shape, int)]
    numbers = [name for name, shape in features.items() if isinstance(shape, int)]
    unknown = set(numbers) - {STATE, ENVIRONMENT, ACTION}
    if unknown or not {STATE, ACTION} <= set(numbers):
        raise PolicyError(
            f"{path} speaks of {', '.join(features) or 'no features'}; LeRobot's policy observes "
            f"{STATE}, pictures and {ENVIRONMENT}, and predicts {ACTION}"
        )
    order = [STATE, *pictures, *([ENVIRONMENT] if ENVIRONMENT in numbers else []), ACTION]
    return {name: features[name] for name in order}


def _unet(options: Options) -> dict[str, Any]:
    options.same("n_groups", 8)  # the last convolution has eight whatever is asked for
    return {
        "kind": "unet",
        "step_embed_dim": options.whole("diffusion_step_embed_dim", 128),
        "down_dims": options.wholes("down_dims", (512, 1024, 2048)),
        "kernel_size": options.whole("kernel_size", 5),
        "cond_predict_scale": options.flag("use_film_scale_modulation", True),
    }


def _objective(options: Options) -> dict[str, Any]:
    schedules = {name: name for name in ("squaredcos_cap_v2", "linear", "scaled_linear")}
    steps = options.whole("num_train_timesteps", 100)
    options.same("clip_sample_range", 1.0)
    inference = options.whole_or_none("num_inference_steps")
    return {
        "kind": "diffusion",
        "solver": options.choice("noise_scheduler_type", {"DDPM": "ddpm", "DDIM": "ddim"}, "DDPM"),
        "train_steps": steps,
        "num_inference_steps": steps if inference is None else inference,
        "noise_schedule": options.choice("beta_schedule", schedules, "squaredcos_cap_v2"),
        "beta_start": options.number("beta_start", 1e-4),
        "beta_end": options.number("beta_end", 0.02),
        "prediction": options.choice(
            "prediction_type", {"epsilon": "epsilon", "sample": "sample"}, "epsilon"
        ),
        "clip_sample": options.flag("clip_sample", True),
    }


def _vision(options: Options) -> tuple[dict[str, Any], list[str]]:
    options.same("vision_backbone", "resnet18")
    n_keypoints = options.whole("spatial_softmax_num_keypoints", 32)
    crop, resize = options.size("crop_shape"), options.size("resize_shape")
    ratio = options.number("crop_ratio", 1.0)
    if resize is not None:  # then LeRobot looks at the ratio only
        height, width = resize
        crop = (int(height * ratio), int(width * ratio)) if ratio < 1 else None
    notes = []
    if not options.flag("crop_is_random", True) and crop is not None:
        notes.append("LeRobot cropped the centre in training too; here training crops at random")
    vision = {
        "resize": resize,
        "crop": crop,
        "pool": "spatial_softmax",
        "n_keypoints": n_keypoints,
        "feature_dim": 2 * n_keypoints,
        "norm": "group" if options.flag("use_group_norm", True) else "batch",
        "share_weights": not options.flag("use_separate_rgb_encoder_per_camera", False),
    }
    return vision, notes
