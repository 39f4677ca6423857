"""Whether a packet is whole, told from the units inside it without decoding them.

This finds what a decoder refuses: packets that are zeroed, cut short, or are another file's bytes.
Changed pixels it does not find, and nor do most decoders.
"""

from collections.abc import Callable
from functools import partial

_FRAMES = (3, 4, 6)  # units of AV1 that make a picture: frame header, tile group, frame


def check_of(codec: str, extra: bytes) -> Callable[[bytes], bool]:
    """What tells of a packet of this codec whether it is whole.

    Args:
        codec: as FFmpeg calls it.
        extra: the headers of its file.
    """
    at = {"h264": 4, "hevc": 21}.get(codec)
    if at is not None and len(extra) > at and extra[0] == 1:
        return partial(_lengths_fit, prefix=(extra[at] & 3) + 1)
    return {"av1": _is_av1, "vp9": _is_vp9}.get(codec, _is_anything)


def _is_anything(data: bytes) -> bool:
    return len(data) > 0


def _lengths_fit(data: bytes, *, prefix: int) -> bool:
    """Whether units of H.264 or HEVC, each behind its length, fill a packet."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + prefix], "big")
        if not 0 < length <= len(data) - at - prefix:
            return False
        at += prefix + length
    return at > 0


def _is_av1(data: bytes) -> bool:
    """Whether units of AV1 fill a packet and make a picture."""
    at, shows = 0, False
    while at < len(data):
        head = data[at]
        if head & 0x80:  # the forbidden bit
            return False
        shows = shows or (head >> 3 & 15) in _FRAMES
        at += 2 if head & 4 else 1
        if not head & 2:  # without a size it is the last
            return shows
        size = 0
        for shift in range(0, 56, 7):
            if at >= len(data):
                return False
            size |= (data[at] & 127) << shift
            at += 1
            if data[at - 1] < 128:
                break
        at += size
    return shows and at == len(data)


def _is_vp9(data: bytes) -> bool:
    """Whether a packet begins as frames of VP9 do."""
    return len(data) > 0 and data[0] >> 6 == 2
