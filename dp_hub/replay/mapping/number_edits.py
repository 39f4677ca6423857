"""What a mapping does to numbers: slices, units, rotations, scales, grippers the other way round.

Slices and radians come before a stream is put on the grid, so that rotations are turned as what
they are; the rest comes after it.
"""

from typing import Any

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.mapping.config import Term
from dp_hub.replay.rotations import convert, size_of


def selected(values: np.ndarray, term: Term, name: str) -> np.ndarray:
    """The numbers that are meant, ``(n, ...)``, angles in radians if they are to be.

    Args:
        values: all values of the stream, ``(n, ...)``.
        term: what to take of them.
        name: of the stream and where it is, for messages.
    Raises:
        DataError: they are no numbers, or have no such part.
    """
    array = values
    if array.dtype.kind not in "biuf":
        seen = "texts" if array.dtype.kind in "OUS" else str(array.dtype)
        raise DataError(
            f"{name} holds {seen}; a feature holds numbers or pictures",
            hint="texts can be the task (task: {stream: NAME}) or split episodes",
        )
    array = term.selection.of(array, name)
    if term.rotation is not None:
        _check_size(array, term.rotation.source, name)
    return np.deg2rad(array) if term.degrees == "to_rad" else array


def edited(values: np.ndarray, term: Term, name: str) -> np.ndarray:
    """Numbers on the grid with everything else done to them; what was float32 stays float32.

    Raises:
        DataError: as many scales and offsets as numbers are wanted, and rotations that are some.
    """
    before = values.dtype
    if term.rotation is not None and term.rotation.source != term.rotation.to:
        try:
            values = convert(values, term.rotation.source, term.rotation.to)
        except DataError as error:
            raise DataError(f"{name}: {error.message}", hint=error.hint) from None
    if term.degrees == "to_deg":
        values = np.rad2deg(values)
    if term.scale is not None:
        values = values * _each(term.scale, values, f"{name}: scale")
    if term.offset is not None:
        values = values + _each(term.offset, values, f"{name}: offset")
    if term.invert is not None and term.invert is not False:
        low, high = (0, 1) if term.invert is True else term.invert
        whole = values.astype(np.int64) if values.dtype.kind == "u" else values  # it may go below 0
        values = (low + high) - whole
    return values.astype(np.float32) if before == np.float32 else values


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """Numbers of several streams in a row, ``(T, d)``; those of one as they are."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def as_type(values: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Numbers of another type. Raises DataError where whole numbers or truths would lose some."""
    with np.errstate(invalid="ignore"):
        changed = values.astype(dtype)
    if np.dtype(dtype).kind == "f" or np.array_equal(changed, values):
        return changed
    odd = values[changed != values].reshape(-1)[0]
    raise DataError(
        f"`{name}.dtype` is {dtype}, which would change values such as {odd:.6g}",
        hint="float32 holds fractions; scale and offset make whole numbers of some",
    )


def _check_size(array: np.ndarray, rotation: str, name: str) -> None:
    wanted = size_of(rotation)
    have = array.shape[-1] if array.ndim > 1 else 1
    if array.ndim != 2 or have != wanted:
        raise DataError(
            f"{name} has {have} numbers, a rotation written as {rotation} has {wanted}",
            hint="take only those of the rotation, for example stream: /pose, at: '[3:7]'",
        )


def _each(factor: float | list[float], values: np.ndarray, what: str) -> Any:
    if not isinstance(factor, list):
        return factor
    size = values.shape[-1] if values.ndim > 1 else 1
    if len(factor) != size:
        raise DataError(f"{what} has {len(factor)} entries for {size} numbers")
    array = np.asarray(factor, values.dtype if values.dtype.kind == "f" else np.float64)
    return array if values.ndim > 1 else array[0]
