"""The installed source formats, found through the entry-point group ``dp_hub.converters``."""

import difflib
import inspect
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from dp_hub.errors import DataError
from dp_hub.replay.source import Converter

_GROUP = "dp_hub.converters"


def format_names() -> list[str]:
    """Names of the installed formats; imports none of them."""
    return sorted({point.name for point in entry_points(group=_GROUP)})


def load_converter(name: str, options: dict[str, Any] | None = None) -> Converter:
    """The converter for the format ``name``, made with ``options``.

    Raises:
        DataError: no such format, it cannot be imported, or it has no such option.
    """
    point = _entry_point(name)
    try:
        kind = point.load()
    except (ImportError, AttributeError) as error:
        raise DataError(
            f"the converter for {name} ({point.value}) cannot be loaded: {error}",
            hint="is the library of that format installed?",
        ) from error
    try:
        return kind(**(options or {}))
    except TypeError:
        taken = ", ".join(inspect.signature(kind).parameters) or "none"
        raise DataError(
            f"the converter for {name} does not take the options {', '.join(options or {})}",
            hint=f"those it takes: {taken}",
        ) from None


def _entry_point(name: str) -> EntryPoint:
    known = {point.name: point for point in entry_points(group=_GROUP)}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    have = f"installed formats: {', '.join(sorted(known)) or 'none'}"
    raise DataError(
        f"there is no converter for {name!r}",
        hint=f"did you mean `{near[0]}`? {have}" if near else have,
    )
