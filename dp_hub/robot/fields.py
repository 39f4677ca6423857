"""Named arrays of fixed shape: what a device gives, and what a ring of shared memory holds."""

from dataclasses import dataclass

import numpy as np

ROTATION = ("rx", "ry", "rz")
"""What the three numbers of a rotation vector are called, wherever they stand."""


@dataclass(frozen=True)
class Field:
    """One named array of every sample.

    Args:
        name: of the array.
        shape: of one sample, () for a number.
        dtype: numpy's name of it.
        units: of its numbers, for people and for datasets; empty where they have none.
        names: of its numbers, or empty.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float64"
    units: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Of one sample."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def is_picture(self) -> bool:
        """Whether it is uint8 (H, W, 3)."""
        return self.dtype == "uint8" and len(self.shape) == 3 and self.shape[2] == 3

    @property
    def rotation_at(self) -> int | None:
        """Index of the first of three numbers that are a rotation vector, known by their names."""
        starts = range(len(self.names) - 2)
        return next((i for i in starts if self.names[i : i + 3] == ROTATION), None)
