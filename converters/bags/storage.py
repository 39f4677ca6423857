"""The files of bags: channels, messages in the order of the file, and places to read again.

Each kind of file has a class of its own with the same four members (`Storage`). Nothing here knows
what a message means.
"""

import sqlite3
import struct
import tempfile
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Protocol

import zstandard

from dp_hub.errors import DataError

ZSTD, MCAP, SQLITE, ROSBAG = (
    b"\x28\xb5\x2f\xfd",
    b"\x89MCAP0\r\n",
    b"SQLite format 3\0",
    b"#ROSBAG ",
)
MENDING = "copy the recording again; what a recorder left unfinished is read with "
MENDING += "--option cut_short=keep, or mended by `mcap recover`, `ros2 bag reindex` or "
MENDING += "`rosbag reindex`"
LARGEST_BLOCK = 1 << 29  # bytes; recorders write chunks of at most some tens of MB
_KEPT_BYTES = 64 << 20


class Place(NamedTuple):
    """Where a message is: which block of the file (-1: none), its offset in there, its bytes."""

    block: int
    offset: int
    size: int


class Message(NamedTuple):
    """One message as it is stored.

    Args:
        channel: number of its channel.
        logged_ns: when it was written down, nanoseconds since 1970.
        data: its bytes, valid until the next message is asked for.
        place: to read it again.
    """

    channel: int
    logged_ns: int
    data: memoryview
    place: Place


@dataclass(frozen=True)
class Channel:
    """Messages of one topic and type.

    Args:
        topic: its name.
        type: of its messages, as the file spells it.
        encoding: how messages are written: ``cdr``, ``ros1``, ``json``, ``protobuf`` ...
        language: how the definition is written: ``ros2msg``, ``ros2idl``, ``ros1msg``,
            ``jsonschema``, ``protobuf``, or empty if there is none.
        definition: of the type.
    """

    topic: str
    type: str
    encoding: str
    language: str = ""
    definition: bytes = b""


class Storage(Protocol):
    """One file of a bag.

    Args:
        path: the file, for messages.
        channels: by number.
        counts: of messages by channel, if the file has them beside the messages.
        notes: things to tell about the file.
    """

    path: Path
    channels: Mapping[int, Channel]
    counts: Mapping[int, int] | None
    notes: Sequence[str]

    def messages(self, wanted: Collection[int]) -> Iterator[Message]:
        """Messages of some channels in the order of the file. Raises DataError if damaged."""
        ...

    def read(self, places: Sequence[Place]) -> Iterator[memoryview]:
        """The bytes of messages again. Raises DataError if damaged."""
        ...


def open_storage(path: Path, *, keep_cut_short: bool) -> Storage:
    """Open a file of any kind, by its first bytes.

    Raises:
        DataError: it is empty, of no known kind, damaged, or not closed properly.
    """
    from dp_hub_converters.bags.mcap import McapFile
    from dp_hub_converters.bags.ros1 import Ros1File
    from dp_hub_converters.bags.sqlite import SqliteFile

    magic = first_bytes(path)
    if not magic:
        raise DataError(f"{path} is empty", hint="copy the recording again")
    folder = None
    where = path
    if magic.startswith(ZSTD):
        folder = tempfile.TemporaryDirectory(prefix="dp_hub-bag-")
        where = _decompressed(path, Path(folder.name))
        magic = first_bytes(where)
    with damage_told(path):
        if magic.startswith(MCAP):
            return McapFile(where, path, folder, keep_cut_short=keep_cut_short)
        if magic.startswith(ROSBAG):
            return Ros1File(where, path, folder, keep_cut_short=keep_cut_short)
        if magic.startswith(SQLITE):
            return SqliteFile(where, path, folder)
    raise DataError(
        f"{path} is neither an MCAP file nor a bag of ROS 1 or 2", hint="copy the recording again"
    )


def first_bytes(path: Path) -> bytes:
    """The first bytes of a file, from which its kind is known. Raises DataError if unreadable."""
    with damage_told(path), path.open("rb") as file:
        return file.read(16)


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turns what libraries raise on damaged files into a DataError."""
    try:
        yield
    except (OSError, EOFError, struct.error, ValueError, LookupError, OverflowError) as error:
        raise DataError(f"{path} cannot be read: {_told(error)}", hint=MENDING) from None
    except (zstandard.ZstdError, zlib.error, sqlite3.Error, RuntimeError) as error:
        raise DataError(f"{path} cannot be read: {_told(error)}", hint=MENDING) from None


def damaged(path: Path, what: str) -> DataError:
    """The error for a file that does not hold together."""
    return DataError(f"{path} is damaged: {what}", hint=MENDING)


def cut_short(path: Path) -> DataError:
    """The error for a file whose end was never written, or was lost."""
    return DataError(f"{path} is cut short, or was not closed by its recorder", hint=MENDING)


def _told(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


def unpack(data: memoryview) -> memoryview:
    """A message that may be compressed on its own, plain. No ROS message begins like that.

    Raises:
        ValueError: it is damaged, or too large.
    """
    if data[:4] != ZSTD:
        return data
    try:
        size = zstandard.frame_content_size(bytes(data[:18]))
        if size > LARGEST_BLOCK:
            raise ValueError(f"a message of {size} bytes")
        plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=LARGEST_BLOCK)
    except zstandard.ZstdError as error:
        raise ValueError(f"it cannot be decompressed: {error}") from None
    return memoryview(plain)


def _decompressed(path: Path, folder: Path) -> Path:
    """A compressed file, decompressed into a folder."""
    to = folder / path.name.removesuffix(".zstd")
    limit, written = 200 * path.stat().st_size + (1 << 30), 0
    with damage_told(path), path.open("rb") as file, to.open("wb") as out:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        while part := reader.read(1 << 20):
            written += len(part)
            if written > limit:
                raise damaged(path, f"it grows to more than {limit} bytes")
            out.write(part)
    return to


class Blocks:
    """The last decompressed blocks of a file; slices of several cameras fall into the same ones."""

    def __init__(self) -> None:
        self._lock, self._bytes = Lock(), 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def get(self, number: int) -> bytes | None:
        """A block that is still there."""
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
            return self._kept.get(number)

    def keep(self, number: int, block: bytes) -> None:
        """Keep a block, and forget those that were not used for longest."""
        with self._lock:
            self._bytes += len(block) - len(self._kept.pop(number, b""))
            self._kept[number] = block
            while self._bytes > _KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
