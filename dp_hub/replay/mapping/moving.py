"""Features that are moved in time: actions that are the next step's state, and shifts.

This is the only place where a value of a later step comes to an earlier one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.mapping.config import Feature, MappingConfig, next_names
from dp_hub.replay.mapping.number_edits import as_type, joined
from dp_hub.replay.mapping.picture_edits import first_of
from dp_hub.replay.mapping.selection import read_selection, split_name


def moved_in_time(
    mapping: MappingConfig, data: Mapping[str, Any], times: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Features and times of one episode with ``next`` and ``shift`` done, in the mapping's order.

    Args:
        mapping: which features are moved.
        data: the features that are made of streams, ``(T, ...)``.
        times: of the values of each, float64 ``(T,)`` or ``(T, terms)``.
    Raises:
        DataError: the next step of pictures is asked for, or no step is left.
    """
    moved, when, kept = {}, {}, len(next(iter(data.values())))
    length = kept
    for name, feature in mapping.features.items():
        if feature.next is None:
            values, used, steps = data[name], times[name], feature.shift
        else:
            values, used = _another(name, feature, data, times)
            steps = 1
        if steps:
            rows = np.clip(np.arange(length) + steps, 0, length - 1)
            values, used = values[rows], used[rows]
        moved[name], when[name] = values, used
        kept = min(kept, length - steps) if feature.drop_last else kept
    if kept < 1:
        raise DataError(
            f"an episode of {length} steps has none left after `drop_last`",
            hint="leave short ones out with episodes: {min_s: 1.0}, or do without drop_last",
        )
    if kept < length:
        moved = {name: first_of(values, kept) for name, values in moved.items()}
        when = {name: used[:kept] for name, used in when.items()}
    return moved, when


def _another(
    name: str, feature: Feature, data: Mapping[str, Any], times: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    parts, used = [], []
    for text in next_names(feature):
        other, at = split_name(text)
        values = data[other]
        if values.ndim == 4:
            raise DataError(
                f"`features.{name}.next`: {other} holds pictures; a next step is one of numbers"
            )
        place = f"`features.{name}.next`: {other}"
        parts.append(read_selection(at).of(values, place) if at else values)
        used.append(times[other].reshape(len(values), -1))
    values = joined(parts)
    if feature.dtype:
        values = as_type(values, feature.dtype, f"features.{name}")
    together = np.concatenate(used, axis=1)
    return values, together[:, 0] if together.shape[1] == 1 else together
