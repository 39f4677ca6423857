"""Frames that are already encoded in a video: decoded when looked at, copied when they can be.

A converter or an edit may give a `VideoClip` where an array of pictures ``(T, H, W, 3)`` is
expected. Nothing is decoded until somebody slices it, and whoever writes a video of the same codec
can take its packets over as they are.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.errors import DataError


@dataclass(frozen=True, eq=False)
class VideoClip:
    """Some consecutive frames of a video file, uint8 ``(T, H, W, 3)``.

    Args:
        source: the file, or its bytes.
        first: number of the first frame in the file.
        count: number of frames T.
        size: height and width in px.
        rate: frames per second.
        codec: of the file, as FFmpeg calls it (``h264``, ``av1`` ...).
    """

    source: Path | bytes
    first: int
    count: int
    size: tuple[int, int]
    rate: Fraction
    codec: str

    ndim = 4
    dtype = np.dtype(np.uint8)

    @property
    def name(self) -> str:
        """The file, for messages."""
        return "a clip in memory" if isinstance(self.source, bytes) else str(self.source)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, 3)."""
        return (self.count, *self.size, 3)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, part: slice) -> np.ndarray:
        """Decoded frames, uint8 ``(t, H, W, 3)``. Raises DataError as `frames`."""
        start, stop, step = part.indices(self.count)
        frames = list(self.part(start, max(0, stop - start)).frames())
        return np.stack(frames)[::step] if frames else np.empty((0, *self.shape[1:]), np.uint8)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def part(self, start: int, count: int) -> "VideoClip":
        """``count`` of its frames from ``start`` on."""
        return VideoClip(self.source, self.first + start, count, self.size, self.rate, self.codec)

    def open(self) -> Any:
        """The PyAV container. Raises DataError if there is no readable video."""
        import av

        try:
            return av.open(
                io.BytesIO(self.source) if isinstance(self.source, bytes) else str(self.source)
            )
        except (av.error.FFmpegError, OSError) as error:
            raise DataError(
                f"{self.name} cannot be read as a video: {error}",
                hint="copy or pull the recording again",
            ) from None

    def frames(self) -> Iterator[np.ndarray]:
        """Its frames in order, uint8 ``(H, W, 3)``, decoded one by one.

        Raises:
            DataError: the video is damaged, cut short, or of another size.
        """
        import av

        found = 0
        try:
            # With open groups of pictures a seek may land behind the frame: then from the start.
            for seek in (True, False):
                for frame in self._decode(seek=seek):
                    yield frame
                    found += 1
                if found:
                    break
        except (av.error.FFmpegError, OSError) as error:
            raise DataError(
                f"{self.name} cannot be decoded: {error}", hint="copy or pull the recording again"
            ) from None
        if found < self.count:
            raise DataError(
                f"{self.name} has no frame {self.first + found}; {self.count} frames from "
                f"{self.first} on were expected",
                hint="the video is cut short, or does not belong to these episodes",
            )

    def _decode(self, *, seek: bool) -> Iterator[np.ndarray]:
        """Frames in order, until all are found or one is missing."""
        if not self.count:
            return
        from av.video.reformatter import VideoReformatter

        with self.open() as container:
            stream = video_stream(container, self.name)
            stream.codec_context.thread_count = 1  # several clips are decoded at once already
            if seek:
                container.seek(int(self.first / self.rate / stream.time_base), stream=stream)
            reformatter = VideoReformatter()  # one for all frames: twice as fast for small ones
            wanted = 0
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                at = float(frame.pts * stream.time_base * self.rate) - self.first - wanted
                if at <= -0.5:
                    continue
                if at >= 0.5:
                    return
                if (frame.height, frame.width) != self.size:
                    raise DataError(
                        f"{self.name} is {frame.height}x{frame.width}, not "
                        f"{self.size[0]}x{self.size[1]}"
                    )
                yield reformatter.reformat(frame, format="rgb24").to_ndarray()
                wanted += 1
                if wanted == self.count:
                    return


def video_stream(container: Any, name: str) -> Any:
    """The first video stream of an open container. Raises DataError if there is none."""
    if not container.streams.video:
        raise DataError(f"{name} holds no video", hint="copy or pull the recording again")
    return container.streams.video[0]
