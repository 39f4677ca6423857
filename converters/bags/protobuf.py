"""Messages of protobuf, from the descriptors that MCAP files carry; no generated code is needed."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dp_hub_converters.bags.layout import MisfitError

from dp_hub.errors import DataError

_FIXED = {1: "d", 2: "f", 6: "Q", 7: "I", 15: "i", 16: "q"}
_SIGNED, _ZIGZAG, _BOOL, _STRING, _MESSAGE, _BYTES = (3, 5, 14), (17, 18), 8, 9, 11, 12
_DEFAULTS: dict[int, Any] = {_BOOL: False, _STRING: "", _BYTES: b"", 1: 0.0, 2: 0.0}
_VARINT, _LENGTH, _SIZES = 0, 2, {8: 1, 4: 5}
_DEEPEST = 32


@dataclass(frozen=True)
class Field:
    """A field of a message type: its name, its type by number, of which message type it is."""

    name: str
    type: int
    of: str
    repeated: bool
    optional: bool


@dataclass
class Schema:
    """Message types of a file, by full name, each with its fields by number."""

    types: dict[str, dict[int, Field]] = field(default_factory=dict)


def parse_schema(data: bytes) -> Schema:
    """The message types of a set of file descriptors. Raises DataError if it is none."""
    schema = Schema()
    try:
        for number, _, file in wire(memoryview(data)):
            if number == 1:
                parts = [(n, value) for n, _, value in wire(file)]
                package = next((_text(value) for n, value in parts if n == 2), "")
                for inner, value in parts:
                    if inner == 4:
                        _message_type(value, package, schema, 0)
    except (ValueError, TypeError) as error:
        raise DataError(f"its descriptors cannot be parsed: {error}") from None
    return schema


def _message_type(data: memoryview, outer: str, schema: Schema, depth: int) -> None:
    if depth > _DEEPEST:
        raise MisfitError("types are nested too deep")
    parts = [(number, value) for number, _, value in wire(data)]
    name = next((_text(value) for number, value in parts if number == 1), "")
    full = f"{outer}.{name}" if outer else name
    fields = schema.types.setdefault(full, {})
    for number, value in parts:
        if number == 3:
            _message_type(value, full, schema, depth + 1)
        elif number == 2:
            described = {n: v for n, _, v in wire(value)}
            fields[int(described.get(3, 0))] = Field(
                name=_text(described.get(1, b"")),
                type=int(described.get(5, 0)),
                of=_text(described.get(6, b"")).lstrip("."),
                repeated=described.get(4) == 3,
                optional=described.get(17) == 1 or 9 in described,
            )


class FromProtobuf:
    """Gives the fields of messages as documents.

    Args:
        schema: the message types.
        name: of the type of the messages.
    Raises:
        DataError: there is no such type.
    """

    def __init__(self, schema: Schema, name: str) -> None:
        self._types, self._name = schema.types, name
        if name not in self._types:
            raise DataError(f"its descriptors do not define {name}")

    def __call__(self, data: memoryview) -> Mapping[str, Any]:
        """The fields; those that are not written have their default, as protobuf says.

        Raises:
            MisfitError: it is no such message.
        """
        return self._message(data, self._name, 0)

    def _message(self, data: memoryview, name: str, depth: int) -> dict[str, Any]:
        fields = self._types.get(name)
        if fields is None or depth > _DEEPEST:
            raise MisfitError(f"messages within each other too deep, or of unknown type {name}")
        found: dict[str, Any] = {}
        for one in fields.values():
            if one.repeated:
                found[one.name] = []
            elif not one.optional and one.type != _MESSAGE:
                found[one.name] = _DEFAULTS.get(one.type, 0)
        for number, kind, value in wire(data):
            described = fields.get(number)
            if described is None:
                continue
            if described.repeated:
                found[described.name].extend(self._many(kind, value, described, depth))
            else:
                found[described.name] = self._one(kind, value, described, depth)
        return found

    def _many(self, kind: int, value: Any, described: Field, depth: int) -> Iterator[Any]:
        """What one record of a list holds: one item, or several numbers side by side."""
        if kind != _LENGTH or described.type in (_STRING, _MESSAGE, _BYTES):
            yield self._one(kind, value, described, depth)
        elif described.type in _FIXED:
            form = struct.Struct("<" + _FIXED[described.type])
            if len(value) % form.size:
                raise MisfitError("a list of numbers ends within one")
            yield from (number for (number,) in form.iter_unpack(value))
        else:
            at = 0
            while at < len(value):
                number, at = varint(value, at)
                yield self._one(_VARINT, number, described, depth)

    def _one(self, kind: int, value: Any, described: Field, depth: int) -> Any:
        of = described.type
        form = struct.Struct("<" + _FIXED[of]) if of in _FIXED else None
        lengths = of in (_STRING, _MESSAGE, _BYTES)
        expected = _LENGTH if lengths else (_VARINT if form is None else _SIZES[form.size])
        if kind != expected:
            raise MisfitError(f"{described.name} is of another type than its definition says")
        if form is not None:
            return form.unpack(value)[0]
        if of == _MESSAGE:
            return self._message(value, described.of, depth + 1)
        if of == _STRING:
            return str(value, "utf-8", "replace")
        if of == _BYTES:
            return bytes(value)
        if of == _BOOL:
            return bool(value)
        if of in _ZIGZAG:
            return (value >> 1) ^ -(value & 1)
        return value - (1 << 64) if of in _SIGNED and value >= 1 << 63 else value


def wire(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Number, kind and value of each record: an int, or the bytes of anything else.

    Raises:
        MisfitError: a record has no end, or is of no known kind.
    """
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = varint(data, at)
            yield number, kind, value
            continue
        if kind == _LENGTH:
            length, at = varint(data, at)
        elif kind in _SIZES.values():
            length = next(size for size, of in _SIZES.items() if of == kind)
        else:
            raise MisfitError(f"a record of kind {kind}")
        if at + length > len(data):
            raise MisfitError("a record has no end")
        yield number, kind, data[at : at + length]
        at += length


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of up to ten bytes, and where it ends. Raises MisfitError if it does not."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
    raise MisfitError("a number has no end")


def _text(value: Any) -> str:
    return str(bytes(value), "utf-8", "replace")
