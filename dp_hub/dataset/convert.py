"""Any source format to a dataset: what ``dp-hub convert`` runs."""

import itertools
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dp_hub.dataset.conversion_request import Request, signature
from dp_hub.dataset.copying import plan_copies
from dp_hub.dataset.features import (
    Column,
    ImageMode,
    check_feature_name,
    check_known_keys,
    plan_columns,
)
from dp_hub.dataset.formats import load_converter
from dp_hub.dataset.lock import WriterLock
from dp_hub.dataset.writer import DatasetWriter, Written, refuse_existing
from dp_hub.errors import DataError
from dp_hub.files import finish_replacing
from dp_hub.replay.episode import Episode
from dp_hub.replay.source import Converter, Source

DEFAULT_FPS = 10.0
COMMIT_S = 10.0  # what is lost, at most, when a conversion is killed
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a conversion is. Totals are None where the source cannot tell."""

    episodes: int
    frames: int
    total_episodes: int | None
    total_frames: int | None


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Args:
        written: the dataset.
        source: what was converted.
        dropped: keys left out on request.
        seconds: wall time.
    """

    written: Written
    source: Source
    dropped: tuple[str, ...]
    seconds: float


def convert(
    format_name: str,
    source: str | Path,
    to: str | Path,
    *,
    mapping: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    fps: float | None = None,
    task: str | None = None,
    robot_type: str | None = None,
    images: ImageMode = "auto",
    codec: str | None = None,
    options: dict[str, Any] | None = None,
    threads: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Conversion:
    """Convert ``source`` into a new dataset at ``to``; there is a whole dataset there or nothing.

    A conversion that was stopped or killed is continued by the same call, and ends with the same
    bytes as if it had not been.

    Args:
        format_name: an installed format, see `dp_hub.dataset.formats.format_names`.
        source: where the recordings are; for formats that are on the Hub too, also
            ``user/name`` or ``user/name@revision``, if there is no folder of that name.
        to: the folder to make; refused if it exists.
        mapping: feature names by source key, instead of the default ones.
        drop: source keys to leave out.
        fps: frames per second; default: what the source states, else 10.
        task: what was to be done, for episodes whose source does not say.
        robot_type: likewise for the robot.
        images: ``auto``, ``webp``, ``png`` or ``video``. ``auto`` and ``video`` leave what is a
            video already as it is encoded, where that is possible.
        codec: ``h264`` or ``av1``, for videos; default: that of videos that are copied, else
            ``h264``. Videos of another codec are encoded again.
        options: the format's own options.
        threads: how many encode pictures; default: all cores.
        on_progress: called after every episode.
    Raises:
        DataError: the source does not hold together or does not fit into a dataset, ``to``
            exists, or an interrupted conversion to it had other settings or another source.
    """
    began = time.monotonic()
    to = Path(to)
    refuse_existing(to)
    for key, feature in (mapping or {}).items():
        check_feature_name(feature, key)
    converter = load_converter(format_name, options)
    path, origin = _locate(source, converter)
    found = _placed(converter.describe(path), origin)
    check_known_keys([*drop, *(mapping or {})], found.dtypes)
    settings = {
        "format": format_name,
        "source": str(path.absolute()),
        "options": options or {},
        "mapping": dict(mapping or {}),
        "drop": sorted(drop),
        "fps": _rate(found, path) if fps is None else fps,
        "task": task or _stated(found, "task", str),
        "robot_type": robot_type or _stated(found, "robot_type", str),
        "images": images,
        "codec": codec,
    }
    request = Request(Path(os.path.realpath(to)), settings, signature(path))
    recode = dict(found.recode)

    def episodes(start: int) -> Iterator[Episode]:
        return converter.episodes(path, drop=frozenset(drop), start=start)

    def plan(first: Episode) -> list[Column]:
        columns, reasons = _plan(first, found, settings)
        recode.update(reasons)
        return columns

    provenance = {"converter": format_name, "file": path.name, **origin, **_provenance(found)}
    lock = WriterLock(request.target)
    try:
        refuse_existing(to)
        finish_replacing(request.target)
        written = _convert(request, found, episodes, plan, provenance, threads, on_progress, lock)
    finally:
        lock.release()
    written = replace(written, path=to)
    notes = (*found.notes, *_recoded(written.columns, recode, images))
    return Conversion(written, replace(found, notes=notes), tuple(drop), time.monotonic() - began)


def _plan(
    first: Episode, found: Source, settings: Mapping[str, Any]
) -> tuple[list[Column], dict[str, str]]:
    """The dataset's columns; by key, why videos are not copied."""
    images, codec = settings["images"], settings["codec"]
    copied, reasons = plan_copies(
        first.data, images=images, codec=codec, fps=settings["fps"], recode=found.recode
    )
    usual = {key: name for key, name in found.features.items() if key in first.data}
    columns = plan_columns(
        first.data,
        dtypes=found.dtypes,
        mapping=usual | settings["mapping"],
        images=images,
        codec=codec,
        names=found.names,
        copied=copied,
    )
    return columns, reasons


def _locate(source: str | Path, converter: Converter) -> tuple[Path, dict[str, str]]:
    """Where the source is; of one that was pulled from the Hub also ``file`` and ``revision``."""
    path = Path(source)
    if path.exists() or not getattr(converter, "on_hub", False):
        return path, {}
    from dp_hub.hub import is_hub_name, pull

    if not is_hub_name(str(source)):
        return path, {}
    pulled = pull(str(source), kind="dataset")
    return pulled.path, {"file": pulled.repo_id, "revision": pulled.sha}


def _placed(found: Source, origin: Mapping[str, str]) -> Source:
    """The source, with the place on the Hub that a dataset was pulled from."""
    if not origin:
        return found
    place = {"name": origin["file"], "revision": origin["revision"]}
    return replace(found, sources=tuple({**one, **place} for one in found.sources))


def _recoded(
    columns: Sequence[Column], reasons: Mapping[str, str], images: ImageMode
) -> Iterator[str]:
    """What to tell about videos that could not be copied."""
    for column in columns:
        reason = reasons.get(column.key)
        if reason and column.is_visual and not column.copied and images in ("auto", "video"):
            yield f"{column.key} is decoded and encoded again as {column.encoding}: {reason}"


def _convert(
    request: Request,
    found: Source,
    episodes: Callable[[int], Iterator[Episode]],
    plan: Callable[[Episode], list[Column]],
    provenance: Mapping[str, Any],
    threads: int | None,
    on_progress: Callable[[Progress], None],
    lock: WriterLock,
) -> Written:
    done = request.episodes_done()
    with closing(_ahead(episodes(done))) as upcoming:
        first = next(upcoming, None)
        if done:
            writer = DatasetWriter.resume(
                request.target, work=request.work, commit_s=COMMIT_S, threads=threads, lock=lock
            )
            log.info("%s: continuing after %d episodes", request.target, done)
        elif first is None:
            raise DataError(f"{request.settings['source']} holds no episodes")
        else:
            columns = plan(first)
            writer = DatasetWriter(
                request.target,
                columns,
                fps=request.settings["fps"],
                robot_type=request.settings["robot_type"],
                source=provenance,
                sources=found.sources,
                license=_stated(found, "license", str),
                work=request.work,
                commit_s=COMMIT_S,
                threads=threads,
                lock=lock,
            )
        rest = upcoming if first is None else itertools.chain([first], upcoming)
        with request.kept(), writer:
            request.remember()
            _write_all(writer, rest, request.settings["task"], found, on_progress)
            return writer.finish()


def _write_all(
    writer: DatasetWriter,
    episodes: Iterator[Episode],
    task: str | None,
    found: Source,
    on_progress: Callable[[Progress], None],
) -> None:
    for episode in episodes:
        writer.add_episode(Episode(episode.data, episode.task or task, episode.metadata))
        n_episodes, n_frames = writer.n_episodes, writer.n_frames
        on_progress(Progress(n_episodes, n_frames, found.n_episodes, found.n_frames))
    expected, got = (found.n_episodes, found.n_frames), (writer.n_episodes, writer.n_frames)
    if None not in expected and got != expected:
        raise DataError(
            f"the source announced {expected[0]} episodes and {expected[1]} steps but gave "
            f"{got[0]} and {got[1]}",
            hint="was it changed while it was read?",
        )


def _rate(found: Source, path: Path) -> float:
    """Frames per second where none are asked for."""
    stated = _stated(found, "fps", (int, float))
    if not stated and found.fps_hint:
        raise DataError(f"{path} does not say its frames per second", hint=found.fps_hint)
    return stated or DEFAULT_FPS


def _stated(found: Source, name: str, kind: Any) -> Any:
    value = found.attrs.get(name)
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _provenance(found: Source) -> dict[str, Any]:
    attrs = {key: value for key, value in found.attrs.items() if key != "episodes"}
    return {"attrs": attrs} if attrs else {}


def _ahead(items: Iterator[Episode]) -> Generator[Episode, None, None]:
    """``items``, with the next one being read in a thread while this one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        upcoming = pool.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, items, None)
            yield item
