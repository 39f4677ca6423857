"""The thick edges of PushT's picture, as stamps: which pixels, relative to where the edge starts.

pymunk's debug drawing makes an edge of a thick line, a quadrilateral and two discs. Edges of a T
come in few different (dx, dy), so each kind is drawn once and its pixels are remembered.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pygame

from dp_hub.envs.pusht.physics import TABLE_PX

Fill = Literal["recorded", "pygame"]
Corner = tuple[int, int]
Color = tuple[int, int, int]

_RADIUS_PX = 2
_PAD_PX = 8
_MAX_STAMPS = 20_000  # about 30 MB of them


class Stamps:
    """Draws thick edges on the 512 x 512 table.

    Args:
        surface: the table as pygame draws on it.
        pixels: the same memory as uint32 (512, 512).
    """

    def __init__(self, surface: pygame.Surface, pixels: np.ndarray, fill: Fill) -> None:
        self._surface, self._flat, self._fill = surface, pixels.reshape(-1), fill
        self._offsets: dict[Corner, np.ndarray] = {}

    def put(self, color: Color, packed: int, start: Corner, end: Corner) -> None:
        """Draw an edge in ``color``, which is ``packed`` in memory."""
        x1, y1 = start
        x2, y2 = end
        if min(x1, y1, x2, y2) < _PAD_PX or max(x1, y1, x2, y2) >= TABLE_PX - _PAD_PX:
            draw_edge(self._surface, color, start, end, self._fill)  # pygame cuts at the border
            return
        offsets = self._offsets.get((x2 - x1, y2 - y1))
        if offsets is None:
            offsets = self._make((x2 - x1, y2 - y1))
        self._flat[offsets + (y1 * TABLE_PX + x1)] = packed

    def _make(self, step: Corner) -> np.ndarray:
        if len(self._offsets) >= _MAX_STAMPS:
            self._offsets.clear()
        # A surface that just holds the edge: it starts at (x0, y0), PAD from the sides.
        (dx, dy), pad = step, _PAD_PX
        x0, y0 = pad + max(0, -dx), pad + max(0, -dy)
        surface = pygame.Surface((abs(dx) + 2 * pad, abs(dy) + 2 * pad), depth=32)
        draw_edge(surface, (255, 255, 255), (x0, y0), (x0 + dx, y0 + dy), self._fill)
        x, y = np.nonzero(pygame.surfarray.pixels_red(surface))
        offsets = ((y - y0) * TABLE_PX + (x - x0)).astype(np.int32)
        self._offsets[step] = offsets
        return offsets


def fill_polygon(
    surface: pygame.Surface, color: Color, corners: Sequence[Corner], fill: Fill
) -> None:
    """Fill a convex polygon, its edges rounded as ``fill`` says."""
    if fill == "pygame":
        pygame.draw.polygon(surface, color, corners)
        return
    top, bottom = min(y for _, y in corners), max(y for _, y in corners)
    left = np.full(bottom - top + 1, np.iinfo(np.int64).max)
    right = np.full(bottom - top + 1, np.iinfo(np.int64).min)
    for i, after in enumerate(corners):
        (x1, y1), (x2, y2) = sorted((corners[i - 1], after), key=lambda corner: corner[1])
        if y1 == y2:
            rows, x = np.array([y1, y1]), np.array([x1, x2])
        else:
            rows = np.arange(y1, y2 + (y2 == bottom))
            # LEGACY: C's integer division cuts towards zero; newer pygames round down.
            x = np.trunc((rows - y1) * (x2 - x1) / (y2 - y1)).astype(np.int64) + x1
        np.minimum.at(left, rows - top, x)
        np.maximum.at(right, rows - top, x)
    for y, x1, x2 in zip(range(top, bottom + 1), left.tolist(), right.tolist(), strict=True):
        pygame.draw.line(surface, color, (x1, y), (x2, y))


def draw_edge(
    surface: pygame.Surface, color: Color, start: Corner, end: Corner, fill: Fill
) -> None:
    """Draw one edge outright: pymunk's "fat segment" of radius 2."""
    (ax, ay), (bx, by) = start, end
    pygame.draw.line(surface, color, start, end, 2 * _RADIUS_PX)
    across_x, across_y = abs(by - ay), abs(bx - ax)
    if across_x == across_y == 0:
        return
    scale = _RADIUS_PX / (across_x * across_x + across_y * across_y) ** 0.5
    dx, dy = round(across_x * scale), round(across_y * scale)
    # LEGACY: where x and y grow together this is no rectangle but a sliver; the frames have it.
    corners = [(ax - dx, ay - dy), (ax + dx, ay + dy), (bx + dx, by + dy), (bx - dx, by - dy)]
    fill_polygon(surface, color, corners, fill)
    pygame.draw.circle(surface, color, start, _RADIUS_PX)
    pygame.draw.circle(surface, color, end, _RADIUS_PX)
