"""MCAP files: chunks of messages of any encoding, with a summary at the end."""

import io
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import lz4.frame
import zstandard
from dp_hub_converters.bags.storage import (
    LARGEST_BLOCK,
    MCAP,
    Blocks,
    Channel,
    Message,
    Place,
    cut_short,
    damage_told,
    damaged,
)
from mcap import records
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError

_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _CHUNK_INDEX, _STATISTICS = 2, 3, 4, 5, 6, 8, 11
_HEAD, _TIMES, _CHUNK_HEAD = struct.Struct("<BQ"), struct.Struct("<HIQQ"), struct.Struct("<QQQII")
_TAIL = _HEAD.size + 20 + len(MCAP)  # footer and magic


class McapFile:
    """A `Storage`.

    Args:
        where: the file to read.
        path: what to call it in messages.
        folder: kept for as long as this is.
        keep_cut_short: read a file without an end up to its last whole record.
    """

    def __init__(
        self, where: Path, path: Path, folder: object, *, keep_cut_short: bool = False
    ) -> None:
        self.path, self._where, self._folder = path, where, folder
        self.channels: dict[int, Channel] = {}
        self.counts: dict[int, int] | None = None
        self.notes: list[str] = []
        self._schemas: dict[int, records.Schema] = {}
        self._found: dict[int, records.Channel] = {}
        self._chunk_channels: dict[int, Collection[int]] = {}
        self._announced = 0
        self._blocks = Blocks()
        self._size = where.stat().st_size
        with where.open("rb") as file:
            self._whole = self._read_summary(file)
            if not self._whole and not keep_cut_short:
                raise cut_short(path)
            if len(self._found) < self._announced or not self._found:
                self._scan(file)
        if not self._whole:
            self.notes.append(f"{path.name} is cut short: read up to its last whole record")
        self.channels = {n: self._channel(one) for n, one in self._found.items()}

    def messages(self, wanted: Collection[int]) -> Iterator[Message]:
        """As `Storage.messages`."""
        wanted, seen = set(wanted), 0
        with damage_told(self.path), self._where.open("rb") as file:
            for opcode, at, length in self._records(file):
                if opcode == _CHUNK:
                    holds = self._chunk_channels.get(at - _HEAD.size)
                    if holds and wanted.isdisjoint(holds):
                        continue
                    block = self._block(file, at, length)
                    for message in self._in_block(block, at, wanted):
                        seen += 1
                        yield message
                elif opcode == _MESSAGE:
                    data = memoryview(file.read(length))
                    channel, _, logged_ns, _ = _TIMES.unpack_from(data)
                    if channel in wanted:
                        seen += 1
                        place = Place(-1, at + _TIMES.size, length - _TIMES.size)
                        yield Message(channel, logged_ns, data[_TIMES.size :], place)
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
                    file.seek(place.block - _HEAD.size)
                    _, length = _HEAD.unpack(file.read(_HEAD.size))
                    block = self._block(file, place.block, length)
                    self._blocks.keep(place.block, block)
                yield memoryview(block)[place.offset : place.offset + place.size]

    def _read_summary(self, file: BinaryIO) -> bool:
        """Read what is known of the whole file; False if there is no end."""
        file.seek(max(0, self._size - _TAIL))
        tail = file.read()
        if len(tail) < _TAIL or tail[-8:] != MCAP or tail[0] != _FOOTER:
            return False
        start, _, crc = struct.unpack_from("<QQI", tail, _HEAD.size)
        if not start:
            return True
        if start > self._size - _TAIL:
            raise damaged(self.path, f"its summary begins at byte {start} of {self._size}")
        file.seek(start)
        summary = file.read(self._size - _TAIL - start)
        if crc and zlib.crc32(summary + tail[: _HEAD.size + 16]) != crc:
            raise damaged(self.path, "the checksum of its summary is wrong")
        for opcode, content in _contents(summary):
            self._note_record(opcode, content)
        return True

    def _note_record(self, opcode: int, content: bytes) -> None:
        """Take up a schema, a channel, or what the summary says of chunks and counts."""
        stream = ReadDataStream(io.BytesIO(content))
        try:
            if opcode == _SCHEMA:
                schema = records.Schema.read(stream)
                self._schemas[schema.id] = schema
            elif opcode == _CHANNEL:
                channel = records.Channel.read(stream)
                self._found[channel.id] = channel
            elif opcode == _CHUNK_INDEX:
                index = records.ChunkIndex.read(stream)
                self._chunk_channels[index.chunk_start_offset] = set(index.message_index_offsets)
            elif opcode == _STATISTICS:
                statistics = records.Statistics.read(stream)
                self._announced = statistics.channel_count
                counts = statistics.channel_message_counts
                if sum(counts.values()) == statistics.message_count:
                    self.counts = dict(counts)
        except McapError as error:
            raise damaged(self.path, f"record {opcode} of its summary: {error}") from None

    def _scan(self, file: BinaryIO) -> None:
        """Find schemas and channels where the messages are."""
        for opcode, at, length in self._records(file):
            if opcode in (_SCHEMA, _CHANNEL):
                self._note_record(opcode, file.read(length))
            elif opcode == _CHUNK:
                for inner, content in _contents(self._block(file, at, length)):
                    if inner in (_SCHEMA, _CHANNEL):
                        self._note_record(inner, bytes(content))

    def _records(self, file: BinaryIO) -> Iterator[tuple[int, int, int]]:
        """Opcode, position and length of each record's content, with the file at that position."""
        position = len(MCAP)
        while True:
            file.seek(position)
            head = file.read(_HEAD.size)
            opcode, length = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, self._size)
            if position + _HEAD.size + length > self._size:
                if self._whole:
                    raise damaged(self.path, f"a record at byte {position} has no end")
                return
            yield opcode, position + _HEAD.size, length
            if opcode == _FOOTER:
                return
            position += _HEAD.size + length

    def _block(self, file: BinaryIO, at: int, length: int) -> bytes:
        """The records of the chunk whose content is at a position."""
        if at + length > self._size:
            raise damaged(self.path, f"the chunk at byte {at} has no end")
        file.seek(at)
        content = memoryview(file.read(length))
        _, _, size, crc, name_length = _CHUNK_HEAD.unpack_from(content)
        start = _CHUNK_HEAD.size + name_length
        name = bytes(content[_CHUNK_HEAD.size : start]).decode()
        (packed_length,) = struct.unpack_from("<Q", content, start)
        packed = content[start + 8 : start + 8 + packed_length]
        if size > LARGEST_BLOCK:
            raise damaged(self.path, f"the chunk at byte {at} would have {size} bytes")
        block = decompress(name, packed, size)
        if len(block) != size or (crc and zlib.crc32(block) != crc):
            raise damaged(self.path, f"the checksum of the chunk at byte {at} is wrong")
        return block

    def _in_block(self, block: bytes, number: int, wanted: Collection[int]) -> Iterator[Message]:
        view, at, end = memoryview(block), 0, len(block)
        while at < end:
            opcode, length = _HEAD.unpack_from(view, at)
            at += _HEAD.size
            if at + length > end:
                raise damaged(self.path, f"a record in the chunk at byte {number} has no end")
            if opcode == _MESSAGE:
                channel, _, logged_ns, _ = _TIMES.unpack_from(view, at)
                if channel in wanted:
                    place = Place(number, at + _TIMES.size, length - _TIMES.size)
                    yield Message(channel, logged_ns, view[place.offset : at + length], place)
            at += length

    def _channel(self, found: records.Channel) -> Channel:
        schema = self._schemas.get(found.schema_id)
        if schema is None:
            return Channel(found.topic, "", found.message_encoding)
        return Channel(
            found.topic, schema.name, found.message_encoding, schema.encoding, schema.data
        )


def _contents(records_: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(records_):
        opcode, length = _HEAD.unpack_from(records_, at)
        at += _HEAD.size
        if at + length > len(records_):
            raise ValueError(f"a record of {length} bytes where {len(records_) - at} are left")
        if opcode in (_SCHEMA, _CHANNEL, _CHUNK_INDEX, _STATISTICS):
            yield opcode, records_[at : at + length]
        at += length


def decompress(name: str, packed: memoryview, size: int) -> bytes:
    """A chunk of known size. Raises ValueError for compressions nobody writes."""
    if name == "":
        return bytes(packed)
    if name == "zstd":
        if zstandard.frame_content_size(bytes(packed[:18])) > size:
            raise ValueError("a chunk that is larger than it says")
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)
    if name == "lz4":
        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(packed, max_length=size))
    raise ValueError(f"compression {name[:40]!r} is not known")
