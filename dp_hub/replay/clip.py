"""Frames that are already encoded in a video: decoded when looked at, copied when they can be.

A converter or an edit may give a `VideoClip` where an array of pictures ``(T, H, W, 3)`` is
expected. Nothing is decoded until somebody slices it, and whoever writes a video of the same codec
can take its packets over as they are.
"""

import io
from collections.abc import Iterator
from contextlib import closing
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
        count = max(0, stop - start)
        frames = np.empty((count, *self.shape[1:]), np.uint8)
        for number, frame in enumerate(self.part(start, count).frames()):
            frames[number] = frame
        return frames[::step]

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
        return self._decoded("rgb24")

    def raw_frames(self) -> Iterator[Any]:
        """As `frames`, but PyAV's frames as they are decoded, for `rgb_of` and for encoders."""
        return self._decoded(None)

    def pix_fmt(self) -> str:
        """How its pixels are stored, as FFmpeg calls it. Raises DataError if it does not say."""
        with self.open() as container:
            pix_fmt = video_stream(container, self.name).codec_context.pix_fmt
        if not pix_fmt:
            raise DataError(f"{self.name} does not say how its pixels are stored")
        return str(pix_fmt)

    def is_plain(self) -> bool:
        """Whether raw frames can be encoded as they are and mean the same: yuv420p, BT.601."""
        with self.open() as container:
            context = video_stream(container, self.name).codec_context
            # Not said, or said to be what is understood by not saying it.
            plain = context.colorspace in (2, 5, 6) and context.color_range in (0, 1)
            return bool(context.pix_fmt == "yuv420p" and plain)

    def other_size(self, height: int, width: int) -> DataError:
        """What to raise when a frame is not of its size."""
        return DataError(f"{self.name} is {height}x{width}, not {self.size[0]}x{self.size[1]}")

    def _decoded(self, pixels: str | None) -> Iterator[Any]:
        import av

        found = 0
        first_s, fps = float(self.first / self.rate), float(self.rate)
        try:
            with self.open() as container:
                stream = video_stream(container, self.name)
                for frame in _from(container, stream, first_s, self.count, fps, pixels):
                    height, width = frame.shape[:2] if pixels else (frame.height, frame.width)
                    if (height, width) != self.size:
                        raise self.other_size(height, width)
                    yield frame
                    found += 1
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


def rgb_of(frame: Any, reformatter: Any) -> np.ndarray:
    """A raw frame as uint8 ``(H, W, 3)``. ``reformatter``: one for many frames is faster."""
    picture: np.ndarray = reformatter.reformat(frame, format="rgb24").to_ndarray()
    return picture


def rgb_rows_of(frame: Any, reformatter: Any, step: int) -> np.ndarray:
    """Every ``step``-th row of `rgb_of`, uint8 ``(h, W, 3)``; the others are not converted."""
    height, width = frame.height, frame.width
    if step < 4 or frame.format.name not in ("yuv420p", "yuvj420p") or height % 2 or width % 2:
        return np.ascontiguousarray(rgb_of(frame, reformatter)[::step])
    rows = np.arange(0, height, step)
    pairs = np.stack([rows // 2 * 2, rows // 2 * 2 + 1], axis=1).ravel()  # that share colours
    luma, *colours = (
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size) for plane in frame.planes
    )
    chosen = [luma[pairs, :width], *(plane[rows // 2, : width // 2] for plane in colours)]
    flat = np.concatenate([part.ravel() for part in chosen]).reshape(-1, width)
    few = _frame_of(flat, frame)
    picture = rgb_of(few, reformatter)
    return np.ascontiguousarray(picture[np.arange(len(rows)) * 2 + rows % 2])


def copy_of(frame: Any) -> Any:
    """Another frame with the same yuv420p pixels."""
    return _frame_of(frame.to_ndarray(), frame)


def _frame_of(planes: np.ndarray, like: Any) -> Any:
    """A frame of uint8 ``(3 h / 2, W)`` whose colours are meant as those of another."""
    import av

    frame = av.VideoFrame.from_ndarray(planes, format=like.format.name)
    frame.colorspace, frame.color_range = like.colorspace, like.color_range
    return frame


def frames_at(
    container: Any, stream: Any, *, first_s: float, count: int, fps: float, gray: bool = False
) -> Iterator[np.ndarray]:
    """Frames at ``first_s``, ``first_s + 1 / fps`` ... of an open video, until one is missing.

    Args:
        container: a PyAV container; decoding moves its position.
        stream: its video stream.
        first_s: seconds from the beginning of the file.
        count: how many frames.
        fps: at which rate to take them; that of the video, or a lower one.
        gray: uint8 ``(H, W)`` instead of ``(H, W, 3)``.
    Raises:
        av.error.FFmpegError: the video is damaged.
    """
    yield from _from(container, stream, first_s, count, fps, "gray" if gray else "rgb24")


def _from(
    container: Any, stream: Any, first_s: float, count: int, fps: float, pixels: str | None
) -> Iterator[Any]:
    stream.codec_context.thread_count = 1  # several videos are decoded at once already
    # With open groups of pictures a seek may land behind the frame: then from the beginning.
    for from_s in (first_s, 0.0):
        found = 0
        container.seek(int(from_s / stream.time_base), stream=stream)
        for frame in _in_time(container, stream, first_s, count, fps, pixels):
            yield frame
            found += 1
        if found:
            break


def _in_time(
    container: Any, stream: Any, first_s: float, count: int, fps: float, pixels: str | None
) -> Iterator[Any]:
    if not count:
        return
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()  # one for all frames: twice as fast for small ones
    tolerance = 0.5 * fps / max(fps, float(stream.average_rate or fps))  # in frames
    wanted = 0
    with closing(container.decode(stream)) as decoded:
        for frame in decoded:
            if frame.pts is None or frame.time_base is None:
                continue
            at = (float(frame.pts * frame.time_base) - first_s) * fps - wanted
            if at < -tolerance:
                continue
            if at >= tolerance:
                return
            yield reformatter.reformat(frame, format=pixels).to_ndarray() if pixels else frame
            wanted += 1
            if wanted == count:
                return


@dataclass(frozen=True)
class VideoFacts:
    """What a video file holds, told without decoding it.

    Args:
        codec: as FFmpeg calls it.
        size: height and width in px.
        pix_fmt: how pixels are stored, as FFmpeg calls it.
        times_s: float64 (n,), when each frame is shown, in order.
        keys: bool (n,), which are key frames.
        reordered: frames are shown in another order than they are decoded in.
        has_audio: there is sound too.
    """

    codec: str
    size: tuple[int, int]
    pix_fmt: str
    times_s: np.ndarray
    keys: np.ndarray
    reordered: bool
    has_audio: bool

    def why_not_copied(self, first: int, count: int, rate: Fraction) -> str | None:
        """Why packets of these frames do not stand on their own; None if they do."""
        if self.reordered:
            return "its frames depend on later ones"
        at = self.times_s * float(rate) - first
        start = int(np.searchsorted(at, -0.5))
        found = at[start : start + count]
        if len(found) < count or np.abs(found - np.arange(count)).max(initial=0) > 0.1:
            return f"its frames are not at multiples of 1/{float(rate):g} s"
        if count and not self.keys[start]:
            return "an episode begins between key frames"
        return None


def look_at_video(path: Path) -> VideoFacts:
    """The facts of a video file. Raises DataError if there is no readable video."""
    import av

    clip = VideoClip(path, 0, 0, (0, 0), Fraction(1), "")
    try:
        with clip.open() as container:
            stream = video_stream(container, clip.name)
            context = stream.codec_context
            entries = getattr(stream, "index_entries", ())
            whole = len(entries) == stream.frames > 0  # some formats only list key frames
            if whole and not context.has_b_frames:
                packets = [(e.timestamp, e.timestamp, e.is_keyframe) for e in entries]
            else:
                found = container.demux(stream)
                packets = [(p.pts, p.dts, p.is_keyframe) for p in found if p.pts is not None]
            shown = sorted(packets)
            times = np.array([float(pts * stream.time_base) for pts, _, _ in shown], np.float64)
            return VideoFacts(
                codec=str(context.codec.canonical_name),
                size=(context.height, context.width),
                pix_fmt=str(context.pix_fmt),
                times_s=times,
                keys=np.array([key for _, _, key in shown], bool),
                reordered=shown != packets or any(pts != dts for pts, dts, _ in packets),
                has_audio=bool(container.streams.audio),
            )
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as a video: {error}", hint="copy or pull the recording again"
        ) from None


def video_stream(container: Any, name: str) -> Any:
    """The first video stream of an open container.

    Raises:
        DataError: there is none, or none that can be decoded.
    """
    if not container.streams.video:
        raise DataError(f"{name} holds no video", hint="copy or pull the recording again")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise DataError(
            f"{name} is encoded in a way that is not known here",
            hint="copy or pull the recording again",
        )
    return stream
