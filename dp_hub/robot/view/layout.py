"""Where pictures go on a window: side by side, all of one height, in as many rows as they need."""

from collections.abc import Sequence
from dataclasses import dataclass

MARGIN_PX = 8
LABEL_PX = 24  # above each picture
LINE_PX = 26  # of text below all
LEAST_PX = 480  # width: room for a line of text


@dataclass(frozen=True)
class Box:
    """A place in px from the top left."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Layout:
    """A window.

    Args:
        size: width and height in px.
        pictures: in the order given.
        lines_y: where the lines of text below begin.
    """

    size: tuple[int, int]
    pictures: tuple[Box, ...]
    lines_y: int


def lay_out(
    shapes: Sequence[tuple[int, ...]],
    *,
    height_px: int = 360,
    most_width_px: int = 1280,
    n_lines: int = 2,
) -> Layout:
    """Where pictures of these shapes (H, W, ...) go.

    Args:
        shapes: of the pictures.
        height_px: they are scaled to; less where one alone would be wider than the window.
        most_width_px: of the window.
        n_lines: lines of text below.
    """
    room = most_width_px - 2 * MARGIN_PX
    sizes = [_scaled(shape, height_px, room) for shape in shapes]
    boxes: list[Box] = []
    x, y, row_height, widest = MARGIN_PX, LABEL_PX, 0, 0
    for width, height in sizes:
        if x > MARGIN_PX and x + width > most_width_px - MARGIN_PX:
            x, y, row_height = MARGIN_PX, y + row_height + LABEL_PX, 0
        boxes.append(Box(x, y, width, height))
        x, row_height = x + width + MARGIN_PX, max(row_height, height)
        widest = max(widest, x)
    lines_y = y + row_height + MARGIN_PX
    return Layout((max(widest, LEAST_PX), lines_y + n_lines * LINE_PX), tuple(boxes), lines_y)


def _scaled(shape: tuple[int, ...], height_px: int, room: int) -> tuple[int, int]:
    height, width = shape[:2]
    scale = min(height_px / height, room / width)
    return max(1, round(width * scale)), max(1, round(height * scale))
