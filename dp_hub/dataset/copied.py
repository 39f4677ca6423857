"""Videos that are taken over packet by packet: every packet is hashed, few frames are decoded.

To decode all of a video takes ten times as long as to copy it, so its statistics are of some frames
only (`dp_hub.dataset.stats.key_samples`). Where the last key frame at or before such a frame is
near, it is taken instead: it is decoded alone. What is near follows from the packets alone, so
whoever measures a stored episode again finds the same.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from dp_hub.dataset import stats as st
from dp_hub.dataset.packets import clips_sha256, damage_told
from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip, rgb_rows_of


@dataclass(frozen=True)
class Copied:
    """What a copied episode of a camera holds.

    Args:
        sha256: as of `dp_hub.dataset.packets.clips_sha256`.
        histogram: int64 ``(3, 256)`` of the frames that were looked at.
        n_sampled: how many these are.
        pix_fmt: how pixels are stored.
    """

    sha256: str
    histogram: np.ndarray
    n_sampled: int
    pix_fmt: str


def look_through(clips: Sequence[VideoClip], *, threads: int = 1) -> Copied:
    """Hash and measure clips that follow one another.

    Args:
        clips: an episode's.
        threads: how many decode; what comes out does not depend on it.
    Raises:
        NotCopyableError: their packets do not stand on their own.
        DataError: a packet is damaged in a way that is seen without decoding it, or a frame that is
            looked at cannot be decoded.
    """
    decoder = _Decoder(st.key_samples(sum(len(clip) for clip in clips)), clips[0], threads)
    sha256 = clips_sha256(clips, decoder.take)
    with damage_told(clips[-1]):
        decoder.flush()
    counts = st.row_counts(np.stack(decoder.rows))
    return Copied(sha256, counts, len(decoder.rows), decoder.pix_fmt)


class _Decoder:
    """Decodes the frames that statistics are taken of, out of packets that pass.

    Args:
        wanted: int64 (S,), numbers of frames.
        clip: one of those that pass, for its size and name.
        threads: how many decode.
    """

    def __init__(self, wanted: np.ndarray, clip: VideoClip, threads: int) -> None:
        self._clip, self._threads = clip, threads
        self._wanted = iter(wanted.tolist())
        self._next: int | None = next(self._wanted)
        self._near = (wanted[-1] - wanted[0]) / max(1, len(wanted) - 1) / 2  # in frames
        self._stream: Any = None
        self._reformatter = VideoReformatter()
        self._key = 0  # number of the last key frame
        self._group: deque[tuple[int, Any]] = deque()  # what of it and since is not decoded
        self._pending: dict[int, int] = {}  # numbers of frames to look at, by their pts
        self.rows: list[np.ndarray] = []
        self.pix_fmt = ""

    def take(self, stream: Any, number: int, packet: Any) -> None:
        """The next packet of the episode. Raises av.error.FFmpegError, DataError."""
        if stream is not self._stream:
            self.flush()
            self._stream, self.pix_fmt = stream, str(stream.codec_context.pix_fmt)
            stream.codec_context.thread_type = "AUTO"
            stream.codec_context.thread_count = self._threads
        if packet.is_keyframe:
            self._key = number
            self._group.clear()
        self._group.append((number, packet))
        if number != self._next:
            return
        self._next = next(self._wanted, None)
        chosen = self._key if number - self._key < self._near else number
        while self._group and self._group[0][0] <= chosen:
            at, one = self._group.popleft()
            if at == chosen:
                self._pending[one.pts] = at
            self._see(stream.codec_context.decode(one))

    def flush(self) -> None:
        """What is still on its way comes out. Raises av.error.FFmpegError, DataError."""
        if self._stream is not None:
            self._see(self._stream.codec_context.decode(None))
        if self._pending:
            raise DataError(
                f"frame {min(self._pending.values())} of {self._clip.name} cannot be decoded",
                hint="copy or pull the recording again",
            )

    def _see(self, frames: Sequence[Any]) -> None:
        for frame in frames:
            if self._pending.pop(frame.pts, None) is None:
                continue
            if (frame.height, frame.width) != self._clip.size:
                raise self._clip.other_size(frame.height, frame.width)
            step = st.row_step(frame.height, frame.width)
            self.rows.append(rgb_rows_of(frame, self._reformatter, step))
