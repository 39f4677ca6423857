"""Frames of a video by their numbers, whatever their times: for videos whose rate is not constant.

A `dp_hub.replay.clip.VideoClip` finds frames by the times they should have; here every frame is
found by the time that it has.
"""

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip, VideoFacts, look_at_video, video_stream

AGAIN = "copy the recording again"
_SAME_S = 1e-5
_OFF = 0.1  # of a frame: how far times may be from the rate of a video whose rate is constant


class VideoFrames:
    """All frames of a video file, uint8 ``(n, H, W, 3)``, decoded when they are sliced.

    Args:
        path: of the file.
        facts: of `look_at_video`.
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, facts: VideoFacts) -> None:
        self._path, self._facts = path, facts
        self.shape = (len(facts.times_s), *facts.size, 3)
        self._lock = threading.Lock()
        self._next = -1  # number of the frame that comes next
        self._frames: Iterator[np.ndarray] = iter(())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        """Decoded frames, uint8 ``(t, H, W, 3)``; forwards, each is decoded once.

        Raises:
            DataError: the video is damaged, or does not have them.
        """
        rows = range(*part.indices(len(self)))
        if not rows:
            return np.empty((0, *self.shape[1:]), np.uint8)
        low, high = min(rows[0], rows[-1]), max(rows[0], rows[-1]) + 1
        frames: dict[int, np.ndarray] = {}
        wanted = set(rows)
        with self._lock:
            for number in range(low, high):
                frame = self._frame(number)
                if number in wanted:
                    frames[number] = frame
        return np.stack([frames[row] for row in rows])

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def _frame(self, number: int) -> np.ndarray:
        if self._next < 0 or not 0 <= number - self._next <= self._to_next_key(number):
            self._frames, self._next = self._decoded(number), number
        while True:
            frame = next(self._frames, None)
            self._next += 1
            if frame is None:
                raise DataError(
                    f"{self._path} has no frame {number}, though it lists {len(self)}", hint=AGAIN
                )
            if self._next > number:
                return frame

    def _to_next_key(self, number: int) -> int:
        """How many frames ahead it is still better to go on decoding than to seek."""
        keys = np.flatnonzero(self._facts.keys[: number + 1])
        return int(number - keys[-1]) if len(keys) else number

    def _decoded(self, number: int) -> Iterator[np.ndarray]:
        """Frames from ``number`` on. The file is closed when nobody refers to this any more."""
        import av
        from av.video.reformatter import VideoReformatter

        clip = VideoClip(self._path, 0, 0, self._facts.size, Fraction(1), "")
        reformatter = VideoReformatter()
        try:
            with clip.open() as container:
                stream = video_stream(container, clip.name)
                stream.codec_context.thread_count = 1
                times_s = self._facts.times_s
                for frame, at_s in zip(
                    _from(container, stream, self._facts, number), times_s[number:], strict=False
                ):
                    if abs(_time(frame) - at_s) > _SAME_S:
                        raise DataError(
                            f"{self._path}: the frame at {at_s:.3f} s cannot be decoded", hint=AGAIN
                        )
                    picture = reformatter.reformat(frame, format="rgb24").to_ndarray()
                    if picture.shape[:2] != self._facts.size:
                        raise DataError(f"{self._path} changes its size within", hint=AGAIN)
                    yield picture
        except (av.error.FFmpegError, OSError) as error:
            raise DataError(f"{self._path} cannot be decoded: {error}", hint=AGAIN) from None


def _from(container: Any, stream: Any, facts: VideoFacts, number: int) -> Iterator[Any]:
    """The video's frames from ``number`` on, found by their times."""
    keys = np.flatnonzero(facts.keys[: number + 1]).tolist()
    # A seek may land behind its time, or at a key frame that later ones do not build on alone.
    for key in dict.fromkeys([*keys[:-3:-1], 0]):
        container.seek(int(facts.times_s[key] / stream.time_base), stream=stream)
        frames = (frame for frame in container.decode(stream) if frame.pts is not None)
        at_s = float(facts.times_s[number]) - _SAME_S
        first = next((frame for frame in frames if _time(frame) >= at_s), None)
        if first is not None and _time(first) <= at_s + 2 * _SAME_S:
            yield first
            yield from frames
            return


def _time(frame: Any) -> float:
    return float(frame.pts * frame.time_base)


def open_video(path: Path) -> tuple[Any, np.ndarray]:
    """The frames of a video and when each is shown, float64 ``(n,)`` in s from the first on.

    They are a `VideoClip` if the rate is constant and the video begins at its zero, so that packets
    may be copied; else `VideoFrames`.

    Raises:
        DataError: there is no readable video, or one without frames.
    """
    facts = look_at_video(path)
    times = facts.times_s
    if not len(times) or not all(facts.size):
        raise DataError(f"{path} is a video without frames", hint=AGAIN)
    if (np.diff(times) <= 0).any():
        raise DataError(f"{path} has two frames at the same time", hint=AGAIN)
    rate = constant_rate(times)
    if rate is None or abs(times[0]) * float(rate) > _OFF:
        return VideoFrames(path, facts), times - times[0]
    return VideoClip(path, 0, len(times), facts.size, rate, facts.codec), times - times[0]


def constant_rate(times_s: np.ndarray) -> Fraction | None:
    """Frames per second if all times keep to one rate within a tenth of a frame; else None."""
    if len(times_s) < 2:
        return None
    mean = float((len(times_s) - 1) / (times_s[-1] - times_s[0]))
    for limit in (1, 1001, 100_000):  # 30, 30000/1001, anything else
        rate = Fraction(mean).limit_denominator(limit)
        off = (times_s - times_s[0]) * float(rate) - np.arange(len(times_s))
        if rate > 0 and np.abs(off).max() <= _OFF:
            return rate
    return None
