"""What the dimensions of numeric features mean, as far as names and values tell."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp_hub.dataset.checks.stats import Totals
from dp_hub.dataset.checks.thresholds import ANGLE_MAX, LIMIT_WIDTH, MIN_LEVELS_RANGE
from dp_hub.dataset.columns import Feature
from dp_hub.dataset.features import INDEX_DTYPES

_GRIPPER = re.compile("grip|finger|claw|jaw", re.IGNORECASE)
_ANGLE = re.compile(r"angle|yaw|pitch|roll|theta|joint|rot(?!mat)", re.IGNORECASE)
_QUATERNION = re.compile(r"quat|orientation", re.IGNORECASE)
_MATRIX = re.compile(r"rot(ation)?_?mat", re.IGNORECASE)


@dataclass(frozen=True)
class Dimensions:
    """The columns D of `Totals`, each a bool (D,) mask.

    Attributes:
        labels: ``observation.state[4]`` or ``observation.state.theta``.
        action, state: of actions; of the robot's own state.
        continuous: floats with a range.
        wrapping: whose range is one turn, so that a step may go around.
        gripper, angle: by name.
        quaternions, matrices: (first column, size) of each.
    """

    labels: tuple[str, ...]
    features: tuple[str, ...]
    action: np.ndarray
    state: np.ndarray
    continuous: np.ndarray
    wrapping: np.ndarray
    gripper: np.ndarray
    angle: np.ndarray
    quaternions: tuple[int, ...]
    matrices: tuple[int, ...]


def is_action(name: str) -> bool:
    """Whether policies learn to give this feature."""
    return name in ("action", "actions") or name.startswith(("action.", "actions."))


def is_state(name: str) -> bool:
    """Whether the feature is the robot's own state (not that of its surroundings)."""
    own = name.startswith("observation.") and not name.startswith("observation.environment")
    return own or name in ("state", "qpos", "observation")


def dimensions(totals: Totals) -> Dimensions:
    """Describe the columns of ``totals``, which must have seen all data."""
    labels: list[str] = []
    features: list[str] = []
    floats: list[bool] = []
    for feature in totals.features:
        labels += dimension_labels(feature)
        size = totals.sizes[feature.name]
        features += [feature.name] * size
        floats += [np.dtype(feature.dtype).kind == "f"] * size
    spread = totals.range
    low, high = totals.running.min, totals.running.max
    index = np.array([name in INDEX_DTYPES for name in features], bool)
    continuous = np.array(floats, bool) & (spread > MIN_LEVELS_RANGE) & ~index
    turn = (spread >= 0.9 * 2 * math.pi) & (spread <= ANGLE_MAX)
    turn &= (low >= -ANGLE_MAX) & (high <= ANGLE_MAX)
    return Dimensions(
        labels=tuple(labels),
        features=tuple(features),
        action=np.array([is_action(name) for name in features], bool),
        state=np.array([is_state(name) for name in features], bool) & ~index,
        continuous=continuous,
        wrapping=continuous & turn,
        gripper=np.array([bool(_GRIPPER.search(label)) for label in labels], bool),
        angle=np.array([bool(_ANGLE.search(label)) for label in labels], bool) & continuous,
        quaternions=_quaternions(totals.features, totals),
        matrices=tuple(
            totals.slice(f.name).start
            for f in totals.features
            if _MATRIX.search(f.name) and totals.sizes[f.name] == 9
        ),
    )


def dimension_labels(feature: Feature) -> list[str]:
    """A name for each dimension of a feature."""
    size = math.prod(feature.shape)
    names = _flat_names(feature.names)
    if len(names) == size and size > 1:
        return [f"{feature.name}.{name}" for name in names]
    return [feature.name] if size == 1 else [f"{feature.name}[{d}]" for d in range(size)]


def _flat_names(names: Any) -> list[str]:
    """Names as a list; some recorders nest them one level deep."""
    if isinstance(names, dict):
        names = list(names.values())
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], list):
        names = names[0]
    return [str(name) for name in names] if isinstance(names, list) else []


def _quaternions(features: Sequence[Feature], totals: Totals) -> tuple[int, ...]:
    """First columns of four dimensions that names call a quaternion."""
    starts = []
    for feature in features:
        first, size = totals.slice(feature.name).start, totals.sizes[feature.name]
        if size == 4 and _QUATERNION.search(feature.name):
            starts.append(first)
            continue
        ends = [re.sub(r".*[^a-z]", "", f"_{n.lower()}") for n in _flat_names(feature.names)]
        if len(ends) == size:
            for d in range(size - 3):
                if ends[d : d + 4] in (["qx", "qy", "qz", "qw"], ["qw", "qx", "qy", "qz"]):
                    starts.append(first + d)
    return tuple(starts)


def at_limits(values: np.ndarray, totals: Totals) -> tuple[np.ndarray, np.ndarray]:
    """How many rows of (T, D) lie at the smallest and at the largest value, int64 (D,) each."""
    width = LIMIT_WIDTH * totals.range
    with np.errstate(invalid="ignore"):
        low = (values <= totals.running.min + width).sum(axis=0)
        return low, (values >= totals.running.max - width).sum(axis=0)
