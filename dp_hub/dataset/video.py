"""Camera frames as mp4, many episodes to a file, and proof that they come back.

Every second frame is a key frame (fast random access) and there are no B-frames: with open groups
of pictures a seek can silently return the neighbouring frame. Frames are encoded in short clips of
a fixed length, each by an encoder of its own, so that clips can be encoded side by side and copied
from file to file, and the result depends neither on the number of cores nor on what else is in the
file. After a file is closed, sampled frames are read back by seek and compared with the source and
with their neighbours.
"""

import contextlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from dp_hub.dataset.packets import NotCopyableError, codec_name, packets_of
from dp_hub.dataset.shards import VIDEO_PATH, is_full_video, numbered, place
from dp_hub.errors import DataError
from dp_hub.files import discard, share_file, sync_file
from dp_hub.processes import scheduling_kept
from dp_hub.replay.clip import VideoClip, video_stream

_X264 = {
    "crf": "23",
    "preset": "veryfast",
    "tune": "fastdecode",
    "bf": "0",
    # x264's macroblock tree reads memory it has not set: the same frames give now these, now those
    # bytes, even with one thread.
    "x264-params": "mbtree=0",
}
CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", _X264),
    # One thread an encoder: clips are encoded side by side.
    "av1": ("libsvtav1", {"crf": "30", "preset": "8", "svtav1-params": "lp=1"}),
}
_GOP = 2
_SAMPLES = 16
_WORST_DB = 20.0
_CLIP_BYTES = 64_000_000  # of decoded frames
_CLIP_FRAMES = 256


def exact_rate(fps: float) -> Fraction:
    """Frames per second as the fraction that videos are written with."""
    return Fraction(fps).limit_denominator(100_000)


def clip_frames(shape: tuple[int, ...]) -> int:
    """How many frames of ``shape`` (H, W, C) go into one clip; a property of the shape alone."""
    return max(_GOP, min(_CLIP_FRAMES, _CLIP_BYTES // int(np.prod(shape)) // _GOP * _GOP))


def video_info(
    shape: tuple[int, ...],
    fps: float,
    codec: str,
    *,
    copied: bool = False,
    pix_fmt: str | None = None,
) -> dict[str, Any]:
    """``info`` of a video feature, with LeRobot's keys. Of copied videos the encoder is unknown."""
    info = {
        "video.height": shape[0],
        "video.width": shape[1],
        "video.channels": shape[2],
        "video.codec": codec,
        "video.pix_fmt": pix_fmt or "yuv420p",
        "video.fps": fps,
    }
    if not copied:
        options = CODECS[codec][1]
        info |= {"video.g": _GOP, "video.crf": int(options["crf"])}
        info["video.preset"] = options["preset"]
    return info | {"is_depth_map": False, "has_audio": False}


def can_encode(codec: str, pix_fmt: str) -> bool:
    """Whether `encode_clip` has an encoder for this."""
    if codec not in CODECS:
        return False
    formats = av.Codec(CODECS[codec][0], "w").video_formats or ()
    return pix_fmt in {one.name for one in formats}


def encode_clip(
    pictures: np.ndarray | Sequence[Any], *, rate: Fraction, codec: str, pix_fmt: str = "yuv420p"
) -> VideoClip:
    """Encode at most `clip_frames` pictures. The same ones give the same bytes.

    Args:
        pictures: uint8 ``(T, H, W, 3)``, or raw frames of a clip that is plain; they are used up.
        rate: frames per second.
        codec: of `CODECS`.
        pix_fmt: how pixels are stored; raw frames are so already.
    Raises:
        DataError: this PyAV has no such encoder.
    """
    encoder, options = CODECS[codec]
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints 20 lines otherwise
    height, width = _size(pictures[0])
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="mp4") as container:
            stream: Any = container.add_stream(encoder, rate=rate, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.codec_context.gop_size = _GOP
            stream.codec_context.time_base = 1 / rate
            stream.codec_context.thread_count = 1
            for number, picture in enumerate(pictures):
                frame = _frame(picture)
                frame.pts, frame.time_base = number, 1 / rate
                with scheduling_kept() if number == 0 else contextlib.nullcontext():  # it begins
                    packets = stream.encode(frame)
                container.mux(packets)
            container.mux(stream.encode(None))
    except (av.error.FFmpegError, ValueError) as error:
        raise DataError(
            f"this PyAV cannot encode {codec} ({encoder}): {error}",
            hint="choose another --codec, or --images webp",
        ) from None
    return VideoClip(buffer.getvalue(), 0, len(pictures), (height, width), rate, codec)


def _size(picture: Any) -> tuple[int, int]:
    if isinstance(picture, np.ndarray):
        return picture.shape[0], picture.shape[1]
    return picture.height, picture.width


def _frame(picture: Any) -> Any:
    if isinstance(picture, np.ndarray):
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    picture.pict_type = 0  # not that of the source: the encoder decides
    return picture


class VideoShards:
    """The mp4 files of one camera; each is under a hidden name until it is closed.

    Args:
        root: the dataset's folder.
        feature: the camera's feature name.
        fps: frames per second, constant.
        first_number: number of the first file to write.
        is_full: whether a file with so many bytes of packets takes no further episodes.
        template: of the files' names.
    """

    def __init__(
        self,
        root: Path,
        feature: str,
        *,
        fps: float,
        first_number: int = 0,
        is_full: Callable[[int], bool] = is_full_video,
        template: str = VIDEO_PATH,
    ) -> None:
        self.root, self._feature = root, feature
        self.rate = exact_rate(fps)
        self._is_full, self._template = is_full, template
        self.number = first_number  # of the open file, or the next
        self._container: Any = None
        self._stream: Any = None
        self._kind: tuple[Any, ...] = ()
        self._n_frames = self._n_bytes = 0
        self._samples: dict[int, np.ndarray] = {}
        self._rng = np.random.default_rng(0)
        self.worst_db = float("inf")

    @property
    def path(self) -> Path:
        """Of the open file, once it is closed, or of the next one."""
        return numbered(self.root, self._template, self.number, video=self._feature)

    def append(
        self, clips: Sequence[VideoClip], samples: Mapping[int, np.ndarray] | None = None
    ) -> tuple[int, int, float, float]:
        """Append one episode, clip after clip.

        Args:
            clips: encoded frames.
            samples: some of the frames as they were before encoding, uint8 ``(H, W, 3)`` by their
                number in the episode; they are compared when the file is closed.
        Returns:
            Chunk index, file index, and from and to in seconds inside that file.
        Raises:
            NotCopyableError: the packets of a clip do not stand on their own.
        """
        if self._container is not None and self._is_full(self._n_bytes):
            self.close()
        kind: tuple[Any, ...] = ()
        start = 0
        for number, clip in enumerate(clips):
            with clip.open() as source:
                stream = video_stream(source, clip.name)
                if number == 0:
                    kind = _stream_kind(stream)
                    if self._container is not None and kind != self._kind:
                        self.close()  # one file has one codec and one size
                    start = self._n_frames if self._container is not None else 0
                self._copy(source, stream, clip, kind)
        self._remember(samples or {}, start)
        chunk, file = place(self.number)
        return chunk, file, float(start / self.rate), float(self._n_frames / self.rate)

    def share(self, source: Path) -> tuple[int, int]:
        """Take a whole file over as the next one. Returns chunk and file index."""
        self.close()
        share_file(source, self.path)
        self.number += 1
        return place(self.number - 1)

    def close(self) -> None:
        """Finish the open file, read sampled frames back, and give it its name.

        Raises:
            DataError: a frame is missing, in the wrong place or unrecognisable.
        """
        if self._container is None:
            return
        self._container.close()
        self._container = None
        hidden = self._hidden()
        check = check_video(hidden, self._samples, self._n_frames, self.rate)
        self.worst_db = min(self.worst_db, check)
        self._samples = {}
        sync_file(hidden)
        os.replace(hidden, self.path)
        self.number += 1

    def abandon(self) -> None:
        """Let go of the open file and remove it."""
        if self._container is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self._container.close()
            self._container = None
            self._samples = {}
            discard(self._hidden())

    def _hidden(self) -> Path:
        return self.path.with_name(f".{self.path.name}.open")

    def _copy(self, source: Any, stream: Any, clip: VideoClip, kind: tuple[Any, ...]) -> None:
        if _stream_kind(stream) != kind:
            reason = "is encoded in another way than its episode"
            raise NotCopyableError(f"{clip.name} {reason}", f"it {reason}")
        if self._container is None:
            self._open(stream, kind)
        unit = 1 / self.rate
        for packet in packets_of(source, stream, clip):
            data: Any = av.Packet(bytes(packet))  # without what else its file said of it
            data.stream, data.time_base = self._stream, unit
            data.pts = data.dts = self._n_frames
            data.duration, data.is_keyframe = 1, packet.is_keyframe
            self._container.mux(data)
            self._n_frames += 1
            self._n_bytes += data.size

    def _open(self, template: Any, kind: tuple[Any, ...]) -> None:
        self._hidden().parent.mkdir(parents=True, exist_ok=True)
        # Without the box for the bit rate of the first clip's file: it alone would tell in how many
        # pieces a video was written.
        options = {"write_btrt": "0"}
        self._container = av.open(str(self._hidden()), "w", format="mp4", container_options=options)
        # Opaque: as the packets are only copied, no codec is needed (decoders cannot be found by
        # the encoder's name).
        self._stream = self._container.add_stream_from_template(template, opaque=True)
        self._stream.time_base = 1 / self.rate
        self._kind, self._n_frames, self._n_bytes = kind, 0, 0

    def _remember(self, samples: Mapping[int, np.ndarray], start: int) -> None:
        """Keep a few frames to compare with: an even sample of all frames of the file."""
        self._samples |= {start + number: picture for number, picture in samples.items()}
        while len(self._samples) > _SAMPLES:
            del self._samples[list(self._samples)[self._rng.integers(len(self._samples) - 1)]]


def packet_bytes(path: Path) -> int:
    """Bytes of all packets of a video file: what `VideoShards` measures its limit by."""
    with av.open(str(path)) as container:
        return sum(packet.size for packet in container.demux(container.streams.video[0]))


def _stream_kind(stream: Any) -> tuple[Any, ...]:
    context = stream.codec_context
    extra = bytes(context.extradata or b"")
    return (codec_name(stream), context.width, context.height, context.pix_fmt, extra)


def check_video(
    path: Path, samples: Mapping[int, np.ndarray], n_frames: int, rate: Fraction
) -> float:
    """Read ``samples`` back by seek.

    Args:
        path: the mp4.
        samples: frames uint8 ``(H, W, 3)`` by their number in the file.
        n_frames: how many frames the file should hold.
        rate: frames per second.
    Returns:
        The worst peak signal-to-noise ratio of a sample, in dB.
    Raises:
        DataError: a frame is missing, in the wrong place or unrecognisable.
    """
    worst = float("inf")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if stream.frames != n_frames:
            raise DataError(f"{path.name} holds {stream.frames} frames instead of {n_frames}")
        for number, source in sorted(samples.items()):
            around = _frames_around(container, stream, number, n_frames, rate)
            errors = {i: float(np.square(f - source.astype(np.float32)).mean())
                      for i, f in around.items()}  # fmt: skip
            best = min(errors, key=errors.__getitem__)
            # Frames of a camera at rest, or of a slow fade, are all alike: then any may be nearest
            # by a hair.
            if errors[number] > 1.5 * errors[best] + 2:
                raise DataError(
                    f"frame {number} of {path.name} comes back as frame {best}",
                    hint="the encoder reorders frames; store the pictures with --images webp",
                )
            worst = min(worst, float(10 * np.log10(255**2 / max(errors[number], 1e-10))))
    if worst < _WORST_DB:
        raise DataError(
            f"{path.name}: a frame comes back at {worst:.1f} dB, too poor to train from",
            hint="store the pictures without loss: --images webp",
        )
    return worst


def _frames_around(
    container: Any, stream: Any, number: int, n_frames: int, rate: Fraction
) -> dict[int, np.ndarray]:
    """Frames ``number - 1 .. number + 1`` as float32, sought by time."""
    wanted = set(range(max(0, number - 1), min(n_frames, number + 2)))
    container.seek(int(min(wanted) / rate / stream.time_base), stream=stream, backward=True)
    found: dict[int, np.ndarray] = {}
    for frame in container.decode(stream):
        at = frame.pts * frame.time_base * rate
        if at.denominator != 1:
            raise DataError(f"a frame at {float(at / rate):.6f} s is off the {float(rate)} Hz grid")
        if int(at) in wanted:
            found[int(at)] = frame.to_ndarray(format="rgb24").astype(np.float32)
        if int(at) >= max(wanted):
            break
    if wanted - set(found):
        raise DataError(f"frames {sorted(wanted - set(found))} cannot be found by seeking")
    return found
