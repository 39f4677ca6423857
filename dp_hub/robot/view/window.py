"""The window, in a process of its own, which only reads: cameras never wait for it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.clock import MonotonicClock, ticks
from dp_hub.robot.shared.messages import Messages
from dp_hub.robot.shared.queue import QueueSpec
from dp_hub.robot.shared.ring import Ring, RingSpec
from dp_hub.robot.worker import Context

_SHOWN_HZ = 20
OVERLAY_KEY = "o"


@dataclass(frozen=True)
class ViewJob:
    """What to show.

    Args:
        cameras: rings by name; each has one field with pictures.
        status: messages with ``lines`` to show.
        keys: where pressed keys go.
        references: by camera, uint8 (H, W, 3), laid half over what it sees; ``o`` hides them.
        title: of the window.
        height_px: of every picture.
    """

    cameras: Mapping[str, RingSpec]
    status: QueueSpec
    keys: QueueSpec
    references: Mapping[str, np.ndarray] = field(default_factory=dict)
    title: str = "dp-hub"
    height_px: int = 360


def run(context: Context, job: ViewJob) -> None:
    """Show cameras until it is told to stop or the window is closed.

    Raises:
        RobotError: no window can be opened.
    """
    from dp_hub.robot.view.drawing import Drawing, key_of
    from dp_hub.robot.view.layout import lay_out

    eyes = [_Eye(name, Ring.attach(spec)) for name, spec in job.cameras.items()]
    status, keys = Messages.attach(job.status), Messages.attach(job.keys)
    layout = lay_out([eye.shape for eye in eyes], height_px=job.height_px)
    pygame, screen = _open(layout.size, job.title)
    drawing = Drawing(screen, layout, job.references)
    lines: list[str] = []
    overlay, is_open = True, True
    context.ready()
    for _ in ticks(1 / _SHOWN_HZ, MonotonicClock()):
        for event in pygame.event.get():
            key = key_of(event)
            is_open = is_open and event.type != pygame.QUIT
            overlay ^= key == OVERLAY_KEY
            if key:
                keys.send({"key": key})
        for message in status.receive():
            lines = message["lines"]
        drawing.draw([eye.look() for eye in eyes], lines, overlay=overlay)
        pygame.display.flip()
        context.beat(time.monotonic())
        if context.stopping or not is_open:
            break
    pygame.display.quit()


class _Eye:
    """The newest picture of one camera."""

    def __init__(self, name: str, ring: Ring) -> None:
        found = [one for one in ring.spec.fields if one.is_picture]
        if not found:
            raise RobotError(f"{name} gives no pictures, so it cannot be shown")
        self.name, self._ring, self._field = name, ring, found[0].name
        self.shape = found[0].shape
        self._picture: np.ndarray | None = None
        self._number, self._time_s = -1, 0.0

    def look(self) -> Any:
        """What to show of it now."""
        from dp_hub.robot.view.drawing import Shown

        if self._ring.count - 1 != self._number:
            samples = self._ring.last(1)
            if len(samples):
                self._picture = samples.values[self._field][-1]
                self._number, self._time_s = int(samples.numbers[-1]), float(samples.put_s[-1])
        return Shown(self.name, self._picture, time.monotonic() - self._time_s)


def _open(size: tuple[int, int], title: str) -> tuple[Any, Any]:
    import os

    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame

    try:
        pygame.display.init()
        driver = pygame.display.get_driver()
        if driver in ("dummy", "offscreen") and os.environ.get("SDL_VIDEODRIVER") != driver:
            raise pygame.error("there is no display")
        screen = pygame.display.set_mode(size)
    except pygame.error as error:
        raise RobotError(
            f"no window can be opened here: {error}",
            hint="run it where there is a display, or without the live view: --no-view",
        ) from None
    pygame.display.set_caption(title)
    return pygame, screen
