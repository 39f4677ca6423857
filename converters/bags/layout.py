"""Where in a ROS message its fields are.

Where fields are follows from the lengths of the lists and texts before them, so messages of the
same size and lengths are alike: one of them is walked through, the others are cut by the
thousand.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from dp_hub_converters.bags.fields import Group, Moment, Numbers, Repeat, Text

_LARGEST_LIST = 100_000  # groups in a list; each of them is walked through


class MisfitError(ValueError):
    """A message is not what its definition says."""


@dataclass(frozen=True)
class Layout:
    """Where the fields of one message, and of all messages like it, are.

    Args:
        size: of the message in bytes.
        order: of bytes, ``<`` or ``>``.
        lengths: offsets and bytes of the lengths on which the rest depends.
        numbers: by path, offset and count of each list of numbers; several within lists of groups.
        texts: by path, offset and count of bytes of each text.
        moments: by path, offsets.
        stamp: offset of when the message was true; None if it does not say.
    """

    size: int
    order: str
    lengths: tuple[tuple[int, bytes], ...]
    numbers: Mapping[str, list[tuple[int, int]]]
    texts: Mapping[str, list[tuple[int, int]]]
    moments: Mapping[str, list[int]]
    stamp: int | None

    def fits(self, data: memoryview) -> bool:
        """Whether another message has its fields in the same places."""
        return len(data) == self.size and all(data[at : at + 4] == b for at, b in self.lengths)

    def number(self, data: memoryview, path: str, dtype: str) -> int:
        """A single number of a message."""
        (at, _), *_ = self.numbers[path]
        return int(np.frombuffer(data, np.dtype(self.order + dtype), 1, at)[0])

    def text(self, data: memoryview, path: str) -> str:
        """A single text of a message."""
        (at, count), *_ = self.texts[path]
        return bytes(data[at : at + count]).decode(errors="replace")

    def bytes(self, data: memoryview, path: str) -> memoryview:
        """A list of bytes of a message."""
        (at, count), *_ = self.numbers[path]
        return data[at : at + count]

    def stamp_ns(self, data: memoryview) -> int | None:
        """When a message was true, nanoseconds."""
        if self.stamp is None:
            return None
        seconds, nanoseconds = struct.unpack_from(self.order + "iI", data, self.stamp)
        return int(seconds) * 10**9 + int(nanoseconds)


def walk(group: Group, data: memoryview, *, cdr: bool) -> Layout:
    """Go through one message.

    Args:
        group: what it is made of.
        data: the message.
        cdr: as ROS 2 writes it; else as ROS 1.
    Raises:
        MisfitError: it is not such a message.
    """
    if not cdr:
        walker = _Walker(data, 0, "<", aligned=False)
    elif len(data) >= 4 and data[0] == 0 and data[1] in (0, 1):
        walker = _Walker(data, 4, "<" if data[1] else ">", aligned=True)
    else:
        raise MisfitError(f"it begins with {bytes(data[:4])!r}, which is no plain CDR")
    walker.group(group)
    if len(data) - walker.at > (3 if cdr else 0):
        raise MisfitError(f"{len(data) - walker.at} of its {len(data)} bytes are left over")
    return walker.layout()


@dataclass
class _Walker:
    data: memoryview
    at: int
    order: str
    aligned: bool
    lengths: list[tuple[int, bytes]] = field(default_factory=list)
    numbers: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    texts: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    moments: dict[str, list[int]] = field(default_factory=dict)
    stamp: int | None = None
    groups: int = 0

    def layout(self) -> Layout:
        return Layout(
            len(self.data), self.order, tuple(self.lengths), self.numbers, self.texts,
            self.moments, self.stamp,
        )  # fmt: skip

    def group(self, group: Group) -> None:
        if self.aligned and not group.parts:
            self._pass(1, 1)  # ROS 2 has no messages of nothing: they are a byte
        for part in group.parts:
            if isinstance(part, Numbers):
                count = self._length() if part.count is None else part.count
                size = int(part.dtype[1:])
                start = self._pass(size * count, size if count else 1)
                self.numbers.setdefault(part.path, []).append((start, count))
            elif isinstance(part, Text):
                self._texts(part)
            elif isinstance(part, Moment):
                start = self._pass(8, 4)
                self.moments.setdefault(part.path, []).append(start)
                if part.stamp and self.stamp is None:
                    self.stamp = start
            elif isinstance(part, Repeat):
                count = self._length() if part.count is None else part.count
                self.groups += count  # of lists within lists too, which may hold nothing
                if count > _LARGEST_LIST or self.groups > len(self.data):
                    raise MisfitError(f"it has a list of {count}")
                for _ in range(count):
                    self.group(part.group)
            else:
                self.group(part)

    def _texts(self, part: Text) -> None:
        count = self._length() if part.count is None else part.count
        if count > len(self.data):
            raise MisfitError(f"it has a list of {count} texts")
        found = self.texts.setdefault(part.path, [])
        for _ in range(count):
            length = self._length()
            start = self._pass(length, 1)
            found.append((start, max(0, length - 1) if self.aligned else length))

    def _length(self) -> int:
        start = self._pass(4, 4)
        stored = bytes(self.data[start : start + 4])
        self.lengths.append((start, stored))
        return int(struct.unpack(self.order + "I", stored)[0])

    def _pass(self, count: int, alignment: int) -> int:
        start = self.at
        if self.aligned:
            start += -(start - 4) % alignment
        self.at = start + count
        if self.at > len(self.data):
            raise MisfitError(f"it has {len(self.data)} bytes, at least {self.at} are needed")
        return start
