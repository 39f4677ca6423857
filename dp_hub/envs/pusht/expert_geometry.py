"""Where a round agent can touch the T, and how it walks round it without touching.

Everything is in the T's body frame (px, bar along x, stem along +y) and for the agent's centre, so
that the T grows by the agent's radius and the agent becomes a point.
"""

import itertools
import math

import numpy as np

from dp_hub.envs.pusht.physics import AGENT_RADIUS_PX, BAR, STEM, T_CENTRE_OF_GRAVITY

_OUTLINE = [(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)]
_HULL = [(-60, 0), (60, 0), (60, 30), (15, 120), (-15, 120), (-60, 30)]
_CONTACT_SPACING_PX = 10.0


def contact_points() -> tuple[np.ndarray, np.ndarray]:
    """Agent centres that just touch a straight side of the T.

    Returns:
        float64 (K, 2) centres and float64 (K, 2) unit normals that point away from the T.
    """
    points, normals = [], []
    for start, stop in zip(_OUTLINE, _OUTLINE[1:] + _OUTLINE[:1], strict=True):
        a, b = np.array(start, float), np.array(stop, float)
        length = float(np.hypot(*(b - a)))
        along = (b - a) / length
        normal = np.array((along[1], -along[0]))
        n = round(length / _CONTACT_SPACING_PX)
        for t in (np.arange(n) + 0.5) / n * length:
            points.append(a + t * along + AGENT_RADIUS_PX * normal)
            normals.append(normal)
    centres = np.array(points)
    free = distance_to_t(centres) > AGENT_RADIUS_PX - 1e-6  # not inside the other box
    return centres[free], np.array(normals)[free]


def distance_to_t(points: np.ndarray) -> np.ndarray:
    """Distance of body-frame points (..., 2) to the T, 0 inside it; float64 (...)."""
    gaps = []
    for x0, y0, x1, y1 in (BAR, STEM):
        dx = np.maximum(np.maximum(x0 - points[..., 0], points[..., 0] - x1), 0)
        dy = np.maximum(np.maximum(y0 - points[..., 1], points[..., 1] - y1), 0)
        gaps.append(np.hypot(dx, dy))
    return np.minimum(*gaps)


def walking_hull(clearance_px: float) -> list[tuple[float, float]]:
    """The T's convex hull, grown by the agent and a clearance, corners rounded to two points."""
    radius = AGENT_RADIUS_PX + clearance_px
    hull = []
    for before, corner, after in zip(
        _HULL[-1:] + _HULL, _HULL, _HULL[1:] + _HULL[:1], strict=False
    ):
        first, last = _outward_angle(before, corner), _outward_angle(corner, after)
        turn = (last - first) % (2 * math.pi)
        reach = radius / math.cos(turn / 4)
        for angle in (first + turn / 4, first + 3 * turn / 4):
            hull.append((corner[0] + reach * math.cos(angle), corner[1] + reach * math.sin(angle)))
    return hull


def _outward_angle(a: tuple[float, float], b: tuple[float, float]) -> float:
    return math.atan2(a[0] - b[0], b[1] - a[1])


def leave(start: np.ndarray, hull: list[tuple[float, float]]) -> list[np.ndarray]:
    """Points from ``start`` away from the T until outside the hull: each step up the distance."""
    path = [start]
    point = start.copy()
    for _ in range(40):
        if not inside(point, hull):
            break
        point = point + 5.0 * _away(point)
        path.append(point)
    return path


def _away(point: np.ndarray) -> np.ndarray:
    """Unit direction in which the distance to the T grows fastest."""
    step = 0.5
    probes = np.array([(step, 0), (-step, 0), (0, step), (0, -step)])
    right, left, down, up = distance_to_t(point + probes)
    gradient = np.array((right - left, down - up))
    norm = float(np.hypot(*gradient))
    if norm < 1e-9:  # inside the T: away from its centre
        gradient = point - np.array(T_CENTRE_OF_GRAVITY) + (1e-6, 0.0)
        norm = float(np.hypot(*gradient))
    return gradient / norm


def inside(point: np.ndarray, hull: list[tuple[float, float]]) -> bool:
    """Whether a point lies inside a convex polygon of positive orientation."""
    x, y = float(point[0]), float(point[1])
    ax, ay = hull[-1]
    for bx, by in hull:
        if (bx - ax) * (y - ay) - (by - ay) * (x - ax) < 0:
            return False
        ax, ay = bx, by
    return True


def ways_round(
    start: np.ndarray, stop: np.ndarray, hull: list[tuple[float, float]]
) -> list[list[tuple[float, float]]]:
    """The corners to turn between two points outside a convex hull, both ways; shortest first.

    The shortest paths round a convex obstacle are the two chains of the convex hull of obstacle
    and end points. An empty list of corners means that the straight line is free.
    """
    a, b = (float(start[0]), float(start[1])), (float(stop[0]), float(stop[1]))
    ring = convex_hull([*hull, a, b])
    if a not in ring or b not in ring:
        return [[]]
    i, j = ring.index(a), ring.index(b)
    forward = [ring[k % len(ring)] for k in range(i + 1, j + (len(ring) if j < i else 0))]
    backward = [ring[k % len(ring)] for k in range(j + 1, i + (len(ring) if i < j else 0))][::-1]
    ways = [forward, backward]
    if not _crosses(a, b, hull):
        return [[]]
    return sorted(ways, key=lambda way: _length([a, *way, b]))


def _crosses(
    a: tuple[float, float], b: tuple[float, float], hull: list[tuple[float, float]]
) -> bool:
    """Whether the segment a-b passes through the hull's inside."""
    lo, hi = 0.0, 1.0
    for (px, py), (qx, qy) in zip(hull, hull[1:] + hull[:1], strict=True):
        at_a = (qx - px) * (a[1] - py) - (qy - py) * (a[0] - px)
        at_b = (qx - px) * (b[1] - py) - (qy - py) * (b[0] - px)
        if at_a < 0 and at_b < 0:
            return False
        if at_a < 0 or at_b < 0:
            t = at_a / (at_a - at_b)
            lo, hi = (max(lo, t), hi) if at_a < 0 else (lo, min(hi, t))
    return hi - lo > 1e-6


def convex_hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Convex hull by monotone chains, positive orientation, without collinear points."""
    ordered = sorted(set(points))
    chains = []
    for sequence in (ordered, ordered[::-1]):
        chain: list[tuple[float, float]] = []
        for p in sequence:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], p) <= 0:
                chain.pop()
            chain.append(p)
        chains.append(chain[:-1])
    return chains[0] + chains[1]


def _turn(o: tuple[float, float], a: tuple[float, float], b: tuple[float, float]) -> float:
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def _length(points: list[tuple[float, float]]) -> float:
    return sum(math.dist(p, q) for p, q in itertools.pairwise(points))


def to_world(points: np.ndarray, pose: tuple[float, float, float]) -> np.ndarray:
    """Body-frame points (..., 2) of a block at ``pose`` (x, y, angle) in world px."""
    x, y, angle = pose
    cos, sin = math.cos(angle), math.sin(angle)
    px, py = points[..., 0], points[..., 1]
    return np.stack([cos * px - sin * py + x, sin * px + cos * py + y], axis=-1)


def to_body(points: np.ndarray, pose: tuple[float, float, float]) -> np.ndarray:
    """World points (..., 2) in the body frame of a block at ``pose``."""
    x, y, angle = pose
    cos, sin = math.cos(angle), math.sin(angle)
    px, py = points[..., 0] - x, points[..., 1] - y
    return np.stack([cos * px + sin * py, -sin * px + cos * py], axis=-1)
