"""What is at a path: which format, which streams, how regular, and how it could be mapped.

Nothing is converted. Of streams with times of their own all values' times are read, of the first
recordings; of rows the first episode.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.dataset.conversion.format_list import GROUP, install_line
from dp_hub.dataset.conversion.formats import format_names, load_converter, missing_library_told
from dp_hub.dataset.conversion.source import has_recordings
from dp_hub.dataset.features import check_known_keys
from dp_hub.dataset.inspection.proposing import propose
from dp_hub.dataset.inspection.stream_facts import StreamFacts, StreamMeter, numbers_range
from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode
from dp_hub.replay.recording import Recording
from dp_hub.replay.source import Source

MOST_RECORDINGS = 10
_TIME_WORDS = ("timestamp", "timestamps", "time", "times", "stamp")


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Args:
        path: the source.
        format_name: the format it was read as.
        has_rows: its values belong together row by row; else streams have times of their own.
        n_episodes: episodes, or recordings; None if that cannot be told without reading all.
        n_frames: steps, likewise.
        looked_at: how many recordings or episodes were measured.
        fps: rows per second, stated or measured; None if unknown, and of streams.
        fps_from: who says so: ``the source``, or a stream's name.
        duration_s: of the recordings that were looked at, or of all rows; None if unknown.
        streams: what there is, in the source's order.
        notes: what the format has to say.
        missing: by format that was not asked as its library is not installed, what installs it.
        mapping: a mapping file that suits it, YAML; "" if no feature can be made of it.
        fps_hint: why a conversion needs to be told the rate, if it does.
    """

    path: Path
    format_name: str
    has_rows: bool
    n_episodes: int | None
    n_frames: int | None
    looked_at: int
    fps: float | None
    fps_from: str | None
    duration_s: float | None
    streams: tuple[StreamFacts, ...]
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] | None = None
    mapping: str = ""
    fps_hint: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            **asdict(self),
            "path": str(self.path),
            "streams": [asdict(stream) for stream in self.streams],
        }


def inspect(
    path: str | Path,
    *,
    format_name: str | None = None,
    options: dict[str, Any] | None = None,
    drop: Collection[str] = (),
) -> Inspection:
    """Look at a source.

    Args:
        path: where it is.
        format_name: an installed format; default: the one that recognises it.
        options: the format's own.
        drop: keys or streams that are not looked at.
    Raises:
        DataError: there is nothing, no format recognises it, several do, or it does not hold
            together.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is nothing at {path}")
    if path.is_file() and not path.stat().st_size:
        raise DataError(f"{path} is empty (0 bytes)", hint="copy the recording again")
    missing: dict[str, str] = {}
    if format_name is None:
        found, missing = recognised_formats(path)
        format_name = _the_one(path, found, missing)
    converter: Any = load_converter(format_name, options)
    with missing_library_told(format_name):
        source = converter.describe(path)
        check_known_keys(drop, source.dtypes)
        if has_recordings(converter):
            only = set(source.dtypes).difference(drop) if drop else None
            with closing(converter.recordings(path, only=only)) as recordings:
                seen = _streams(path, format_name, source, recordings)
        else:
            with closing(converter.episodes(path, drop=frozenset(drop))) as episodes:
                seen = _rows(path, format_name, source, next(episodes, None))
    seen = replace(seen, missing=missing, fps_hint=None if seen.fps else source.fps_hint)
    text = propose(
        seen.streams,
        source,
        has_rows=seen.has_rows,
        fps=seen.fps,
        fps_from=seen.fps_from,
        looked_at=seen.looked_at,
        options=options or {},
        title=f"{format_name} {path.name}",
    )
    return replace(seen, mapping=text)


def recognised_formats(path: Path) -> tuple[list[str], dict[str, str]]:
    """The formats that recognise what is at ``path``; those that cannot be asked.

    Returns:
        Names of formats; by name of those whose library is not installed, the line that installs
        it.
    """
    found, missing = [], {}
    points = {point.name: point for point in entry_points(group=GROUP)}
    for name, point in sorted(points.items()):
        try:
            converter = point.load()()
            if hasattr(converter, "recognises") and converter.recognises(path):
                found.append(name)
        except (ImportError, AttributeError):
            missing[name] = _install_line(point)
    return found, missing


def _install_line(point: EntryPoint) -> str:
    return (
        f'pip install "{install_line(point) or (point.dist and point.dist.name) or point.module}"'
    )


def _the_one(path: Path, found: list[str], missing: Mapping[str, str]) -> str:
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{path} looks like {' and like '.join(found)}",
            hint=f"say which it is: --format {found[0]}",
        )
    names = ", ".join(name for name in format_names() if name not in missing)
    installs = "; ".join(f"for {names}: {line}" for line, names in by_install(missing).items())
    raise DataError(
        f"no {'installed ' if missing else ''}format recognises {path}",
        hint=f"asked were {names}; or say --format NAME"
        + (f". Libraries are missing {installs}" if missing else ""),
    )


def by_install(missing: Mapping[str, str]) -> dict[str, str]:
    """Names of formats that were not asked, by the line that installs what they need."""
    lines: dict[str, list[str]] = {}
    for name, line in missing.items():
        lines.setdefault(line, []).append(name)
    return {line: ", ".join(names) for line, names in lines.items()}


def _streams(
    path: Path, format_name: str, source: Source, recordings: Iterator[Recording]
) -> Inspection:
    meters: dict[str, StreamMeter] = {}
    looked_at, duration_s = 0, 0.0
    for recording in itertools.islice(recordings, MOST_RECORDINGS):
        looked_at += 1
        for name, stream in recording.streams.items():
            meter = meters.setdefault(name, StreamMeter(name, stream))
            meter.add(stream, recording.name)
        ends = [s.times_s[[0, -1]] for s in recording.streams.values() if len(s)]
        if ends:
            duration_s += float(max(e[1] for e in ends) - min(e[0] for e in ends))
    if not looked_at:
        raise DataError(f"{path} holds no recordings")
    return Inspection(
        path=path,
        format_name=format_name,
        has_rows=False,
        n_episodes=looked_at if looked_at < MOST_RECORDINGS else source.n_episodes,
        n_frames=source.n_frames,
        looked_at=looked_at,
        fps=None,
        fps_from=None,
        duration_s=duration_s,
        streams=tuple(meter.facts() for meter in meters.values()),
        notes=source.notes,
    )


def _rows(path: Path, format_name: str, source: Source, first: Episode | None) -> Inspection:
    if first is None:
        raise DataError(f"{path} holds no episodes")
    stated = source.attrs.get("fps")
    fps, fps_from = None, None
    if isinstance(stated, int | float) and not isinstance(stated, bool) and stated > 0:
        fps, fps_from = float(stated), "the source"
    timed = {
        key: dt for key, values in first.data.items() if (dt := _steps(key, values)) is not None
    }
    if fps is None and timed:
        fps_from = next(iter(timed))
        fps = 1 / float(np.median(timed[fps_from]))
    frames = source.n_frames
    return Inspection(
        path=path,
        format_name=format_name,
        has_rows=True,
        n_episodes=source.n_episodes,
        n_frames=frames,
        looked_at=1,
        fps=fps,
        fps_from=fps_from,
        duration_s=frames / fps if fps and frames is not None else None,
        streams=tuple(_row_facts(k, values, source, fps) for k, values in first.data.items()),
        notes=(*source.notes, *(_steps_told(key, between) for key, between in timed.items())),
    )


def _row_facts(key: str, values: Any, source: Source, fps: float | None) -> StreamFacts:
    low, high = numbers_range(values)
    return StreamFacts(
        name=key,
        kind="picture" if values.ndim == 4 else "state",
        dtype=np.dtype(values.dtype).name,
        shape=tuple(values.shape[1:]),
        names=tuple(source.names.get(key, ())),
        values=len(values),
        rate_hz=fps,
        duration_s=len(values) / fps if fps else 0.0,
        low=low,
        high=high,
    )


def _steps(key: str, values: Any) -> np.ndarray | None:
    """Seconds from row to row, if these are times, told from their name and their growth."""
    word = key.replace("/", ".").rsplit(".", 1)[-1].rsplit("_", 1)[-1].lower()
    if word not in _TIME_WORDS or np.dtype(values.dtype).kind != "f" or len(values) < 3:
        return None
    times = np.asarray(values[:], np.float64).reshape(len(values), -1)
    between = np.diff(times[:, 0])
    if times.shape[1] != 1 or not (np.isfinite(between).all() and (between > 0).all()):
        return None
    return between if 0.1 <= 1 / float(np.median(between)) <= 2000 else None


def _steps_told(key: str, between: np.ndarray) -> str:
    return (
        f"by {key} the first episode has a row every {np.median(between) * 1000:.4g} ms, jitter "
        f"{between.std() * 1000:.3g} ms, longest {between.max() * 1000:.4g} ms"
    )
