"""Diffusion Policy's real-robot recordings: replay_buffer.zarr, and a video per episode and camera.

The rows have times (seconds since 1970), the videos have their own: that a video begins where its
episode does is how the original reads them, and nothing in the files proves it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from dp_hub_converters.shared.natural import natural
from dp_hub_converters.shared.video_frames import open_video

from dp_hub.errors import DataError
from dp_hub.replay.buffer import ReplayBuffer, open_replay
from dp_hub.replay.recording import Recording, Stream, StreamKind
from dp_hub.replay.source import Source

_BUFFER, _VIDEOS = "replay_buffer.zarr", "videos"
_COMMANDS = ("action", "target", "command")
_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov")


@dataclass(frozen=True)
class _Found:
    """An opened source.

    Args:
        path: of the folder.
        buffer: the rows.
        times_s: float64 (N,), of all rows.
        cameras: of all episodes.
        videos: by episode, the file of each camera it has.
    """

    path: Path
    buffer: ReplayBuffer
    times_s: np.ndarray
    cameras: Sequence[str]
    videos: Sequence[Mapping[str, Path]]

    def rows(self, number: int) -> tuple[int, int]:
        """First row of an episode and one past its last."""
        ends = self.buffer.episode_ends
        return int(ends[number - 1]) if number else 0, int(ends[number])

    def open(self, number: int, camera: str) -> tuple[Any, np.ndarray]:
        """Frames and times of a video as `open_video`. Raises DataError that names the episode."""
        file = self.videos[number].get(camera)
        try:
            if file is None:
                raise DataError(f"there is no video of {camera}")
            return open_video(file)
        except DataError as error:
            raise DataError(
                f"{self.path}, episode {number}: {error.message}",
                hint="copy the videos again, or leave such episodes out with --skip-bad",
            ) from None


class RealZarr:
    """Reads the folder that holds replay_buffer.zarr and videos/<episode>/<camera>.mp4.

    Args:
        video_offset_s: when the first frame of every video was taken, counted from the first row of
            its episode.
        missing_chunks: ``"fill"`` takes chunks that are not stored for the fill value.
    """

    name = "real-zarr"
    summary = "Diffusion Policy's real-robot folder: replay_buffer.zarr and videos/"

    def __init__(
        self, *, video_offset_s: float = 0.0, missing_chunks: Literal["error", "fill"] = "error"
    ) -> None:
        self._offset_s, self._missing = video_offset_s, missing_chunks
        self._found: _Found | None = None

    def recognises(self, path: Path) -> bool:
        """Whether there are replay_buffer.zarr and videos."""
        try:
            return (path / _BUFFER).is_dir() and (path / _VIDEOS).is_dir()
        except (OSError, ValueError):
            return False

    def describe(self, path: Path, *, skip_bad: bool = False) -> Source:
        """What the folder holds; with ``skip_bad`` in spite of videos that are missing or damaged.

        Raises:
            DataError: it does not hold together.
        """
        found = self._look(path)
        notes = list(self._notes(found, skip_bad))
        dtypes = {key: found.buffer.dtype(key).name for key in found.buffer if key != "timestamp"}
        return Source(
            dtypes=dtypes | dict.fromkeys(found.cameras, "uint8"),
            n_episodes=found.buffer.n_episodes,
            n_frames=found.buffer.n_steps,
            attrs=found.buffer.attrs,
            notes=tuple(notes),
        )

    def recordings(
        self, path: Path, *, only: Collection[str] | None = None, start: int = 0
    ) -> Iterator[Recording]:
        """Its episodes from number ``start`` on: a stream per key and camera.

        Raises:
            DataError: rows cannot be decoded, or a video is missing or no readable one.
        """
        found = self._look(path)
        facts = found.buffer.episode_metadata()
        cameras = [camera for camera in found.cameras if only is None or camera in only]
        for number in range(start, found.buffer.n_episodes):
            first, stop = found.rows(number)
            times_s = found.times_s[first:stop]
            streams: dict[str, Stream] = {}
            for key in found.buffer:
                if key != "timestamp" and (only is None or key in only):
                    values = found.buffer.read(key, first, stop)
                    streams[key] = Stream(values, times_s, _kind(key, values))
            for camera in cameras:
                frames, since_s = found.open(number, camera)
                taken_s = float(times_s[0]) + self._offset_s + since_s
                codec = getattr(frames, "codec", "video of no constant rate")
                streams[camera] = Stream(frames, taken_s, "picture", about=codec)
            about = {"source": f"{_BUFFER}, episode {number}", **facts[number]}
            task = about.pop("task", None)
            yield Recording(f"{_VIDEOS}/{number}", streams, task, about)

    def _notes(self, found: _Found, skip_bad: bool) -> Iterator[str]:
        """What to tell. Raises DataError if a video is bad and not to be skipped."""
        yield (
            "every video is taken to begin with its episode; where it began later or earlier, say "
            "by how much with --option video_offset_s=SECONDS"
        )
        for camera in found.cameras:
            early: list[tuple[float, int]] = []
            for number in range(found.buffer.n_episodes):
                try:
                    short_s = self._missing_s(found, number, camera)
                except DataError as error:
                    if not skip_bad:
                        raise
                    yield error.message
                else:
                    early += [(short_s, number)] if short_s else []
            if early:
                short_s, number = max(early)
                yield (
                    f"{camera}: {len(early)} videos end before their episodes, at most "
                    f"{short_s:.2f} s (episode {number}); max_gap_s in the mapping says how long "
                    "a last frame may be held"
                )
        for key, n in found.buffer.filled.items():
            yield f"{key}: {n} chunks are not stored, read as fill"
        extra = [name for name in _episode_folders(found.path) if name >= found.buffer.n_episodes]
        if extra:
            yield f"{_VIDEOS}/{extra[0]} and {len(extra) - 1} more have no episode in {_BUFFER}"
        if not found.cameras:
            yield f"there are no videos under {_VIDEOS}"

    def _missing_s(self, found: _Found, number: int, camera: str) -> float:
        """How long before its episode a video ends; 0.0 if it is less than a frame."""
        times_s = found.open(number, camera)[1]
        first, stop = found.rows(number)
        frame_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
        lasts_s = float(found.times_s[stop - 1] - found.times_s[first])
        short_s = lasts_s - (self._offset_s + float(times_s[-1]))
        return short_s if short_s > frame_s else 0.0

    def _look(self, path: Path) -> _Found:
        if self._found is None or self._found.path != path:
            self._found = _look(path, self._missing)
        return self._found


def _look(path: Path, missing: Literal["error", "fill"]) -> _Found:
    """Open the buffer and list the videos. Raises DataError."""
    if not (path / _BUFFER).exists():
        raise DataError(
            f"{path} holds no {_BUFFER}",
            hint="give the folder with replay_buffer.zarr and videos/; for a replay buffer alone "
            "the format is zarr",
        )
    buffer = open_replay(path / _BUFFER, missing=missing)
    folders = _episode_folders(path)
    files = [
        _files(path / _VIDEOS / folders[number]) if number in folders else {}
        for number in range(buffer.n_episodes)
    ]
    cameras = sorted({camera for some in files for camera in some}, key=natural)
    return _Found(path, buffer, _times(buffer), cameras, files)


def _times(buffer: ReplayBuffer) -> np.ndarray:
    """Times of all rows in s. Raises DataError if there are none, or they go back."""
    if "timestamp" not in buffer.keys() or buffer.shape("timestamp") not in ((), (1,)):  # noqa: SIM118
        raise DataError(
            f"{buffer.path} has no timestamp for each row",
            hint="rows without times are a replay buffer of format zarr; its videos need them",
        )
    times = buffer.read("timestamp", 0, buffer.n_steps).reshape(-1)
    if times.dtype.kind not in "fiu":
        raise DataError(f"{buffer.path}: timestamp is {times.dtype}, not seconds")
    times = times.astype(np.float64)
    first = 0
    for number, stop in enumerate(buffer.episode_ends.tolist()):
        part = times[first:stop]
        if not np.isfinite(part).all() or (np.diff(part) <= 0).any():
            row = int(np.argmin(np.append(True, np.diff(part) > 0)))
            raise DataError(
                f"{buffer.path}: the timestamps of episode {number} do not increase (row {row} of "
                "the episode)",
                hint="a clock that was set while it was recorded; leave that episode out",
            )
        first = stop
    return times


def _episode_folders(path: Path) -> dict[int, str]:
    """Names of the folders of videos by the number of their episode."""
    try:
        names = [entry.name for entry in (path / _VIDEOS).iterdir() if entry.is_dir()]
    except OSError:
        return {}
    return {int(name): name for name in sorted(names) if name.isascii() and name.isdecimal()}


def _files(folder: Path) -> dict[str, Path]:
    """The videos of an episode by camera: ``camera_0`` for 0.mp4, in order of number."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES]
    named = {f"camera_{f.stem}" if f.stem.isdecimal() else f.stem: f for f in files}
    return dict(sorted(named.items(), key=lambda item: natural(item[0])))


def _kind(key: str, values: np.ndarray) -> StreamKind:
    if key.startswith(_COMMANDS):
        return "command"
    if key == "stage" or values.dtype.kind in "biu":
        return "picture" if values.ndim == 4 and values.dtype == np.uint8 else "event"
    return "state"
