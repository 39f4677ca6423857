"""Which key does what, in one place: for the commands, their help, and the line below the pictures.

A key that cannot be taken back has to be pressed twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

AGAIN_S = 3.0


class Does(Enum):
    """What a key can do."""

    START = "start"
    STOP = "stop and save"
    DROP = "drop the last episode"
    STAGE = "next stage"
    QUIT = "quit"
    GO_ON = "the policy goes on"
    TAKE_OVER = "a person takes over"
    END = "end the episode as it is"
    SUCCESS = "end: success"
    FAILURE = "end: failure"
    EMERGENCY = "emergency stop"


@dataclass(frozen=True)
class Bound:
    """A key's meaning.

    Args:
        does: what.
        words: for people, short.
        twice: it has to be pressed again within `AGAIN_S`.
    """

    does: Does
    words: str
    twice: bool = False


Table = Mapping[str, Bound]

RECORD: Table = {
    "c": Bound(Does.START, "start"),
    "s": Bound(Does.STOP, "stop, save"),
    "backspace": Bound(Does.DROP, "drop the last", twice=True),
    "space": Bound(Does.STAGE, "next stage"),
    "esc": Bound(Does.EMERGENCY, "emergency stop"),
    "q": Bound(Does.QUIT, "quit"),
}
ROLLOUT: Table = {
    "c": Bound(Does.GO_ON, "policy goes on"),
    "h": Bound(Does.TAKE_OVER, "take over"),
    "s": Bound(Does.END, "end"),
    "y": Bound(Does.SUCCESS, "success"),
    "n": Bound(Does.FAILURE, "failure"),
    "esc": Bound(Does.EMERGENCY, "emergency stop"),
    "q": Bound(Does.QUIT, "quit"),
}
REPLAY: Table = {
    "esc": Bound(Does.EMERGENCY, "emergency stop"),
    "q": Bound(Does.QUIT, "quit"),
}


class Keys:
    """Keys to what they do, with those that have to be pressed twice.

    Args:
        table: what each means; others mean nothing.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._asked: tuple[str, float] | None = None

    def pressed(self, key: str, now_s: float) -> Does | None:
        """What a key does now; None: nothing, or nothing yet."""
        bound = self._table.get(key)
        asked, self._asked = self._asked, None
        if bound is None:
            return None
        again = asked is not None and asked[0] == key and now_s - asked[1] <= AGAIN_S
        if bound.twice and not again:
            self._asked = key, now_s
            return None
        return bound.does

    def question(self, now_s: float) -> str | None:
        """What is asked; None if nothing is."""
        if self._asked is None or now_s - self._asked[1] > AGAIN_S:
            return None
        key = self._asked[0]
        return f"{self._table[key].words}? press {key} again"


def keys_line(table: Table) -> str:
    """The table as one line: ``c start | s stop, save | ...``."""
    return " | ".join(f"{key} {bound.words}" for key, bound in table.items())
