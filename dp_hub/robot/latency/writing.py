"""Numbers into a YAML file that a person wrote: only those change, not a comment moves.

Each number is put where it stands, or as a new line (or entry of ``{...}``) beside its neighbours.
The result is read again and compared with what was meant, so a form that this does not understand
is refused, and nothing is written.
"""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dp_hub.errors import ConfigError
from dp_hub.files import write_atomic

Values = Mapping[tuple[str, ...], float]
"""Numbers by the keys that lead to them."""


class _Unsafe(Exception):
    """Why a text is left alone."""


def edited(text: str, values: Values, *, where: str) -> str:
    """A YAML text with these numbers.

    Args:
        text: a mapping.
        values: finite; keys that are missing are added, and the last but one of them, too.
        where: the file, for the message.
    Raises:
        ConfigError: this cannot be done without touching anything else; the hint has the lines.
    """
    try:
        result = text
        for keys, value in values.items():
            result = _with(result, keys, number(value))
        _compare(text, result, values)
    except (_Unsafe, yaml.YAMLError) as why:
        raise ConfigError(
            f"{where} is written in a way that is not changed by itself: {_first_line(why)}",
            hint="put this into it:\n" + as_lines(values),
        ) from None
    return result


def write(path: Path, values: Values, *, to: Path | None = None) -> tuple[Path, Path | None]:
    """Change a file in place, keeping its old form beside it, or write the changed text elsewhere.

    Args:
        path: of the configuration; a symbolic link is followed.
        values: as of `edited`.
        to: a new file, which must not be there; None: ``path`` itself.
    Returns:
        The file written, and the backup, if one was made.
    Raises:
        ConfigError: as of `edited`, or a file cannot be read or written.
    """
    target = (path if to is None else to).resolve()
    if to is not None and target.exists():
        raise ConfigError(f"{to} already exists", hint="choose another name, or remove it first")
    with _told(path):
        # As bytes, so that the ends of its lines stay as they are.
        old = path.read_bytes()
        mode = path.stat().st_mode & 0o777
        new = edited(old.decode("utf-8"), values, where=str(path)).encode("utf-8")
    backup = None
    with _told(target):
        if to is None:
            backup = _free_name(target)
            write_atomic(backup, old, mode=mode)
        write_atomic(target, new, mode=mode | 0o200)
    return target, backup


def as_lines(values: Values) -> str:
    """The numbers as YAML of their own, to be put into a file by hand."""
    tree: dict[str, Any] = {}
    for keys, value in values.items():
        node = tree
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = float(number(value))
    return yaml.safe_dump(tree, sort_keys=False).rstrip()


def number(value: float) -> str:
    """As it is written: 4 decimals at most, one at least, so that it is read as a number."""
    assert math.isfinite(value), value
    text = f"{value:.4f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def _with(text: str, keys: tuple[str, ...], value: str) -> str:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    _refuse_shared(node)
    newline = "\r\n" if "\r\n" in text else "\n"
    for depth, key in enumerate(keys):
        if not isinstance(node, yaml.MappingNode):
            raise _Unsafe(f"`{'.'.join(keys[:depth])}` is no mapping")
        found = [pair for pair in node.value if pair[0].value == key]
        if not found:
            return _added(text, node, keys[depth:], value, newline)
        node = found[0][1]
    if not isinstance(node, yaml.ScalarNode) or node.start_mark.index == node.end_mark.index:
        raise _Unsafe(f"`{'.'.join(keys)}` has no number in its place")
    return text[: node.start_mark.index] + value + text[node.end_mark.index :]


def _added(
    text: str, parent: yaml.MappingNode, keys: tuple[str, ...], value: str, newline: str
) -> str:
    """With keys that are not there yet: ``inference: {latency_s: 0.1}`` or only its inner part."""
    entry = f"{keys[-1]}: {value}"
    for key in reversed(keys[:-1]):
        entry = f"{key}: {{{entry}}}"
    if parent.flow_style:
        if not parent.value:
            at = parent.start_mark.index + 1
            return text[:at] + entry + text[at:]
        at = parent.value[-1][1].end_mark.index
        return f"{text[:at]}, {entry}{text[at:]}"
    for key, child in reversed(parent.value):
        if child.start_mark.line == child.end_mark.line == key.start_mark.line:
            end = text.find("\n", child.end_mark.index)
            indent = " " * key.start_mark.column
            if end < 0:
                return f"{text}{newline}{indent}{entry}{newline}"
            return f"{text[: end + 1]}{indent}{entry}{newline}{text[end + 1 :]}"
    raise _Unsafe(f"there is no plain line beside which `{entry}` could stand")


def _refuse_shared(root: yaml.Node | None) -> None:
    """An alias is its anchor's node: to change one would change the other."""
    seen: set[int] = set()
    waiting = [] if root is None else [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.ScalarNode):
            continue
        if id(node) in seen:
            raise _Unsafe("parts of it are used twice, by anchors and aliases")
        seen.add(id(node))
        for child in node.value:
            waiting += child if isinstance(child, tuple) else [child]


def _compare(old: str, new: str, values: Values) -> None:
    """Is it what was meant, and only that?"""
    expected = yaml.safe_load(old)
    for keys, value in values.items():
        node = expected
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = float(number(value))
    if yaml.safe_load(new) != expected or _comments(old) != _comments(new):
        raise _Unsafe("the changed text would not say what it should")


def _comments(text: str) -> int:
    return text.count("#")


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _free_name(path: Path) -> Path:
    number = 1
    while os.path.lexists(name := path.with_name(f"{path.name}.bak{number if number > 1 else ''}")):
        number += 1
    return name


def _first_line(error: Exception) -> str:
    return str(getattr(error, "problem", None) or error).splitlines()[0]
