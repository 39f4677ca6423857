"""Camera frames as mp4, many episodes to a file, and proof that they come back.

Every second frame is a key frame (fast random access) and there are no B-frames: with open groups
of pictures a seek can silently return the neighbouring frame. After a file is closed, sampled
frames are read back by seek and compared with the source and with their neighbours.
"""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from dp_hub.dataset.shards import VIDEO_FILE_MB, VIDEO_PATH, place
from dp_hub.errors import DataError

CODECS = {
    "h264": ("libx264", {"crf": "23", "preset": "veryfast", "tune": "fastdecode", "bf": "0"}),
    "av1": ("libsvtav1", {"crf": "30", "preset": "8"}),
}
_GOP = 2
_SAMPLES = 16
_WORST_DB = 20.0


def describe_encoding(codec: str) -> str:
    """The codec and all that changes its pictures, in one line."""
    options = CODECS[codec][1]
    return f"video {codec} g={_GOP} crf={options['crf']} preset={options['preset']} yuv420p"


def video_info(shape: tuple[int, ...], fps: float, codec: str) -> dict[str, Any]:
    """``info`` of a video feature, with LeRobot's keys."""
    options = CODECS[codec][1]
    return {
        "video.height": shape[0],
        "video.width": shape[1],
        "video.channels": shape[2],
        "video.codec": codec,
        "video.pix_fmt": "yuv420p",
        "video.fps": fps,
        "video.g": _GOP,
        "video.crf": int(options["crf"]),
        "video.preset": options["preset"],
        "is_depth_map": False,
        "has_audio": False,
    }


class VideoShards:
    """The mp4 files of one camera.

    Args:
        root: the dataset's folder.
        feature: the camera's feature name.
        fps: frames per second, constant.
        codec: a key of `CODECS`.
    """

    def __init__(
        self,
        root: Path,
        feature: str,
        *,
        fps: float,
        codec: str,
        limit_bytes: int = VIDEO_FILE_MB * 1_000_000,
    ) -> None:
        self._root, self._feature, self._codec = root, feature, codec
        self._rate = Fraction(fps).limit_denominator(100_000)
        self._limit_bytes = limit_bytes
        self._number = -1
        self._path = Path()
        self._container: Any = None
        self._stream: Any = None
        self._n_frames = 0
        self._samples: dict[int, np.ndarray] = {}
        self._rng = np.random.default_rng(0)
        self.worst_db = float("inf")

    def write(self, pictures: np.ndarray) -> tuple[int, int, float, float]:
        """Append one episode, uint8 ``(T, H, W, 3)``.

        Returns:
            Chunk index, file index, and from and to in seconds inside that file.
        """
        if self._container is not None and self._path.stat().st_size >= self._limit_bytes:
            self.close()
        if self._container is None:
            self._open(pictures.shape[1], pictures.shape[2])
        start = self._n_frames
        self._remember(pictures, start)
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts = self._n_frames
            frame.time_base = 1 / self._rate
            self._container.mux(self._stream.encode(frame))
            self._n_frames += 1
        chunk, file = place(self._number)
        return chunk, file, float(start / self._rate), float(self._n_frames / self._rate)

    def close(self) -> None:
        """Finish the open file and read sampled frames back.

        Raises:
            DataError: a frame is missing, in the wrong place or unrecognisable.
        """
        if self._container is None:
            return
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._container = None
        check = check_video(self._path, self._samples, self._n_frames, self._rate)
        self.worst_db = min(self.worst_db, check)
        self._samples = {}

    def abandon(self) -> None:
        """Let go of the open file without finishing it."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _open(self, height: int, width: int) -> None:
        self._number += 1
        chunk, file = place(self._number)
        name = VIDEO_PATH.format(video_key=self._feature, chunk_index=chunk, file_index=file)
        self._path = self._root / name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        encoder, options = CODECS[self._codec]
        os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints 20 lines otherwise
        try:
            self._container = av.open(str(self._path), "w")
            self._stream = self._container.add_stream(encoder, rate=self._rate, options=options)
        except (av.error.FFmpegError, ValueError) as error:
            raise DataError(
                f"this PyAV cannot encode {self._codec} ({encoder}): {error}",
                hint="choose another --codec, or --images webp",
            ) from None
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.gop_size = _GOP
        self._stream.codec_context.time_base = 1 / self._rate
        self._n_frames = 0

    def _remember(self, pictures: np.ndarray, start: int) -> None:
        """Keep a few frames to compare with: an even sample of all frames of the file."""
        for frame in {0, len(pictures) - 1, int(self._rng.integers(len(pictures)))}:
            self._samples[start + frame] = pictures[frame].copy()
        while len(self._samples) > _SAMPLES:
            del self._samples[list(self._samples)[self._rng.integers(len(self._samples) - 1)]]


def check_video(path: Path, samples: dict[int, np.ndarray], n_frames: int, rate: Fraction) -> float:
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
            # Frames of a camera at rest are all alike: then any may be nearest by a hair.
            if errors[number] > 1.05 * errors[best] + 0.5:
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
