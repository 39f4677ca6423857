"""The installed source formats, found through the entry-point group ``dp_hub.converters``."""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from dp_hub.dataset.conversion.format_list import GROUP, install_line
from dp_hub.dataset.conversion.format_options import check_options
from dp_hub.errors import DataError
from dp_hub.replay.source import Converter, RecordingConverter


def format_names() -> list[str]:
    """Names of the installed formats; imports none of them."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load_converter(
    name: str, options: Mapping[str, Any] | None = None
) -> Converter | RecordingConverter:
    """The converter for the format ``name``, made with ``options`` as `check_options` reads them.

    Raises:
        DataError: no such format, it cannot be imported, or an option that it does not take.
    """
    kind = load_format(name)
    converter: Converter | RecordingConverter = kind(
        **check_options(kind, options or {}, format_name=name)
    )
    return converter


def load_format(name: str) -> type[Any]:
    """The converter's class. Raises DataError: no such format, or it cannot be imported."""
    point = _entry_point(name)
    with missing_library_told(name):
        try:
            kind: type[Any] = point.load()
        except AttributeError as error:
            raise DataError(
                f"the converter for {name} ({point.value}) cannot be loaded: {error}",
                hint="is its package installed whole, and of the version it was made for?",
            ) from error
    return kind


@contextmanager
def missing_library_told(name: str) -> Iterator[None]:
    """Around work with a format: a library that is not installed is a DataError that says how."""
    try:
        yield
    except ImportError as error:
        point = _entry_point(name)
        extra = install_line(point)
        ours = {"dp_hub", point.module.partition(".")[0]}
        if extra is None or (error.name or "").partition(".")[0] in ours:
            raise DataError(
                f"the converter for {name} ({point.value}) cannot be loaded: {error}",
                hint="is its package installed whole, and what it needs?",
            ) from error
        raise DataError(
            f"{name} needs a library that is not installed: {error}",
            hint=f'pip install "{extra}"',
        ) from error


def _entry_point(name: str) -> EntryPoint:
    known = {point.name: point for point in entry_points(group=GROUP)}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    have = f"installed formats: {', '.join(sorted(known)) or 'none'}"
    raise DataError(
        f"there is no converter for {name!r}",
        hint=f"did you mean `{near[0]}`? {have}" if near else have,
    )
