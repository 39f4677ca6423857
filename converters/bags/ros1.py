"""Bags of ROS 1: chunks of messages, an index at the end."""

import bz2
import struct
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from dp_hub_converters.bags.mcap import decompress
from dp_hub_converters.bags.storage import (
    LARGEST_BLOCK,
    Blocks,
    Channel,
    Message,
    Place,
    cut_short,
    damage_told,
    damaged,
)

_MESSAGE, _BAG, _CHUNK, _CHUNK_INFO, _CONNECTION = 2, 3, 5, 6, 7
_MAGIC = b"#ROSBAG V2.0\n"
_LENGTH, _PAIR = struct.Struct("<I"), struct.Struct("<II")
_LARGEST_HEADER = 1 << 20


class Ros1File:
    """A `Storage`.

    Args:
        where: the file to read.
        path: what to call it in messages.
        folder: kept for as long as this is.
        keep_cut_short: read a file without an index up to its last whole record.
    """

    def __init__(
        self, where: Path, path: Path, folder: object, *, keep_cut_short: bool = False
    ) -> None:
        self.path, self._where, self._folder = path, where, folder
        self.channels: dict[int, Channel] = {}
        self.counts: dict[int, int] | None = None
        self.notes: list[str] = []
        self._chunk_channels: dict[int, Collection[int]] = {}
        self._blocks = Blocks()
        self._size = self._end = where.stat().st_size
        with where.open("rb") as file:
            if (magic := file.readline(32)) != _MAGIC:
                raise damaged(path, f"it begins with {magic[:16]!r}, not with {_MAGIC[:-1]!r}")
            self._whole = self._read_index(file)
            if not self._whole and not keep_cut_short:
                raise cut_short(path)
            if not self._whole:
                self._scan(file)
                self.notes.append(f"{path.name} is cut short: read up to its last whole record")

    def messages(self, wanted: Collection[int]) -> Iterator[Message]:
        """As `Storage.messages`."""
        wanted, seen = set(wanted), 0
        with damage_told(self.path), self._where.open("rb") as file:
            for position, header, at, length in self._records(file):
                opcode = header.get(b"op", b"\0")[0]
                if opcode == _CHUNK:
                    holds = self._chunk_channels.get(position)
                    if holds is not None and wanted.isdisjoint(holds):
                        continue
                    block = self._block(file, header, at, length)
                    for message in self._in_block(block, position, wanted):
                        seen += 1
                        yield message
                elif opcode == _MESSAGE:
                    channel, logged_ns = _message_header(header)
                    if channel in wanted:
                        seen += 1
                        data = memoryview(file.read(length))
                        yield Message(channel, logged_ns, data, Place(-1, at, length))
        if self.counts is not None:
            expected = sum(self.counts.get(number, 0) for number in wanted)
            if seen != expected:
                raise damaged(self.path, f"it has {seen} of {expected} messages")

    def read(self, places: Sequence[Place]) -> Iterator[memoryview]:
        """As `Storage.read`."""
        with damage_told(self.path), self._where.open("rb") as file:
            for place in places:
                if place.block < 0:
                    file.seek(place.offset)
                    yield memoryview(file.read(place.size))
                    continue
                block = self._blocks.get(place.block)
                if block is None:
                    header, at, length = self._record(file, place.block)
                    block = self._block(file, header, at, length)
                    self._blocks.keep(place.block, block)
                yield memoryview(block)[place.offset : place.offset + place.size]

    def _read_index(self, file: BinaryIO) -> bool:
        """Read the connections and what chunks hold; False if there is no index."""
        header, _, _ = self._record(file, len(_MAGIC))
        if header.get(b"op") != bytes([_BAG]):
            raise damaged(self.path, "it has no header")
        if header.get(b"encryptor"):
            raise damaged(self.path, "it is encrypted")
        (index_at,) = struct.unpack("<Q", header[b"index_pos"])
        n_channels, n_chunks = (_number(header, name) for name in (b"conn_count", b"chunk_count"))
        if not len(_MAGIC) < index_at <= self._size:
            return False
        counts: dict[int, int] = defaultdict(int)
        for _, header, at, length in self._records(file, index_at):
            opcode = header.get(b"op", b"\0")[0]
            if opcode == _CONNECTION:
                self._note_connection(header, _at(file, at, length))
            elif opcode == _CHUNK_INFO:
                pairs = list(_PAIR.iter_unpack(_at(file, at, length)))
                (position,) = struct.unpack("<Q", header[b"chunk_pos"])
                self._chunk_channels[position] = {number for number, _ in pairs}
                for number, count in pairs:
                    counts[number] += count
        if len(self.channels) != n_channels or len(self._chunk_channels) != n_chunks:
            raise damaged(
                self.path,
                f"its index has {len(self.channels)} of {n_channels} connections and "
                f"{len(self._chunk_channels)} of {n_chunks} chunks",
            )
        self.counts, self._end = dict(counts), index_at
        return True

    def _note_connection(self, header: dict[bytes, bytes], data: bytes) -> None:
        about = _fields(memoryview(data))
        self.channels[_number(header, b"conn")] = Channel(
            header[b"topic"].decode(),
            about[b"type"].decode(),
            "ros1",
            "ros1msg",
            about.get(b"message_definition", b""),
        )

    def _scan(self, file: BinaryIO) -> None:
        """Find connections where the messages are."""
        for _, header, at, length in self._records(file):
            opcode = header.get(b"op", b"\0")[0]
            if opcode == _CONNECTION:
                self._note_connection(header, _at(file, at, length))
            elif opcode == _CHUNK:
                block = memoryview(self._block(file, header, at, length))
                for inner, start, stop in _in(block):
                    if inner[b"op"][0] == _CONNECTION:
                        self._note_connection(inner, bytes(block[start:stop]))

    def _records(
        self, file: BinaryIO, position: int = len(_MAGIC)
    ) -> Iterator[tuple[int, dict[bytes, bytes], int, int]]:
        """Position, header, position of the data and its length, of each record."""
        end = self._end
        while position < end:
            try:
                header, at, length = self._record(file, position)
            except (EOFError, struct.error):
                if self.counts is None and end == self._size and position > 5000:
                    return  # without an index: the record that was being written
                raise
            yield position, header, at, length
            position = at + length

    def _record(self, file: BinaryIO, position: int) -> tuple[dict[bytes, bytes], int, int]:
        file.seek(position)
        (length,) = _LENGTH.unpack(file.read(4))
        if length > min(_LARGEST_HEADER, self._size - position):
            raise EOFError(f"the record at byte {position} has no end")
        header = _fields(memoryview(file.read(length)))
        (data_length,) = _LENGTH.unpack(file.read(4))
        at = position + 8 + length
        if at + data_length > self._size:
            raise EOFError(f"the record at byte {position} has no end")
        return header, at, data_length

    def _block(self, file: BinaryIO, header: dict[bytes, bytes], at: int, length: int) -> bytes:
        size, name = _number(header, b"size"), header[b"compression"].decode()
        if size > LARGEST_BLOCK:
            raise damaged(self.path, f"the chunk at byte {at} would have {size} bytes")
        packed = memoryview(_at(file, at, length))
        if name == "bz2":
            block = bz2.BZ2Decompressor().decompress(packed, max_length=size + 1)
        else:
            block = decompress("" if name == "none" else name, packed, size + 1)
        if len(block) != size:
            raise damaged(self.path, f"the chunk at byte {at} has not the {size} bytes it says")
        return block

    def _in_block(self, block: bytes, number: int, wanted: Collection[int]) -> Iterator[Message]:
        view = memoryview(block)
        for header, start, stop in _in(view):
            if header[b"op"][0] == _MESSAGE:
                channel, logged_ns = _message_header(header)
                if channel in wanted:
                    place = Place(number, start, stop - start)
                    yield Message(channel, logged_ns, view[start:stop], place)


def _at(file: BinaryIO, at: int, length: int) -> bytes:
    file.seek(at)
    return file.read(length)


def _number(header: dict[bytes, bytes], name: bytes) -> int:
    return int(_LENGTH.unpack(header[name])[0])


def _message_header(header: dict[bytes, bytes]) -> tuple[int, int]:
    seconds, nanoseconds = _PAIR.unpack(header[b"time"])
    return _number(header, b"conn"), seconds * 10**9 + nanoseconds


def _fields(header: memoryview) -> dict[bytes, bytes]:
    """The fields ``name=value`` of a record's header."""
    found, at = {}, 0
    while at < len(header):
        (length,) = _LENGTH.unpack_from(header, at)
        field = bytes(header[at + 4 : at + 4 + length])
        name, equals, value = field.partition(b"=")
        if len(field) != length or not equals:
            raise ValueError("a field of a record's header has no end")
        found[name] = value
        at += 4 + length
    return found


def _in(block: memoryview) -> Iterator[tuple[dict[bytes, bytes], int, int]]:
    """Header, start and stop of the data, of each record of a chunk."""
    at = 0
    while at < len(block):
        (length,) = _LENGTH.unpack_from(block, at)
        header = _fields(block[at + 4 : at + 4 + length])
        (data_length,) = _LENGTH.unpack_from(block, at + 4 + length)
        start = at + 8 + length
        at = start + data_length
        if at > len(block):
            raise ValueError("a record of a chunk has no end")
        yield header, start, at
