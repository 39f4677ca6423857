"""Any source format to a dataset: what ``dp-hub convert`` runs."""

import itertools
import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp_hub.dataset.conversion_request import Request, signature
from dp_hub.dataset.features import (
    Column,
    ImageMode,
    check_feature_name,
    check_known_keys,
    plan_columns,
)
from dp_hub.dataset.formats import load_converter
from dp_hub.dataset.writer import DatasetWriter, Written, refuse_existing
from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode
from dp_hub.replay.source import Source

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
    codec: str = "h264",
    options: dict[str, Any] | None = None,
    threads: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Conversion:
    """Convert ``source`` into a new dataset at ``to``; there is a whole dataset there or nothing.

    A conversion that was stopped or killed is continued by the same call, and ends with the same
    bytes as if it had not been.

    Args:
        format_name: an installed format, see `dp_hub.dataset.formats.format_names`.
        source: where the recordings are.
        to: the folder to make; refused if it exists.
        mapping: feature names by source key, instead of the default ones.
        drop: source keys to leave out.
        fps: frames per second; default: what the source states, else 10.
        task: what was to be done, for episodes whose source does not say.
        robot_type: likewise for the robot.
        images: ``auto``, ``webp``, ``png`` or ``video``.
        codec: ``h264`` or ``av1``, for videos.
        options: the format's own options.
        threads: how many encode pictures; default: all cores.
        on_progress: called after every episode.
    Raises:
        DataError: the source does not hold together or does not fit into a dataset, ``to``
            exists, or an interrupted conversion to it had other settings or another source.
    """
    began = time.monotonic()
    source, to = Path(source), Path(to)
    refuse_existing(to)
    for key, feature in (mapping or {}).items():
        check_feature_name(feature, key)
    converter = load_converter(format_name, options)
    found = converter.describe(source)
    check_known_keys([*drop, *(mapping or {})], found.dtypes)
    stated_fps = _stated(found, "fps", (int, float)) or DEFAULT_FPS
    request = Request(
        to,
        {
            "format": format_name,
            "source": str(source.absolute()),
            "options": options or {},
            "mapping": dict(mapping or {}),
            "drop": sorted(drop),
            "fps": stated_fps if fps is None else fps,
            "task": task or _stated(found, "task", str),
            "robot_type": robot_type or _stated(found, "robot_type", str),
            "images": images,
            "codec": codec,
        },
        signature(source),
    )

    def episodes(start: int) -> Iterator[Episode]:
        return converter.episodes(source, drop=frozenset(drop), start=start)

    def plan(first: Episode) -> list[Column]:
        return plan_columns(
            first.data, dtypes=found.dtypes, mapping=mapping, images=images, codec=codec
        )

    provenance = {"converter": format_name, "file": source.name, **_provenance(found)}
    written = _convert(request, found, episodes, plan, provenance, threads, on_progress)
    return Conversion(written, found, tuple(drop), time.monotonic() - began)


def _convert(
    request: Request,
    found: Source,
    episodes: Callable[[int], Iterator[Episode]],
    plan: Callable[[Episode], list[Column]],
    provenance: Mapping[str, Any],
    threads: int | None,
    on_progress: Callable[[Progress], None],
) -> Written:
    done = request.episodes_done()
    with closing(_ahead(episodes(done))) as upcoming:
        first = next(upcoming, None)
        if done:
            writer = DatasetWriter.resume(
                request.target, work=request.work, commit_s=COMMIT_S, threads=threads
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
                work=request.work,
                commit_s=COMMIT_S,
                threads=threads,
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
