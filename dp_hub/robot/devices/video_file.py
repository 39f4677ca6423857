"""A video file in place of a camera, played in real time: what cameras do can be tried without one.

Pictures come when they are due, and those that nobody fetched in time are passed over, as a camera
would.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices.protocols import Frame


class VideoFile:
    """A camera that plays a video.

    Args:
        path: of the file; any format that PyAV reads.
        speed: 2 plays it in half the time.
        at_end: begin again, or be gone as a camera whose cable is pulled.
    """

    summary = "a video file played in real time"

    def __init__(
        self, *, path: str, speed: float = 1.0, at_end: Literal["loop", "gone"] = "loop"
    ) -> None:
        if speed <= 0:
            raise ConfigError(f"speed of a video file is {speed:g}: it must be more than 0")
        self.shape = (0, 0, 3)
        self._path, self._speed, self._loop = Path(path).expanduser(), speed, at_end == "loop"
        self._container: Any = None
        self._pictures: Iterator[tuple[float, Any]] = iter(())
        self._next: tuple[float, Any] | None = None
        self._start_s = self._end_s = self._picture_s = 0.0

    def open(self) -> None:
        """Find the first picture; it is due now. Raises RobotError: no video that can be read."""
        self._begin()
        self._next = next(self._pictures, None)
        if self._next is None:
            self.close()
            raise RobotError(f"{self._path} holds no picture")
        picture = self._next[1]
        self.shape = (picture.height, picture.width, 3)
        self._start_s = time.monotonic()

    def grab(self, timeout_s: float) -> Frame | None:
        """The newest picture that is due, or the next one if it is within ``timeout_s``.

        Raises:
            RobotError: the video is over, or cannot be decoded.
        """
        begin_s = time.monotonic()
        if self._next is None:
            self._again(begin_s)
        assert self._next is not None, "open it first"
        due_s = self._due_s(self._next)
        time.sleep(max(0.0, min(due_s - begin_s, timeout_s)))
        now_s = time.monotonic()
        if due_s > now_s:
            return None
        newest, self._next = self._next, self._following()
        while self._next is not None and self._due_s(self._next) <= now_s:
            newest, self._next = self._next, self._following()
        self._end_s = self._due_s(newest) + self._picture_s
        return Frame(self._due_s(newest), newest[1].to_ndarray(format="rgb24"))

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()
        self._container, self._pictures, self._next = None, iter(()), None

    def _due_s(self, one: tuple[float, Any]) -> float:
        return self._start_s + one[0] / self._speed

    def _begin(self) -> None:
        import av

        try:
            self._container = av.open(str(self._path))
        except (OSError, av.error.FFmpegError) as error:
            raise RobotError(f"the video {self._path} cannot be opened: {error}") from error
        if not self._container.streams.video:
            self.close()
            raise RobotError(f"{self._path} holds no video")
        stream = self._container.streams.video[0]
        stream.codec_context.thread_count = 1
        rate_hz = float(stream.average_rate or 30)
        self._picture_s = 1.0 / (rate_hz * self._speed)
        self._pictures = _timed(self._container.decode(stream), rate_hz)

    def _following(self) -> tuple[float, Any] | None:
        import av

        try:
            return next(self._pictures, None)
        except av.error.FFmpegError as error:
            raise RobotError(f"the video {self._path} cannot be decoded: {error}") from error

    def _again(self, now_s: float) -> None:
        if not self._loop or self._container is None:
            raise RobotError(f"the video {self._path} is over", hint="at_end: loop plays it again")
        self.close()
        self._begin()
        self._next = self._following()
        self._start_s = max(now_s, self._end_s)  # the last picture lasts as long as the others


def _timed(pictures: Iterator[Any], rate_hz: float) -> Iterator[tuple[float, Any]]:
    """Each picture with its seconds after the first one."""
    first_s = None
    for number, picture in enumerate(pictures):
        at_s = number / rate_hz if picture.time is None else float(picture.time)
        first_s = at_s if first_s is None else first_s
        yield at_s - first_s, picture
