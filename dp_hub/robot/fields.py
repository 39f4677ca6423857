"""Named arrays of fixed shape: what a device gives, and what a ring of shared memory holds."""

from dataclasses import dataclass

import numpy as np


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
