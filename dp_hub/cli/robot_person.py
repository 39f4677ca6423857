"""The person at `dp-hub record`, `rollout` and `replay`: what is pressed and what is looked at."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from dp_hub.robot.config import RobotConfig
    from dp_hub.robot.keys.source import KeySource
    from dp_hub.robot.session.session import Session
    from dp_hub.robot.view.live import LiveView


class Person:
    """Checked before the robot is on, and there while it is.

    Args:
        config: of the robot.
        keys: a file of keys to press; None: the terminal's, if there is one.
        view: show a window with all cameras; None: where there is a display.
        overlay: an episode's first frame to lay over it, DATASET or DATASET#NUMBER.
        needed: there have to be keys.
    Raises:
        ConfigError: the file of keys is none, or there is nothing to lay a frame over.
        DpHubError: the overlay's episode is not there.
        RobotError: keys are needed, and there are none.
    """

    def __init__(
        self,
        config: "RobotConfig",
        *,
        keys: Path | None,
        view: bool | None = False,
        overlay: str | None = None,
        needed: bool,
    ) -> None:
        from dp_hub.errors import ConfigError, RobotError
        from dp_hub.robot.keys.script import read_script

        self._presses = None if keys is None else read_script(keys)
        self._shows = bool(config.cameras) and (has_display() if view is None else view)
        if overlay is not None and not self._shows:
            raise ConfigError(
                "--overlay needs the live view", hint="add --view, on a machine with a display"
            )
        self._references = references(config, overlay) if overlay else None
        if needed and keys is None and not self._shows and not sys.stdin.isatty():
            raise RobotError(
                "keys cannot be read: standard input is no terminal",
                hint="run it in a terminal, or give the keys with --keys FILE",
            )

    @contextmanager
    def at(self, session: "Session") -> "Iterator[tuple[KeySource, LiveView | None]]":
        """The keys, from now on, and the window. Raises RobotError: it cannot be opened."""
        from dp_hub.robot.keys.source import opened

        with ExitStack() as stack:
            view = self._window(session, stack) if self._shows else None
            own = self._keys()
            sources = [*([own] if own else []), *([view] if view else [])]
            yield stack.enter_context(opened(sources)), view

    def _window(self, session: "Session", stack: ExitStack) -> "LiveView":
        from dp_hub.robot.view.live import LiveView

        cameras = {name: session.rings[name].spec for name in session.config.cameras}
        view = LiveView(cameras, references=self._references)
        stack.callback(view.close)
        view.start()
        return view

    def _keys(self) -> "KeySource | None":
        import time

        from dp_hub.errors import RobotError
        from dp_hub.robot.keys.script import ScriptKeys
        from dp_hub.robot.keys.terminal import TerminalKeys

        if self._presses is not None:
            return ScriptKeys(self._presses, time.monotonic)
        try:
            return TerminalKeys()
        except RobotError:  # a window has keys too, and a simulation needs none
            return None


def has_display() -> bool:
    """Whether a window can be opened."""
    import os

    return sys.platform == "darwin" or any(
        os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY")
    )


def references(config: "RobotConfig", overlay: str) -> "dict[str, np.ndarray]":
    """By camera, the first picture of an episode of a dataset.

    Raises:
        DpHubError: there is no such episode, or none of its pictures is of a camera of the robot.
    """
    from dp_hub.errors import ConfigError
    from dp_hub.robot.config import PictureFeature
    from dp_hub.robot.view.live import first_frame

    name, _, number = overlay.rpartition("#")
    if not name or not number.removeprefix("-").isdigit():
        name, number = overlay, "0"
    pictures = first_frame(name, int(number))
    found = {
        made_of.camera: pictures[feature]
        for feature, made_of in config.observations.items()
        if isinstance(made_of, PictureFeature) and feature in pictures
    }
    if not found:
        raise ConfigError(
            f"{name} has pictures {', '.join(pictures) or 'of nothing'}; none is one of the "
            "robot's observations"
        )
    return found
