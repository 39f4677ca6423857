"""Topics of numbers and texts: from messages to columns, by the thousand."""

import re
from array import array
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from dp_hub_converters.bags.clock import ClockChoice, choose
from dp_hub_converters.bags.columns import Column
from dp_hub_converters.bags.fields import Group, Leaf, Moment, Numbers, Text, shown_leaves
from dp_hub_converters.bags.layout import Layout, walk
from dp_hub_converters.bags.storage import Channel, Message, unpack
from dp_hub_converters.bags.streams import Given, Planned, Wanted, given, kind_of, stream_name

_BATCH_BYTES, _BATCH = 1 << 20, 4096


def plan(channel: Channel, group: Group) -> tuple[Planned, ...]:
    """The streams that messages of a type become."""
    found = []
    for leaf, _ in shown_leaves(group):
        dtype = _dtype(leaf)
        name = stream_name(channel.topic, leaf.path)
        found.append(Planned(name, leaf.path, dtype, kind_of(channel, dtype)))
    return tuple(found)


def _dtype(leaf: Leaf) -> str:
    if isinstance(leaf, Text):
        return "object"
    return "float64" if isinstance(leaf, Moment) else np.dtype(leaf.dtype).name


class RosNumbers:
    """A `Collector` of ROS messages.

    Args:
        channel: the topic.
        group: what its messages are made of.
        wanted: whether a stream of that name is wanted.
    """

    def __init__(self, channel: Channel, group: Group, wanted: Wanted) -> None:
        self.channel, self.logged = channel, array("q")
        self._group, self._cdr = group, channel.encoding == "cdr"
        self.planned = tuple(one for one in plan(channel, group) if wanted(one.name))
        paths = {one.path for one in self.planned}
        self._leaves = [
            (leaf, listed) for leaf, listed in shown_leaves(group) if leaf.path in paths
        ]
        self._columns = {one.path: Column(one.name, one.dtype) for one in self.planned}
        self._names = [
            part.path
            for part in group.parts
            if isinstance(part, Text) and not part.scalar and re.search("names?$", part.path)
        ]
        self._stamps: array[int] | None = None
        self._layout: Layout | None = None
        self._batch: list[bytes] = []
        self._bytes = 0

    def feed(self, message: Message, file: int) -> None:
        """As `Collector.feed`."""
        self.logged.append(message.logged_ns)
        data = unpack(message.data)
        if self._layout is None or not self._layout.fits(data):
            self._flush()
            self._layout = walk(self._group, data, cdr=self._cdr)
            if self._layout.stamp is not None and self._stamps is None:
                self._stamps = array("q")
        self._batch.append(bytes(data))
        self._bytes += len(data)
        if self._bytes > _BATCH_BYTES or len(self._batch) >= _BATCH:
            self._flush()

    @property
    def has_names(self) -> bool:
        """Whether messages name their numbers, as those of joints do."""
        return bool(self._names)

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """As `Collector.names`."""
        self._flush()
        return {
            one.name: self._columns[one.path].names or self._own_names(one.path)
            for one in self.planned
        }

    def streams(self, choice: ClockChoice) -> Iterator[Given]:
        """As `Collector.streams`."""
        names = self.names()
        stamps_ns = None if self._stamps is None else np.array(self._stamps, np.int64)
        clock = choose(np.array(self.logged, np.int64), stamps_ns, choice)
        for one in self.planned:
            values = self._columns[one.path].values(len(clock.times_ns))
            if clock.order is not None and isinstance(values, np.ndarray):
                values = values[clock.order]
            about, topic = self.channel.type, self.channel.topic
            yield given(one, values, clock, about, names.get(one.name, ()), source=topic)

    def _own_names(self, path: str) -> tuple[str, ...]:
        leaf = next(leaf for leaf, _ in self._leaves if leaf.path == path)
        return leaf.names if isinstance(leaf, Numbers) else ()

    def _flush(self) -> None:
        if not self._batch:
            return
        layout, batch = self._layout, self._batch
        assert layout is not None
        self._batch, self._bytes = [], 0
        block = np.frombuffer(b"".join(batch), np.uint8).reshape(len(batch), layout.size)
        if self._stamps is not None and layout.stamp is not None:
            self._stamps.frombytes(moments_ns(block, layout, layout.stamp).tobytes())
        for names, rows in self._by_names(block, layout):
            for leaf, listed in self._leaves:
                self._add(self._columns[leaf.path], leaf, listed, layout, rows, names)

    def _by_names(
        self, block: np.ndarray, layout: Layout
    ) -> Iterator[tuple[list[tuple[str, ...]], np.ndarray]]:
        """Messages in turn that have the same names of joints, and those."""
        spans = [span for path in self._names for span in layout.texts.get(path, ())]
        if not spans:
            yield [], block
            return
        where = np.concatenate([np.arange(at, at + count) for at, count in spans])
        changes = (block[1:, where] != block[:-1, where]).any(axis=1)
        starts = [0, *(np.flatnonzero(changes) + 1).tolist(), len(block)]
        for start, stop in pairwise(starts):
            row = memoryview(block[start].tobytes())
            names = [
                tuple(str(row[at : at + n], "utf-8", "replace") for at, n in layout.texts[path])
                for path in self._names
                if path in layout.texts
            ]
            yield names, block[start:stop]

    @staticmethod
    def _add(
        column: Column, leaf: Leaf, listed: bool, layout: Layout, block: np.ndarray, names: Any
    ) -> None:
        if isinstance(leaf, Text):
            [(at, count)] = layout.texts[leaf.path]
            texts = np.empty(len(block), object)
            texts[:] = [row.tobytes().decode(errors="replace") for row in block[:, at : at + count]]
            column.add(texts)
        elif isinstance(leaf, Moment):
            [at] = layout.moments[leaf.path]
            column.add(moments_ns(block, layout, at)[:, None] / 1e9)
        else:
            spans = layout.numbers.get(leaf.path, [])
            if column.takes(sum(count for _, count in spans) * int(leaf.dtype[1:])):
                rows = [cut(block, layout.order + leaf.dtype, *span) for span in spans]
                column.add(_rows(rows, leaf, listed, len(block)), names)


def _rows(rows: list[np.ndarray], leaf: Numbers, listed: bool, count: int) -> np.ndarray:
    """Numbers of messages, ``(count, n)``; of those within lists ``(count, items, n)``."""
    if not listed:
        return rows[0]
    if not rows or len({part.shape for part in rows}) > 1:
        return np.empty((count, 0), leaf.dtype)
    stacked = np.stack(rows, axis=1)
    return stacked[..., 0] if leaf.scalar else stacked


def cut(block: np.ndarray, dtype: str, at: int, count: int) -> np.ndarray:
    """A field of messages that are alike, ``(k, count)``, in the machine's order of bytes."""
    kind = np.dtype(dtype)
    part = np.ascontiguousarray(block[:, at : at + count * kind.itemsize])
    if kind == np.bool_:
        return part != 0
    if not count:
        return np.empty((len(block), 0), kind.newbyteorder("="))
    return part.view(kind).astype(kind.newbyteorder("="), copy=False)


def moments_ns(block: np.ndarray, layout: Layout, at: int) -> np.ndarray:
    """A time field of messages that are alike, int64 (k,), nanoseconds."""
    seconds = cut(block, layout.order + "i4", at, 1)[:, 0].astype(np.int64)
    return seconds * 10**9 + cut(block, layout.order + "u4", at + 4, 1)[:, 0]
