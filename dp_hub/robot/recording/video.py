"""One camera's pictures, encoded as they come by a thread that never makes anybody wait.

Matroska, because what is written of it can be read whenever the writer is killed. Frames are
numbered, not timed: their times lie in the table beside it. Pictures of up to 128 px are stored
without loss, as datasets do; larger ones as H.264 with the settings that datasets are encoded with.
"""

import os
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.errors import RobotError

SUFFIX = ".mkv"
_SMALL_PX = 128
_GOP = 2
# What is lost of a video when the recorder is killed: half a second.
_CONTAINER = {"cluster_time_limit": "500", "flush_packets": "1"}


@dataclass(frozen=True)
class Encoding:
    """How pictures are stored.

    Args:
        codec: as FFmpeg calls it.
        encoder: FFmpeg's name of the encoder.
        pix_fmt: how pixels are stored.
        options: of the encoder.
    """

    codec: str
    encoder: str
    pix_fmt: str
    options: Mapping[str, str]


def encoding_for(shape: tuple[int, ...]) -> Encoding:
    """The encoding of pictures of ``shape`` (H, W, 3)."""
    height, width = shape[:2]
    if max(height, width) <= _SMALL_PX or height % 2 or width % 2:
        return Encoding("ffv1", "ffv1", "bgr0", {})
    from dp_hub.dataset.video import CODECS

    encoder, options = CODECS["h264"]
    return Encoding("h264", encoder, "yuv420p", options)


class VideoSink:
    """Pictures of one camera on their way to a file.

    Args:
        path: of the video, which must not be there.
        shape: (H, W, 3) of every picture.
        rate: frames per second, about; the video is shown at that rate.
        buffer_bytes: how many bytes of pictures may wait. When they are exceeded, pictures are left
            out.

    Attributes:
        dropped: how many pictures were left out because the encoder was behind.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        rate: Fraction,
        *,
        buffer_bytes: int = 128_000_000,
    ) -> None:
        self._path, self._shape, self._rate = path, shape, rate
        most = max(4, buffer_bytes // int(np.prod(shape)))
        self._waiting: queue.Queue[np.ndarray | None] = queue.Queue(most)
        self._problem: Exception | None = None
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name=f"encode {path.stem}", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """How many pictures wait."""
        return self._waiting.qsize()

    def add(self, picture: np.ndarray) -> bool:
        """Hand over a picture, uint8 (H, W, 3), which must not change any more; never waits.

        Returns:
            Whether it was taken.
        Raises:
            RobotError: the video cannot be written.
        """
        self.check()
        try:
            self._waiting.put_nowait(picture)
        except queue.Full:
            self.dropped += 1
            return False
        return True

    def check(self) -> None:
        """Raises RobotError if the video cannot be written."""
        if self._problem is not None:
            raise RobotError(
                f"{self._path} cannot be written: {self._problem}",
                hint="is there room on the disk? the episodes before this one are kept",
            ) from self._problem

    def close(self) -> None:
        """Wait for what is left, and complete the file. Raises RobotError as `check`."""
        self._end()
        self.check()

    def abandon(self) -> None:
        """Leave the file as it is."""
        while True:
            try:
                self._waiting.get_nowait()
            except queue.Empty:
                break
        self._end()

    def _end(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        try:
            self._encode()
        except Exception as error:  # noqa: BLE001 - it is told to whoever adds the next picture
            self._problem = error
            while self._waiting.get() is not None:  # so that nobody waits for room
                pass

    def _encode(self) -> None:
        import av

        how, unit = encoding_for(self._shape), 1 / self._rate
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(
            str(self._path), "w", format="matroska", container_options=dict(_CONTAINER)
        ) as container:
            stream: Any = container.add_stream(
                how.encoder, rate=self._rate, options=dict(how.options)
            )
            stream.height, stream.width, stream.pix_fmt = *self._shape[:2], how.pix_fmt
            context = stream.codec_context
            context.gop_size, context.time_base, context.thread_count = _GOP, unit, 1
            number = 0
            while (picture := self._waiting.get()) is not None:
                frame: Any = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, unit
                container.mux(stream.encode(frame))
                number += 1
            container.mux(stream.encode(None))


def cut_video(path: Path, most: int) -> int:
    """Write a video that was cut off anew, with ``most`` frames at most.

    Returns:
        How many frames it has; 0, and no file, where none can be read.
    """
    import av

    new, number = path.with_name(f".{path.name}.new"), 0
    try:
        with av.open(str(path)) as old, av.open(str(new), "w", format="matroska") as container:
            source = old.streams.video[0]
            stream = container.add_stream_from_template(source, opaque=True)
            for packet in old.demux(source):
                if packet.pts is None or number == most:
                    break
                packet.stream = stream
                container.mux(packet)
                number += 1
    except (av.error.FFmpegError, OSError, IndexError, ValueError):
        pass  # so far it can be read
    if not number:
        new.unlink(missing_ok=True)
        path.unlink()
        return 0
    os.replace(new, path)
    return number
