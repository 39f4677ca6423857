"""Any source format to a dataset: what ``dp-hub convert`` runs."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dp_hub.dataset.conversion.copying import plan_copies
from dp_hub.dataset.conversion.format_options import check_options
from dp_hub.dataset.conversion.formats import load_format, missing_library_told
from dp_hub.dataset.conversion.journal import BadEpisode
from dp_hub.dataset.conversion.mapping import (
    as_features,
    check_wish,
    read_wish,
    spare_keys,
)
from dp_hub.dataset.conversion.request import Request, signature
from dp_hub.dataset.conversion.run import Job, Progress, run, stated
from dp_hub.dataset.conversion.source import Reading, describe
from dp_hub.dataset.features import Column, ImageMode, plan_columns
from dp_hub.dataset.lock import WriterLock
from dp_hub.dataset.origins import origins
from dp_hub.dataset.writer import Written, refuse_existing
from dp_hub.errors import DataError
from dp_hub.files import finish_replacing
from dp_hub.replay.episode import Episode
from dp_hub.replay.source import Converter, RecordingConverter, Source

if TYPE_CHECKING:
    from dp_hub.replay.mapping.config import MappingConfig
    from dp_hub.replay.timeline import AlignmentReport

DEFAULT_FPS = 10.0
__all__ = ["Conversion", "Progress", "convert"]


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Args:
        written: the dataset.
        source: what was converted.
        dropped: keys left out on request.
        seconds: wall time.
        bad: episodes that could not be converted and were left out.
        alignment: how streams were put on the dataset's grid, where they had times of their own.
        origins: by feature, what a mapping makes it of.
    """

    written: Written
    source: Source
    dropped: tuple[str, ...]
    seconds: float
    bad: tuple[BadEpisode, ...] = ()
    alignment: "AlignmentReport | None" = None
    origins: Mapping[str, str] = field(default_factory=dict)


def convert(
    format_name: str,
    source: str | Path,
    to: str | Path,
    *,
    mapping: "Mapping[str, str] | MappingConfig | str | Path | None" = None,
    drop: Sequence[str] = (),
    fps: float | None = None,
    task: str | None = None,
    robot_type: str | None = None,
    images: ImageMode = "auto",
    codec: str | None = None,
    options: Mapping[str, Any] | None = None,
    workers: int = 1,
    skip_bad: bool = False,
    threads: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Conversion:
    """Convert ``source`` into a new dataset at ``to``; there is a whole dataset there or nothing.

    A conversion that was stopped or killed is continued by the same call, and ends with the same
    bytes as if it had not been.

    Args:
        format_name: an installed format, see `dp_hub.dataset.conversion.formats.format_names`.
        source: where the recordings are; for formats that are on the Hub too, also
            ``user/name`` or ``user/name@revision``, if there is no folder of that name.
        to: the folder to make; refused if it exists.
        mapping: feature names by source key, instead of the default ones; or a whole mapping (of
            `dp_hub.replay.mapping.config`) or its file: streams with times of their own need one.
        drop: source keys to leave out.
        fps: frames per second; default: what the mapping says, else the source, else 10.
        task: what was to be done, for episodes whose source does not say.
        robot_type: likewise for the robot.
        images: ``auto``, ``webp``, ``png`` or ``video``. ``auto`` and ``video`` leave what is a
            video already as it is encoded, where that is possible.
        codec: ``h264`` or ``av1``, for videos; default: that of videos that are copied, else
            ``h264``. Videos of another codec are encoded again.
        options: the format's own options; they come before those in the mapping.
        workers: how many processes read and prepare episodes; the dataset is the same for any.
            As with `multiprocessing`, a script that asks for several runs its own work under
            ``if __name__ == "__main__"``.
        skip_bad: leave out episodes that cannot be converted, instead of ending the conversion;
            meta/dp_hub.json lists them.
        threads: how many encode pictures, over all processes; default: all cores.
        on_progress: called after every episode.
    Raises:
        DataError: the source does not hold together or does not fit into a dataset, ``to``
            exists, or an interrupted conversion to it had other settings or another source.
    """
    began = time.monotonic()
    to = Path(to)
    refuse_existing(to)
    if workers < 1:
        raise DataError(f"workers is {workers}; it has to be 1 or more")
    wish = read_wish(mapping, drop=drop, fps=fps, task=task, robot_type=robot_type)
    kind = load_format(format_name)
    chosen = check_options(kind, {**wish.options, **(options or {})}, format_name=format_name)
    converter: Converter | RecordingConverter = kind(**chosen)
    with missing_library_told(format_name):
        path, origin = _locate(source, converter)
        found = _placed(describe(converter, path, skip_bad=skip_bad), origin)
        check_wish(wish, converter, found, path)
        settings = {
            "format": format_name,
            "source": str(path.absolute()),
            "options": chosen,
            "names": dict(wish.names),
            "mapping": wish.plain,
            "drop": sorted(drop),
            "fps": _rate(found, path, wish.fps) if fps is None else fps,
            "task": task or stated(found, "task", str),
            "robot_type": wish.robot_type or stated(found, "robot_type", str),
            "images": images,
            "codec": codec,
            "skip_bad": skip_bad,
        }
        reading = Reading(
            format_name=format_name,
            options=chosen,
            path=path,
            drop=frozenset(drop) | spare_keys(wish, found),
            source_fps=stated(found, "fps", (int, float)),
            mapping=wish.plain,
            skip_bad=skip_bad,
            n_items=found.n_episodes,
        )
        planner = _Planner(as_features(wish, found), settings)
        provenance = {"converter": format_name, "file": path.name, **origin, **_provenance(found)}
        provenance |= {} if wish.plain is None else {"mapping": wish.plain}
        request = Request(Path(os.path.realpath(to)), settings, signature(path))
        lock = WriterLock(request.target)
        try:
            refuse_existing(to)
            finish_replacing(request.target)
            reader = reading.reader(converter)
            result = run(
                Job(
                    request=request,
                    found=found,
                    reader=reader,
                    plan=planner.plan,
                    provenance=provenance,
                    threads=threads,
                    workers=workers,
                    on_progress=on_progress,
                    lock=lock,
                )
            )
        finally:
            lock.release()
    written = replace(result.written, path=to)
    again = (one.note for one in result.encoded_again)
    notes = (*found.notes, *_recoded(written.columns, planner.reasons, images), *again)
    if fps is None and _stated_rate(found, wish.fps) is None:
        notes += (f"the source does not say its frames per second: {DEFAULT_FPS:g} is taken",)
    return Conversion(
        written=written,
        source=replace(found, notes=notes),
        dropped=tuple(drop),
        seconds=time.monotonic() - began,
        bad=result.bad,
        alignment=result.alignment,
        origins=origins(wish.plain),
    )


class _Planner:
    """Plans the dataset's columns from the first episode, and knows why videos are not copied."""

    def __init__(self, found: Source, settings: Mapping[str, Any]) -> None:
        self._found, self._settings = found, settings
        self.reasons = dict(found.recode)

    def plan(self, first: Episode) -> list[Column]:
        """The columns. Raises DataError where something cannot be stored."""
        images, codec = self._settings["images"], self._settings["codec"]
        found = self._found
        copied, reasons = plan_copies(
            first.data,
            images=images,
            codec=codec,
            fps=self._settings["fps"],
            recode=found.recode,
        )
        self.reasons.update(reasons)
        usual = {key: name for key, name in found.features.items() if key in first.data}
        return plan_columns(
            first.data,
            dtypes=found.dtypes,
            mapping=usual | self._settings["names"],
            images=images,
            codec=codec,
            names=found.names,
            copied=copied,
        )


def _locate(
    source: str | Path, converter: Converter | RecordingConverter
) -> tuple[Path, dict[str, str]]:
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


def _rate(found: Source, path: Path, mapped: float | None) -> float:
    """Frames per second where none are asked for: what a mapping says, else the source."""
    rate = _stated_rate(found, mapped)
    if not rate and found.fps_hint:
        raise DataError(f"{path} does not say its frames per second", hint=found.fps_hint)
    return rate or DEFAULT_FPS


def _stated_rate(found: Source, mapped: float | None) -> float | None:
    rate: float | None = mapped or stated(found, "fps", (int, float)) or None
    return rate


def _provenance(found: Source) -> dict[str, Any]:
    attrs = {key: value for key, value in found.attrs.items() if key != "episodes"}
    return {"attrs": attrs} if attrs else {}
