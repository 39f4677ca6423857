"""What topics become: streams, their names and kinds, and what collects them."""

import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from dp_hub_converters.bags.clock import Clock, ClockChoice
from dp_hub_converters.bags.columns import Unusable
from dp_hub_converters.bags.storage import Channel, Message

from dp_hub.errors import DataError
from dp_hub.replay.recording import Stream, StreamKind

Wanted = Callable[[str], bool]
_COMMANDS = re.compile(r"(^|[/_.])(cmd|commands?|action|target|setpoint|goal|desired)($|[/_.])")
_REPORTS = re.compile(r"feedback|status|result|_event")
_COMMAND_TYPES = {"Twist", "TwistStamped", "JointTrajectory", "JointTrajectoryPoint", "JointJog"}
_COMMAND_TYPES |= {"AckermannDrive", "AckermannDriveStamped"}


@dataclass(frozen=True)
class Planned:
    """A stream that a topic becomes.

    Args:
        name: of the stream.
        path: of the field.
        dtype: numpy's name.
        kind: what sort of values.
    """

    name: str
    path: str
    dtype: str
    kind: StreamKind


@dataclass(frozen=True)
class Given:
    """A stream, what it is of (a topic, a frame), and which clock its times are of, in words."""

    name: str
    source: str
    stream: Stream
    clock: str


class Collector(Protocol):
    """Takes the messages of one topic, and gives the streams that become of them.

    Args:
        channel: the topic.
        planned: the streams that are known so far.
        logged: int64, when the messages so far were logged.
    """

    channel: Channel
    planned: tuple[Planned, ...]
    logged: "array[int]"

    def feed(self, message: Message, file: int) -> None:
        """One message more. Raises ValueError if it is not what its definition says."""
        ...

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the numbers by stream, as far as they are known so far."""
        ...

    def streams(self, choice: ClockChoice) -> Iterator[Given]:
        """What became of the messages."""
        ...


def stream_name(topic: str, path: str) -> str:
    """What the stream of a field is called; brackets mean parts of a stream elsewhere."""
    return (f"{topic}.{path}" if path else topic).replace("[", "(").replace("]", ")")


def kind_of(channel: Channel, dtype: str) -> StreamKind:
    """What sort of values a topic has: commands are known by the names people give them."""
    if dtype in ("bool", "object"):
        return "event"
    of_type = channel.type.replace(".", "/").rsplit("/", 1)[-1]
    topic = channel.topic.lower()
    says = of_type in _COMMAND_TYPES or of_type.endswith("Command") or _COMMANDS.search(topic)
    return "command" if says and not _REPORTS.search(topic) else "state"


def given(
    planned: Planned,
    values: Any,
    clock: Clock,
    about: str,
    names: Sequence[str] = (),
    *,
    source: str,
) -> Given:
    """A stream of values that are in the order of a clock.

    Frames of a video may be fewer: those before its first key frame are not there.
    """
    skip = len(clock.times_ns) - len(values)
    if isinstance(values, Unusable):
        about += f": cannot be used, {values.error.message}"
    stream = Stream(
        values=values,
        times_s=clock.times_ns[skip:] / 1e9,
        kind=planned.kind,
        logged_s=clock.logged_ns[skip:] / 1e9,
        names=tuple(names),
        about=about,
    )
    return Given(planned.name, source, stream, clock.told)


def unusable(collector: Collector, error: DataError) -> Iterator[Given]:
    """The streams of a topic whose messages cannot be read: they say so when they are used."""
    logged_ns = np.sort(np.array(collector.logged, np.int64))
    clock = Clock(logged_ns, logged_ns, None, "log time")
    channel = collector.channel
    for one in collector.planned:
        values = Unusable(len(logged_ns), np.dtype(one.dtype), error)
        yield given(one, values, clock, channel.type, source=channel.topic)
