"""Evaluated episodes as pictures: replayed from their actions, drawn over with what happened.

Replaying is exact (the physics is deterministic), so an evaluation keeps actions, not frames.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dp_hub.envs.pusht.drawing import PushTDrawing
from dp_hub.envs.pusht.physics import BAR, GOAL_POSE, STEM, TABLE_PX, PushTPhysics
from dp_hub.rollout.episodes import EpisodeResult

INK, QUIET = (35, 38, 47), (110, 116, 128)
GOOD, OPEN = (24, 128, 72), (176, 74, 22)
START = (150, 100, 40)
GOAL_EDGE = (40, 160, 80)
_EARLY, _LATE = np.array((255, 190, 60)), np.array((200, 30, 90))
PAPER = (250, 250, 248)
# The T's outline in its own frame.
_OUTLINE = np.array(
    [
        (BAR[0], BAR[1]),
        (BAR[2], BAR[1]),
        (BAR[2], BAR[3]),
        (STEM[2], STEM[1]),
        (STEM[2], STEM[3]),
        (STEM[0], STEM[3]),
        (STEM[0], STEM[1]),
        (BAR[0], BAR[3]),
    ]
)

Point = tuple[float, float]
Color = tuple[int, int, int]


def replay(result: EpisodeResult) -> Iterator[PushTPhysics]:
    """The table at the start and after every step: one object, moved on between the yields."""
    table = PushTPhysics()
    table.reset(result.seed)
    yield table
    for x, y in result.actions:
        table.step(float(x), float(y))
        yield table


def episode_picture(result: EpisodeResult, drawing: PushTDrawing, px: int) -> Image.Image:
    """One episode at a glance, RGB (px, px): its end, how the T began, and the agent's way."""
    states, frame = [], None
    for step, table in enumerate(replay(result)):
        states.append(table.state())
        if step == result.steps:
            frame = drawing.frame(table, TABLE_PX)
    assert frame is not None, result.steps
    image = Image.fromarray(frame)
    pen = ImageDraw.Draw(image)
    _draw_outline(pen, GOAL_POSE, GOAL_EDGE, dashed=False)
    _draw_outline(pen, states[0][2:], START, dashed=True)
    path = [(float(state[0]), float(state[1])) for state in states]
    draw_path(pen, path, width=4)
    _draw_ring(pen, path[0], 15)
    return image.resize((px, px), Image.Resampling.LANCZOS)


def draw_path(pen: ImageDraw.ImageDraw, points: Sequence[Point], *, width: int) -> None:
    """A line whose colour goes from yellow to crimson as time goes by."""
    for k, (start, end) in enumerate(pairwise(points)):
        pen.line([start, end], fill=_hue(k / max(len(points) - 2, 1)), width=width)
        _dot(pen, end, width / 2, _hue(k / max(len(points) - 2, 1)))


def draw_plan(pen: ImageDraw.ImageDraw, rest: np.ndarray, n_executed: int) -> None:
    """What is left of a predicted chunk, (n, 2): dots, the ones that will be executed larger."""
    points = [(float(x), float(y)) for x, y in rest]
    if len(points) > 1:
        pen.line(points, fill=(235, 130, 150), width=2)
    for k, point in reversed(list(enumerate(points))):
        _dot(pen, point, 6 if k < n_executed else 3.5, _hue(k / max(len(points) - 1, 1)))


def draw_target(pen: ImageDraw.ImageDraw, at: np.ndarray) -> None:
    """A ring around the action (2,) being executed."""
    x, y = float(at[0]), float(at[1])
    pen.ellipse((x - 11, y - 11, x + 11, y + 11), outline=INK, width=3)


def label(result: EpisodeResult) -> tuple[str, Color]:
    """What to write under an episode, and in which colour."""
    outcome = "success" if result.success else "no success"
    colour = GOOD if result.success else OPEN
    return f"reward {result.max_reward:.2f} · {outcome} · {result.steps} steps", colour


@lru_cache
def font(px: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The font that comes with Pillow."""
    return ImageFont.load_default(px)


def _hue(share: float) -> Color:
    red, green, blue = (_EARLY + (_LATE - _EARLY) * min(max(share, 0.0), 1.0)).astype(int).tolist()
    return red, green, blue


def _dot(pen: ImageDraw.ImageDraw, at: Point, radius: float, fill: Color) -> None:
    x, y = at
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _draw_ring(pen: ImageDraw.ImageDraw, at: Point, radius: float) -> None:
    x, y = at
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=START, width=3)


def _draw_outline(
    pen: ImageDraw.ImageDraw, pose: Sequence[float] | np.ndarray, fill: Color, *, dashed: bool
) -> None:
    """The T's outline at a pose: x, y, angle."""
    x, y, angle = pose
    cos, sin = np.cos(angle), np.sin(angle)
    corners = _OUTLINE @ np.array([[cos, sin], [-sin, cos]]) + np.array([x, y])
    drawn = 0.6 if dashed else 1.0
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        n = max(1, round(float(np.linalg.norm(end - start)) / 12))
        for k in range(n):
            a, b = start + (end - start) * k / n, start + (end - start) * (k + drawn) / n
            pen.line([tuple(a.tolist()), tuple(b.tolist())], fill=fill, width=3)
