"""Demonstrations of PushT by hand: the agent follows the mouse, as in the original's collector.

Unlike the original's ``demo_pusht.py`` the start states are in the legacy order, the one of the
released demonstrations and of all evaluations, so that new episodes fit to those.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # stdout is for data
import pygame

from dp_hub import __version__
from dp_hub.envs.pusht.drawing import PushTDrawing, draw_action
from dp_hub.envs.pusht.physics import CONTROL_HZ, SUCCESS_COVERAGE, TABLE_PX, PushTPhysics
from dp_hub.envs.pusht.tape import Tape, keys_of
from dp_hub.errors import DataError
from dp_hub.replay.buffer import ReplayWriter, open_replay

GRAB_PX = 30.0
_HELP = "click the agent to begin | Space: pause | R: retry | Q: quit"


class Clock(Protocol):
    """Keeps the pace: ``pygame.time.Clock`` or a test's."""

    def tick(self, rate_hz: float, /) -> Any:
        """Wait until the next step is due."""


class Window:
    """A pygame window that shows the table.

    Args:
        clock: keeps the pace.
    Raises:
        DataError: no window can be opened here.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        try:
            pygame.display.init()
            driver = pygame.display.get_driver()
            if driver in ("dummy", "offscreen") and os.environ.get("SDL_VIDEODRIVER") != driver:
                raise pygame.error("there is no display")
            self._screen = pygame.display.set_mode((TABLE_PX, TABLE_PX))
        except pygame.error as error:
            raise DataError(
                f"no window can be opened here: {error}",
                hint="run it where there is a display, or record the scripted demonstrator "
                "with --expert",
            ) from error
        self._clock: Clock = clock or pygame.time.Clock()

    def events(self) -> list[pygame.event.Event]:
        """What the person did since the last call."""
        return pygame.event.get()

    def show(self, frame: np.ndarray, title: str) -> None:
        """Put a uint8 (512, 512, 3) frame on the screen."""
        pygame.surfarray.blit_array(self._screen, frame.transpose(1, 0, 2))
        pygame.display.set_caption(title)
        pygame.display.flip()

    def tick(self) -> None:
        """Wait for the next control step."""
        self._clock.tick(CONTROL_HZ)

    def close(self) -> None:
        """Close the window."""
        pygame.display.quit()


@dataclass
class Hand:
    """What the person's hand is doing. ``pointer`` is in px of the table."""

    pointer: tuple[float, float] = (0.0, 0.0)
    driving: bool = False
    paused: bool = False
    retry: bool = False
    quit: bool = False

    def take(self, events: Iterable[pygame.event.Event], agent: tuple[float, float]) -> None:
        """Follow pygame's events; a click within 30 px of the agent takes hold of it."""
        self.retry = False
        for event in events:
            if event.type in (pygame.MOUSEMOTION, pygame.MOUSEBUTTONDOWN):
                self.pointer = (float(event.pos[0]), float(event.pos[1]))
            if event.type == pygame.MOUSEBUTTONDOWN:
                self.driving = self.driving or _distance(self.pointer, agent) < GRAB_PX
            elif event.type == pygame.QUIT:
                self.quit = True
            elif event.type in (pygame.KEYDOWN, pygame.KEYUP):
                self._key(event.key, pressed=event.type == pygame.KEYDOWN)

    def _key(self, key: int, *, pressed: bool) -> None:
        if key == pygame.K_SPACE:
            self.paused = pressed
        elif key == pygame.K_r:
            self.retry = self.retry or pressed
        elif key == pygame.K_q:
            self.quit = self.quit or pressed


def record_by_hand(
    path: str | Path, window: Window, *, seed: int = 0, n_episodes: int | None = None
) -> int:
    """Record episodes until the person quits. Each finished one is on disk before the next starts.

    Episode ``i`` starts from seed ``seed + i``, counted from the first in the folder: a folder
    that exists is continued.

    Args:
        path: a ``.zarr`` folder.
        window: where the person sees the table and acts.
        seed: of the folder's first episode.
        n_episodes: stop when the folder holds as many.
    Returns:
        How many episodes the folder holds now.
    Raises:
        DataError: the folder holds something else.
    """
    writer = ReplayWriter(
        path,
        attrs={
            "fps": CONTROL_HZ,
            "task": "Push the T onto the green outline.",
            "source": "a person's mouse",
            "dp_hub_version": __version__,
            "seed": seed,
        },
    )
    _check_ours(Path(path), seed, writer.n_episodes)
    drawing = PushTDrawing()
    while n_episodes is None or writer.n_episodes < n_episodes:
        episode = _play(window, drawing, seed + writer.n_episodes, writer.n_episodes)
        if episode is None:
            break
        writer.add_episode(episode)
    return writer.n_episodes


def _check_ours(path: Path, seed: int, n_episodes: int) -> None:
    """Before the person drives: what they record must fit to what is there."""
    if n_episodes == 0:
        return
    replay = open_replay(path)
    wanted = keys_of(images=True, contacts=True)
    if set(replay.keys()) != wanted:
        raise DataError(
            f"{path} holds {', '.join(sorted(replay.keys()))}, not {', '.join(sorted(wanted))}",
            hint="record into a new folder",
        )
    if replay.attrs.get("seed") != seed:
        raise DataError(
            f"{path} was begun with --seed {replay.attrs.get('seed')}, not {seed}",
            hint="continue with its own seed, or record into a new folder",
        )


def _play(
    window: Window, drawing: PushTDrawing, seed: int, number: int
) -> dict[str, np.ndarray] | None:
    """One episode by hand; None when the person quits."""
    table = PushTPhysics(count_contacts=True)
    table.reset(seed)
    tape = Tape(table, images=True, contacts=True)
    hand = Hand()
    while True:
        hand.take(window.events(), (table.agent_x, table.agent_y))
        if hand.quit:
            return None
        if hand.retry:
            table.reset(seed)
            tape.clear()
            hand = Hand(pointer=hand.pointer)
        if hand.driving and not hand.paused:
            action = np.array(hand.pointer)
            tape.add(action)
            table.step(*hand.pointer)
            if table.coverage() > SUCCESS_COVERAGE:
                return tape.arrays()
        _show(window, drawing, table, hand, number)
        window.tick()


def _show(
    window: Window, drawing: PushTDrawing, table: PushTPhysics, hand: Hand, number: int
) -> None:
    frame = drawing.frame(table, TABLE_PX)
    doing = "paused" if hand.paused else "recording" if hand.driving else "waiting"
    if hand.driving:
        draw_action(frame, hand.pointer)
    covered = f"{table.coverage():.0%} of {SUCCESS_COVERAGE:.0%}"
    window.show(frame, f"PushT {number + 1} | {doing} | {covered} | {_HELP}")


def _distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    return float(np.hypot(a[0] - b[0], a[1] - b[1]))
