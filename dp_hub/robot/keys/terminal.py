"""Keys of the terminal, one by one as they are pressed, and the terminal as it was afterwards.

The terminal is restored by `close`, by whatever ends a ``with`` block, by `atexit` where that was
forgotten, and by SIGTERM and SIGHUP, whose own handlers are called after.
"""

import atexit
import contextlib
import os
import re
import select
import signal
import sys
import termios
import tty
from types import FrameType
from typing import IO, Any, Self

from dp_hub.errors import RobotError
from dp_hub.robot.keys.source import key_name

_ENDS = (signal.SIGTERM, signal.SIGHUP)
_NO_KEY = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~])")  # whole sequences of ECMA-48, and SS3


class TerminalKeys:
    """Keys typed into a terminal. Ctrl-C stays an interrupt.

    Args:
        stream: the terminal; default: standard input.
    Raises:
        RobotError: it is none.
    """

    def __init__(self, stream: IO[Any] | None = None) -> None:
        try:
            self._fd = (stream or sys.stdin).fileno()
            self._before = termios.tcgetattr(self._fd)
        except (termios.error, ValueError, OSError):
            raise RobotError(
                "keys cannot be read: standard input is no terminal",
                hint="run it in a terminal, or give the keys with --keys FILE",
            ) from None
        self._handlers: dict[signal.Signals, Any] = {}
        self._is_open = True
        tty.setcbreak(self._fd)
        atexit.register(self.close)
        self._catch_ends()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> list[str]:
        """See `KeySource`. What arrow keys and the like send is not taken for Esc."""
        keys: list[str] = []
        while self._is_open and select.select([self._fd], [], [], 0)[0]:
            try:
                typed = os.read(self._fd, 1024)
            except OSError:  # the terminal was closed
                return keys
            if not typed:
                break
            keys += keys_of(typed.decode("utf-8", errors="ignore"))
        return keys

    def close(self) -> None:
        """Restore the terminal."""
        if not self._is_open:
            return
        self._is_open = False
        atexit.unregister(self.close)
        self._restore()
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._on_end:
                signal.signal(number, handler)

    def _restore(self) -> None:
        # Where it is gone, what would be restored is too.
        with contextlib.suppress(termios.error, OSError):
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def _catch_ends(self) -> None:
        for number in _ENDS:
            try:
                self._handlers[number] = signal.signal(number, self._on_end)
            except ValueError:  # not in the main thread: whoever is there restores
                return

    def _on_end(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers.get(signal.Signals(number))
        self.close()
        if callable(handler):
            handler(number, frame)
        elif handler != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def keys_of(typed: str) -> list[str]:
    """The keys of what a terminal sent; what arrow keys and the like send is left out.

    Only that: an Esc that was pressed right before or after it is an emergency stop.
    """
    return [key for key in map(key_name, _NO_KEY.sub("", typed)) if key]
