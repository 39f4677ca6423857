"""Offsets over time for a plot, in a bounded number of pieces however long the dataset is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MOST = 512  # pieces; a plot shows no more


def _no_numbers() -> np.ndarray:
    return np.empty(0, np.int64)


def _no_times() -> np.ndarray:
    return np.empty(0, np.float64)


@dataclass(frozen=True, eq=False)
class OffsetTrace:
    """Successive pieces of a stream's steps, n <= 512.

    Args:
        steps: int64 (n,), how many steps each piece is of.
        least_s: float64 (n,), smallest offset in it.
        most_s: float64 (n,), largest.
        repeated: int64 (n,), steps in it that show the value of the step before.
        dropped: int64 (n,), values of the source that no step in it uses.
    """

    steps: np.ndarray = field(default_factory=_no_numbers)
    least_s: np.ndarray = field(default_factory=_no_times)
    most_s: np.ndarray = field(default_factory=_no_times)
    repeated: np.ndarray = field(default_factory=_no_numbers)
    dropped: np.ndarray = field(default_factory=_no_numbers)

    def then(self, other: "OffsetTrace") -> "OffsetTrace":
        """This and what comes after it, with neighbours joined where there are too many."""
        pairs = zip(self._parts(), other._parts(), strict=True)
        return OffsetTrace(*(np.concatenate(pair) for pair in pairs))._bounded()

    def to_json(self) -> dict[str, list[Any]]:
        """Lists by name."""
        names = ("steps", "least_s", "most_s", "repeated", "dropped")
        return {name: part.tolist() for name, part in zip(names, self._parts(), strict=True)}

    @staticmethod
    def from_json(kept: Mapping[str, Any]) -> "OffsetTrace":
        """The trace of `to_json`. Raises KeyError, TypeError or ValueError if it is none."""
        steps, repeated, dropped = (
            np.array(kept[name], np.int64) for name in ("steps", "repeated", "dropped")
        )
        least, most = (np.array(kept[name], np.float64) for name in ("least_s", "most_s"))
        shapes = {part.shape for part in (steps, least, most, repeated, dropped)}
        if len(shapes) > 1 or steps.ndim != 1:
            raise ValueError("the parts of a trace differ in length")
        return OffsetTrace(steps, least, most, repeated, dropped)

    def _parts(self) -> tuple[np.ndarray, ...]:
        return self.steps, self.least_s, self.most_s, self.repeated, self.dropped

    def _bounded(self) -> "OffsetTrace":
        if len(self.steps) <= MOST:
            return self
        starts = np.cumsum(self.steps) - self.steps
        width = 1
        while True:  # pieces that begin in the same stretch become one
            group = starts // width
            first = np.flatnonzero(np.diff(group, prepend=-1))
            if len(first) <= MOST:
                break
            width *= 2
        return OffsetTrace(
            np.add.reduceat(self.steps, first),
            np.minimum.reduceat(self.least_s, first),
            np.maximum.reduceat(self.most_s, first),
            np.add.reduceat(self.repeated, first),
            np.add.reduceat(self.dropped, first),
        )


def trace_of(offset_s: np.ndarray, repeated: np.ndarray, dropped: np.ndarray) -> OffsetTrace:
    """The trace of one episode: float64, bool and int64 ``(T,)``."""
    steps = np.ones(len(offset_s), np.int64)
    shown_s = np.round(offset_s, 7)  # more digits would only make files longer
    whole = OffsetTrace(steps, shown_s, shown_s, repeated.astype(np.int64), dropped)
    return whole._bounded()
