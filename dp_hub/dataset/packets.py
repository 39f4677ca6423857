"""The packets of clips, as a copy takes them over: in order, on the grid, whole, and hashed."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dp_hub.dataset.packet_units import check_of
from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip, video_stream


class NotCopyableError(Exception):
    """The packets of a clip cannot be taken over as they are; the text says why.

    Args:
        text: which clip, and why.
        reason: the same without the names and numbers that differ from clip to clip.
    """

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


def codec_name(stream: Any) -> str:
    """The codec as FFmpeg calls it."""
    # Not the decoder's name, which depends on what FFmpeg was built with.
    return str(stream.codec_context.codec.canonical_name)


def packets_of(container: Any, stream: Any, clip: VideoClip) -> Iterator[Any]:
    """PyAV's packets of an open clip in order, one for each of its frames.

    Raises:
        NotCopyableError: they do not stand on their own, or not at the clip's rate.
    """
    if clip.first:
        container.seek(int(clip.first / clip.rate / stream.time_base), stream=stream)
    each = stream.time_base * clip.rate
    steps, unit = each.numerator, each.denominator  # a frame is ``unit / steps`` ticks
    found = 0
    for packet in container.demux(stream):
        if packet.size == 0 or found == clip.count:
            break
        pts = packet.pts
        if pts is None or pts != packet.dts:
            reason = "frames that depend on later ones"
            raise NotCopyableError(f"{clip.name} has {reason}", f"it has {reason}")
        at = (2 * pts * steps + unit) // (2 * unit)
        number = at - clip.first
        if number < found:
            continue
        if number != found or abs(pts * steps - at * unit) * 10 > unit:
            raise NotCopyableError(
                f"{clip.name} has no frame {clip.first + found} on its grid",
                "frames are missing or off its grid",
            )
        if found == 0 and not packet.is_keyframe:
            raise NotCopyableError(
                f"frame {clip.first} of {clip.name} is no key frame",
                "it begins between key frames",
            )
        yield packet
        found += 1
    if found != clip.count:
        raise NotCopyableError(
            f"{clip.name} ends before frame {clip.first + clip.count}", "it ends early"
        )


def clips_sha256(
    clips: Sequence[VideoClip], look: Callable[[Any, int, Any], None] | None = None
) -> str:
    """sha256 of what an episode's clips hold: codec, its headers, and every packet; hex.

    Args:
        clips: that follow one another.
        look: is given the stream, the number in the episode, and the packet of every frame.
    Raises:
        NotCopyableError: they cannot be taken over packet by packet.
        DataError: a packet is not whole.
    """
    digest = hashlib.sha256()
    number = 0
    with contextlib.ExitStack() as stack:
        for clip in clips:
            stack.enter_context(damage_told(clip))
            container = stack.enter_context(clip.open())
            stream = video_stream(container, clip.name)
            extra = bytes(stream.codec_context.extradata or b"")
            if number == 0:
                digest.update(f"{codec_name(stream)} {len(extra)}\n".encode() + extra)
            is_whole = check_of(codec_name(stream), extra)
            for packet in packets_of(container, stream, clip):
                data = bytes(packet)
                if not is_whole(data):
                    raise DataError(
                        f"{clip.name} is damaged at frame {clip.first + number}",
                        hint="copy or pull the recording again",
                    )
                digest.update(len(data).to_bytes(8, "little"))
                digest.update(data)
                if look is not None:
                    look(stream, number, packet)
                number += 1
    return digest.hexdigest()


@contextlib.contextmanager
def damage_told(clip: VideoClip) -> Iterator[None]:
    """Let FFmpeg's errors inside be DataErrors that name the clip."""
    import av

    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(
            f"{clip.name} cannot be decoded: {error}", hint="copy or pull the recording again"
        ) from None
