"""A format's own options: texts and plain values, made what the converter's class asks for."""

import difflib
import inspect
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dp_hub.errors import DataError

_TRUE, _FALSE, _NONE = ("true", "yes", "on"), ("false", "no", "off"), ("none", "null")
_MANY = (tuple, list, set, frozenset, Sequence, Collection, Iterable)


class _UnfitError(Exception):
    """A value does not fit an annotation."""


def check_options(kind: type, given: Mapping[str, Any], *, format_name: str) -> dict[str, Any]:
    """The options of ``kind`` that were given, each as its annotation says.

    Args:
        kind: a converter's class.
        given: values by name; texts are read as what is wanted: ``"0.5"`` as a float, ``"true"`` as
            a bool, ``"none"`` as None, ``"a,b"`` as several.
        format_name: for messages.
    Raises:
        DataError: an option it does not have, a value that does not fit, or one that is missing.
    """
    wanted = _annotations(kind)
    for name in given:
        if name not in wanted:
            near = difflib.get_close_matches(name, wanted, n=1)
            have = f"it has: {_listed(wanted)}" if wanted else f"{format_name} has no options"
            raise DataError(
                f"{format_name} has no option {name!r}",
                hint=f"did you mean `{near[0]}`? {have}" if near else have,
            )
    missing = [name for name in _required(kind) if name not in given]
    if missing:
        raise DataError(
            f"{format_name} needs the option {missing[0]}",
            hint=f"--option {missing[0]}={_shown(wanted[missing[0]])}",
        )
    return {name: _checked(name, value, wanted, format_name) for name, value in given.items()}


def option_texts(texts: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping. Raises DataError."""
    result: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise DataError(
                f"--option {text!r} is not NAME=VALUE",
                hint="for example --option missing_chunks=fill",
            )
        if name in result:
            raise DataError(f"--option names {name} twice: {result[name]} and {value}")
        result[name.replace("-", "_")] = value
    return result


def _annotations(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    return {name: hints.get(name, Any) for name in inspect.signature(kind).parameters}


def _required(kind: type) -> list[str]:
    parameters = inspect.signature(kind).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.default is p.empty and p.kind in plain]


def _checked(name: str, value: Any, wanted: Mapping[str, Any], format_name: str) -> Any:
    try:
        return _fitted(value, wanted[name])
    except _UnfitError:
        raise DataError(
            f"the option {name} of {format_name} cannot be {value!r}",
            hint=f"it is --option {name}={_shown(wanted[name])}",
        ) from None


def _fitted(value: Any, annotation: Any) -> Any:
    """``value`` as ``annotation`` says. Raises _UnfitError."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin in (Union, UnionType):
        return _first_fitting(value, sorted(inner, key=lambda one: one is str))
    if origin is Literal:
        return _choice(value, inner)
    if origin in _MANY or annotation in _MANY:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            raise _UnfitError
        return tuple(_fitted(part, inner[0] if inner else str) for part in parts)
    text = value.strip().lower() if isinstance(value, str) else None
    if annotation in (None, NoneType) and (value is None or text in _NONE):
        return None
    if annotation is bool and (isinstance(value, bool) or text in _TRUE + _FALSE):
        return value if text is None else text in _TRUE
    if annotation in (int, float) and not isinstance(value, bool):
        return _number(value, annotation)
    if annotation is str and isinstance(value, str):
        return value
    raise _UnfitError


def _first_fitting(value: Any, annotations: Iterable[Any]) -> Any:
    for annotation in annotations:
        try:
            return _fitted(value, annotation)
        except _UnfitError:
            continue
    raise _UnfitError


def _choice(value: Any, choices: Iterable[Any]) -> Any:
    for choice in choices:
        if value == choice or (isinstance(value, str) and value == str(choice)):
            return choice
    raise _UnfitError


def _number(value: Any, kind: type) -> Any:
    if isinstance(value, float) and kind is int and not value.is_integer():
        raise _UnfitError
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise _UnfitError from None
    if not math.isfinite(number):
        raise _UnfitError
    return number


def _listed(wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_shown(annotation)}" for name, annotation in wanted.items())


def _shown(annotation: Any) -> str:
    """What can be written for an option: ``a|b``, ``<float>``."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return "|".join("none" if one is NoneType else _shown(one) for one in inner)
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin in _MANY:
        return f"{_shown(inner[0])},..." if inner else "<text>,..."
    if annotation is bool:
        return "true|false"
    return {int: "<int>", float: "<float>"}.get(annotation, "<text>")
