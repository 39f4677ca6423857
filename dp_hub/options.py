"""A class's own options: texts and plain values, made what its constructor's annotations ask for.

For what is found by name through entry points: source formats, robot devices.
"""

import difflib
import inspect
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dp_hub.errors import DpHubError

_TRUE, _FALSE, _NONE = ("true", "yes", "on"), ("false", "no", "off"), ("none", "null")
_MANY = (tuple, list, set, frozenset, Sequence, Collection, Iterable)


class _UnfitError(Exception):
    """A value does not fit an annotation."""


def check_options(
    kind: type,
    given: Mapping[str, Any],
    *,
    of: str,
    error: type[DpHubError],
    written: str = "{name}: {value}",
    but: Collection[str] = (),
) -> dict[str, Any]:
    """The options of ``kind`` that were given, each as its annotation says.

    Args:
        kind: a class whose constructor's arguments are its options.
        given: values by name; texts are read as what is wanted: ``"0.5"`` as a float, ``"true"`` as
            a bool, ``"none"`` as None, ``"a,b"`` as several.
        of: whose options they are, for messages.
        error: what is raised.
        written: how people write an option, with ``{name}`` and ``{value}``, for hints.
        but: arguments that are no options.
    Raises:
        DpHubError: of the kind asked for: an option it does not have, a value that does not fit, or
            one that is missing.
    """
    wanted = {name: hint for name, hint in _annotations(kind).items() if name not in but}
    _refuse_unknown(wanted, given, of=of, error=error)
    for name in _required(kind):
        if name in wanted and name not in given:
            hint = written.format(name=name, value=_shown(wanted[name]))
            raise error(f"{of} needs the option {name}", hint=hint)
    fitted = {}
    for name, value in given.items():
        try:
            fitted[name] = _fitted(value, wanted[name])
        except _UnfitError:
            hint = "it is " + written.format(name=name, value=_shown(wanted[name]))
            message = f"the option {name} of {of} cannot be {value!r}"
            raise error(message, hint=hint) from None
    return fitted


def _refuse_unknown(
    wanted: Mapping[str, Any], given: Mapping[str, Any], *, of: str, error: type[DpHubError]
) -> None:
    for name in given:
        if name not in wanted:
            near = difflib.get_close_matches(name, wanted, n=1)
            have = f"it has: {_listed(wanted)}" if wanted else f"{of} has no options"
            raise error(
                f"{of} has no option {name!r}",
                hint=f"did you mean `{near[0]}`? {have}" if near else have,
            )


def takes(kind: type, name: str) -> bool:
    """Whether the constructor of ``kind`` has an argument of that name."""
    return name in inspect.signature(kind).parameters


def _annotations(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    return {name: hints.get(name, Any) for name in inspect.signature(kind).parameters}


def _required(kind: type) -> list[str]:
    parameters = inspect.signature(kind).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.default is p.empty and p.kind in plain]


def _fitted(value: Any, annotation: Any) -> Any:
    """``value`` as ``annotation`` says. Raises _UnfitError."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin in (Union, UnionType):
        return _first_fitting(value, sorted(inner, key=lambda one: one is str))
    if origin is Literal:
        return _choice(value, inner)
    if origin in (dict, Mapping):
        return _mapping(value, *inner)
    if origin in _MANY or annotation in _MANY:
        return _several(value, inner)
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


def _several(value: Any, inner: Sequence[Any]) -> tuple[Any, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise _UnfitError
    if len(inner) > 1 and inner[-1] is not Ellipsis:  # tuple[int, int]: so many, not more
        if len(parts) != len(inner):
            raise _UnfitError
        return tuple(_fitted(part, one) for part, one in zip(parts, inner, strict=True))
    return tuple(_fitted(part, inner[0] if inner else str) for part in parts)


def _mapping(value: Any, key: Any, inner: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _UnfitError
    return {_fitted(name, key): _fitted(one, inner) for name, one in value.items()}


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
    if origin in (dict, Mapping):
        return f"{{{_shown(inner[0])}: {_shown(inner[1])}, ...}}"
    if origin is tuple and len(inner) > 1 and inner[-1] is not Ellipsis:
        return ",".join(map(_shown, inner))
    if origin in _MANY:
        return f"{_shown(inner[0])},..." if inner else "<text>,..."
    if annotation is bool:
        return "true|false"
    return {int: "<int>", float: "<float>"}.get(annotation, "<text>")
