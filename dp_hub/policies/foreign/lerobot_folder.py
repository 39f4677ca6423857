"""The statistics in a LeRobot policy folder: in its processors, or among its weights (2024)."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dp_hub.config import read_json
from dp_hub.errors import ConfigError, PolicyError
from dp_hub.policies.foreign.lerobot_norm import Mode, mode_of
from dp_hub.policies.foreign.settings import Options

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
_BUFFER = ".buffer_"
_OF_BEFORE = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")


@dataclass(frozen=True)
class Normalising:
    """How one feature is normalised: by which rule, with which statistics."""

    mode: Mode
    stats: dict[str, Tensor]


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises PolicyError."""
    try:
        return load_file(path)
    except (FileNotFoundError, IsADirectoryError):
        raise PolicyError(f"no file at {path}") from None
    except (SafetensorError, OSError) as error:
        raise PolicyError(f"{path} is not a whole safetensors file: {error}") from None


def from_weights(weights: dict[str, Tensor], modes: dict[str, Mode]) -> dict[str, Normalising]:
    """The statistics among the weights, as LeRobot stored them until autumn 2025; takes them out.

    Empty where there are none.
    """
    keys = {name.replace(".", "_"): name for name in modes}
    found: dict[str, dict[str, Tensor]] = {}
    for name in [name for name in weights if name.startswith(_OF_BEFORE)]:
        value = weights.pop(name)
        key, _, statistic = name.partition(_BUFFER)[2].rpartition(".")
        # The action's are there twice; those by which it is computed back are the ones that count.
        if key in keys and not name.startswith("normalize_targets."):
            found.setdefault(keys[key], {})[statistic] = value
    return {name: Normalising(modes[name], stats) for name, stats in found.items()}


def from_processors(folder: Path, action: str) -> dict[str, Normalising]:
    """The statistics in the folder's processors. Raises PolicyError for steps of other kinds."""
    before = _steps(folder / PREPROCESSOR)
    after = _steps(folder / POSTPROCESSOR)
    observed = _normalising(folder, before, "normalizer_processor", PREPROCESSOR)
    predicted = _normalising(folder, after, "unnormalizer_processor", POSTPROCESSOR)
    return {name: how for name, how in observed.items() if name != action} | {
        name: how for name, how in predicted.items() if name == action
    }


def _steps(path: Path) -> list[Options]:
    try:
        steps = read_json(path).get("steps")
    except ConfigError as error:
        raise PolicyError(error.message, hint="LeRobot's policies have one since 0.4") from None
    if not isinstance(steps, list):
        raise PolicyError(f"{path} has no list of steps")
    return [Options(step, f"step {number} of {path}") for number, step in enumerate(steps)]


_NOTHING_TO_DO = ("to_batch_processor", "device_processor", "rename_observations_processor")


def _normalising(
    folder: Path, steps: list[Options], wanted: str, where: str
) -> dict[str, Normalising]:
    result: dict[str, Normalising] = {}
    for step in steps:
        name = step.choice("registry_name", {one: one for one in (*_NOTHING_TO_DO, wanted)})
        settings = Options(step.raw("config", {}), f"`config` of {name} in {where}")
        if name == "rename_observations_processor":
            settings.same("rename_map", {})
        if name == wanted:
            tensors = load_tensors(_beside(folder, str(step.raw("state_file"))))
            result |= _by_feature(settings, tensors)
    if not result:
        raise PolicyError(f"{where} has no {wanted}")
    return result


def _beside(folder: Path, name: str) -> Path:
    if Path(name).name != name:
        raise PolicyError(f"a processor in {folder} reads a file outside the folder: {name}")
    return folder / name


def _by_feature(settings: Options, tensors: dict[str, Tensor]) -> dict[str, Normalising]:
    settings.without_meaning("eps")  # 1e-8, which no float32 of a usual size feels
    features = settings.part("features").rest()
    modes = settings.part("norm_map").rest()
    only = settings.raw("normalize_observation_keys", None)
    settings.end()
    result = {}
    for name, feature in features.items():
        kind = feature.get("type") if isinstance(feature, dict) else None
        mode = mode_of(modes.get(str(kind), "IDENTITY"), name)
        stats = {
            key.removeprefix(f"{name}."): value
            for key, value in tensors.items()
            if key.rpartition(".")[0] == name
        }
        # As LeRobot: without statistics, or not among those asked for, it stays as it is.
        skipped = not stats or (only is not None and name not in only and kind != "ACTION")
        result[name] = Normalising("IDENTITY" if skipped else mode, stats)
    return result
