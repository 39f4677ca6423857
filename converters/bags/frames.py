"""Transforms (/tf): where frames are in others; a stream for each pair of frames."""

import struct
from array import array
from collections.abc import Iterator, Mapping

import numpy as np
from dp_hub_converters.bags.clock import ClockChoice, choose
from dp_hub_converters.bags.columns import Column
from dp_hub_converters.bags.fields import Group
from dp_hub_converters.bags.layout import Layout, walk
from dp_hub_converters.bags.storage import Channel, Message, unpack
from dp_hub_converters.bags.streams import Given, Planned, Wanted, given, stream_name

_TRANSFORMS = ("tf2_msgs/msg/TFMessage", "tf2_msgs/TFMessage", "tf/msg/tfMessage", "tf/tfMessage")
_VECTORS = {"translation": (3, ("x", "y", "z")), "rotation": (4, ("x", "y", "z", "w"))}
_MOST = 1000  # pairs of frames


def is_transforms(channel: Channel) -> bool:
    """Whether messages of a topic are transforms."""
    return channel.type in _TRANSFORMS


class _Frame:
    def __init__(self, planned: tuple[Planned, ...], parent: str) -> None:
        self.planned, self.parent = planned, parent
        self.columns = [Column(one.name, one.dtype) for one in planned]
        self.rows: list[tuple[float, ...]] = []
        self.logged, self.stamps = array("q"), array("q")

    def flush(self) -> None:
        if self.rows:
            block = np.array(self.rows, np.float64)
            for column, part in zip(self.columns, (block[:, :3], block[:, 3:]), strict=True):
                column.add(part.copy())
            self.rows = []


class Transforms:
    """A `Collector` of transforms: ``/tf.CHILD.translation`` (3) and ``.rotation`` (4).

    Args:
        channel: the topic.
        group: what its messages are made of.
        wanted: whether a stream of that name is wanted.
    """

    def __init__(self, channel: Channel, group: Group, wanted: Wanted) -> None:
        self.channel, self.logged = channel, array("q")
        self._group, self._wanted = group, wanted
        self._layout: Layout | None = None
        self._frames: dict[tuple[str, str], _Frame] = {}

    @property
    def planned(self) -> tuple[Planned, ...]:
        """The streams that are known so far."""
        return tuple(one for frame in self._frames.values() for one in frame.planned)

    def feed(self, message: Message, file: int) -> None:
        """As `Collector.feed`."""
        self.logged.append(message.logged_ns)
        data = unpack(message.data)
        layout = self._layout
        if layout is None or not layout.fits(data):
            layout = walk(self._group, data, cdr=self.channel.encoding == "cdr")
            self._layout = layout
        if "transforms.child_frame_id" not in layout.texts:
            return  # none
        names = zip(
            layout.texts["transforms.header.frame_id"],
            layout.texts["transforms.child_frame_id"],
            strict=True,
        )
        for number, (parent, child) in enumerate(names):
            frame = self._frame(_text(data, parent), _text(data, child))
            numbers: list[float] = []
            for vector, (count, _) in _VECTORS.items():
                at, _ = layout.numbers[f"transforms.transform.{vector}"][number]
                numbers += struct.unpack_from(f"{layout.order}{count}d", data, at)
            at = layout.moments["transforms.header.stamp"][number]
            seconds, nanoseconds = struct.unpack_from(layout.order + "iI", data, at)
            frame.rows.append(tuple(numbers))
            frame.logged.append(message.logged_ns)
            frame.stamps.append(seconds * 10**9 + nanoseconds)
            if len(frame.rows) > 4096:
                frame.flush()

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """As `Collector.names`."""
        return {one.name: _VECTORS[one.path.rsplit(".", 1)[1]][1] for one in self.planned}

    def streams(self, choice: ClockChoice) -> Iterator[Given]:
        """As `Collector.streams`."""
        for frame in self._frames.values():
            frame.flush()
            logged_ns, stamps_ns = (np.array(c, np.int64) for c in (frame.logged, frame.stamps))
            clock = choose(logged_ns, stamps_ns, choice)
            for one, column in zip(frame.planned, frame.columns, strict=True):
                if not self._wanted(one.name):
                    continue
                values = column.values(len(logged_ns))
                if clock.order is not None and isinstance(values, np.ndarray):
                    values = values[clock.order]
                about = f"{self.channel.type}: of {one.path.rsplit('.', 1)[0]} in {frame.parent}"
                names = _VECTORS[one.path.rsplit(".", 1)[1]][1]
                source = one.name.rsplit(".", 1)[0]
                yield given(one, values, clock, about, names, source=source)

    def _frame(self, parent: str, child: str) -> _Frame:
        found = self._frames.get((parent, child))
        if found is None:
            if len(self._frames) >= _MOST:
                raise ValueError(f"there are more than {_MOST} pairs of frames")
            clash = any(child == other for _, other in self._frames)
            path = f"{child}@{parent}" if clash else child
            planned = tuple(
                Planned(
                    stream_name(self.channel.topic, f"{path}.{v}"),
                    f"{path}.{v}",
                    "float64",
                    "state",
                )
                for v in _VECTORS
            )
            found = self._frames[(parent, child)] = _Frame(planned, parent)
        return found


def _text(data: memoryview, span: tuple[int, int]) -> str:
    at, count = span
    return str(data[at : at + count], "utf-8", "replace")
