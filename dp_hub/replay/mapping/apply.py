"""From a mapping and what was recorded to episodes with the features of the dataset.

A feature is made of uses of streams: which numbers of one, how they follow the grid, what is done
to them. Rows that belong together already are a grid themselves and are only followed if another
rate is asked for.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode
from dp_hub.replay.mapping.check import check_mapping
from dp_hub.replay.mapping.config import Feature, MappingConfig, TaskStream
from dp_hub.replay.mapping.moving import moved_in_time
from dp_hub.replay.mapping.number_edits import as_type, edited, joined
from dp_hub.replay.mapping.picture_edits import EditedPictures, PictureEdit
from dp_hub.replay.mapping.splitting import Span, find_spans, plain_values
from dp_hub.replay.mapping.stream_uses import Use, Uses, is_picture, plan_uses
from dp_hub.replay.recording import Recording, Stream
from dp_hub.replay.timeline import (
    AlignmentReport,
    Followed,
    Grid,
    exact_fps,
    find_grids,
    follow,
    report_episode,
    report_recording,
)

log = logging.getLogger(__name__)


Taken = tuple[Any, np.ndarray]  # values (T, ...) and the time of each, float64 (T,)


def episodes_of(
    recording: Recording,
    mapping: MappingConfig,
    *,
    report: Callable[[AlignmentReport], None] = lambda part: None,
) -> Iterator[Episode]:
    """The episodes of a recording, in order of time; their keys are the dataset's features.

    Args:
        recording: with all of `MappingConfig.streams`.
        mapping: what becomes of it.
        report: is given parts of the report, to be added up in order: before each episode how its
            streams were put on the grid, and what gaps there were.
    Raises:
        DataError: a stream is not there or does not fit, a gap is an error, or there is no episode
            although there is one to be expected.
    """
    check_mapping(mapping, recording)
    uses = plan_uses(recording.streams, mapping, recording.name)
    tasks = _Tasks(recording, mapping)
    for span, grid in _grids(recording, mapping, uses, report):
        taken = {use: follow(use.stream, grid, use.how) for each in uses.values() for use in each}
        by_label = {use.label: followed for use, followed in taken.items()}
        report(report_episode(recording.name, by_label, fps=float(grid.fps)))
        data = _features(mapping, uses, _on_grid(taken))
        yield Episode(data, tasks.at(grid), _facts(recording, mapping, span, grid))


def mapped_episode(episode: Episode, mapping: MappingConfig, fps: float | None) -> Episode:
    """An episode whose rows belong together already, with the features of the dataset.

    Args:
        episode: with all of `MappingConfig.streams` as keys.
        mapping: what becomes of it. Without ``fps``, or with the source's own, rows stay as they
            are; else they are values at ``k / fps`` and are put on a grid like streams.
        fps: rows per second, where the source says; ``source_fps`` of the mapping comes before it.
    Raises:
        DataError: a key is not there or does not fit.
    """
    check_mapping(mapping, episode)
    rate = mapping.source_fps or fps
    uses = plan_uses(_rows_as_streams(episode, rate or 1.0), mapping, "an episode of the source")
    task = episode.task
    if isinstance(mapping.task, str):
        task = mapping.task
    elif isinstance(mapping.task, TaskStream):
        task = str(np.asarray(episode.data[mapping.task.stream][:1]).reshape(-1)[0])
    every = [use for each in uses.values() for use in each]
    grid = _other_grid(every, mapping, rate)
    if grid is None:
        data = _features(mapping, uses, lambda use: (use.stream.values, use.stream.times_s))
    else:
        taken = {use: follow(use.stream, grid, use.how) for use in every}
        data = _features(mapping, uses, _on_grid(taken))
    return Episode(data, task, episode.metadata)


def _periodic(uses: Uses) -> dict[str, Stream]:
    every = {use.label: use.stream for each in uses.values() for use in each}
    return {name: s for name, s in every.items() if s.kind in ("state", "picture")} or every


def _too_short(grid: Grid, mapping: MappingConfig) -> str:
    return f"{float(grid.count / grid.fps):.2f} s, shorter than min_s ({mapping.episodes.min_s:g})"


def _grids(
    recording: Recording,
    mapping: MappingConfig,
    uses: Uses,
    report: Callable[[AlignmentReport], None],
) -> list[tuple[Span, Grid]]:
    """The grids of all episodes; what is to be told of the recording as a whole is reported."""
    every = {use.label: use for each in uses.values() for use in each}
    streams = {label: use.stream for label, use in every.items()}
    follows = {label: use.how for label, use in every.items()}
    fps = exact_fps(mapping.fps or 0)
    spans = find_spans(recording, mapping.episodes, _periodic(uses))
    found, all_gaps, problem, rejected = [], [], None, False
    left_out: list[str] = []
    for span in spans:
        start_s, stop_s = span.start_s, span.stop_s
        try:
            grids, gaps = find_grids(
                streams, follows, fps, start_s=start_s, stop_s=stop_s, on_gap=mapping.on_gap
            )
        except DataError as error:
            told = DataError(f"{recording.name}: {error.message}", hint=error.hint)
            if mapping.on_gap == "error" or len(spans) == 1:
                raise told from None
            # One of many episodes may lie where a camera was not there yet.
            log.warning("an episode is left out: %s", told.message)
            left_out.append(error.message)
            problem = problem or told
            continue
        all_gaps += gaps
        rejected |= not grids
        least = mapping.episodes.min_s * float(fps)
        found += [(span, grid) for grid in grids if grid.count >= least]
        left_out += [_too_short(grid, mapping) for grid in grids if grid.count < least]
    if problem and not found:
        raise problem
    part = report_recording(
        recording.name,
        streams,
        follows,
        all_gaps,
        fps=float(fps),
        rejected=rejected,
        left_out=left_out,
    )
    report(part)
    return found


class _Tasks:
    """What was to be done, at a time."""

    def __init__(self, recording: Recording, mapping: MappingConfig) -> None:
        self._usual = mapping.task if isinstance(mapping.task, str) else recording.task
        self._times, self._texts = np.empty(0), []
        if isinstance(mapping.task, TaskStream):
            stream = recording.streams[mapping.task.stream]
            name = f"{mapping.task.stream} of {recording.name}"
            self._times, self._texts = stream.times_s, plain_values(stream, "", name)

    def at(self, grid: Grid) -> str | None:
        """The text that holds when an episode begins, else the first one there is."""
        if not self._texts:
            return self._usual
        last = int(np.searchsorted(self._times, grid.start_s, side="right")) - 1
        return str(self._texts[max(last, 0)])


def _facts(recording: Recording, mapping: MappingConfig, span: Span, grid: Grid) -> dict[str, Any]:
    facts = {**recording.metadata, "recording": recording.name, "start_s": grid.start_s}
    if mapping.episodes.split == "change":
        facts[str(mapping.episodes.stream)] = span.value
    return facts


def _on_grid(taken: Mapping[Use, Followed]) -> Callable[[Use], Taken]:
    return lambda use: (taken[use].values, taken[use].used_s)


def _features(mapping: MappingConfig, uses: Uses, take: Callable[[Use], Taken]) -> dict[str, Any]:
    """The features of one episode, moved in time where they shall be, with times if kept."""
    data: dict[str, Any] = {}
    times: dict[str, np.ndarray] = {}
    for name, each in uses.items():
        if each:
            data[name], times[name] = _feature(name, mapping.features[name], each, take)
    data, times = moved_in_time(mapping, data, times)
    for name, feature in mapping.features.items():
        size = math.prod(data[name].shape[1:])
        if feature.names and len(feature.names) != size:
            raise DataError(
                f"`features.{name}.names` has {len(feature.names)} names for {size} numbers"
            )
    if mapping.keep_times:
        data |= {f"times.{name}": used for name, used in times.items()}
    return data


def _feature(
    name: str, feature: Feature, uses: tuple[Use, ...], take: Callable[[Use], Taken]
) -> Taken:
    taken = [take(use) for use in uses]
    used = _distinct([times for _, times in taken])
    if uses[0].is_picture:
        return _pictures(taken[0][0], feature, uses[0].where), used
    pairs = zip(uses, taken, strict=True)
    values = joined([edited(np.asarray(v), use.term, use.where) for use, (v, _) in pairs])
    if feature.dtype:
        values = as_type(values, feature.dtype, f"features.{name}")
    return values, used


def _distinct(times: list[np.ndarray]) -> np.ndarray:
    """Times of the values of all terms, ``(T,)`` if they are the same, else ``(T, terms)``."""
    if all(np.array_equal(times[0], one) for one in times[1:]):
        return times[0]
    return np.stack(times, axis=1)


def _pictures(values: Any, feature: Feature, where: str) -> Any:
    edit = PictureEdit(
        colour=feature.colour or "rgb",
        rotate=feature.rotate,
        flip=feature.flip,
        crop=feature.crop,
        resize=feature.resize,
    )
    if edit == PictureEdit(resize=edit.resize) and edit.resize in (None, values.shape[1:3]):
        return values  # a video stays one, and may be copied as it is encoded
    return EditedPictures(values, edit, where)


def _rows_as_streams(episode: Episode, fps: float) -> dict[str, Stream]:
    rate = exact_fps(fps)
    times = np.arange(episode.length) * rate.denominator / rate.numerator
    return {
        key: Stream(values, times, kind="picture" if is_picture(values) else "state")
        for key, values in episode.data.items()
    }


def _other_grid(uses: list[Use], mapping: MappingConfig, rate: float | None) -> Grid | None:
    """A grid the rows have to be put on; None: their own."""
    late = any(use.how.latency_s for use in uses)
    if rate is None or mapping.fps is None:
        if late:
            raise DataError(
                "latency_s needs the rate of the rows and of the dataset",
                hint="add fps and source_fps to the mapping",
            )
        return None
    if not late and exact_fps(rate) == exact_fps(mapping.fps):
        return None
    streams = {use.label: use.stream for use in uses}
    follows = {use.label: use.how for use in uses}
    [grid], _ = find_grids(streams, follows, mapping.fps, on_gap="keep")
    return grid
