"""OmegaConf's settings as plain values, and reading options out of them without missing any."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from dp_hub.errors import PolicyError
from dp_hub.policies.foreign.names import Record

_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_MOST_NODES = 100_000
_MOST_LEVELS = 60
_MOST = 1_000_000  # of widths and steps: before a network is made, nothing shows that they are real
_MOST_ENTRIES = 32
_ABSENT = object()


def plain_settings(value: Any, *, where: str) -> Any:
    """Dicts, lists and scalars of a DictConfig or ListConfig.

    A value that refers to another one, ``${task.obs_dim}``, becomes that one. An expression such
    as ``${eval:...}`` is never evaluated: it stays as the text it is.

    Raises:
        PolicyError: not OmegaConf's, or settings that contain themselves.
    """
    bare = _Walk(where, follow=_content).copy(value)
    return _Walk(where, follow=_References(bare, where).follow).copy(bare)


class _Walk:
    """Copies nested values, each replaced by what ``follow`` says it stands for."""

    def __init__(self, where: str, *, follow: Callable[[Any], Any]) -> None:
        self._where, self._follow = where, follow
        self._nodes = 0

    def copy(self, value: Any, level: int = 0) -> Any:
        # Counted, for values may be shared: a short file can describe a tree without end.
        self._nodes += 1
        value = self._follow(value)
        if self._nodes > _MOST_NODES or level > _MOST_LEVELS:
            raise PolicyError(f"the settings in {self._where} have no end")
        if isinstance(value, dict):
            return {str(key): self.copy(entry, level + 1) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [self.copy(entry, level + 1) for entry in value]
        if not isinstance(value, str | int | float | bytes | None):
            raise PolicyError(f"the settings in {self._where} hold a {type(value).__name__}")
        return value


def _content(value: Any) -> Any:
    for _ in range(_MOST_LEVELS):
        if not isinstance(value, Record):
            break
        value = value.fields.get("_content", value.fields.get("_val"))
    return value


class _References:
    """Follows ``${a.b}`` through settings in which each may lead through others.

    Counted, as in `_Walk`: a few of them can lead in circles, or double at every level.
    """

    def __init__(self, root: Any, where: str) -> None:
        self._root, self._where = root, where
        self._steps = 0

    def follow(self, value: Any, level: int = 0) -> Any:
        """What a value refers to; itself, where it is no reference."""
        for _ in range(_MOST_LEVELS):
            found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
            if found is None:
                break
            value = self._at(found[1], level)
        return value

    def _at(self, path: str, level: int) -> Any:
        node = self._root
        for key in path.split("."):
            self._steps += 1
            if self._steps > _MOST_NODES or level > _MOST_LEVELS:
                raise PolicyError(f"the settings in {self._where} have no end")
            if isinstance(node, str):
                node = self.follow(node, level + 1) if node != f"${{{path}}}" else None
            if not isinstance(node, dict) or key not in node:
                return f"${{ {path} }}"  # refers to nothing: no longer a reference, but told as one
            node = node[key]
        return node


class Options:
    """One mapping of settings, of which every entry must be taken: what is left would be ignored.

    Args:
        values: the mapping.
        where: what it is, for the messages, e.g. ``policy.noise_scheduler in x.ckpt``.
    """

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, Mapping):
            raise PolicyError(f"{where} is not a mapping of settings, but {_shown(values)}")
        self._left = dict(values)
        self._where = where

    def part(self, name: str) -> "Options":
        """A mapping within. Raises PolicyError."""
        return Options(self._left.pop(name, None), f"`{name}` of {self._where}")

    def raw(self, name: str, default: Any = _ABSENT) -> Any:
        """A value of any type. Raises PolicyError where it is missing and has no default."""
        value = self._left.pop(name, default)
        if value is _ABSENT:
            raise PolicyError(f"{self._where} lacks `{name}`")
        return value

    def whole(self, name: str, default: Any = _ABSENT, *, most: int = _MOST) -> int:
        """An int from 0 to ``most``. Raises PolicyError."""
        value = self.raw(name, default)
        if not _is_whole(value, most):
            self._unfit(name, value, f"a whole number up to {most:,}")
        return value

    def whole_or_none(self, name: str) -> int | None:
        """An int, or None where there is none. Raises PolicyError."""
        return self.whole(name) if self._left.get(name) is not None else self._left.pop(name, None)

    def size(self, name: str, default: Any = None) -> tuple[int, ...] | None:
        """A height and a width, or None. Raises PolicyError."""
        value = self.raw(name, default)
        if value is not None:
            self._left[name] = value
            if len(value := self.wholes(name)) != 2:
                self._unfit(name, value, "a height and a width")
        return value

    def number(self, name: str, default: Any = _ABSENT) -> float:
        """A float. Raises PolicyError."""
        value = self.raw(name, default)
        if type(value) not in (int, float):
            self._unfit(name, value, "a number")
        return float(value)

    def flag(self, name: str, default: Any = _ABSENT) -> bool:
        """A bool. Raises PolicyError."""
        value = self.raw(name, default)
        if type(value) is not bool:
            self._unfit(name, value, "true or false")
        return value

    def wholes(self, name: str, default: Any = _ABSENT) -> tuple[int, ...]:
        """Several ints. Raises PolicyError."""
        value = self.raw(name, default)
        fits = isinstance(value, list | tuple) and len(value) <= _MOST_ENTRIES
        if not fits or not all(_is_whole(one, _MOST) for one in value):
            self._unfit(name, value, "a short list of whole numbers")
        return tuple(value)

    def choice(self, name: str, known: Mapping[str, Any], default: Any = _ABSENT) -> Any:
        """What ``known`` has for a text. Raises PolicyError for one it has not."""
        value = self.raw(name, default)
        if not isinstance(value, str) or value not in known:
            self._unfit(name, value, f"one of {', '.join(known)}")
        return known[value]

    def same(self, name: str, only: Any, default: Any = _ABSENT, *, why: str = "") -> None:
        """A setting for which there is one value here. Raises PolicyError for others."""
        value = self.raw(name, only if default is _ABSENT else default)
        if value != only or isinstance(value, bool) != isinstance(only, bool):
            self._unfit(name, value, f"{_shown(only)}{f' ({why})' if why else ''}")

    def without_meaning(self, *names: str) -> None:
        """Settings that change nothing of what the policy does."""
        for name in names:
            self._left.pop(name, None)

    def rest(self) -> dict[str, Any]:
        """All that has not been taken."""
        values, self._left = self._left, {}
        return values

    def end(self) -> None:
        """Raises PolicyError if a setting has not been taken."""
        if self._left:
            names = ", ".join(f"`{name}`" for name in list(self._left)[:5])
            raise PolicyError(
                f"{self._where} has settings that dp_hub does not know: {names}",
                hint="they may change what the policy does, so it is not converted",
            )

    def _unfit(self, name: str, value: Any, expected: str) -> NoReturn:
        hint = "expressions are not evaluated" if "${" in str(value) else None
        raise PolicyError(
            f"`{name}` of {self._where} is {_shown(value)}; only {expected} can be converted",
            hint=hint,
        )


def _is_whole(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        text = str(value)
    else:
        text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
