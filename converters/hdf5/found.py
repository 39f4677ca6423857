"""What the episodes of HDF5 files hold: the same keys, of the same shapes and types, in all."""

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dp_hub.errors import DataError

_MIN_PX = 8


@functools.lru_cache(64)  # numpy makes the name anew each time
def _name(dtype: np.dtype) -> str:
    return str(dtype.name) if dtype.kind in "biuf" else "object"


@dataclass(frozen=True)
class Shown:
    """What an array is as an episode gives it.

    Args:
        dtype: numpy's name; ``object`` for what is not numbers.
        shape: ``(rows, ...)``.
    """

    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: Any) -> "Shown":
        """That of an array of the file or of pictures."""
        return cls(_name(array.dtype), tuple(array.shape))

    @property
    def are_pictures(self) -> bool:
        """Whether rows are pictures, by type and shape: 1 or 3 channels, last or first."""
        if self.dtype != "uint8" or len(self.shape) != 4:
            return False
        a, b, c = self.shape[1:]
        return (c in (1, 3) and min(a, b) >= _MIN_PX) or (a in (1, 3) and min(b, c) >= _MIN_PX)


@dataclass
class Found:
    """Keys and their kinds, taken from the first episode and compared with the others.

    Args:
        dtypes: numpy's name of the type, by key; ``object`` for what is not numbers.
        shapes: of one step, by key.
        problems: why a key cannot be converted, where it cannot.
        bad: by episode, the problems that are its own.
    """

    dtypes: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    problems: dict[str, DataError] = field(default_factory=dict)
    bad: dict[str, dict[str, DataError]] = field(default_factory=dict)
    _first: str = ""
    _in_first: frozenset[str] = frozenset()

    def add(
        self, where: str, arrays: Mapping[str, Shown], rows: Mapping[str, Collection[int]]
    ) -> bool:
        """Take an episode in: what its arrays are, and how many rows each may have.

        Returns:
            Whether it is as it has to be; another one just like it need not be taken in.
        """
        first = not self._first
        if first:
            self._first, self._in_first = where, frozenset(arrays)
        for key, array in arrays.items():
            dtype, shape = array.dtype, array.shape
            if not shape or shape[0] not in rows[key]:
                self._problem(
                    where,
                    key,
                    f"{where}/{key} is {shape}, not one row for each of the {min(rows[key])} steps",
                )
            if first:
                self.dtypes[key], self.shapes[key] = dtype, shape[1:]
            elif key not in self.dtypes:
                self.dtypes[key], self.shapes[key] = dtype, shape[1:]
                self._problem(where, key, f"{where} has {key}, {self._first} has not")
            elif (dtype, shape[1:]) != (self.dtypes[key], self.shapes[key]):
                self._problem(
                    where,
                    key,
                    f"{where}/{key} is {dtype} {shape[1:]} per step, in {self._first} it is "
                    f"{self.dtypes[key]} {self.shapes[key]}",
                )
        for key in sorted(self._in_first - arrays.keys()):
            self._problem(where, key, f"{where} has no {key}, {self._first} has")
        return where not in self.bad

    def check(self, drop: Collection[str], where: str | None = None) -> None:
        """Raises DataError if a key that is not dropped cannot be converted, in one episode or
        any."""
        problems = self.problems if where is None else self.bad.get(where, {})
        for key, problem in problems.items():
            if key not in drop:
                raise DataError(problem.message, hint=problem.hint)

    def notes(self) -> tuple[str, ...]:
        """The problems, to be told before they stop a conversion."""
        return tuple(f"{error.message}: --drop {key}" for key, error in self.problems.items())

    def _problem(self, where: str, key: str, message: str) -> None:
        error = DataError(message, hint=f"mend it, or leave it out with --drop {key}")
        self.problems.setdefault(key, error)
        self.bad.setdefault(where, {}).setdefault(key, error)
