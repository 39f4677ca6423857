"""One bag to a recording: a single pass over its messages."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
from typing import Any

from dp_hub_converters.bags.clock import ClockChoice
from dp_hub_converters.bags.documents import DocumentPicture, Documents, from_json
from dp_hub_converters.bags.found import Bag
from dp_hub_converters.bags.frames import Transforms, is_transforms
from dp_hub_converters.bags.numbers import RosNumbers
from dp_hub_converters.bags.pictures import Depth, Extract, PictureTopic, RosPicture, is_picture
from dp_hub_converters.bags.protobuf import FromProtobuf, parse_schema
from dp_hub_converters.bags.storage import Channel, Message, Storage, open_storage
from dp_hub_converters.bags.streams import Collector, Given, Wanted, stream_name, unusable
from dp_hub_converters.bags.types import Definitions

from dp_hub.errors import DataError
from dp_hub.replay.recording import Recording

_TRIED, _MOST_TRIED = 200, 5000  # messages of topics that do not define what they hold


@dataclass(frozen=True)
class Settings:
    """How bags are read; as the arguments of `dp_hub_converters.mcap.Bags`."""

    clock: ClockChoice
    topics: tuple[str, ...]
    depth: Depth
    keep_cut_short: bool
    definitions: Definitions

    def takes(self, topic: str) -> bool:
        """Whether a topic is among those asked for."""
        return not self.topics or any(fnmatchcase(topic, one) for one in self.topics)


def open_bag(bag: Bag, settings: Settings) -> list[Storage]:
    """The files of a bag. Raises DataError if one cannot be read."""
    if bag.error is not None:
        raise bag.error
    return [open_storage(path, keep_cut_short=settings.keep_cut_short) for path in bag.files]


def make_collector(
    channel: Channel, files: Sequence[Storage], settings: Settings, wanted: Wanted
) -> Collector:
    """What collects a topic. Raises DataError if its messages cannot be understood."""
    if channel.encoding in ("cdr", "ros1"):
        group = settings.definitions.group(channel)
        if is_picture(channel):
            extract: Extract = RosPicture(group, cdr=channel.encoding == "cdr")
            return PictureTopic(channel, extract, files, settings.depth)
        if is_transforms(channel):
            return Transforms(channel, group, wanted)
        return RosNumbers(channel, group, wanted)
    if channel.encoding == "json":
        decode: Any = from_json
    elif channel.encoding == "protobuf":
        decode = FromProtobuf(parse_schema(channel.definition), channel.type)
    else:
        raise DataError(f"messages encoded as {channel.encoding[:40]!r} cannot be read")
    if is_picture(channel):
        return PictureTopic(channel, DocumentPicture(decode), files, settings.depth)
    return Documents(channel, decode, wanted)


class Topics:
    """The topics of a bag, with a collector for each.

    Args:
        files: of the bag.
        settings: how it is read.
        only: names of the streams that are wanted; None: all.
    """

    def __init__(
        self, files: Sequence[Storage], settings: Settings, only: Collection[str] | None
    ) -> None:
        self.files = files
        self.collectors: dict[str, Collector] = {}
        self.problems: dict[str, DataError] = {}
        self.notes: list[str] = []
        wanted: Wanted = (lambda name: True) if only is None else only.__contains__
        for file in files:
            for channel in file.channels.values():
                topic = channel.topic
                if topic in self.collectors or topic in self.problems:
                    self._note_other_type(channel)
                elif settings.takes(topic) and _may_be(topic, only):
                    try:
                        made = make_collector(channel, files, settings, wanted)
                    except DataError as error:
                        self.problems[topic] = error
                    else:
                        self.collectors[topic] = made

    def by_number(self, file: Storage) -> dict[int, Collector]:
        """The collectors for the channels of a file."""
        found = {}
        for number, channel in file.channels.items():
            collector = self.collectors.get(channel.topic)
            if collector is not None and collector.channel.type == channel.type:
                found[number] = collector
        return found

    def _note_other_type(self, channel: Channel) -> None:
        collector = self.collectors.get(channel.topic)
        if collector is not None and collector.channel.type != channel.type:
            note = f"{channel.topic}: messages of type {channel.type} are left out; others are of "
            note += f"type {collector.channel.type}"
            if note not in self.notes:
                self.notes.append(note)


def _may_be(topic: str, only: Collection[str] | None) -> bool:
    """Whether a topic has one of the streams that are wanted."""
    name = stream_name(topic, "")
    return only is None or any(one == name or one.startswith(name + ".") for one in only)


def sample(files: Sequence[Storage], topics: Topics, *, names: bool) -> None:
    """Read the first messages of topics that do not define what they hold.

    Args:
        files: of the bag.
        topics: what takes the messages.
        names: read those that name their numbers, too.
    """
    for number, file in enumerate(files):
        left: dict[int, int] = {}
        for channel, collector in topics.by_number(file).items():
            most = _how_many(collector, names=names and not number)
            if file.counts is not None:
                most = min(most, file.counts.get(channel, 0))
            left |= {channel: most} if most else {}
        _sample_file(file, number, topics, left)


def _how_many(collector: Collector, *, names: bool) -> int:
    if isinstance(collector, Transforms):
        return _TRIED
    named = isinstance(collector, RosNumbers) and collector.has_names
    return int(isinstance(collector, Documents) or (names and named))


def _sample_file(file: Storage, number: int, topics: Topics, left: dict[int, int]) -> None:
    by_number = topics.by_number(file)
    for message in islice(file.messages(left), _MOST_TRIED) if left else ():
        if not left.get(message.channel):
            continue
        collector = by_number[message.channel]
        try:
            if collector.channel.topic not in topics.problems:
                collector.feed(message, number)
        except (ValueError, OverflowError, LookupError) as error:
            topics.problems[collector.channel.topic] = _misfit(collector, error)
        left[message.channel] -= 1
        if not any(left.values()):
            return


def read_recording(bag: Bag, settings: Settings, only: Collection[str] | None) -> Recording:
    """All streams of a bag, or those asked for.

    Raises:
        DataError: the bag is damaged, or holds no messages.
    """
    files = open_bag(bag, settings)
    topics = Topics(files, settings, only)
    for number, file in enumerate(files):
        _read_file(file, number, topics)
    _check_counts(bag, topics)
    streams, clocks = {}, {}
    for one in _given(topics, settings):
        if only is None or one.name in only:
            streams[one.name] = one.stream
            clocks[one.source] = one.clock
    if not streams and not any(_holds_messages(file) for file in files):
        raise DataError(f"{bag.name} holds no messages", hint="leave it out")
    facts: dict[str, Any] = {"source": bag.name, "clocks": clocks}
    notes = [*bag.notes, *(note for file in files for note in file.notes), *topics.notes]
    facts |= {"notes": notes} if notes else {}
    custom = bag.facts.get("custom_data")
    if isinstance(custom, dict):
        facts["custom_data"] = {str(key): str(value) for key, value in custom.items()}
    task = facts.get("custom_data", {}).get("task")
    return Recording(name=bag.name, streams=streams, task=task, metadata=facts)


def _read_file(file: Storage, number: int, topics: Topics) -> None:
    by_number = topics.by_number(file)
    if not by_number:
        return
    feeds: dict[int, Callable[..., None]] = {n: one.feed for n, one in by_number.items()}
    for message in file.messages(by_number):
        try:
            feeds[message.channel](message, number)
        except (ValueError, OverflowError, LookupError) as error:
            collector = by_number[message.channel]
            topics.problems.setdefault(collector.channel.topic, _misfit(collector, error))
            feeds[message.channel] = partial(_only_log, collector)


def _only_log(collector: Collector, message: Message, number: int) -> None:
    """Of a topic that cannot be read the times are kept."""
    collector.logged.append(message.logged_ns)


def _misfit(collector: Collector, error: Exception) -> DataError:
    channel = collector.channel
    return DataError(
        f"{channel.topic}: message {len(collector.logged)} is no {channel.type}: {error}",
        hint="leave its streams out, or give the right definition with --option msg_path=FOLDER",
    )


def _given(topics: Topics, settings: Settings) -> Iterator[Given]:
    for topic, collector in topics.collectors.items():
        if not collector.logged:
            continue
        if topic in topics.problems:
            yield from unusable(collector, topics.problems[topic])
        else:
            yield from collector.streams(settings.clock)


def _holds_messages(file: Storage) -> bool:
    if file.counts is not None:
        return any(file.counts.values())
    return next(iter(file.messages(file.channels)), None) is not None


def _check_counts(bag: Bag, topics: Topics) -> None:
    """Compare what was read with what metadata.yaml says: silence must not pass for emptiness."""
    for topic, collector in topics.collectors.items():
        expected, seen = bag.counts.get(topic), len(collector.logged)
        if expected is None or expected == seen or topic in topics.problems:
            continue
        if not seen:
            raise DataError(
                f"{bag.name}: metadata.yaml says {topic} has {expected} messages; its files have "
                "none",
                hint="a part of the bag is missing: copy it again, or run `ros2 bag reindex`",
            )
        note = f"{topic} has {seen} messages; metadata.yaml says {expected}"
        topics.notes.append(note)
