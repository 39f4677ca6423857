"""Where the arrays of a ring or a queue lie, and whether a value fits its field."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.fields import Field
from dp_hub.robot.shared.segment import Segment

_LINE = 64  # bytes; arrays begin at cache lines of their own


def layout(fields: Sequence[Field], n: int, *, at: int) -> tuple[list[int], int]:
    """Where the arrays of ``n`` samples begin, and where the last one ends, in bytes."""
    begins = []
    for field in fields:
        begins.append(at)
        at += -(-n * field.n_bytes // _LINE) * _LINE
    return begins, at


class Records:
    """``n`` places for samples in a segment, one array for each field.

    Args:
        segment: that holds them.
        fields: of a sample, with names of their own.
        n: how many places.
        at: where they begin, in bytes.
    """

    def __init__(self, segment: Segment, fields: Sequence[Field], n: int, *, at: int) -> None:
        assert len({field.name for field in fields}) == len(fields), fields
        begins, _ = layout(fields, n, at=at)
        self.arrays = {
            field.name: segment.array(field.dtype, (n, *field.shape), begin)
            for field, begin in zip(fields, begins, strict=True)
        }

    def fitting(self, values: Mapping[str, Any]) -> list[np.ndarray]:
        """The value of every field, not copied.

        Raises:
            RobotError: one is missing, or of another shape or a dtype that would lose its sense.
        """
        return [_fit(values, name, array) for name, array in self.arrays.items()]

    def store(self, place: int, given: Sequence[np.ndarray]) -> None:
        """Copy what `fitting` gave."""
        for array, value in zip(self.arrays.values(), given, strict=True):
            array[place] = value

    @property
    def names(self) -> str:
        """Of the fields, for people."""
        return ", ".join(self.arrays)

    def close(self) -> None:
        """Let go of the segment."""
        self.arrays = {}


def _fit(values: Mapping[str, Any], name: str, array: np.ndarray) -> np.ndarray:
    if name not in values:
        raise RobotError(f"`{name}` is missing; there were {', '.join(values) or 'no values'}")
    value = np.asarray(values[name])
    shape, dtype = array.shape[1:], array.dtype
    fits = value.dtype == dtype or np.can_cast(value.dtype, dtype, "same_kind")
    if value.shape != shape or not fits:
        seen = f"{value.dtype} {value.shape}"
        raise RobotError(f"`{name}` should be {dtype} {shape}, not {seen}")
    return value
