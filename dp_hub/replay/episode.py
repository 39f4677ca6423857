"""One demonstration: what converters yield, what the dataset writer takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dp_hub.errors import DataError


@dataclass(frozen=True)
class Episode:
    """One demonstration: named arrays of equal length T.

    Args:
        data: arrays ``(T, ...)`` by source key or feature name.
        task: what was to be done, in words.
        metadata: facts about the episode that JSON can hold (success, seed, source file ...).
    Raises:
        DataError: no arrays, no steps, or arrays of different lengths.
    """

    data: Mapping[str, np.ndarray]
    task: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {key: len(array) if array.ndim else 0 for key, array in self.data.items()}
        if len(set(lengths.values())) > 1:
            seen = ", ".join(f"{key} {length}" for key, length in lengths.items())
            raise DataError(
                f"the arrays of an episode differ in length: {seen}",
                hint="every key needs one row per step",
            )
        if not lengths or not next(iter(lengths.values())):
            raise DataError(f"an episode has no steps (keys: {', '.join(lengths) or 'none'})")

    @property
    def length(self) -> int:
        """Number of steps T."""
        return len(next(iter(self.data.values())))
