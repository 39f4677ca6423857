"""Topics of documents, JSON or protobuf: what they hold is known when the first one is read."""

import base64
import binascii
import json
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from dp_hub_converters.bags.clock import ClockChoice, choose
from dp_hub_converters.bags.columns import Column
from dp_hub_converters.bags.layout import MisfitError
from dp_hub_converters.bags.pixels import Picture
from dp_hub_converters.bags.storage import Channel, Message, unpack
from dp_hub_converters.bags.streams import Given, Planned, Wanted, given, kind_of, stream_name

from dp_hub.errors import DataError

Decode = Callable[[memoryview], Mapping[str, Any]]
_VECTORS = ({"x", "y"}, {"x", "y", "z"}, {"x", "y", "z", "w"})
_SECONDS, _NANOSECONDS = ("sec", "secs", "seconds"), ("nsec", "nsecs", "nanosec", "nanos")
_DEEPEST, _MOST = 16, 500


def from_json(data: memoryview) -> Mapping[str, Any]:
    """A message of JSON. Raises MisfitError if it is none."""
    try:
        document = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise MisfitError(f"it is no JSON: {error}") from None
    return document if isinstance(document, dict) else {"data": document}


class Documents:
    """A `Collector` of documents.

    Args:
        channel: the topic.
        decode: gives the fields of a message, with those that are not set.
        wanted: whether a stream of that name is wanted.
    """

    def __init__(self, channel: Channel, decode: Decode, wanted: Wanted) -> None:
        self.channel, self.logged = channel, array("q")
        self.planned: tuple[Planned, ...] = ()
        self._decode, self._wanted = decode, wanted
        self._stamps: array[int] | None = None
        self._columns: dict[str, Column] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._rows: dict[str, list[Any]] = {}

    def feed(self, message: Message, file: int) -> None:
        """As `Collector.feed`."""
        first = not self.logged
        self.logged.append(message.logged_ns)
        document = self._decode(unpack(message.data))
        fields: dict[str, Any] = {}
        names: dict[str, tuple[str, ...]] = {}
        flatten(document, "", fields, names, depth=0)
        stamp_ns = stamp_of(document)
        if first:
            self._begin(document, fields, names)
            self._stamps = None if stamp_ns is None else array("q")
        if self._stamps is not None:
            self._stamps.append(stamp_ns or 0)
        for path, column in self._columns.items():
            self._take(path, column, fields.get(path))

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """As `Collector.names`."""
        return {one.name: self._names.get(one.path, ()) for one in self.planned}

    def streams(self, choice: ClockChoice) -> Iterator[Given]:
        """As `Collector.streams`."""
        stamps_ns = None if self._stamps is None else np.array(self._stamps, np.int64)
        clock = choose(np.array(self.logged, np.int64), stamps_ns, choice)
        for one in self.planned:
            column = self._columns[one.path]
            self._flush(one.path, column)
            values = column.values(len(clock.times_ns))
            if clock.order is not None and isinstance(values, np.ndarray):
                values = values[clock.order]
            about = f"{self.channel.type or 'messages'} ({self.channel.encoding})"
            names = self._names.get(one.path, ())
            yield given(one, values, clock, about, names, source=self.channel.topic)

    def _begin(
        self,
        document: Mapping[str, Any],
        fields: Mapping[str, Any],
        names: dict[str, tuple[str, ...]],
    ) -> None:
        first = {path.split(".")[0] for path in fields}
        [only] = first if len(first) == 1 else [None]
        if only is not None and _is_list_of_fields(document[only]):
            only = None
        planned = []
        for path, value in list(fields.items())[:_MOST]:
            dtype = value.dtype.name if isinstance(value, np.ndarray) else "object"
            shown = path.removeprefix(only).removeprefix(".") if only else path
            name = stream_name(self.channel.topic, shown)
            if self._wanted(name):
                planned.append(Planned(name, path, dtype, kind_of(self.channel, dtype)))
                self._columns[path] = Column(name, dtype)
        self.planned, self._names = tuple(planned), names

    def _take(self, path: str, column: Column, value: Any) -> None:
        rows = self._rows.setdefault(path, [])
        if column.problem is not None:
            return
        text = column.dtype == object
        if value is None or isinstance(value, str) != text:
            column.problem = DataError(
                f"message {len(self.logged)} of {self.channel.topic} has no {path}, or something "
                "of another type there",
                hint="leave the stream out",
            )
        elif text or column.takes(value.nbytes):
            if rows and not text and rows[0].shape != value.shape:
                self._flush(path, column)
                rows = self._rows[path]
            rows.append(value)
            if len(rows) >= 1024:
                self._flush(path, column)

    def _flush(self, path: str, column: Column) -> None:
        rows, self._rows[path] = self._rows.get(path, []), []
        if not rows:
            return
        if column.dtype == object:
            texts = np.empty(len(rows), object)
            texts[:] = rows
            column.add(texts)
        else:
            column.add(np.stack(rows).astype(column.dtype))


def flatten(
    value: Any, path: str, fields: dict[str, Any], names: dict[str, Any], *, depth: int
) -> None:
    """The numbers and texts of a document, by path; headers and stamps are left out.

    Raises:
        MisfitError: it is nested too deep, or holds a number that is too large.
    """
    if depth > _DEEPEST:
        raise MisfitError("it is nested too deep")
    if isinstance(value, bool | int | float):
        fields[path] = _numbers([value])
    elif isinstance(value, str):
        if not path.endswith("frame_id"):
            fields[path] = value
    elif isinstance(value, dict):
        _flatten_fields(value, path, fields, names, depth)
    elif isinstance(value, list) and value:
        if all(isinstance(one, int | float) for one in value):
            fields[path] = _numbers(value)
        elif all(isinstance(one, dict) for one in value):
            _flatten_list(value, path, fields, names, depth)
        elif all(isinstance(one, list) for one in value):
            inner: dict[str, Any] = {}
            for number, one in enumerate(value):
                flatten(one, str(number), inner, names, depth=depth + 1)
            if len({a.shape for a in inner.values() if isinstance(a, np.ndarray)}) == 1:
                fields[path] = np.stack(list(inner.values()))
    elif isinstance(value, list):
        fields[path] = np.empty(0)


def _flatten_fields(
    value: dict[str, Any], path: str, fields: dict[str, Any], names: dict[str, Any], depth: int
) -> None:
    if set(value) in _VECTORS and all(_is_number(one) for one in value.values()):
        order = tuple(name for name in "xyzw" if name in value)
        fields[path], names[path] = _numbers([value[name] for name in order]), order
        return
    if (moment_ns := moment_of(value)) is not None:
        fields[path] = _numbers([moment_ns / 1e9])
        return
    for name, inner in value.items():
        if depth == 0 and name in ("header", "timestamp", "stamp") and isinstance(inner, dict):
            continue
        if name == "header" and isinstance(inner, dict):
            continue
        flatten(inner, f"{path}.{name}" if path else name, fields, names, depth=depth + 1)


def _flatten_list(
    value: list[Any], path: str, fields: dict[str, Any], names: dict[str, Any], depth: int
) -> None:
    """Lists of documents that are alike: their numbers get a dimension more."""
    found: dict[str, list[Any]] = {}
    for one in value:
        inner: dict[str, Any] = {}
        flatten(one, path, inner, names, depth=depth + 1)
        for name, numbers in inner.items():
            found.setdefault(name, []).append(numbers)
    for name, parts in found.items():
        arrays = [part for part in parts if isinstance(part, np.ndarray)]
        alike = len({part.shape for part in arrays}) == 1 and len(arrays) == len(value)
        if alike:
            fields[name] = np.stack(arrays)
        elif arrays:
            fields[name] = np.empty(0)


def _is_list_of_fields(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(one, dict) for one in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(values: list[Any]) -> np.ndarray:
    if all(isinstance(value, bool) for value in values):
        return np.array(values, np.bool_)
    try:
        return np.array(values, np.float64)
    except OverflowError:
        raise MisfitError("it holds a number that is too large") from None


def moment_of(value: Any) -> int | None:
    """Nanoseconds, if a document is a time: seconds and nanoseconds and nothing else."""
    if not isinstance(value, dict) or len(value) != 2:
        return None
    seconds = next((value[name] for name in _SECONDS if name in value), None)
    nanoseconds = next((value[name] for name in _NANOSECONDS if name in value), None)
    if not (isinstance(seconds, int) and isinstance(nanoseconds, int)):
        return None
    whole = seconds * 10**9 + nanoseconds
    return whole if abs(whole) < 1 << 63 else None


def stamp_of(document: Mapping[str, Any]) -> int | None:
    """When a document says it was true, nanoseconds; None if it does not say."""
    header = document.get("header")
    places = [header.get("stamp") if isinstance(header, dict) else None]
    places += [document.get("timestamp"), document.get("stamp")]
    return next((ns for place in places if (ns := moment_of(place)) is not None), None)


class DocumentPicture:
    """Takes the picture out of a document of one of Foxglove's schemas.

    Args:
        decode: gives the fields of a message.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode

    def __call__(self, data: memoryview) -> tuple[Picture, int | None]:
        """The picture, and its stamp in nanoseconds. Raises MisfitError if there is none."""
        document = self._decode(data)
        content, named = document.get("data"), document.get("format") or document.get("encoding")
        if isinstance(content, str):
            try:
                content = base64.b64decode(content, validate=True)
            except (binascii.Error, ValueError) as error:
                raise MisfitError(f"a picture that is no base64: {error}") from None
        if not isinstance(content, bytes) or not isinstance(named, str):
            raise MisfitError("a picture without data or format")
        stamp_ns = stamp_of(document)
        if "step" not in document:
            return Picture(memoryview(content), named), stamp_ns
        size = [document.get(name) for name in ("height", "width", "step")]
        if not all(isinstance(n, int) and 0 <= n < 1 << 31 for n in size):
            raise MisfitError(f"a picture of size {size}")
        height, width, step = size
        return Picture(memoryview(content), named, (height, width), step), stamp_ns
