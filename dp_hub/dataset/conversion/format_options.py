"""A format's own options: texts and plain values, made what the converter's class asks for."""

from collections.abc import Iterable, Mapping
from typing import Any

from dp_hub import options
from dp_hub.errors import DataError


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
    return options.check_options(
        kind, given, of=format_name, error=DataError, written="--option {name}={value}"
    )


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
