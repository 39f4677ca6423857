"""A keyboard as a hand: keys that are held down move the robot, through a pygame window of its own.

The window must have the focus; without it no key counts as held, so the robot rests.
"""

import os
import time
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices import libraries
from dp_hub.robot.devices.protocols import Hand

AXES = ("x", "y", "z", "rx", "ry", "rz", "gripper")
KEYS = {
    "+x": "w", "-x": "s", "+y": "a", "-y": "d", "+z": "r", "-z": "f",
    "+rx": "u", "-rx": "o", "+ry": "i", "-ry": "k", "+rz": "j", "-rz": "l",
    "+gripper": "e", "-gripper": "q",
}  # fmt: skip
"""Directions and the keys, as pygame names them, that ask for them."""


class Keyboard:
    """Keys of a window.

    Args:
        keys: other keys for some directions, such as ``{"+x": "up", "-x": "down"}``.
        share: of full speed that a key asks for.
        slow_share: while a shift key is held.
    """

    summary = "held-down keys of a window"

    def __init__(
        self,
        *,
        keys: Mapping[str, str] | None = None,
        share: float = 0.5,
        slow_share: float = 0.1,
    ) -> None:
        self._keys = KEYS | dict(keys or {})
        unknown = sorted(set(self._keys) - set(KEYS))
        if unknown:
            raise ConfigError(
                f"a keyboard has no direction {unknown[0]!r}", hint=f"it has {', '.join(KEYS)}"
            )
        if not 0 < slow_share <= share <= 1:
            raise ConfigError(
                f"a keyboard's slow_share and share are {slow_share:g} and {share:g}: "
                "0 < slow_share <= share <= 1 is possible"
            )
        self._share, self._slow_share = share, slow_share
        self._codes: dict[int, str] = {}

    def open(self) -> None:
        """Open a window, or use the one there is. Raises RobotError."""
        pygame = libraries.pygame()

        try:
            pygame.display.init()
            unseen = pygame.display.get_driver() in ("dummy", "offscreen")
            if unseen and not os.environ.get("SDL_VIDEODRIVER"):
                raise pygame.error("SDL has found no display to open a window on")
            if pygame.display.get_surface() is None:
                pygame.display.set_mode((420, 120))
                pygame.display.set_caption("dp_hub: keys of the robot")
            names = {*self._keys.values(), "left shift", "right shift"}
            self._codes = {pygame.key.key_code(name): name for name in names}
        except (pygame.error, ValueError) as error:
            raise RobotError(
                f"no keyboard: {error}", hint="is there a display? are the keys' names pygame's?"
            ) from error

    def read(self) -> Hand:
        """What is asked for now. Raises RobotError: the window is closed."""
        pygame = libraries.pygame()

        for event in _events(pygame):
            if event.type == pygame.QUIT:
                raise RobotError("the keyboard's window was closed")
        pressed = pygame.key.get_pressed()
        return self.hand([name for code, name in self._codes.items() if pressed[code]])

    def hand(self, held: Collection[str], now_s: float | None = None) -> Hand:
        """What keys ask for, whoever has seen them.

        Args:
            held: pygame's names of the keys that are down.
            now_s: when; None: now.
        """
        slow = "left shift" in held or "right shift" in held
        shares = np.zeros(len(AXES))
        for direction, key in self._keys.items():
            if key in held:
                shares[AXES.index(direction[1:])] += 1 if direction[0] == "+" else -1
        shares = np.clip(shares, -1, 1) * (self._slow_share if slow else self._share)
        at_s = time.monotonic() if now_s is None else now_s
        return Hand(at_s, velocity=shares[:6], gripper=float(shares[6]), buttons=frozenset(held))

    def close(self) -> None:
        """Close the window."""
        pygame = libraries.pygame()

        pygame.display.quit()


def _events(pygame: Any) -> list[Any]:
    return pygame.event.get() if pygame.display.get_init() else [pygame.event.Event(pygame.QUIT)]
