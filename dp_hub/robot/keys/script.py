"""Keys that are pressed by themselves at given times: for tests, demos and unattended runs."""

from collections.abc import Callable, Sequence
from pathlib import Path

from dp_hub.errors import ConfigError

Press = tuple[float, str]
_NAMED = ("esc", "space", "backspace")


class ScriptKeys:
    """Keys at times.

    Args:
        presses: seconds from the beginning, and the key; in order of time.
        now_s: tells the time.
        start_s: the beginning; default: now.
    """

    def __init__(
        self, presses: Sequence[Press], now_s: Callable[[], float], *, start_s: float | None = None
    ) -> None:
        self._presses = sorted(presses, key=lambda press: press[0])
        self._now_s = now_s
        self._start_s = now_s() if start_s is None else start_s
        self._next = 0

    def read(self) -> list[str]:
        """See `KeySource`."""
        since_s, keys = self._now_s() - self._start_s, []
        while self._next < len(self._presses) and self._presses[self._next][0] <= since_s:
            keys.append(self._presses[self._next][1])
            self._next += 1
        return keys

    def close(self) -> None:
        """See `KeySource`."""

    @property
    def is_over(self) -> bool:
        """Whether all were pressed."""
        return self._next == len(self._presses)


def read_script(path: Path) -> list[Press]:
    """Keys from a file of lines such as ``2.5 c``; what follows ``#`` is for people.

    Raises:
        ConfigError: the file is not there, or a line is none, or names no key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as keys: {error}") from None
    presses = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            seconds, key = words
            presses.append((float(seconds), _key(key)))
        except ValueError:
            raise ConfigError(
                f"line {number} of {path} is {line.strip()!r}",
                hint=f"each line is a time in seconds and a key, such as: 2.5 c; keys are letters, "
                f"{', '.join(_NAMED)}",
            ) from None
    return presses


def _key(word: str) -> str:
    """A letter as it is, a name in small letters. Raises ValueError."""
    if len(word) == 1:
        return word
    if word.lower() not in _NAMED:
        raise ValueError(word)
    return word.lower()
