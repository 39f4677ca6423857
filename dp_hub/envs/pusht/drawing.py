"""PushT's picture, the original's pixel for pixel.

The original redraws a 512 x 512 pygame surface with pymunk's debug drawing for every frame. Here
the goal and the walls are drawn once; a frame puts the T, the agent and the red contact marks over
them, resizes only what changed, and wipes it again. Drawing needs no display.
"""

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pymunk

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # stdout is for data
import pygame

from dp_hub.envs.pusht.physics import AGENT_RADIUS_PX, GOAL_POSE, TABLE_PX, WALLS, PushTPhysics
from dp_hub.envs.pusht.resize import Taps, resample, taps
from dp_hub.envs.pusht.stamps import Fill, Stamps, draw_edge, fill_polygon

GOAL_GREEN = (144, 238, 144)
WALL_GRAY = (211, 211, 211)
AGENT_RIM, AGENT_FILL = (65, 105, 225), (78, 126, 255)
BLOCK_RIM, BLOCK_FILL = (119, 136, 153), (143, 163, 184)
CONTACT_RED = (231, 76, 60)
ACTION_RED = (255, 0, 0)
_MARK_OF_96_PX = 8  # length of the action's cross in a frame of 96 pixels
_WALL_ZONE_PX = 9  # walls are drawn over whatever comes this close to the edge

Point = tuple[float, float]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 on the table, exclusive at the end


class PushTDrawing:
    """Draws any number of tables, one after the other.

    Args:
        fill: how slanted edges are rounded. ``recorded`` is pygame up to 2.1.3, which the
            demonstrations were recorded with; ``pygame`` the installed one, whose polygons differ
            in some 30 of a frame's 9,216 pixels.
    """

    def __init__(self, *, fill: Fill = "recorded") -> None:
        pixels = np.full((TABLE_PX, TABLE_PX, 4), 255, dtype=np.uint8)
        self._table = pixels.view(np.uint32)[..., 0]
        self._surface = pygame.image.frombuffer(pixels.data.cast("B"), (TABLE_PX, TABLE_PX), "RGBX")
        self._stamps = Stamps(self._surface, self._table, fill)
        # pymunk's own order of the corners: a thick line depends on its direction.
        self._parts = [tuple(shape.get_vertices()) for shape in _parts(PushTPhysics())]
        for part in self._parts:
            fill_polygon(self._surface, GOAL_GREEN, _placed(part, *GOAL_POSE), fill)
        before = self._table.copy()
        for start, end in WALLS:
            draw_edge(self._surface, WALL_GRAY, start, end, fill)
        self._is_wall = self._table != before
        self._background = self._table.copy()
        self._contacts = _ContactMarks()
        self._sizes: dict[int, _Size] = {}

    def frame(self, table: PushTPhysics, px: int) -> np.ndarray:
        """The table now, uint8 (px, px, 3) RGB: what image observations and recordings hold."""
        size = self._sizes.get(px)
        if size is None:
            size = self._sizes[px] = _Size(self._background, px)
        boxes = self._draw(table)
        image = size.background.copy()
        for box in boxes:
            size.renew(image, self._table, box)
        for x0, y0, x1, y1 in boxes:
            self._table[y0:y1, x0:x1] = self._background[y0:y1, x0:x1]
        return image

    def _draw(self, table: PushTPhysics) -> list[Box]:
        pose = table.block_pose()
        corners = [_placed(part, *pose) for part in self._parts]
        for part in corners:
            pygame.draw.polygon(self._surface, BLOCK_FILL, part)
            for start, end in zip(part, (*part[1:], part[0]), strict=True):
                self._stamps.put(BLOCK_RIM, _BLOCK_RIM_PACKED, start, end)
        agent = _rounded(table.agent_x, table.agent_y)
        pygame.draw.circle(self._surface, AGENT_RIM, agent, round(AGENT_RADIUS_PX))
        pygame.draw.circle(self._surface, AGENT_FILL, agent, round(AGENT_RADIUS_PX - 4))
        marks = self._contacts.find(table.space)
        boxes = [
            _box_round([*corners[0], *corners[1], *marks], 5),
            _box_round([agent], round(AGENT_RADIUS_PX) + 2),
        ]
        for box in boxes:
            self._draw_walls(box)
        for mark in zip(marks[::2], marks[1::2], strict=True):
            pygame.draw.aaline(self._surface, CONTACT_RED, *mark)
        return boxes

    def _draw_walls(self, box: Box) -> None:
        x0, y0, x1, y1 = box
        low, high = _WALL_ZONE_PX, TABLE_PX - _WALL_ZONE_PX
        if x0 < low or y0 < low or x1 > high or y1 > high:
            self._table[y0:y1, x0:x1][self._is_wall[y0:y1, x0:x1]] = _packed(WALL_GRAY)


class _Size:
    """The background at one frame size, and how to renew a box of it."""

    def __init__(self, table: np.ndarray, px: int) -> None:
        self.px = px
        self.taps = taps(TABLE_PX, px)
        self.background = np.ascontiguousarray(resample(table, self.taps, self.taps)[..., :3])

    def renew(self, image: np.ndarray, table: np.ndarray, box: Box) -> None:
        """Resize what the table, uint32 (512, 512) RGBX, shows in ``box`` into ``image``."""
        x0, y0, x1, y1 = box
        columns, rows = self._range(x0, x1), self._range(y0, y1)
        if columns.start < columns.stop and rows.start < rows.stop:
            fresh = resample(table, self._part(rows), self._part(columns))
            image[rows, columns] = fresh[..., :3]

    def _part(self, part: slice) -> Taps:
        return Taps(self.taps.source[part], self.taps.weight[part])

    def _range(self, start: int, stop: int) -> slice:
        scale = self.px / TABLE_PX
        low, high = math.floor(start * scale) - 1, math.ceil(stop * scale) + 1
        return slice(min(max(low, 0), self.px), min(max(high, 0), self.px))


class _ContactMarks(pymunk.SpaceDebugDrawOptions):
    """The red line through each contact point, collected from pymunk's debug drawing."""

    def __init__(self) -> None:
        super().__init__()
        self.flags = pymunk.SpaceDebugDrawOptions.DRAW_COLLISION_POINTS
        self._ends: list[Point] = []

    def find(self, space: pymunk.Space) -> list[Point]:
        """The rounded ends of all lines: start, end, start, end ..."""
        self._ends = []
        space.debug_draw(self)
        return self._ends

    def draw_segment(self, a: Any, b: Any, color: Any) -> None:
        """Called by pymunk for each contact point."""
        self._ends += [_rounded(*a), _rounded(*b)]


def draw_action(image: np.ndarray, action: Sequence[float] | np.ndarray) -> None:
    """Put the original's red cross at ``action`` (px of the table) into a uint8 (P, P, 3) frame."""
    px = len(image)
    x, y = (int(value / TABLE_PX * px) for value in action)
    half, thick = int(_MARK_OF_96_PX / 96 * px) // 2, max(1, px // 96)
    low, high = thick // 2, (thick + 1) // 2
    for dx0, dx1, dy0, dy1 in ((-half, half + 1, -low, high), (-low, high, -half, half + 1)):
        image[max(0, y + dy0) : max(0, y + dy1), max(0, x + dx0) : max(0, x + dx1)] = ACTION_RED


def _packed(color: tuple[int, int, int]) -> int:
    return int(np.array([*color, 255], dtype=np.uint8).view(np.uint32)[0])


_BLOCK_RIM_PACKED = _packed(BLOCK_RIM)


def _parts(physics: PushTPhysics) -> Iterator[pymunk.Poly]:
    """The bar, then the stem."""
    shapes = [shape for shape in physics.block.shapes if isinstance(shape, pymunk.Poly)]
    yield from sorted(shapes, key=lambda shape: max(y for _, y in shape.get_vertices()))


def _rounded(x: float, y: float) -> tuple[int, int]:
    return round(x), round(y)


def _placed(corners: Sequence[Any], x: float, y: float, angle: float) -> list[tuple[int, int]]:
    """Body-frame corners on the table, rounded, for a body at this pose."""
    cos, sin = math.cos(angle), math.sin(angle)
    return [_rounded(cos * px - sin * py + x, sin * px + cos * py + y) for px, py in corners]


def _box_round(points: Sequence[Point], margin: int) -> Box:
    """The box round some points, clipped to the table."""
    xs, ys = [int(x) for x, _ in points], [int(y) for _, y in points]
    ends = min(xs) - margin, min(ys) - margin, max(xs) + margin + 1, max(ys) + margin + 1
    x0, y0, x1, y1 = (min(max(end, 0), TABLE_PX) for end in ends)
    return x0, y0, x1, y1
