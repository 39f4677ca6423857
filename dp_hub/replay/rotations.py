"""Rotations from one way of writing them to another, and between two of them.

Names of the ways, each the last dimension of an array:

* ``quat_wxyz``, ``quat_xyzw``: unit quaternions; they need not be quite of length 1.
* ``matrix``: 9 numbers, row by row.
* ``rotvec``: the axis times the angle (axis-angle).
* ``rot6d``: the first two *rows* of the matrix, one after the other, as the original Diffusion
  Policy, UMI and PyTorch3D write it (Zhou et al. 2019 take columns).
* ``euler_xyz`` or any other order: lower-case letters turn about fixed axes (extrinsic),
  upper-case letters about the turned ones (intrinsic). ROS' roll, pitch, yaw is ``euler_xyz``.

The arithmetic is scipy's.
"""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from dp_hub.errors import DataError

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

_SIZES = {"quat_wxyz": 4, "quat_xyzw": 4, "matrix": 9, "rotvec": 3, "rot6d": 6}
_EULER = re.compile(r"euler_([xyz]{3}|[XYZ]{3})")
_BENT = 0.05  # how far from orthonormal a matrix may be


def check_name(name: str) -> None:
    """Raises DataError if no way of writing rotations has this name."""
    size_of(name)


def size_of(name: str) -> int:
    """Numbers of a rotation written in this way. Raises DataError for a name that is none."""
    if name in _SIZES:
        return _SIZES[name]
    order = _EULER.fullmatch(name)
    if order and all(a != b for a, b in zip(order[1], order[1][1:], strict=False)):
        return 3
    raise DataError(
        f"rotations are not written as {name!r}",
        hint=f"known are {', '.join(_SIZES)} and euler_xyz with any order of axes: lower case "
        "about fixed axes, upper case about turned ones",
    )


def convert(values: Any, source: str, target: str, *, degrees: bool = False) -> np.ndarray:
    """Rotations written another way.

    Args:
        values: numbers ``(..., size_of(source))``. Rows with a NaN or an infinity become NaN.
        source: how they are written, a name in this module's description.
        target: how they shall be written. Quaternions keep the sign that is nearest to the row
            before (first axis of a two-dimensional array), beginning with a real part above 0.
        degrees: angles of ``euler_...`` and ``rotvec`` are degrees, in ``values`` and the result.
    Returns:
        float64 ``(..., size_of(target))``.
    Raises:
        DataError: an unknown name, another number of numbers, or numbers that are no rotation.
    """
    n_in, n_out = size_of(source), size_of(target)
    numbers = _numbers(values, source, n_in)
    rows = numbers.reshape(-1, n_in)
    out = np.full((len(rows), n_out), np.nan)
    good = np.isfinite(rows).all(axis=1)
    if good.any():
        out[good] = _written(_rotations(rows[good], source, degrees), target, degrees)
    return out.reshape(*numbers.shape[:-1], n_out)


def slerp(before: Any, after: Any, weight: np.ndarray, name: str) -> np.ndarray:
    """Rotations on the shortest turn from ``before`` to ``after``.

    Args:
        before: numbers ``(n, size_of(name))``, angles in radians.
        after: likewise.
        weight: float ``(n,)``: 0 is ``before``, 1 is ``after``.
        name: how rotations are written.
    Returns:
        float64 ``(n, size_of(name))``; rows with a NaN or an infinity become NaN. Quaternions have
        the sign of ``before``.
    Raises:
        DataError: as `convert`.
    """
    size = size_of(name)
    first, last = _numbers(before, name, size), _numbers(after, name, size)
    out = np.full(first.shape, np.nan)
    good = np.isfinite(first).all(axis=1) & np.isfinite(last).all(axis=1)
    if not good.any():
        return out
    a = _rotations(first[good], name, False).as_quat()
    b = _rotations(last[good], name, False).as_quat()
    between = _between(a, b, np.asarray(weight, np.float64)[good])
    if name == "quat_xyzw":
        out[good] = between
    elif name == "quat_wxyz":
        out[good] = between[:, [3, 0, 1, 2]]
    else:
        out[good] = _written(_from_quat(between), name, False)
    return out


def continuous(quaternions: np.ndarray) -> np.ndarray:
    """The same rotations with signs that do not jump; the first keeps its own.

    Args:
        quaternions: float ``(n, 4)``, in either order of the parts. Rows of NaN are passed over.
    """
    good = np.flatnonzero(np.isfinite(quaternions).all(axis=1))
    rows = quaternions[good]
    jumps = np.einsum("ij,ij->i", rows[1:], rows[:-1]) < 0
    turned = np.concatenate(([False], np.cumsum(jumps) % 2 == 1))[: len(rows)]
    if not turned.any():
        return quaternions
    out = quaternions.copy()
    out[good[turned]] *= -1
    return out


def _between(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Shoemake's formula on unit quaternions ``(n, 4)``."""
    cosine = np.einsum("ij,ij->i", a, b)
    b = np.where(cosine[:, None] < 0, -b, b)
    # Half the angle from both chords: an arc cosine is inexact for small turns.
    half = np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    sine = np.sin(2 * half)
    small = sine < 1e-9
    safe = np.where(small, 1.0, sine)
    left = np.where(small, 1 - weight, np.sin((1 - weight) * 2 * half) / safe)
    right = np.where(small, weight, np.sin(weight * 2 * half) / safe)
    mixed = left[:, None] * a + right[:, None] * b
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def _numbers(values: Any, name: str, size: int) -> np.ndarray:
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"rotations written as {name} are numbers, not {values!r:.80}",
            hint="take a stream of numbers",
        ) from None
    if numbers.ndim == 0 or numbers.shape[-1] != size:
        raise DataError(
            f"a rotation written as {name} has {size} numbers, not an array of {numbers.shape}",
            hint="take the numbers of the rotation only, as in stream[3:7]",
        )
    return numbers


def _rotations(rows: np.ndarray, name: str, degrees: bool) -> "Rotation":
    from scipy.spatial.transform import Rotation

    if name.startswith("quat"):
        return _from_quat(rows[:, [1, 2, 3, 0]] if name == "quat_wxyz" else rows)
    if name == "rotvec":
        return Rotation.from_rotvec(rows, degrees=degrees)
    if name == "matrix":
        return Rotation.from_matrix(_checked_matrices(rows.reshape(-1, 3, 3)))
    if name == "rot6d":
        return Rotation.from_matrix(_from_rows(rows))
    return Rotation.from_euler(name.removeprefix("euler_"), rows, degrees=degrees)


def _from_quat(rows: np.ndarray) -> "Rotation":
    from scipy.spatial.transform import Rotation

    length = np.linalg.norm(rows, axis=1)
    _refuse(length < 1e-6, rows, "a quaternion of length 0")
    return Rotation.from_quat(rows)


def _checked_matrices(matrices: np.ndarray) -> np.ndarray:
    squares = matrices @ matrices.transpose(0, 2, 1) - np.eye(3)
    bent = (np.abs(squares).max(axis=(1, 2)) > _BENT) | (np.linalg.det(matrices) <= 0)
    _refuse(bent, matrices, "not a rotation matrix")
    return matrices


def _from_rows(rows: np.ndarray) -> np.ndarray:
    """Matrices of ``rot6d``, by Gram and Schmidt."""
    first, second = rows[:, :3], rows[:, 3:]
    normal = np.cross(first, second)
    _refuse(np.linalg.norm(normal, axis=1) < 1e-6, rows, "two parallel rows")
    x = first / np.linalg.norm(first, axis=1, keepdims=True)
    z = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _refuse(bad: np.ndarray, rows: np.ndarray, what: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        seen = np.array2string(rows[row].ravel(), precision=4, separator=", ", max_line_width=200)
        raise DataError(
            f"row {row} is {what}: {seen}; {int(bad.sum())} of {len(bad)} rows are",
            hint="is it written as the mapping says, and are these the numbers of the rotation?",
        )


def _written(rotations: "Rotation", name: str, degrees: bool) -> np.ndarray:
    if name.startswith("quat"):
        quaternions = continuous(rotations.as_quat(canonical=True))
        return quaternions[:, [3, 0, 1, 2]] if name == "quat_wxyz" else quaternions
    if name == "rotvec":
        return rotations.as_rotvec(degrees=degrees)
    if name == "matrix":
        return rotations.as_matrix().reshape(-1, 9)
    if name == "rot6d":
        return rotations.as_matrix()[:, :2].reshape(-1, 6)
    return _euler(rotations, name.removeprefix("euler_"), degrees)


def _euler(rotations: "Rotation", order: str, degrees: bool) -> np.ndarray:
    import warnings

    with warnings.catch_warnings():  # of gimbal lock, where one of many answers is given
        warnings.simplefilter("ignore", UserWarning)
        return rotations.as_euler(order, degrees=degrees)
