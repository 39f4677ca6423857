"""Draws the live view on a pygame surface."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # stdout is for data
import pygame

from dp_hub.robot.view.layout import LINE_PX, MARGIN_PX, Box, Layout

_BACK, _TEXT, _EMPTY = (24, 24, 24), (235, 235, 235), (60, 60, 60)
_FONT_PX = 22
_HALF = 128


@dataclass(frozen=True)
class Shown:
    """One camera.

    Args:
        name: of it.
        picture: uint8 (H, W, 3); None before the first.
        age_s: of the picture.
    """

    name: str
    picture: np.ndarray | None
    age_s: float = 0.0

    @property
    def label(self) -> str:
        """What stands above it."""
        if self.picture is None:
            return f"{self.name}: no picture yet"
        late = f": no picture for {self.age_s:.1f} s" if self.age_s > 1 else ""
        return f"{self.name}{late}"


class Drawing:
    """Draws on ``surface``.

    Args:
        surface: of the layout's size.
        layout: from `dp_hub.robot.view.layout.lay_out`.
        references: by camera, a picture that is laid half over what it sees.
    """

    def __init__(self, surface: Any, layout: Layout, references: Mapping[str, np.ndarray]) -> None:
        pygame.font.init()
        self._surface, self._layout = surface, layout
        self._font = pygame.font.Font(None, _FONT_PX)
        self._references = dict(references)

    def draw(self, shown: Sequence[Shown], lines: Sequence[str], *, overlay: bool = True) -> None:
        """Draw everything anew.

        Args:
            shown: the cameras in the order of the layout.
            lines: below the pictures.
            overlay: whether references are laid over them.
        """
        self._surface.fill(_BACK)
        for one, box in zip(shown, self._layout.pictures, strict=True):
            over = overlay and one.name in self._references
            label = f"{one.label}, reference over it (o hides it)" if over else one.label
            self._text(label, box.x, box.y - LINE_PX + 6)
            if one.picture is None:
                pygame.draw.rect(self._surface, _EMPTY, (box.x, box.y, box.width, box.height))
            else:
                self._picture(one.picture, box)
            if over:
                self._picture(self._references[one.name], box, alpha=_HALF)
        for number, line in enumerate(lines):
            self._text(line, MARGIN_PX, self._layout.lines_y + number * LINE_PX)

    def _picture(self, picture: np.ndarray, box: Box, alpha: int | None = None) -> None:
        height, width = picture.shape[:2]
        plain = np.ascontiguousarray(picture)
        image = pygame.image.frombuffer(plain.tobytes(), (width, height), "RGB")
        if (width, height) != (box.width, box.height):
            image = pygame.transform.smoothscale(image, (box.width, box.height))
        if alpha is not None:
            image.set_alpha(alpha)
        self._surface.blit(image, (box.x, box.y))

    def _text(self, text: str, x: int, y: int) -> None:
        self._surface.blit(self._font.render(text, True, _TEXT), (x, y))


def key_of(event: Any) -> str | None:
    """The key of a pygame event, as `dp_hub.robot.keys` calls it; closing the window is ``q``."""
    from dp_hub.robot.keys.source import ESCAPE, key_name

    if event.type == pygame.QUIT:
        return "q"
    if event.type != pygame.KEYDOWN:
        return None
    named = {
        pygame.K_SPACE: "space",
        pygame.K_BACKSPACE: "backspace",
        pygame.K_DELETE: "backspace",
        pygame.K_ESCAPE: ESCAPE,
        pygame.K_RETURN: "enter",
    }
    return named.get(event.key) or (key_name(event.unicode) if event.unicode else None)
