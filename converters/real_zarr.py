"""Diffusion Policy's real-robot recordings: replay_buffer.zarr, and a video per episode and camera.

The rows have times (seconds since 1970), the videos have their own: that a video begins where its
episode does is how the original reads them, and nothing in the files proves it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dp_hub_converters.natural import natural
from dp_hub_converters.video_frames import open_video

from dp_hub.errors import DataError
from dp_hub.replay.buffer import ReplayBuffer, open_replay
from dp_hub.replay.recording import Recording, Stream, StreamKind
from dp_hub.replay.source import Source

_BUFFER, _VIDEOS = "replay_buffer.zarr", "videos"
_COMMANDS = ("action", "target", "command")
_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov")


@dataclass(frozen=True)
class _Video:
    """A video file, when its last frame is, counted from the first, and how long one lasts."""

    path: Path
    last_s: float
    frame_s: float


@dataclass(frozen=True)
class _Found:
    """An opened source.

    Args:
        path: of the folder.
        buffer: the rows.
        times_s: float64 (N,), of all rows.
        cameras: of all episodes.
        videos: by episode, that of each camera; those with a problem are not in it.
        problems: by episode, what is wrong with its videos.
    """

    path: Path
    buffer: ReplayBuffer
    times_s: np.ndarray
    cameras: Sequence[str]
    videos: Mapping[int, Mapping[str, _Video]]
    problems: Mapping[int, str]

    def rows(self, number: int) -> tuple[int, int]:
        """First row of an episode and one past its last."""
        ends = self.buffer.episode_ends
        return int(ends[number - 1]) if number else 0, int(ends[number])


class RealZarr:
    """Reads the folder that holds replay_buffer.zarr and videos/<episode>/<camera>.mp4.

    Args:
        video_offset_s: when the first frame of every video was taken, counted from the first row of
            its episode.
    """

    name = "real-zarr"
    summary = "Diffusion Policy's real-robot folder: replay_buffer.zarr and videos/"

    def __init__(self, *, video_offset_s: float = 0.0) -> None:
        self._offset_s = video_offset_s
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
        if found.problems and not skip_bad:
            raise _problem(found, min(found.problems))
        dtypes = {key: found.buffer.dtype(key).name for key in found.buffer if key != "timestamp"}
        return Source(
            dtypes=dtypes | dict.fromkeys(found.cameras, "uint8"),
            n_episodes=found.buffer.n_episodes,
            n_frames=found.buffer.n_steps,
            attrs=found.buffer.attrs,
            notes=tuple(self._notes(found)),
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
            if cameras and number in found.problems:
                raise _problem(found, number)
            first, stop = found.rows(number)
            times_s = found.times_s[first:stop]
            streams: dict[str, Stream] = {}
            for key in found.buffer:
                if key != "timestamp" and (only is None or key in only):
                    values = found.buffer.read(key, first, stop)
                    streams[key] = Stream(values, times_s, _kind(key, values))
            for camera in cameras:
                file = found.videos[number][camera].path
                streams[camera] = self._pictures(file, float(times_s[0]))
            about = {"source": f"{_BUFFER}, episode {number}", **facts[number]}
            task = about.pop("task", None)
            yield Recording(f"{_VIDEOS}/{number}", streams, task, about)

    def _pictures(self, file: Path, begins_s: float) -> Stream:
        frames, times_s = open_video(file)
        about = getattr(frames, "codec", "video of no constant rate")
        return Stream(frames, begins_s + self._offset_s + times_s, "picture", about=about)

    def _notes(self, found: _Found) -> Iterator[str]:
        yield (
            "every video is taken to begin with its episode; where it began later or earlier, say "
            "by how much with --option video_offset_s=SECONDS"
        )
        for number in sorted(found.problems):
            yield found.problems[number]
        yield from _late(found, self._offset_s)
        extra = [name for name in _episode_folders(found.path) if name >= found.buffer.n_episodes]
        if extra:
            yield f"{_VIDEOS}/{extra[0]} and {len(extra) - 1} more have no episode in {_BUFFER}"
        if not found.cameras:
            yield f"there are no videos under {_VIDEOS}"

    def _look(self, path: Path) -> _Found:
        if self._found is None or self._found.path != path:
            self._found = _look(path)
        return self._found


def _look(path: Path) -> _Found:
    """Open the buffer, list the videos and read the header of each. Raises DataError."""
    if not (path / _BUFFER).exists():
        raise DataError(
            f"{path} holds no {_BUFFER}",
            hint="give the folder with replay_buffer.zarr and videos/; for a replay buffer alone "
            "the format is zarr",
        )
    buffer = open_replay(path / _BUFFER)
    folders = _episode_folders(path)
    files = {
        number: _files(path / _VIDEOS / folders[number]) if number in folders else {}
        for number in range(buffer.n_episodes)
    }
    cameras = sorted({camera for some in files.values() for camera in some}, key=natural)
    videos: dict[int, dict[str, _Video]] = {}
    problems: dict[int, str] = {}
    for number, some in files.items():
        try:
            videos[number] = {camera: _opened(some, camera) for camera in cameras}
        except DataError as error:
            problems[number] = f"episode {number}: {error.args[0]}"
    return _Found(path, buffer, _times(buffer), cameras, videos, problems)


def _problem(found: _Found, number: int) -> DataError:
    others = len(found.problems) - 1
    more = f" (and {others} more)" if others else ""
    return DataError(
        f"{found.path}: {found.problems[number]}{more}",
        hint="copy the videos again, or leave such episodes out with --skip-bad",
    )


def _opened(files: Mapping[str, Path], camera: str) -> _Video:
    if camera not in files:
        raise DataError(f"there is no video of {camera}")
    times_s = open_video(files[camera])[1]
    frame_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    return _Video(files[camera], float(times_s[-1]), frame_s)


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


def _late(found: _Found, offset_s: float) -> Iterator[str]:
    """Which videos end before their episodes, so that there are no pictures for the last rows."""
    early: dict[str, list[tuple[float, int]]] = {}
    for number in found.videos:
        first, stop = found.rows(number)
        lasts_s = float(found.times_s[stop - 1] - found.times_s[first])
        for camera, video in found.videos[number].items():
            short_s = lasts_s - (offset_s + video.last_s)
            if short_s > video.frame_s:
                early.setdefault(camera, []).append((short_s, number))
    for camera, cases in sorted(early.items()):
        short_s, number = max(cases)
        yield (
            f"{camera}: {len(cases)} videos end before their episodes, at most {short_s:.2f} s "
            f"(episode {number}); limit it with max_gap_s in the mapping"
        )


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
