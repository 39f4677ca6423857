"""Rotations as vectors (axis times angle, rad): what a controller does with them every tick.

Plain arithmetic on three and four numbers: at this size it is several times as fast as arrays, and
a controller process starts without scipy.
"""

import math

import numpy as np

Quaternion = tuple[float, float, float, float]


def difference(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The rotation vector that turns ``start`` into ``end``, the short way.

    Args:
        start, end: float64 (3,) each.
    Returns:
        float64 (3,) about fixed axes, of length π at most: ``turned(start, it)`` is ``end``.
    """
    w, x, y, z = _quaternion(start)
    return _vector(_product(_quaternion(end), (w, -x, -y, -z)))


def turned(start: np.ndarray, by: np.ndarray) -> np.ndarray:
    """``start`` turned by a rotation vector about fixed axes.

    Of the ways to write the result the one nearest to ``start`` is given, so that a path of small
    turns has no jump of 2π in it.
    """
    result = _vector(_product(_quaternion(by), _quaternion(start)))
    angle = math.sqrt(result @ result)
    if angle == 0.0:
        return result
    other = result * (1.0 - 2.0 * math.pi / angle)
    near, far = result - start, other - start
    return result if near @ near <= far @ far else other


def slerp(start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """The rotation ``share`` (0 to 1) of the short way from ``start`` to ``end``, float64 (3,)."""
    return turned(start, share * difference(start, end))


def _quaternion(vector: np.ndarray) -> Quaternion:
    x, y, z = float(vector[0]), float(vector[1]), float(vector[2])
    angle = math.sqrt(x * x + y * y + z * z)
    scale = math.sin(angle / 2.0) / angle if angle > 1e-9 else 0.5
    return math.cos(angle / 2.0), x * scale, y * scale, z * scale


def _product(a: Quaternion, b: Quaternion) -> Quaternion:
    aw, ax, ay, az = a
    bw, bx, by, bz = b
    return (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )


def _vector(quaternion: Quaternion) -> np.ndarray:
    w, x, y, z = quaternion if quaternion[0] >= 0.0 else tuple(-part for part in quaternion)
    length = math.sqrt(x * x + y * y + z * z)
    scale = 2.0 * math.atan2(length, w) / length if length > 1e-9 else 2.0
    return np.array([x * scale, y * scale, z * scale])
