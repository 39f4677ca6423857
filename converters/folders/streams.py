"""What an episode's folder holds becomes streams: values, and the times that belong to them."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dp_hub_converters.folders.found import EpisodeFolder
from dp_hub_converters.folders.tables import Table, read_any_table
from dp_hub_converters.folders.times import Times, find_times, row_times
from dp_hub_converters.folders.unitree import read_steps
from dp_hub_converters.shared.encoded_pictures import EncodedPictures, read_files, type_of
from dp_hub_converters.shared.video_frames import open_video

from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip
from dp_hub.replay.recording import Stream, StreamKind

_COMMANDS = ("action", "command", "cmd", "target")
_TASKS = ("task", "language_instruction", "instruction")
_MOST_FACTS = 1000


@dataclass(frozen=True)
class Options:
    """The format's options, see `dp_hub_converters.folder.EpisodeFolders`."""

    fps: float | None
    time_column: str | None
    time_unit: str | None
    video_offset_s: float


@dataclass(frozen=True)
class Parts:
    """An episode, as it lies in its folder.

    Args:
        where: the folder, for messages.
        tables: columns by name of the stream, by table.
        names: of the numbers of a value, by stream.
        videos: files.
        pictures: files, one for each picture.
        fps: rows per second, if anything says so.
        task: what was to be done.
        facts: about the episode.
    """

    where: Path
    tables: Mapping[int, Mapping[str, Any]]
    names: Mapping[str, tuple[str, ...]]
    videos: Mapping[str, Path]
    pictures: Mapping[str, tuple[Path, ...]]
    fps: float | None
    task: str | None
    facts: Mapping[str, Any]


def parts_of(found: EpisodeFolder, facts: Mapping[str, Any], options: Options) -> Parts:
    """Read the tables of an episode.

    Args:
        found: the folder.
        facts: what is known of the episode already; ``fps`` and ``task`` are used.
        options: of the format.
    Raises:
        DataError: one of them cannot be read.
    """
    tables = [read_any_table(path) for path in found.tables]
    together: dict[int, dict[str, Any]] = {}
    names: dict[str, tuple[str, ...]] = {}
    known = {key: value for table in tables for key, value in table.facts.items()} | dict(facts)
    places = _places(tables)
    for table, place in zip(tables, places, strict=True):
        prefix = _prefix(found, table, alone=len(set(places)) == 1)
        columns = together.setdefault(place, {})
        columns |= {prefix + key: values for key, values in table.columns.items()}
        names |= {prefix + key: some for key, some in table.names.items()}
    pictures, fps, task = dict(found.pictures), known.get("fps"), known.get("task")
    steps = read_steps(found.path)
    if steps is not None:
        together[len(tables)] = dict(steps.columns)
        listed = {file.parent for files in steps.pictures.values() for file in files}
        pictures = {
            name: files for name, files in pictures.items() if files[0].parent not in listed
        }
        pictures |= steps.pictures
        fps, task = fps or steps.fps, task or steps.task
        known = {**steps.facts, **known}
    task = _taken_task(together) or task
    rate = fps if isinstance(fps, int | float) and not isinstance(fps, bool) and fps > 0 else None
    told = task if isinstance(task, str) and task else None
    chosen = options.fps or rate
    return Parts(found.path, together, names, found.videos, pictures, chosen, told, known)


def streams_of(
    parts: Parts, options: Options, only: Collection[str] | None
) -> tuple[dict[str, Stream], dict[str, Any]]:
    """The streams of an episode, all or those in ``only``; and what does not change with time.

    Raises:
        DataError: rows or pictures have no times and there is no rate, or a video or a picture
            cannot be read.
    """
    # Without a rate, that of the videos may be the rows'.
    videos = {
        name: open_video(file)
        for name, file in parts.videos.items()
        if parts.fps is None or only is None or name in only
    }
    counts = {name: len(frames) for name, (frames, _) in videos.items()}
    counts |= {name: len(files) for name, files in parts.pictures.items()}
    times = find_times(
        parts.tables,
        counts,
        column=options.time_column,
        unit=options.time_unit,
        where=str(parts.where),
    )
    clock = _Clock(parts, times, _rate(parts, times, videos))
    streams, facts = _columns(parts, clock, only)
    for name, (frames, own_s) in videos.items():
        if only is None or name in only:
            codec = getattr(frames, "codec", "video of no constant rate")
            at_s, how = clock.of_pictures(name, len(frames)), "a frame for each row"
            if at_s is None:
                at_s, how = clock.start_s + options.video_offset_s + own_s, "its own times"
            streams[name] = Stream(frames, at_s, "picture", about=f"{codec}, {how}")
    for name, files in parts.pictures.items():
        if only is None or name in only:
            at_s = clock.of_pictures(name, len(files))
            if at_s is None:
                at_s = clock.at_rate(len(files), name)
            about = files[0].suffix[1:].lower()
            streams[name] = Stream(_pictures(name, files), at_s, "picture", about=about)
    return streams, facts


def _columns(
    parts: Parts, clock: "_Clock", only: Collection[str] | None
) -> tuple[dict[str, Stream], dict[str, Any]]:
    """The streams that tables give, and small arrays that have no times: facts."""
    streams, facts = dict[str, Stream](), dict[str, Any]()
    for place, columns in parts.tables.items():
        for name, values in columns.items():
            if name in clock.times.columns.get(place, ()) or not (only is None or name in only):
                continue
            at_s = clock.of_column(name, len(values), place)
            if at_s is not None:
                named = parts.names.get(name, ())
                streams[name] = Stream(values, at_s, _kind(name, values), names=named)
            elif values.dtype.kind in "biuf" and math.prod(values.shape) <= _MOST_FACTS:
                facts[name] = plain(np.asarray(values).tolist())
            else:
                raise DataError(
                    f"{parts.where}: {name} has {len(values)} values, the times of its table are "
                    f"{len(clock.times.of_table[place])}",
                    hint=f"give it times of its own, called {name}_time",
                )
    return streams, facts


def plain(value: Any) -> Any:
    """A value as JSON can hold it: no infinities."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class _Clock:
    """Tells when rows and pictures were.

    Args:
        parts: of the episode.
        times: its columns of times.
        fps: rows per second of tables without times; None if nothing says so.
    """

    parts: Parts
    times: Times
    fps: float | None

    @property
    def start_s(self) -> float:
        """When the episode begins: its first time, or 0."""
        known = [*self.times.own.values(), *self.times.of_table.values()]
        return min((float(times_s[0]) for times_s in known if len(times_s)), default=0.0)

    def of_column(self, name: str, count: int, place: int) -> np.ndarray | None:
        """Times of a column; None if it is none, but has another length than its table's times."""
        if name in self.times.own:
            return self.times.own[name]
        of_table = self.times.of_table.get(place)
        if of_table is None:
            return self.at_rate(count, name)
        return of_table if len(of_table) == count else None

    def of_pictures(self, name: str, count: int) -> np.ndarray | None:
        """Times of pictures: their own, or those of the rows they belong to; None if neither."""
        if name in self.times.own:
            return self.times.own[name]
        rows = []
        for place, columns in self.parts.tables.items():
            of_table = self.times.of_table.get(place)
            lengths = {len(v) for key, v in columns.items() if key not in self.times.own}
            if of_table is None and self.fps is not None and lengths == {count}:
                of_table = self.at_rate(count, name)
            if of_table is not None and len(of_table) == count:
                rows.append(of_table)
        same = rows and all(np.array_equal(rows[0], other) for other in rows[1:])
        return rows[0] if same else None

    def at_rate(self, count: int, name: str) -> np.ndarray:
        """Times at the rate of rows. Raises DataError if there is none."""
        if self.fps is None:
            raise DataError(
                f"{self.parts.where}: nothing says when the values of {name} were",
                hint="give the rate of the rows with --option fps=30, or name the column of times "
                "with --option time_column=NAME",
            )
        return row_times(count, self.fps, self.start_s)


def _rate(parts: Parts, times: Times, videos: Mapping[str, tuple[Any, Any]]) -> float | None:
    """Rows per second: what was said, else the one rate of videos with a frame for each row."""
    if parts.fps is not None:
        return parts.fps
    lengths = {
        len(values)
        for place, columns in parts.tables.items()
        if place not in times.of_table
        for name, values in columns.items()
        if name not in times.own and name not in times.columns.get(place, ())
    }
    clips = [frames for frames, _ in videos.values() if isinstance(frames, VideoClip)]
    rates = {float(clip.rate) for clip in clips if {len(clip)} == lengths}
    return rates.pop() if len(rates) == 1 else None


def _places(tables: list[Table]) -> list[int]:
    """Which tables are one: npy files in one folder are its columns."""
    first: dict[Any, int] = {}
    return [
        first.setdefault(t.path.parent if t.path.suffix.lower() == ".npy" else t.path, place)
        for place, t in enumerate(tables)
    ]


def _prefix(found: EpisodeFolder, table: Table, *, alone: bool) -> str:
    """What comes before the names of columns: nothing if there is one table only."""
    if table.path.suffix.lower() == ".npy":
        inside = table.path.parent.relative_to(found.path).as_posix()
        return "" if inside == "." else f"{inside}/"
    return "" if alone else f"{found.name_of(table.path)}/"


def _taken_task(tables: Mapping[int, dict[str, Any]]) -> str | None:
    """A column of texts that says the task in every row, which is taken out of its table."""
    for columns in tables.values():
        for name, values in list(columns.items()):
            if name.rpartition("/")[2] in _TASKS and values.dtype == object and len(values):
                texts = {text for text in values.tolist() if text}
                if len(texts) == 1:
                    del columns[name]
                    return str(texts.pop())
    return None


def _pictures(name: str, files: tuple[Path, ...]) -> EncodedPictures:
    where = f"{name} ({files[0].name} ...)"
    return EncodedPictures(read_files(files), len(files), where, dtype=type_of(files[0]))


def _kind(name: str, values: Any) -> StreamKind:
    if values.ndim == 4 and values.dtype == np.uint8:
        return "picture"
    bare = name.lower().replace("/", "_").replace(".", "_").split("_")
    if any(word.rstrip("s") in _COMMANDS for word in bare):
        return "command"
    return "state" if values.dtype.kind == "f" else "event"
