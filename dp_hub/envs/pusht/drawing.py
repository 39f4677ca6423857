"""PushT's picture, the original's pixel for pixel.

The original redraws a 512 x 512 pygame surface with pymunk's debug drawing for every frame. Here the
goal and the walls are drawn once; a frame draws the T, the agent and the red contact marks over them,
resizes only what changed, and wipes it again. Drawing needs no display.
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

WHITE = (255, 255, 255)
GOAL_GREEN = (144, 238, 144)
WALL_GRAY = (211, 211, 211)
AGENT_RIM, AGENT_FILL = (65, 105, 225), (78, 126, 255)
BLOCK_RIM, BLOCK_FILL = (119, 136, 153), (143, 163, 184)
CONTACT_RED = (231, 76, 60)
ACTION_RED = (255, 0, 0)
_RIM_RADIUS_PX = 2
_MARK_OF_96_PX = 8  # length of the action's cross in a frame of 96 pixels

Point = tuple[float, float]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1, exclusive at the end


class PushTDrawing:
    """Draws any number of tables, one after the other."""

    def __init__(self) -> None:
        self._pixels = np.full((TABLE_PX, TABLE_PX, 4), 255, dtype=np.uint8)
        self._surface = pygame.image.frombuffer(self._pixels, (TABLE_PX, TABLE_PX), "RGBX")
        physics = PushTPhysics()
        # pymunk's own order of the corners: a thick line depends on its direction.
        self._parts = [tuple(shape.get_vertices()) for shape in _parts(physics)]
        for part in self._parts:
            pygame.draw.polygon(self._surface, GOAL_GREEN, _rounded(_placed(part, *GOAL_POSE)))
        before = self._pixels.copy()
        for start, end in WALLS:
            _draw_rim(self._surface, WALL_GRAY, start, end)
        self._is_wall = (self._pixels != before).any(axis=-1)
        self._background = self._pixels.copy()
        self._contacts = _ContactMarks(self._surface)
        self._sizes: dict[int, _Size] = {}

    def frame(self, table: PushTPhysics, px: int) -> np.ndarray:
        """The table now, uint8 (px, px, 3) RGB: what image observations and recordings hold."""
        size = self._sizes.get(px)
        if size is None:
            size = self._sizes[px] = _Size(self._background, px)
        boxes = self._draw(table)
        image = size.background.copy()
        for box in boxes:
            size.renew(image, self._pixels, box)
        self._wipe(boxes)
        return image

    def _draw(self, table: PushTPhysics) -> list[Box]:
        pose = table.block_pose()
        corners = [_placed(part, *pose) for part in self._parts]
        for part in corners:
            self._draw_part(part)
        agent = (round(table.agent_x), round(table.agent_y))
        pygame.draw.circle(self._surface, AGENT_RIM, agent, round(AGENT_RADIUS_PX))
        pygame.draw.circle(self._surface, AGENT_FILL, agent, round(AGENT_RADIUS_PX - 4))
        marks = self._contacts.find(table.space)
        boxes = [
            _box_round([*corners[0], *corners[1], *marks], 5),
            _box_round([agent], round(AGENT_RADIUS_PX) + 2),
        ]
        for x0, y0, x1, y1 in boxes:
            if x0 < 9 or y0 < 9 or x1 > TABLE_PX - 10 or y1 > TABLE_PX - 10:
                here = self._is_wall[y0:y1, x0:x1]
                self._pixels[y0:y1, x0:x1][here] = (*WALL_GRAY, 255)
        self._contacts.draw()
        return boxes

    def _draw_part(self, corners: Sequence[Point]) -> None:
        pygame.draw.polygon(self._surface, BLOCK_FILL, _rounded(corners))
        for start, end in zip(corners, (*corners[1:], corners[0]), strict=True):
            _draw_rim(self._surface, BLOCK_RIM, start, end)

    def _wipe(self, boxes: Sequence[Box]) -> None:
        for x0, y0, x1, y1 in boxes:
            self._pixels[y0:y1, x0:x1] = self._background[y0:y1, x0:x1]


class _Size:
    """The background at one frame size, and how to renew a box of it."""

    def __init__(self, background: np.ndarray, px: int) -> None:
        self.px = px
        self.taps = taps(TABLE_PX, px)
        self.background = resample(background[..., :3], self.taps, self.taps)

    def renew(self, image: np.ndarray, pixels: np.ndarray, box: Box) -> None:
        x0, y0, x1, y1 = box
        scale = self.px / TABLE_PX
        left, right = self._range(x0, x1, scale)
        top, bottom = self._range(y0, y1, scale)
        rows = Taps(self.taps.index[top:bottom], self.taps.weight[top:bottom])
        columns = Taps(self.taps.index[left:right], self.taps.weight[left:right])
        image[top:bottom, left:right] = resample(pixels, rows, columns)[..., :3]

    def _range(self, start: int, stop: int, scale: float) -> tuple[int, int]:
        return max(0, math.floor(start * scale) - 1), min(self.px, math.ceil(stop * scale) + 1)


class _ContactMarks(pymunk.SpaceDebugDrawOptions):
    """The red line through each contact point, collected from pymunk's debug drawing."""

    def __init__(self, surface: pygame.Surface) -> None:
        super().__init__()
        self.flags = pymunk.SpaceDebugDrawOptions.DRAW_COLLISION_POINTS
        self._surface = surface
        self._ends: list[Point] = []

    def find(self, space: pymunk.Space) -> list[Point]:
        """The rounded ends of all marks: start, end, start, end ..."""
        self._ends = []
        space.debug_draw(self)
        return self._ends

    def draw(self) -> None:
        for start, end in zip(self._ends[::2], self._ends[1::2], strict=True):
            pygame.draw.aaline(self._surface, CONTACT_RED, start, end)

    def draw_segment(self, a: Any, b: Any, color: Any) -> None:
        self._ends += _rounded([a, b])


def draw_action(image: np.ndarray, action: Sequence[float]) -> None:
    """Put the original's red cross at ``action`` (px of the table) into a uint8 (px, px, 3) frame."""
    px = len(image)
    x, y = (int(value / TABLE_PX * px) for value in action)
    half, thick = int(_MARK_OF_96_PX / 96 * px) // 2, max(1, px // 96)
    low, high = thick // 2, (thick + 1) // 2
    for dx0, dx1, dy0, dy1 in ((-half, half + 1, -low, high), (-low, high, -half, half + 1)):
        image[max(0, y + dy0) : max(0, y + dy1), max(0, x + dx0) : max(0, x + dx1)] = ACTION_RED


def _parts(physics: PushTPhysics) -> Iterator[pymunk.Poly]:
    """The bar, then the stem."""
    shapes = [shape for shape in physics.block.shapes if isinstance(shape, pymunk.Poly)]
    yield from sorted(shapes, key=lambda shape: max(y for _, y in shape.get_vertices()))


def _placed(corners: Sequence[Any], x: float, y: float, angle: float) -> list[Point]:
    cos, sin = math.cos(angle), math.sin(angle)
    return [(cos * px - sin * py + x, sin * px + cos * py + y) for px, py in corners]


def _rounded(points: Sequence[Any]) -> list[Point]:
    return [(round(x), round(y)) for x, y in points]


def _draw_rim(surface: pygame.Surface, color: Any, start: Point, end: Point) -> None:
    """pymunk's "fat segment" of radius 2: a thick line, a rectangle and two round ends."""
    ax, ay, bx, by = round(start[0]), round(start[1]), round(end[0]), round(end[1])
    pygame.draw.line(surface, color, (ax, ay), (bx, by), 2 * _RIM_RADIUS_PX)
    across_x, across_y = abs(by - ay), abs(bx - ax)
    if across_x or across_y:
        scale = _RIM_RADIUS_PX / (across_x * across_x + across_y * across_y) ** 0.5
        dx, dy = round(across_x * scale), round(across_y * scale)
        # LEGACY: for falling edges this is no rectangle but a slanted sliver; frames have it.
        corners = ((ax - dx, ay - dy), (ax + dx, ay + dy), (bx + dx, by + dy), (bx - dx, by - dy))
        pygame.draw.polygon(surface, color, corners)
        pygame.draw.circle(surface, color, (ax, ay), _RIM_RADIUS_PX)
        pygame.draw.circle(surface, color, (bx, by), _RIM_RADIUS_PX)


def _box_round(points: Sequence[Point], margin: int) -> Box:
    """The box round some points, clipped to the table."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (
        max(0, min(TABLE_PX, math.floor(min(xs)) - margin)),
        max(0, min(TABLE_PX, math.floor(min(ys)) - margin)),
        max(0, min(TABLE_PX, math.ceil(max(xs)) + margin + 1)),
        max(0, min(TABLE_PX, math.ceil(max(ys)) + margin + 1)),
    )
