"""LeRobot's Diffusion Policy folders to dp_hub policies."""

from pathlib import Path
from typing import Any

from torch import Tensor

from dp_hub.errors import PolicyError
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.card import CardFacts
from dp_hub.policies.foreign.checkpoint import Converted, sha256_of
from dp_hub.policies.foreign.lerobot_config import ACTION, LerobotPlan, lerobot_plan
from dp_hub.policies.foreign.lerobot_folder import (
    CONFIG,
    PREPROCESSOR,
    WEIGHTS,
    Normalising,
    from_processors,
    from_weights,
    load_tensors,
)
from dp_hub.policies.foreign.lerobot_names import our_name
from dp_hub.policies.foreign.lerobot_norm import affine, fill
from dp_hub.policies.foreign.loading import check_new, policy_with
from dp_hub.policies.foreign.pixels import pixel_normalization
from dp_hub.policies.observing import camera_key, number_widths
from dp_hub.policies.saving import save_policy


def convert_lerobot(source: str | Path, to: Path) -> Converted:
    """Make a policy folder of one that LeRobot saved.

    Args:
        source: a folder with config.json and model.safetensors, or a name on the Hub; the
            statistics lie in its processors (LeRobot 0.4) or among the weights (before).
        to: the folder to make; it must not be there, or be empty.
    Raises:
        PolicyError: something in it is missing, damaged, or has no counterpart here; it is named,
            and nothing is written.
    """
    check_new(to)
    folder = _locate(source)
    plan = lerobot_plan(folder / CONFIG)
    weights = load_tensors(folder / WEIGHTS)
    how = from_weights(weights, plan.modes)
    if (folder / PREPROCESSOR).exists() or not how:
        how = from_processors(folder, ACTION)
    how = {name: how.get(name, Normalising("IDENTITY", {})) for name in plan.features}
    normalizer, notes = _normalizer(plan, how)
    pictures = [_pixels(name, how[name]) for name in plan.pictures]
    config = plan.config(pixel_normalization(pictures), str(folder / CONFIG))
    state = _renamed(weights, plan, str(folder / WEIGHTS))
    state |= {f"normalizer.{name}": value for name, value in normalizer.state_dict().items()}
    policy = policy_with(config, plan.features, state, str(folder / WEIGHTS))
    origin = {
        "converted from": f"`{Path(source).name if Path(source).is_dir() else source}`, a policy "
        "of LeRobot's",
        "sha256 of its weights": f"`{sha256_of(folder / WEIGHTS)}`",
    }
    notes = [*plan.notes, *notes]
    told = origin | ({"notes": "; ".join(notes)} if notes else {})
    code = "LeRobot and converted by dp_hub"
    save_policy(policy, to, card=CardFacts(trained_with=code, origin=told))
    return Converted(to, policy, origin, notes)


def _locate(source: str | Path) -> Path:
    from dp_hub.hub import is_hub_name, pull

    if not Path(source).is_dir() and is_hub_name(str(source)):
        return pull(str(source), kind="policy").path
    if not (Path(source) / CONFIG).is_file():
        raise PolicyError(
            f"no policy of LeRobot's at {source}: it has no {CONFIG}",
            hint="a training's policy is in its sub-folder checkpoints/last/pretrained_model",
        )
    return Path(source)


def _renamed(weights: dict[str, Tensor], plan: LerobotPlan, where: str) -> dict[str, Tensor]:
    shared = plan.values.get("vision", {}).get("share_weights", False)
    cameras = list(dict.fromkeys(camera_key(name, shared=shared) for name in plan.pictures))
    state = {}
    for name, value in weights.items():
        try:
            ours = our_name(name, cameras)
        except KeyError:
            raise PolicyError(
                f"{where} has weights `{name}`, which its settings do not speak of",
                hint="they may change what the policy does, so it is not converted",
            ) from None
        if ours is not None:
            state[ours] = value.float() if value.is_floating_point() else value
    return state


def _normalizer(plan: LerobotPlan, how: dict[str, Normalising]) -> tuple[Normalizer, list[str]]:
    normalizer = Normalizer.empty(number_widths(plan.features))
    notes = []
    for name in normalizer.names:
        one = how[name]
        if one.mode == "IDENTITY":
            continue
        is_action = name == ACTION
        scale, offset, constant = affine(one.mode, one.stats, name, is_action=is_action)
        fill(normalizer[name], scale, offset, one.stats)
        if constant:
            what = f"numbers {constant} of {name} never changed in the data"
            notes.append(f"{what}; LeRobot divides what they change by 1e-8, here it is not scaled")
    return normalizer, notes


def _pixels(name: str, how: Normalising) -> Any:
    """Mean and deviation per colour, of pixels 0 to 1."""
    if how.mode == "IDENTITY":
        return [0.0] * 3, [1.0] * 3
    scale, offset, constant = affine(how.mode, how.stats, name, is_action=False)
    if constant or len(scale) != 3:
        raise PolicyError(f"the statistics of {name} are not of three colours that vary")
    mean, std = -offset.double() / scale.double(), 1 / scale.double()
    return mean.tolist(), std.tolist()
