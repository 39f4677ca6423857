"""How pixels are scaled, by name where it has one."""

from collections.abc import Sequence
from typing import Any

from dp_hub.errors import PolicyError
from dp_hub.models.vision import IMAGENET_MEAN, IMAGENET_STD

_NAMED = {"minus_one_one": ([0.5] * 3, [0.5] * 3), "imagenet": (IMAGENET_MEAN, IMAGENET_STD)}
_CLOSE = 1e-6


def pixel_normalization(scales: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Any:
    """``vision.normalization`` of a policy whose cameras have these means and deviations.

    Args:
        scales: per camera, mean and deviation per colour, of pixels 0 to 1.
    Raises:
        PolicyError: the cameras differ.
    """
    if not scales:
        return "minus_one_one"
    first = scales[0]
    if any(not _equal(first, other) for other in scales[1:]):
        raise PolicyError("the cameras' pictures are scaled in different ways; here it is one way")
    for name, known in _NAMED.items():
        if _equal(first, known):
            return name
    return {"mean": tuple(first[0]), "std": tuple(first[1])}


def _equal(one: Any, other: Any) -> bool:
    return all(
        abs(a - b) < _CLOSE
        for left, right in zip(one, other, strict=True)
        for a, b in zip(left, right, strict=True)
    )


def pixel_scale(normalization: Any) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation per colour of a ``vision.normalization``, as plain values."""
    if isinstance(normalization, str):
        return _NAMED[normalization]
    return normalization["mean"], normalization["std"]
