"""How LeRobot scales numbers, as ``y = x * scale + offset``, and back."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from dp_hub.errors import PolicyError
from dp_hub.models.normalizer import FeatureNormalizer

Mode = Literal["MIN_MAX", "MEAN_STD", "IDENTITY", "QUANTILES", "QUANTILE10"]
_NEEDED: dict[str, tuple[str, str]] = {
    "MIN_MAX": ("min", "max"),
    "MEAN_STD": ("mean", "std"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
_EPS = 1e-8


def mode_of(text: object, name: str) -> Mode:
    """A mode by its name in either case. Raises PolicyError."""
    mode = str(text).upper()
    for known in (*_NEEDED, "IDENTITY"):
        if mode == known:
            return known  # type: ignore[return-value]
    raise PolicyError(f"{name} is normalised by {text!r}, which dp_hub does not know")


def affine(
    mode: Mode, stats: Mapping[str, Tensor], name: str, *, is_action: bool
) -> tuple[Tensor, Tensor, list[int]]:
    """``scale`` and ``offset`` of a feature, and its constant dimensions.

    What was constant in the data LeRobot divides by 1e-8: a value off the constant becomes huge.
    Here such an observation is shifted only, to the same place; an action, which is only ever
    computed back, keeps the division.

    Args:
        mode: not IDENTITY.
        stats: of the feature, by LeRobot's names.
        name: of the feature.
        is_action: whether it is predicted rather than observed.
    Raises:
        PolicyError: the statistics are not there, or not finite.
    """
    low, high = (_statistic(stats, one, name, mode) for one in _NEEDED[mode])
    spread = high if mode == "MEAN_STD" else high - low
    constant = spread.abs() < _EPS
    safe = torch.where(constant, torch.full_like(spread, _EPS if is_action else 1.0), spread)
    if mode == "MEAN_STD":
        scale, at_low = 1 / safe, 0.0
    else:
        scale, at_low = torch.where(constant & (not is_action), 1.0, 2 / safe), -1.0
    return (
        scale.float(),
        (at_low - low * scale).float(),
        constant.nonzero().flatten().tolist(),
    )


def _statistic(stats: Mapping[str, Tensor], one: str, name: str, mode: Mode) -> Tensor:
    if one not in stats:
        raise PolicyError(f"{name} is normalised by {mode}, but there is no `{one}` of it")
    value = stats[one].double().flatten()
    if not value.isfinite().all():
        raise PolicyError(
            f"`{one}` of {name} is not finite", hint="the statistics were never set in that policy"
        )
    return value


def fill(
    target: FeatureNormalizer, scale: Tensor, offset: Tensor, stats: Mapping[str, Tensor]
) -> None:
    """Set a normaliser, and as many of its statistics as are known.

    Raises:
        PolicyError: the width is another one.
    """
    known = {name: value.float().flatten() for name, value in stats.items()}
    for name, value in ({"scale": scale, "offset": offset} | known).items():
        if name not in ("scale", "offset", "min", "max", "mean", "std"):
            continue
        if value.shape != (target.dim,):
            raise PolicyError(f"`{name}` has {value.numel()} numbers, expected {target.dim}")
        setattr(target, name, value.clone())


def statistics(normalizer: FeatureNormalizer, mode: Mode, part: slice) -> dict[str, Tensor]:
    """Statistics from which LeRobot computes the same, float32 (dim,) each.

    The other pair is that of the data, for those who read it.
    """
    scale, offset = normalizer.scale[part].double(), normalizer.offset[part].double()
    result = {
        name: getattr(normalizer, name)[part].float() for name in ("min", "max", "mean", "std")
    }
    if mode == "MIN_MAX":
        result |= {"min": ((-1 - offset) / scale).float(), "max": ((1 - offset) / scale).float()}
    elif mode == "MEAN_STD":
        result |= {"mean": (-offset / scale).float(), "std": (1 / scale).float()}
    return result
