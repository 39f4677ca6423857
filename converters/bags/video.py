"""Videos in bags: a packet in every message, decoded forward from key frames."""

from collections.abc import Iterator
from threading import Lock
from typing import Any, Protocol

import numpy as np
from dp_hub_converters.bags.columns import Unusable
from dp_hub_converters.bags.pixels import Picture

from dp_hub.errors import DataError

_DECODERS = {"av1": ("libdav1d", "av1")}


class Packets(Protocol):
    """Where the packets are."""

    name: str

    def __len__(self) -> int:
        """How many there are."""
        ...

    def read(self, start: int, stop: int) -> Iterator[Picture]:
        """Some of them."""
        ...

    def damaged(self, number: int, error: object) -> DataError:
        """The error for one that cannot be decoded."""
        ...


def is_key(codec: str, packet: memoryview) -> bool:
    """Whether decoding can begin with a packet."""
    data = bytes(packet)
    if codec in ("h264", "hevc"):
        return _has_key_unit(codec, data)
    if codec == "av1":
        return _begins_sequence(data)
    if codec == "vp9":
        return bool(data) and data[0] >> 6 == 2 and not data[0] & 0b1100
    return bool(data) and not data[0] & 1  # vp8


def _has_key_unit(codec: str, data: bytes) -> bool:
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 3:
        kind = data[at + 3] & 31 if codec == "h264" else data[at + 3] >> 1 & 63
        if codec == "h264" and 1 <= kind <= 5:
            return kind == 5
        if codec == "hevc" and kind <= 31:
            return 16 <= kind <= 21
        at = data.find(b"\0\0\1", at + 3)
    return False


def _begins_sequence(data: bytes) -> bool:
    """Whether AV1's first units hold a sequence header, as they do before key frames."""
    at = 0
    while at < len(data):
        kind, extended, sized = data[at] >> 3 & 15, data[at] & 4, data[at] & 2
        if kind == 1:
            return True
        if kind != 2 or not sized:
            return False
        at += 2 + bool(extended)  # a temporal delimiter is empty
    return False


def video_of(packets: Packets, codec: str, keys: np.ndarray, *, in_order: bool) -> Any:
    """The frames of a video, or why there are none; as `BagVideo`."""
    if keys.any() and in_order:
        return BagVideo(packets, codec, keys)
    problem = f"{packets.name} is a video ({codec}) without a key frame"
    if not in_order:
        problem = f"{packets.name} is a video whose times are not in the order of its packets"
    error = DataError(problem, hint="leave the stream out, or try --option clock=log")
    return Unusable(len(packets), np.uint8, error)


class BagVideo:
    """Frames of a video, uint8 ``(n, H, W, 3)``, decoded when they are looked at.

    Reading on forward goes on decoding; only going back begins at a key frame again.

    Args:
        packets: where they are.
        codec: as FFmpeg calls it.
        keys: bool (packets,), with which ones decoding can begin.
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, packets: Packets, codec: str, keys: np.ndarray) -> None:
        self._packets, self._codec = packets, codec
        self._keys = np.flatnonzero(keys)
        self._skip = int(self._keys[0])  # what comes before the first key frame is not there
        self._lock = Lock()
        self._decoding: Iterator[Any] = iter(())
        self._next = -1
        self._last: Any = None  # the frame before the next one
        self._size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._packets) - self._skip

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, H, W, 3), as the first frame is, which is decoded for it."""
        if self._size is None:
            self[0:1]
        assert self._size is not None
        return (len(self), *self._size, 3)

    def __getitem__(self, part: slice) -> np.ndarray:
        """Decoded frames. Raises DataError if one cannot be decoded, or is of another size."""
        start, stop, step = part.indices(len(self))
        count = max(0, stop - start)
        if not count:
            return np.empty((0, *self.shape[1:]), np.uint8)
        frames = np.empty((0,), np.uint8)
        with self._lock:
            for number in range(start, start + count):
                pixels = self._frame(number + self._skip, keep=number).to_ndarray(format="rgb24")
                if number == start:
                    frames = np.empty((count, *pixels.shape), np.uint8)
                self._size = self._size or pixels.shape[:2]
                if pixels.shape[:2] != self._size:
                    raise self._packets.damaged(number, f"it is {pixels.shape}, not {self._size}")
                frames[number - start] = pixels
        return frames[::step]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def _frame(self, number: int, *, keep: int) -> Any:
        """The frame of a packet, decoded from where decoding is, or from a key frame."""
        if self._last is not None and number == self._next - 1:
            return self._last
        self._last = None
        key = int(self._keys[np.searchsorted(self._keys, number, side="right") - 1])
        if not 0 <= self._next <= number or key > self._next:
            self._decoding, self._next = self._decode(key), key
        expected, self._next = self._next, -1  # until the frame is there
        for pts, frame in self._decoding:
            if pts != expected:
                what = (
                    "it does not come out of the decoder in its turn: the video has B-frames, or "
                )
                raise self._packets.damaged(keep, what + "a packet was lost")
            expected += 1
            if pts == number:
                self._next, self._last = expected, frame
                return frame
        raise self._packets.damaged(keep, "it does not come out of the decoder")

    def _decode(self, first: int) -> Iterator[tuple[int, Any]]:
        import av

        context = _decoder(self._codec)
        number = first
        try:
            for picture in self._packets.read(first, len(self._packets)):
                packet = av.Packet(bytes(picture.data))
                packet.pts = packet.dts = number
                for frame in context.decode(packet):
                    yield frame.pts, frame
                number += 1
            for frame in context.decode(None):
                yield frame.pts, frame
        except (av.error.FFmpegError, EOFError, ValueError) as error:
            raise self._packets.damaged(number - self._skip, error) from None


def _decoder(codec: str) -> Any:
    import av

    for name in _DECODERS.get(codec, (codec,)):
        try:
            context = av.CodecContext.create(name, "r")
        except (av.error.FFmpegError, ValueError):
            continue
        context.thread_count = 1
        return context
    raise DataError(f"videos of {codec} cannot be decoded here: this build of PyAV has no decoder")
