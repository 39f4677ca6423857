"""TFRecord files and the tf.train.Example messages in them, read without TensorFlow.

A record is its length (8 bytes), a checksum of that, the bytes, and a checksum of them. An Example
is a protobuf message: a map of names to lists of bytes, of float32 or of int64.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from dp_hub.errors import DataError

AGAIN = "copy or download the file again from where it came from"
_HEAD = struct.Struct("<QI")
_FOOT = struct.Struct("<I")
_MASK = 0xA282EAD8
# A protobuf message is smaller than this.
_MOST_BYTES = 2**31


@dataclass(frozen=True)
class Feature:
    """The values of one name in an Example.

    Args:
        kind: ``bytes``, ``float`` or ``int64``; empty if the message does not say.
        values: a list of bytes, or float32 or int64 ``(n,)``.
    """

    kind: str
    values: Any

    def __len__(self) -> int:
        return len(self.values)


def records(path: Path, start: int = 0) -> Iterator[bytes]:
    """The records of a file from number ``start`` on, each checked against its checksum.

    Those before are not read.

    Raises:
        DataError: the file cannot be read, is cut short or damaged.
    """
    number = 0
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            while head := file.read(_HEAD.size):
                where = f"record {number} of {path}"
                length = _length(head, size - file.tell(), where)
                if number < start:
                    file.seek(length + _FOOT.size, 1)
                else:
                    yield _record(file, length, where)
                number += 1
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}", hint=AGAIN) from None


def count_records(path: Path) -> tuple[int, DataError | None]:
    """How many records there are before the end or what is damaged, and what that is.

    Only the lengths of records are read and checked.
    """
    number = 0
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            while head := file.read(_HEAD.size):
                length = _length(head, size - file.tell(), f"record {number} of {path}")
                file.seek(length + _FOOT.size, 1)
                number += 1
    except DataError as error:
        return number, error
    except OSError as error:
        return number, DataError(f"{path} cannot be read: {error}", hint=AGAIN)
    return number, None


def masked_crc(data: bytes) -> int:
    """TFRecord's checksum: CRC-32C, turned and shifted by a constant."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def _length(head: bytes, left: int, where: str) -> int:
    if len(head) < _HEAD.size:
        raise DataError(f"{where} is cut short: the file ends within its header", hint=AGAIN)
    length, crc = _HEAD.unpack(head)
    if masked_crc(head[:8]) != crc:
        raise DataError(f"{where} is damaged: its length has the wrong checksum", hint=AGAIN)
    if length + _FOOT.size > left or length > _MOST_BYTES:
        raise DataError(
            f"{where} is cut short: it has {length} bytes, of which {max(0, left)} are there",
            hint=AGAIN,
        )
    return int(length)


def _record(file: BinaryIO, length: int, where: str) -> bytes:
    data, foot = file.read(length), file.read(_FOOT.size)
    if len(data) < length or len(foot) < _FOOT.size:
        raise DataError(f"{where} is cut short", hint=AGAIN)
    if masked_crc(data) != _FOOT.unpack(foot)[0]:
        raise DataError(f"{where} is damaged: its bytes have the wrong checksum", hint=AGAIN)
    return data


def parse_example(data: bytes, where: str) -> dict[str, Feature]:
    """The features of a serialised tf.train.Example, by name.

    Args:
        data: the message.
        where: which one it is, for messages.
    Raises:
        DataError: it is no such message.
    """
    try:
        found: dict[str, Feature] = {}
        for features in _messages(memoryview(data), 1):
            for entry in _messages(features, 1):
                parts = dict(_fields(entry))
                found[bytes(parts[1]).decode()] = _feature(parts.get(2, memoryview(b"")))
        return found
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise DataError(f"{where} is no tf.train.Example: {error}", hint=AGAIN) from None


def _feature(message: Any) -> Feature:
    for number, value in _fields(message):
        if number == 1:
            return Feature("bytes", [bytes(item) for item in _messages(value, 1)])
        if number in (2, 3):
            return (
                Feature("float", _floats(value)) if number == 2 else Feature("int64", _ints(value))
            )
    return Feature("", [])


def _floats(message: Any) -> np.ndarray:
    parts = [np.frombuffer(value, "<f4") for number, value in _fields(message) if number == 1]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _ints(message: Any) -> np.ndarray:
    parts = [
        np.array([value], np.uint64) if isinstance(value, int) else _varints(value)
        for number, value in _fields(message)
        if number == 1
    ]
    return (np.concatenate(parts) if parts else np.zeros(0, np.uint64)).view(np.int64)


def _varints(packed: Any) -> np.ndarray:
    """Numbers of variable length, one after the other, as uint64 ``(n,)``."""
    raw = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if not len(raw):
        return np.zeros(0, np.uint64)
    if not len(ends) or ends[-1] != len(raw) - 1:
        raise ValueError("a packed list of integers is cut short")
    starts = np.concatenate(([0], ends[:-1] + 1))
    sizes = ends - starts + 1
    if sizes.max() > 10:
        raise ValueError("an integer has more than 64 bits")
    shifts = (np.arange(len(raw)) - np.repeat(starts, sizes)).astype(np.uint64) * np.uint64(7)
    return np.add.reduceat((raw & 0x7F).astype(np.uint64) << shifts, starts)


def _messages(data: Any, wanted: int) -> Iterator[memoryview]:
    """The fields of number ``wanted``, which have to be messages, texts or bytes."""
    for number, value in _fields(data):
        if number == wanted:
            if isinstance(value, int):
                raise ValueError(f"field {number} is a number")
            yield value


def _fields(data: Any) -> Iterator[tuple[int, Any]]:
    """Number and value of every field of a message: an int, or a memoryview of its bytes."""
    if isinstance(data, int):
        raise ValueError("a number stands where a message should be")
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind, length = tag & 7, 0
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if at + length > len(data):
            raise ValueError("a field goes beyond the end")
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: Any, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends. Raises ValueError, IndexError."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("an integer has more than 64 bits")
