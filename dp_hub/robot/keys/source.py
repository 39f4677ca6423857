"""What keys are called, and what they come from.

A key is called by its character (``c``, ``q``, ``y``) or by name: ``space``, ``backspace``,
``esc``, ``enter``.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

ESCAPE = "esc"
NAMES = {
    " ": "space",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x1b": ESCAPE,
    "\r": "enter",
    "\n": "enter",
}


class KeySource(Protocol):
    """Gives keys in the order they were pressed."""

    def read(self) -> list[str]:
        """Keys since the last call; returns at once."""

    def close(self) -> None:
        """Let go; never raises."""


class Together:
    """Several sources as one: a terminal and a window."""

    def __init__(self, sources: Sequence[KeySource]) -> None:
        self._sources = list(sources)

    def read(self) -> list[str]:
        """See `KeySource`."""
        return [key for source in self._sources for key in source.read()]

    def close(self) -> None:
        """See `KeySource`."""
        for source in self._sources:
            source.close()


@contextmanager
def opened(sources: Sequence[KeySource]) -> Iterator[KeySource]:
    """Sources as one, closed at the end, however that comes."""
    with ExitStack() as stack:
        for source in sources:
            stack.callback(source.close)
        yield Together(sources)


def key_name(character: str) -> str | None:
    """What a typed character's key is called; None for one that nobody uses."""
    if character in NAMES:
        return NAMES[character]
    return character.lower() if character.isprintable() and len(character) == 1 else None
