"""What a configuration can be told, as text for ``--help``: names, kinds of values, defaults.

The words are those that stand under each field in the code.
"""

import ast
import inspect
import json
import textwrap
import types
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from dp_hub.config import Config

_COLUMN, _WIDTH = 34, 100
_WORDS = {int: "N", float: "X", str: "TEXT", bool: "true|false", type(None): "null"}


def settings_help(kind: type[Config], prefix: str = "") -> str:
    """A line or more for every setting of ``kind``, those of its parts under their names.

    Args:
        kind: the configuration class.
        prefix: of the names, with its dot.
    """
    return "\n".join(_lines(kind, prefix))


def _lines(kind: type[Config], prefix: str) -> Iterator[str]:
    docs = _docs(kind)
    fields = [(name, *_choices(field.annotation), field) for name, field in _told(kind)]
    # Long sections, of which a run has one, come last.
    for name, plain, parts, field in sorted(fields, key=lambda row: len(row[2]) > 1):
        if plain or not parts:
            words = "|".join(dict.fromkeys(map(_words, plain)))
            yield from _line(f"--{prefix}{name} {words}", f"{docs.get(name, '')}{_default(field)}")
        for part in parts:
            if len(parts) > 1:
                chosen = part.model_fields["kind"].default
                usual = " (default)" if isinstance(field.default, part) else ""
                yield f"\n  with --{prefix}{name}.kind {chosen}{usual}:"
            yield from _lines(part, f"{prefix}{name}.")


def _told(kind: type[Config]) -> Iterator[tuple[str, FieldInfo]]:
    """Its fields but for ``kind``, which a heading tells."""
    return ((name, field) for name, field in kind.model_fields.items() if name != "kind")


def _choices(annotation: Any) -> tuple[list[Any], list[type[Config]]]:
    """What a value may be: plain kinds, and configurations of their own."""
    options = list(_options(annotation))
    parts = [one for one in options if isinstance(one, type) and issubclass(one, Config)]
    return [one for one in options if one not in parts], parts


def _docs(kind: type[Config]) -> dict[str, str]:
    """The text under each field, on one line."""
    docs = {}
    for one in reversed(kind.__mro__):
        if one is Config or not issubclass(one, Config):
            continue
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(definition, ast.ClassDef), one
        for field, text in pairwise(definition.body):
            match field, text:
                case ast.AnnAssign(ast.Name(name)), ast.Expr(ast.Constant(str(words))):
                    docs[name] = " ".join(words.split()).replace("``", "`")
    return docs


def _options(annotation: Any) -> Iterator[Any]:
    """What a value may be: the members of unions of unions."""
    if get_origin(annotation) is Annotated:
        yield from _options(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from _options(one)
    else:
        yield annotation


def _words(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if get_origin(annotation) is tuple:
        inner = [_words(one) for one in get_args(annotation) if one is not ...]
        return f"[{', '.join(inner)}{', ...' if ... in get_args(annotation) else ''}]"
    if get_origin(annotation) is Annotated:
        return _words(get_args(annotation)[0])
    return _WORDS.get(annotation, "VALUE")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return " (required)"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Config):
        return ""
    return f" ({value if isinstance(value, str) else json.dumps(value)})"


def _line(name: str, text: str) -> Iterator[str]:
    rows = textwrap.wrap(text, _WIDTH - _COLUMN) or [""]
    if len(name) + 4 > _COLUMN:
        yield f"  {name}"
    else:
        yield f"  {name}".ljust(_COLUMN) + rows.pop(0)
    yield from (" " * _COLUMN + row for row in rows)
