"""Numbers and texts as they are collected, message after message, in bounded memory."""

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from dp_hub.errors import DataError

_IN_MEMORY = 64 << 20  # bytes of one column; more is kept in a temporary file
_LARGEST = 1 << 16  # bytes of one value: more is no state of a robot
_PARTS = 512


class Unusable:
    """Values that cannot be given, ``(n, 0)``: whoever slices them is told why.

    Args:
        count: how many there are.
        dtype: of what they would be.
        error: why they are not.
    """

    ndim = 2

    def __init__(self, count: int, dtype: Any, error: DataError) -> None:
        self.shape, self.dtype, self.error = (count, 0), np.dtype(dtype), error

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: Any) -> np.ndarray:
        """Raises DataError."""
        raise self.error

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise self.error


class Column:
    """Values of one stream, ``(n, ...)``, all of one shape.

    Args:
        name: of the stream, for messages.
        dtype: of the values; ``object`` for texts.
    """

    def __init__(self, name: str, dtype: Any) -> None:
        self._name, self.dtype = name, np.dtype(dtype)
        self.problem: DataError | None = None
        self.names: tuple[str, ...] = ()
        self._shape: tuple[int, ...] | None = None
        self._parts: list[np.ndarray] = []
        self._bytes = self._count = 0
        self._file: Any = None

    def takes(self, n_bytes: int) -> bool:
        """Whether values of this size are wanted; if not, that is what is wrong."""
        if self.problem is None and n_bytes > _LARGEST:
            self.problem = DataError(
                f"{self._name} holds {n_bytes} bytes in every message: that is no state that a "
                "dataset could keep by frame",
                hint="leave the stream out",
            )
        return self.problem is None

    def add(self, rows: np.ndarray, names: Sequence[tuple[str, ...]] = ()) -> None:
        """More values, ``(k, ...)``, with the lists of names that came with them."""
        if self.problem is not None:
            return
        if self._shape is None:
            self._shape = rows.shape[1:]
            self.names = next((n for n in names if rows.ndim > 1 and len(n) == rows.shape[-1]), ())
        if rows.shape[1:] != self._shape:
            self.problem = self._uneven(rows.shape[1:])
            return
        if self.names and names and self.names not in names:
            ordered = self._in_order(rows, names)
            if ordered is None:
                return
            rows = ordered
        self._parts.append(rows)
        self._count += len(rows)
        self._bytes += rows.nbytes
        if len(self._parts) >= _PARTS:
            self._parts = [np.concatenate(self._parts)]
        if self._bytes > _IN_MEMORY and self.dtype != object:
            self._spill()

    def values(self, count: int) -> Any:
        """All values, ``(count, ...)``, or why they cannot be given."""
        if self.problem is None and not self._count:
            self.problem = DataError(f"{self._name} has no values", hint="leave the stream out")
        if self.problem is None and self._shape and 0 in self._shape:
            self.problem = DataError(
                f"{self._name} is an empty list in every message", hint="leave the stream out"
            )
        if self.problem is not None or self._shape is None:
            assert self.problem is not None
            return Unusable(count, self.dtype, self.problem)
        if self._file is None:
            return np.concatenate(self._parts)
        self._spill()
        return np.memmap(self._file, self.dtype, mode="r", shape=(self._count, *self._shape))

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="dp_hub-bag-")  # noqa: SIM115
        for part in self._parts:
            self._file.write(np.ascontiguousarray(part).data)
        self._file.flush()
        self._parts, self._bytes = [], 0

    def _uneven(self, shape: tuple[int, ...]) -> DataError:
        return DataError(
            f"{self._name} changes its length from message to message: {_told(self._shape or ())} "
            f"at first, then {_told(shape)} in message {self._count + 1}; a feature has one length",
            hint="leave the stream out, or record it as topics of one length each",
        )

    def _in_order(self, rows: np.ndarray, names: Sequence[tuple[str, ...]]) -> np.ndarray | None:
        """The numbers in the order that the first message had; None if they are others."""
        now = next((n for n in names if len(n) == len(self.names)), ())
        if sorted(now) == sorted(self.names) and len(set(now)) == len(now):
            return rows[..., [now.index(name) for name in self.names]]
        self.problem = DataError(
            f"{self._name} is of {_listed(self.names)} at first, but of {_listed(now)} in message "
            f"{self._count + 1}",
            hint="several nodes write to the topic: record them as topics of their own",
        )
        return None


def _told(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "1"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
