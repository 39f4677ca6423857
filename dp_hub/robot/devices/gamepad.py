"""A gamepad or joystick as a hand, through pygame; it needs no window."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices import libraries
from dp_hub.robot.devices.protocols import Hand

AXES = ("x", "y", "z", "rx", "ry", "rz", "gripper")
LAYOUT = {
    "x": "-a1", "y": "-a0", "z": "-a4", "rz": "-a3",
    "ry": "+h0y", "rx": "+h0x", "gripper": "+b5-b4",
}  # fmt: skip
"""Of pads with two sticks as Linux sees them: sticks move, the cross tilts, bumpers grip."""

_TERM = re.compile(r"([+-])(?:a(\d+)|b(\d+)|h(\d+)([xy]))")


@dataclass(frozen=True)
class Pad:
    """What a pad says.

    Args:
        axes: in [-1, 1].
        buttons: whether each is down.
        hats: x and y of each cross: -1, 0, 1.
    """

    axes: Sequence[float] = ()
    buttons: Sequence[bool] = ()
    hats: Sequence[tuple[int, int]] = ()


class Gamepad:
    """A pad.

    Args:
        number: of the pad, from 0.
        dead_zone: share of a stick's way that counts as none, from 0 to 0.9.
        layout: other sources for some directions (``x``, ``y``, ``z``, ``rx``, ``ry``, ``rz``,
            ``gripper``): sums of axes ``a0``, buttons ``b0`` and crosses ``h0x``, each with its
            sign: ``{"z": "+b3-b0"}``; ``""`` for none.
        buttons: names for some buttons by number: ``{"takeover": 7}``.
    """

    summary = "gamepad or joystick"

    def __init__(
        self,
        *,
        number: int = 0,
        dead_zone: float = 0.1,
        layout: Mapping[str, str] | None = None,
        buttons: Mapping[str, int] | None = None,
    ) -> None:
        if not 0 <= dead_zone <= 0.9:
            raise ConfigError(f"dead_zone of a gamepad is {dead_zone:g}: 0 to 0.9 is possible")
        merged = LAYOUT | dict(layout or {})
        self._sources = {name: _sources(name, text) for name, text in merged.items()}
        self._number, self._dead_zone = number, dead_zone
        self._names = {at: name for name, at in (buttons or {}).items()}
        self._pad: Any = None

    def open(self) -> None:
        """Connect. Raises RobotError."""
        pygame = libraries.pygame()

        os.environ.setdefault("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")
        if not pygame.display.get_init():  # SDL tells of pads only where it has a display
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
            pygame.display.init()
        pygame.joystick.init()
        count = pygame.joystick.get_count()
        if self._number >= count:
            raise RobotError(
                f"there is no gamepad {self._number}; connected: {count}",
                hint="is it plugged in or paired, and switched on?",
            )
        self._pad = pygame.joystick.Joystick(self._number)
        # They are asked for, not told: nobody empties the queue of them.
        pygame.event.set_blocked((pygame.JOYAXISMOTION, pygame.JOYBALLMOTION, pygame.JOYHATMOTION))
        pygame.event.set_blocked((pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP))

    def read(self) -> Hand:
        """What is asked for now. Raises RobotError: it is gone."""
        pygame = libraries.pygame()

        pad = self._pad
        assert pad is not None, "open it first"
        for event in pygame.event.get((pygame.JOYDEVICEREMOVED,)):
            if event.instance_id == pad.get_instance_id():
                raise RobotError("the gamepad is gone", hint="see its cable or its battery")
        axes = [pad.get_axis(i) for i in range(pad.get_numaxes())]
        buttons = [bool(pad.get_button(i)) for i in range(pad.get_numbuttons())]
        hats = [pad.get_hat(i) for i in range(pad.get_numhats())]
        return self.hand(Pad(axes, buttons, hats), time.monotonic())

    def hand(self, pad: Pad, now_s: float) -> Hand:
        """What a pad asks for. What it does not have counts as at rest."""
        shares = np.zeros(len(AXES))
        for name, sources in self._sources.items():
            total = sum(one.sign * self._value(pad, one) for one in sources)
            shares[AXES.index(name)] = np.clip(total, -1, 1)
        down = [at for at, is_down in enumerate(pad.buttons) if is_down]
        names = frozenset(self._names.get(at, f"button_{at}") for at in down)
        return Hand(now_s, velocity=shares[:6], gripper=float(shares[6]), buttons=names)

    def close(self) -> None:
        """Let go of it."""
        if self._pad is not None:
            self._pad.quit()
        self._pad = None

    def _value(self, pad: Pad, source: "_Source") -> float:
        at = source.at
        if source.kind == "a" and at < len(pad.axes):
            value = pad.axes[at]
            size = max(0.0, abs(value) - self._dead_zone) / (1 - self._dead_zone)
            return size if value > 0 else -size
        if source.kind == "b" and at < len(pad.buttons):
            return float(pad.buttons[at])
        if source.kind == "h" and at < len(pad.hats):
            return float(pad.hats[at][source.side])
        return 0.0


@dataclass(frozen=True)
class _Source:
    """One term of a direction's sum: axis ``a``, button ``b`` or cross ``h`` number ``at``."""

    sign: int
    kind: str
    at: int
    side: int


def _sources(name: str, text: str) -> list[_Source]:
    """``"+b3-h0y"`` taken apart. Raises ConfigError."""
    if name not in AXES:
        raise ConfigError(f"a gamepad has no direction {name!r}", hint=f"it has {', '.join(AXES)}")
    signed = text if not text or text[0] in "+-" else f"+{text}"
    if not re.fullmatch(f"(?:{_TERM.pattern})*", signed):
        raise ConfigError(
            f"{name} of a gamepad's layout cannot be {text!r}",
            hint="it is a sum such as -a1, +b3-b0 or +h0y",
        )
    found = []
    for sign, axis, button, hat, side in _TERM.findall(signed):
        kind, at = next((k, n) for k, n in (("a", axis), ("b", button), ("h", hat)) if n)
        found.append(_Source(1 if sign == "+" else -1, kind, int(at), 1 if side == "y" else 0))
    return found
