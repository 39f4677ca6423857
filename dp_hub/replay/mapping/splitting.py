"""Where the episodes of a recording begin and end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.mapping.config import Episodes
from dp_hub.replay.mapping.selection import read_selection, split_name
from dp_hub.replay.recording import Recording, Stream
from dp_hub.replay.timeline.grid import SAME_S


@dataclass(frozen=True)
class Span:
    """A time within a recording.

    Args:
        start_s: of the first step; None: from the beginning.
        stop_s: later than the last step; None: to the end.
        value: of the stream that splits, as plain JSON can hold it.
    """

    start_s: float | None = None
    stop_s: float | None = None
    value: Any = None


def find_spans(recording: Recording, episodes: Episodes, used: Mapping[str, Stream]) -> list[Span]:
    """The episodes of a recording, in order; there may be none.

    Args:
        recording: with the stream that splits.
        episodes: how to split.
        used: streams whose gaps count if none is named.
    Raises:
        DataError: the stream that splits holds several numbers or is no flag.
    """
    if episodes.split == "recording":
        return [Span()]
    if episodes.split == "gap":
        named = split_name(episodes.stream)[0] if episodes.stream else None
        streams = {named: recording.streams[named]} if named else used
        return _between_gaps(streams, episodes.gap_s)
    assert episodes.stream is not None
    name, at = split_name(episodes.stream)
    stream = recording.streams[name]
    values = plain_values(stream, at, f"{name} of {recording.name}")
    if episodes.split == "flag":
        return _while_set(stream.times_s, values, episodes.value, f"{name} of {recording.name}")
    return _between_changes(stream.times_s, values, episodes)


def plain_values(stream: Stream, at: str, name: str) -> list[Any]:
    """One plain value each: a number, a truth value or a text."""
    values = np.asarray(stream.values[:])
    if at:
        values = read_selection(at).of(values, name)
    if values.size != len(values):
        raise DataError(
            f"{name} holds {values.shape[1:]} numbers a value; one is needed to split by",
            hint=f'say which, such as stream: "{name.split(" of ")[0]}[0]"',
        )
    return values.reshape(-1).tolist()


def _between_gaps(streams: Mapping[str, Stream], gap_s: float) -> list[Span]:
    """A gap is where no stream has a value."""
    every = [stream.times_s for stream in streams.values() if len(stream)]
    if not every:
        return []
    times = np.sort(np.concatenate(every))
    ends = np.flatnonzero(np.diff(times) > gap_s)
    starts = [0, *(ends + 1).tolist()]
    stops: list[float | None] = [*(times[ends] + 2 * SAME_S).tolist(), None]
    return [Span(float(times[a]), stop) for a, stop in zip(starts, stops, strict=True)]


def _between_changes(times: np.ndarray, values: list[Any], episodes: Episodes) -> list[Span]:
    """A span for every run of equal values, up to where the next run begins."""
    wanted = episodes.value
    only = wanted if isinstance(wanted, list) else None if wanted is None else [wanted]
    spans = []
    for start, stop in _runs(values):
        value = values[start]
        if (only is None or value in only) and value not in episodes.ignore:
            spans.append(Span(float(times[start]), _at(times, stop), value))
    return spans


def _while_set(times: np.ndarray, values: list[Any], value: Any, name: str) -> list[Span]:
    wanted = True if value is None else value
    if value is None and (odd := next((v for v in values if v not in (0, 1)), None)) is not None:
        raise DataError(
            f"{name} is {_short(odd)} at some time; a flag is true or false",
            hint="say with `value:` at which value an episode runs, or use split: change",
        )
    return [
        Span(float(times[start]), _at(times, stop), values[start])
        for start, stop in _runs([v == wanted for v in values])
        if values[start] == wanted
    ]


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)[:40]


def _runs(values: list[Any]) -> list[tuple[int, int]]:
    """Where equal values begin and where the next begin."""
    starts = [i for i, v in enumerate(values) if i == 0 or v != values[i - 1]]
    return list(zip(starts, [*starts[1:], len(values)], strict=True)) if starts else []


def _at(times: np.ndarray, index: int) -> float | None:
    """When a value comes; None where there is no such value."""
    return float(times[index]) if index < len(times) else None
