"""Topics of pictures: where each message is, decoded when it is looked at."""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from dp_hub_converters.bags.clock import ClockChoice, choose
from dp_hub_converters.bags.columns import Unusable
from dp_hub_converters.bags.fields import Group
from dp_hub_converters.bags.layout import Layout, MisfitError, walk
from dp_hub_converters.bags.pixels import Picture, decode, is_depth, told, video_codec
from dp_hub_converters.bags.storage import Channel, Message, Place, Storage, unpack
from dp_hub_converters.bags.streams import Given, Planned, given, stream_name
from dp_hub_converters.bags.video import is_key, video_of

from dp_hub.errors import DataError

Depth = Literal["refuse", "numbers"]
Extract = Callable[[memoryview], tuple[Picture, int | None]]
_PICTURES = ("Image", "RawImage", "CompressedImage", "CompressedVideo", "FFMPEGPacket")
_PACKAGES = ("sensor_msgs", "foxglove_msgs", "foxglove", "ffmpeg_image_transport_msgs")


def is_picture(channel: Channel) -> bool:
    """Whether messages of a topic are pictures."""
    words = channel.type.replace(".", "/").split("/")
    return words[0] in _PACKAGES and words[-1] in _PICTURES


class RosPicture:
    """Takes the picture out of a ROS message.

    Args:
        group: what messages are made of.
        cdr: as ROS 2 writes them.
    """

    def __init__(self, group: Group, *, cdr: bool) -> None:
        self._group, self._cdr = group, cdr
        self._layout: Layout | None = None

    def __call__(self, data: memoryview) -> tuple[Picture, int | None]:
        """The picture, and its stamp in nanoseconds. Raises MisfitError if there is none."""
        layout = self._layout
        if layout is None or not layout.fits(data):
            layout = walk(self._group, data, cdr=self._cdr)
            self._layout = layout
        try:
            named = "format" if "format" in layout.texts else "encoding"
            picture = Picture(layout.bytes(data, "data"), layout.text(data, named))
            if "step" in layout.numbers:
                size = (layout.number(data, "height", "u4"), layout.number(data, "width", "u4"))
                big = "is_bigendian" in layout.numbers and layout.number(data, "is_bigendian", "u1")
                step = layout.number(data, "step", "u4")
                picture = Picture(picture.data, picture.format, size, step, bool(big))
        except KeyError as error:
            raise MisfitError(f"a picture without {error}") from None
        return picture, layout.stamp_ns(data)


class PictureTopic:
    """A `Collector` of pictures: it keeps where they are.

    Args:
        channel: the topic.
        extract: takes the picture out of a message.
        files: of the bag.
        depth: ``numbers`` gives distances as they are.
    """

    def __init__(
        self, channel: Channel, extract: Extract, files: Sequence[Storage], depth: Depth
    ) -> None:
        name = stream_name(channel.topic, "")
        self.planned = (Planned(name, "", "uint8", "picture"),)
        self.channel, self.logged = channel, array("q")
        self._stamps: array[int] | None = None
        self._extract, self._depth = extract, depth
        self._places = Places(name, files, extract)
        self._first: Picture | None = None
        self._keys = array("b")

    def feed(self, message: Message, file: int) -> None:
        """As `Collector.feed`."""
        self.logged.append(message.logged_ns)
        picture, stamp_ns = self._extract(unpack(message.data))
        if self._first is None:
            kept = memoryview(bytes(picture.data[:64]))
            self._first = Picture(kept, picture.format, picture.size, picture.step)
            if stamp_ns is not None:
                self._stamps = array("q")
        if self._stamps is not None:
            self._stamps.append(stamp_ns or 0)
        if codec := video_codec(self._first):
            self._keys.append(is_key(codec, picture.data))
        self._places.add(file, message.place)

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """As `Collector.names`: there are none."""
        return {}

    def streams(self, choice: ClockChoice) -> Iterator[Given]:
        """As `Collector.streams`."""
        [one], first = self.planned, self._first
        assert first is not None
        stamps_ns = None if self._stamps is None else np.array(self._stamps, np.int64)
        clock = choose(np.array(self.logged, np.int64), stamps_ns, choice)
        values: Any
        if codec := video_codec(first):
            keys = np.array(self._keys, bool)
            values = video_of(self._places, codec, keys, in_order=clock.order is None)
        elif is_depth(first) and self._depth == "refuse":
            error = DataError(
                f"{one.name} holds pictures of {first.format}: distances, or other numbers of "
                "more than 8 bits, which a dataset cannot keep as pictures",
                hint="leave the stream out, or take the numbers with --option depth=numbers",
            )
            values = Unusable(len(self._places), np.uint16, error)
        else:
            self._places.put_in_order(clock.order)
            values = BagPictures(self._places, depth=is_depth(first))
        about = f"{self.channel.type}: {told(first)}"
        yield given(one, values, clock, about, source=self.channel.topic)


class Places:
    """Where the messages of a topic are.

    Args:
        name: of the topic, for messages.
        files: of the bag.
        extract: takes the picture out of a message.
    """

    def __init__(self, name: str, files: Sequence[Storage], extract: Extract) -> None:
        self.name, self._files, self._extract = name, files, extract
        self._kept = [array("q") for _ in range(4)]
        self._order: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._kept[0])

    def add(self, file: int, place: Place) -> None:
        """One message more."""
        for column, value in zip(self._kept, (file, *place), strict=True):
            column.append(value)

    def put_in_order(self, order: np.ndarray | None) -> None:
        """Give messages in another order than they were added."""
        self._order = order

    def read(self, start: int, stop: int) -> Iterator[Picture]:
        """The pictures of some messages. Raises DataError if a message cannot be read."""
        numbers = range(start, stop) if self._order is None else self._order[start:stop].tolist()
        at = 0
        while at < len(numbers):
            file = self._kept[0][numbers[at]]
            end = at
            while end < len(numbers) and self._kept[0][numbers[end]] == file:
                end += 1
            places = [Place(*(c[n] for c in self._kept[1:])) for n in numbers[at:end]]
            for number, data in enumerate(self._files[file].read(places), start + at):
                try:
                    picture, _ = self._extract(unpack(data))
                except ValueError as error:
                    raise self.damaged(number, error) from None
                yield picture
            at = end

    def damaged(self, number: int, error: object) -> DataError:
        """The error for a picture that cannot be decoded."""
        return DataError(
            f"{self.name}: picture {number} cannot be read: {error}",
            hint="leave the stream out, or copy the recording again",
        )


class BagPictures:
    """The pictures of a topic, uint8 ``(n, H, W, C)``, decoded when they are looked at.

    Args:
        places: where they are.
        depth: they are distances, of other types.
    """

    ndim = 4

    def __init__(self, places: Places, *, depth: bool) -> None:
        self._places, self._depth = places, depth
        self._one: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._places)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, H, W, C), as the first picture is, which is decoded for it."""
        height, width, channels = self._sample.shape
        return (len(self), height, width, channels)

    @property
    def dtype(self) -> np.dtype:
        """uint8; of distances another type."""
        return self._sample.dtype if self._depth else np.dtype(np.uint8)

    def __getitem__(self, part: slice) -> np.ndarray:
        """Decoded pictures. Raises DataError if one is damaged, or unlike the first."""
        start, stop, step = part.indices(len(self))
        count = max(0, stop - start)
        pictures = np.empty((count, *self.shape[1:]), self.dtype)
        for number, picture in enumerate(self._places.read(start, stop)):
            pictures[number] = self._decoded(picture, start + number)
        return pictures[::step]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    @property
    def _sample(self) -> np.ndarray:
        if self._one is None:
            [picture] = self._places.read(0, 1)
            pixels = self._decoded(picture, 0)
            # Only what it is like is kept, not the picture.
            self._one = np.broadcast_to(np.zeros((), pixels.dtype), pixels.shape)
        return self._one

    def _decoded(self, picture: Picture, number: int) -> np.ndarray:
        try:
            pixels = decode(picture)
        except ValueError as error:
            raise self._places.damaged(number, error) from None
        if not self._depth and pixels.dtype != np.uint8:
            raise DataError(
                f"{self._places.name}: picture {number} holds {pixels.dtype.name} numbers, which a "
                "dataset cannot keep as pictures",
                hint="leave the stream out",
            )
        if self._one is not None and pixels.shape != self._one.shape:
            raise DataError(
                f"{self._places.name}: picture {number} is {_told(pixels.shape)}, the first is "
                f"{_told(self._one.shape)}",
                hint="leave the stream out, or split the recording where the camera was changed",
            )
        return pixels


def _told(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
