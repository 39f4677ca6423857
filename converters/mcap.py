"""Bags of ROS 2 and ROS 1, and MCAP files of any tool, without a ROS installation.

What can be decoded is decoded here: ROS messages of both generations, JSON, protobuf. Every group
of numbers of a message becomes a stream, pictures are decoded when they are looked at.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from dp_hub_converters.bags.clock import ClockChoice
from dp_hub_converters.bags.found import Bag, find_bags, looks_like_bags
from dp_hub_converters.bags.pictures import Depth
from dp_hub_converters.bags.read import Settings, Topics, open_bag, read_recording, sample
from dp_hub_converters.bags.types import Definitions, Distro

from dp_hub.errors import DataError
from dp_hub.replay.recording import Recording
from dp_hub.replay.source import Source


class Bags:
    """Reads a bag, a file of one, or a folder of many.

    Args:
        clock: ``header`` takes the times in messages, ``log`` those when they were written down,
            ``auto`` decides for each topic: those in messages, where they make sense.
        topics: only these, with commas between them; ``*`` stands for anything.
        msg_path: a folder of ``PACKAGE/msg/TYPE.msg`` files, for types that bags do not define.
        ros_distro: whose usual types are meant where bags do not define them.
        depth: ``numbers`` gives pictures of distances as numbers, instead of refusing them.
        cut_short: ``keep`` reads files that were not closed up to their last whole record.
    """

    name = "mcap"
    summary = "bags of ROS 2 (.mcap, .db3) and ROS 1 (.bag), and MCAP files of other tools"

    def __init__(
        self,
        *,
        clock: ClockChoice = "auto",
        topics: str | None = None,
        msg_path: str | None = None,
        ros_distro: Distro = "humble",
        depth: Depth = "refuse",
        cut_short: Literal["refuse", "keep"] = "refuse",
    ) -> None:
        self._settings = Settings(
            clock=clock,
            topics=tuple(one.strip() for one in (topics or "").split(",") if one.strip()),
            depth=depth,
            keep_cut_short=cut_short == "keep",
            definitions=Definitions(ros_distro, msg_path),
        )

    def recognises(self, path: Path) -> bool:
        """Whether ``path`` is a bag, or a folder of some."""
        return looks_like_bags(path)

    def describe(self, path: Path, *, skip_bad: bool = False) -> Source:
        """The streams of all bags, from their definitions and first messages.

        Args:
            path: a bag, a file of one, or a folder of many.
            skip_bad: tell of bags that cannot be read, instead of refusing all for one.
        Raises:
            DataError: there are no bags, one cannot be read, or none has a topic that can.
        """
        bags = find_bags(path)
        looks = [_look(bag, self._settings, first=bag is bags[0]) for bag in bags]
        bad = next((look.error for look in looks if look.error is not None), None)
        if bad is not None and (not skip_bad or all(look.error for look in looks)):
            raise bad
        if not any(look.dtypes for look in looks):
            raise _nothing(path, looks)
        dtypes: dict[str, str] = {}
        names: dict[str, tuple[str, ...]] = {}
        for look in looks:
            dtypes |= {name: kind for name, kind in look.dtypes.items() if name not in dtypes}
            names |= {name: found for name, found in look.names.items() if name not in names}
        return Source(
            dtypes=dict(sorted(dtypes.items())),
            n_episodes=len(bags),
            notes=tuple(_notes(looks, dtypes)),
            names=names,
        )

    def recordings(
        self, path: Path, *, only: Collection[str] | None = None, start: int = 0
    ) -> Iterator[Recording]:
        """Its bags in natural order, from number ``start`` on.

        Raises:
            DataError: a bag is damaged, or holds no messages.
        """
        for bag in find_bags(path)[start:]:
            yield read_recording(bag, self._settings, only)


class _Look:
    """What a bag holds, from its head.

    Args:
        bag: which one.
    """

    def __init__(self, bag: Bag) -> None:
        self.bag = bag
        self.dtypes: dict[str, str] = {}
        self.names: dict[str, tuple[str, ...]] = {}
        self.topics: set[str] = set()
        self.unread: dict[str, str] = {}
        self.notes: list[str] = list(bag.notes)
        self.error: DataError | None = None


def _look(bag: Bag, settings: Settings, *, first: bool) -> _Look:
    look = _Look(bag)
    try:
        files = open_bag(bag, settings)
        topics = Topics(files, settings, None)
        sample(files, topics, names=first)
    except DataError as error:
        look.error = error
        return look
    for topic, collector in topics.collectors.items():
        if topic not in topics.problems:
            look.dtypes |= {one.name: one.dtype for one in collector.planned}
            look.names |= {name: found for name, found in collector.names().items() if found}
    look.topics = {channel.topic for file in files for channel in file.channels.values()}
    look.unread = {topic: error.message for topic, error in topics.problems.items()}
    look.notes += [*(note for file in files for note in file.notes), *topics.notes]
    if not look.dtypes and not look.unread and not any(file.channels for file in files):
        look.error = DataError(f"{bag.name} holds no messages")
    return look


def _nothing(path: Path, looks: list[_Look]) -> DataError:
    """Why there is no stream at all."""
    unread = {reason for look in looks for reason in look.unread.values()}
    if unread:
        told = "; ".join(sorted(unread)[:3])
        hint = "give definitions with --option msg_path=FOLDER"
        return DataError(f"no topic of {path} can be read: {told}", hint=hint)
    return DataError(f"{path} has no topics of numbers, texts or pictures, or none was asked for")


def _notes(looks: list[_Look], dtypes: dict[str, str]) -> Iterator[str]:
    """What to tell of a source: once, however many bags it is true of."""
    told = Counter[str]()
    for look in looks:
        told.update(f"{topic} is left out: {why}" for topic, why in look.unread.items())
        told.update(look.notes)
    for note, count in told.items():
        yield note if count in (1, len(looks)) else f"{note} (in {count} bags)"
    for look in looks:
        if look.error is not None:
            yield f"{look.bag.name} cannot be converted: {look.error.message}"
    readable = [look for look in looks if look.error is None]
    for topic in sorted({topic for look in readable for topic in look.topics}):
        having = sum(topic in look.topics for look in readable)
        if having < len(readable):
            yield f"{topic} is in {having} of {len(readable)} bags only"
    for name in sorted(dtypes):
        kinds = sorted({look.dtypes[name] for look in readable if name in look.dtypes})
        if len(kinds) > 1:
            yield f"{name} is of different types: {', '.join(kinds)}"
