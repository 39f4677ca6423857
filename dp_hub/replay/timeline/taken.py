"""Pictures of a source in another order or number, read no sooner than they are looked at."""

import threading
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from dp_hub.replay.clip import VideoClip, copy_of

_AT_ONCE = 32  # frames read from the source in one piece
_READ_THROUGH = 4  # frames between two wanted ones that are read rather than left out
_SEEK = 64  # frames that are decoded rather than sought behind


class Taken:
    """Values of a source by number: ``source[numbers]`` that is read when it is sliced.

    Read from the beginning to the end, slice by slice, each value of the source is read once and
    in order, so that what decodes forwards never goes back. Numbers may repeat.

    Args:
        source: ``(n, ...)``: an array, a `VideoClip`, or anything with ``len``, ``shape``,
            ``dtype`` and slices that give arrays. If it has ``take(numbers, axis=0)`` too, that is
            called with int64 ``(k,)``, growing, and gives an array ``(k, ...)``.
        numbers: int64 ``(T,)``, which ones.
    """

    def __init__(self, source: Any, numbers: np.ndarray) -> None:
        self.source, self.numbers = source, np.asarray(numbers, np.int64)
        self.shape = (len(self.numbers), *source.shape[1:])
        self.dtype, self.ndim = np.dtype(source.dtype), len(self.shape)
        self._frames = _Forward(source) if isinstance(source, VideoClip) else None
        self._last: tuple[int, np.ndarray] | None = None  # the slice after often begins with it

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, part: slice) -> np.ndarray:
        """An array ``(t, ...)``. Raises what the source raises: DataError."""
        wanted, place = np.unique(self.numbers[part], return_inverse=True)
        if not len(wanted):
            return np.empty((0, *self.shape[1:]), self.dtype)
        last = self._last
        if last is None or wanted[0] != last[0]:
            read = self._read(wanted)
        elif len(wanted) == 1:
            read = last[1][None]
        else:
            read = np.concatenate([last[1][None], self._read(wanted[1:])])
        if not isinstance(self.source, np.ndarray):
            self._last = int(wanted[-1]), read[-1].copy()
        in_order = len(wanted) == len(place) and place[0] == 0 and bool((np.diff(place) == 1).all())
        return read if in_order else read[place]

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def is_plain(self) -> bool:
        """Whether `raw_frames` are of use, as of `VideoClip`: of a video, forwards."""
        forwards = bool((np.diff(self.numbers) >= 0).all())
        return isinstance(self.source, VideoClip) and forwards and self.source.is_plain()

    def raw_frames(self) -> Iterator[Any]:
        """PyAV's frames in order, of a video that is plain; each its own. Raises DataError."""
        frames = _Forward(self.source, raw=True)
        last, frame = -1, None
        for number in self.numbers.tolist():
            # Whoever encodes a frame writes its time into it: what is shown again is another one.
            frame = copy_of(frame) if number == last else frames.frame(number)
            last = number
            yield frame

    def _read(self, wanted: np.ndarray) -> np.ndarray:
        if isinstance(self.source, np.ndarray):
            return self.source[wanted]
        if self._frames is not None:
            return self._frames.read(wanted)
        if hasattr(self.source, "take"):
            return np.asarray(self.source.take(wanted, axis=0))
        out = np.empty((len(wanted), *self.shape[1:]), self.dtype)
        done = 0
        while done < len(wanted):
            first = int(wanted[done])
            stop = done + 1
            while stop < len(wanted) and _read_on(wanted, stop, first):
                stop += 1
            block = np.asarray(self.source[first : int(wanted[stop - 1]) + 1])
            if len(block) == len(wanted) == stop - done:
                return block  # as it is: to copy pictures takes a tenth of the time to encode them
            out[done:stop] = block[wanted[done:stop] - first]
            done = stop
        return out


def _read_on(wanted: np.ndarray, stop: int, first: int) -> bool:
    near = wanted[stop] - wanted[stop - 1] <= _READ_THROUGH
    return bool(near and wanted[stop] - first < _AT_ONCE)


class _Forward:
    """Frames of a video by growing number, from one decoder that stays where it is.

    Args:
        clip: the video.
        raw: PyAV's frames, not RGB.
    """

    def __init__(self, clip: VideoClip, *, raw: bool = False) -> None:
        self._clip, self._raw = clip, raw
        self._lock = threading.Lock()
        self._frames: Generator[Any, None, None] | None = None
        self._next = 0  # number of the frame that comes next

    def read(self, wanted: np.ndarray) -> np.ndarray:
        """uint8 ``(k, H, W, 3)`` of growing numbers. Raises DataError as `VideoClip.frames`."""
        out = np.empty((len(wanted), *self._clip.shape[1:]), np.uint8)
        with self._lock:
            for row, number in enumerate(wanted.tolist()):
                out[row] = self.frame(number)
        return out

    def frame(self, number: int) -> Any:
        """The next frame that is wanted, of a number not smaller than before."""
        if self._frames is None or not self._next <= number < self._next + _SEEK:
            self._seek(number)
        frames, self._frames = self._frames, None  # after an error it begins anew
        assert frames is not None
        frame = next(frames)
        while self._next < number:
            frame = next(frames)
            self._next += 1
        self._next += 1
        if self._next == len(self._clip):
            frames.close()  # and with it the file
        else:
            self._frames = frames
        return frame

    def _seek(self, number: int) -> None:
        if self._frames is not None:
            self._frames.close()
        rest = self._clip.part(number, len(self._clip) - number)
        decoded = rest.raw_frames() if self._raw else rest.frames()
        self._frames, self._next = decoded, number  # type: ignore[assignment]
