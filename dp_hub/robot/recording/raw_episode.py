"""One episode while it is recorded: everything that goes by, into a folder of its own.

The folder grows under a hidden name and gets its own when it is complete. Of every stream, samples
are kept from a little before the beginning on until one after the end has come, so that all
streams are there at the first step and at the last one.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dp_hub.files import sync_folder, sync_tree, write_draft
from dp_hub.robot.recording.flushing import Flushing, disk_told
from dp_hub.robot.recording.streams import EVENTS, RECORDING, EventKind, StreamSource
from dp_hub.robot.recording.tables import (
    GROWING,
    GrowingTable,
    as_parquet,
    column_of,
)
from dp_hub.robot.recording.video import SUFFIX, VideoSink, encoding_for

FACTS = "metadata.json"
PENDING = ".pending"  # there until the episode is in the dataset
BEFORE_S = 0.5  # how much of each stream is kept from before the beginning
AFTER_S = 0.15  # and from after its end: values count earlier than their times by a latency
_LATE_START_S = 1.0  # an episode may have begun so long ago


@dataclass(frozen=True)
class Losses:
    """What went by and was not recorded.

    Args:
        missed: samples of a ring that were gone before they were read.
        dropped: pictures that the encoder had no time for.
    """

    missed: int = 0
    dropped: int = 0


class RawEpisode:
    """An episode that is being recorded.

    Args:
        folder: to make; hidden.
        sources: streams to record.
        start_s: when the episode begins.
        events: what can be told by `mark`.
    """

    def __init__(
        self,
        folder: Path,
        sources: Sequence[StreamSource],
        *,
        start_s: float,
        events: Sequence[EventKind] = EVENTS,
    ) -> None:
        self.folder, self.start_s = folder, start_s
        self.stop_s: float | None = None
        self._events = {event.name: event for event in events}
        self._takers = [_Taker(source, folder, start_s) for source in sources]
        self._tables = {
            event.name: GrowingTable(folder / f"{event.name}{GROWING}", [_event_column(event)])
            for event in events
        }
        self._last_s = dict.fromkeys(self._events, start_s)
        for event in events:
            if event.first is not None:
                self.mark(event.name, event.first, start_s)
        self.mark(RECORDING.name, True, start_s)
        about = _described(sources, events)
        self._disk = Flushing(
            folder, about, [*(t.table for t in self._takers), *self._tables.values()]
        )

    def mark(self, event: str, value: Any, time_s: float) -> None:
        """Tell that something holds from ``time_s`` on. Times never go back: the later counts."""
        at_s = self._last_s[event] = max(time_s, self._last_s[event])
        self._tables[event].add(np.array([at_s]), {self._events[event].column: [value]})

    def take(self) -> None:
        """Take what came since the last call; waits neither for an encoder nor for the disk.

        Raises:
            RobotError: it cannot be written.
        """
        self._disk.check()
        for taker in self._takers:
            taker.take(None if self.stop_s is None else self.stop_s + AFTER_S)

    def end(self, stop_s: float) -> None:
        """Let the episode end then; `take` is to be called until `is_over`."""
        self.stop_s = max(stop_s, self.start_s)
        self.mark(RECORDING.name, False, self.stop_s)

    @property
    def is_over(self) -> bool:
        """Whether every stream has given a sample from after the end."""
        return self.stop_s is not None and all(taker.is_over for taker in self._takers)

    @property
    def backlog(self) -> int:
        """How many pictures wait for their encoders."""
        return sum(taker.video.backlog for taker in self._takers if taker.video)

    @property
    def losses(self) -> dict[str, Losses]:
        """By stream, where there are any."""
        every = {taker.name: taker.losses for taker in self._takers}
        return {name: losses for name, losses in every.items() if losses != Losses()}

    @property
    def silent(self) -> list[str]:
        """Streams of which nothing has come."""
        return [taker.name for taker in self._takers if not taker.n_taken]

    def finish(self, target: Path, facts: Mapping[str, Any]) -> None:
        """Complete the folder, durably, and give it its name.

        Args:
            target: its name.
            facts: about the episode, that JSON can hold.
        Raises:
            RobotError: it cannot be written, or a video could not.
        """
        self._disk.close()
        with disk_told(self.folder):
            for taker in self._takers:
                taker.close()
            complete(self.folder, {**facts, **_told(self.losses)})
            os.rename(self.folder, target)
            sync_folder(target.parent)

    def abandon(self) -> None:
        """Stop writing; what is there stays there. It may wait for the disk."""
        for taker in self._takers:
            taker.abandon()
        self._disk.abandon()


def complete(
    folder: Path, facts: Mapping[str, Any], most_rows: Mapping[str, int] | None = None
) -> None:
    """Make Parquet of a folder's growing tables and write down the facts. Raises OSError.

    Args:
        folder: with tables and videos that nobody writes any more.
        facts: for metadata.json.
        most_rows: by stream, how many rows to keep; default: all.
    """
    for growing in sorted(folder.glob(f"*{GROWING}")):
        name = growing.name.removesuffix(GROWING)
        as_parquet(growing, folder / f"{name}.parquet", most_rows=(most_rows or {}).get(name))
        growing.unlink()
    write_draft(folder / FACTS, json.dumps(dict(facts), indent=2, sort_keys=True).encode())
    write_draft(folder / PENDING, b"")
    sync_tree(folder)


class _Taker:
    """Moves the samples of one ring to its files."""

    def __init__(self, source: StreamSource, folder: Path, start_s: float) -> None:
        self.name, self._ring, self._start_s = source.name, source.ring, start_s
        self._has_before = source.has_before
        picture = source.picture
        self._picture = picture.name if picture else None
        columns = [] if picture else [column_of(one) for one in source.fields]
        self.table = GrowingTable(folder / f"{source.name}{GROWING}", columns)
        self.video: VideoSink | None = None
        if picture:
            path = folder / f"{source.name}{SUFFIX}"
            self.video = VideoSink(path, picture.shape, rate_of(source))
        # Not all that the ring has: of pictures, that may be a lot.
        before = math.ceil((BEFORE_S + _LATE_START_S) * source.rate_hz) + 1
        self._first = max(0, source.ring.count - before)
        self._next: int | None = None
        self._missed = self.n_taken = 0
        self.is_over = False

    def take(self, until_s: float | None) -> None:
        """What came since; nothing after the first sample at or after ``until_s``."""
        if self.is_over:
            return
        samples = self._ring.since(self._first if self._next is None else self._next)
        first, stop = 0, len(samples.numbers)
        if not stop:
            return
        times_s = np.asarray(samples.times_s)
        if self._next is None:
            first = _first_wanted(times_s, self._start_s)
            if times_s[0] > self._start_s:  # the beginning is gone already
                self._missed += int(samples.lost)
        else:
            self._missed += int(samples.lost)
        if not self._has_before:
            first = int(np.searchsorted(times_s, self._start_s))
        self._next = int(samples.numbers[-1]) + 1
        if until_s is not None:
            after = np.flatnonzero(times_s >= until_s)
            if len(after):
                stop, self.is_over = int(after[0]) + 1, True
        self._write(times_s[first:stop], samples.values, slice(first, stop))

    def _write(self, times_s: np.ndarray, values: Mapping[str, Any], part: slice) -> None:
        if self.video is not None:
            assert self._picture is not None
            pictures = values[self._picture][part]
            taken = [self.video.add(picture) for picture in pictures]
            times_s, values = times_s[np.array(taken, bool)], {}
        self.table.add(times_s, {name: array[part] for name, array in values.items()})
        self.n_taken += len(times_s)

    @property
    def losses(self) -> Losses:
        return Losses(self._missed, self.video.dropped if self.video else 0)

    def close(self) -> None:
        if self.video:
            self.video.close()

    def abandon(self) -> None:
        if self.video:
            self.video.abandon()


def rate_of(source: StreamSource) -> Fraction:
    """Frames per second that a camera's video is shown at."""
    return Fraction(source.rate_hz).limit_denominator(1001)


def _first_wanted(times_s: np.ndarray, start_s: float) -> int:
    """From which sample on a stream is kept: the newest of those before the beginning at least."""
    early = int(np.searchsorted(times_s, start_s - BEFORE_S))
    newest_before = int(np.searchsorted(times_s, start_s, side="right")) - 1
    return max(0, min(early, newest_before))


def _event_column(event: EventKind) -> pa.Field:
    kinds = {"int64": pa.int64(), "bool": pa.bool_(), "string": pa.string()}
    return pa.field(event.column, kinds[event.dtype])


def _told(losses: Mapping[str, Losses]) -> dict[str, Any]:
    told = {name: {"missed": one.missed, "dropped": one.dropped} for name, one in losses.items()}
    return {"not_recorded": told} if told else {}


def _described(sources: Sequence[StreamSource], events: Sequence[EventKind]) -> bytes:
    streams: dict[str, Any] = {}
    for source in sources:
        picture = source.picture
        if picture:
            rate = rate_of(source)
            streams[source.name] = {
                "shape": list(picture.shape),
                "rate": [rate.numerator, rate.denominator],
                "codec": encoding_for(picture.shape).codec,
            }
            continue
        columns = {f.name: {"names": list(f.names), "units": list(f.units)} for f in source.fields}
        streams[source.name] = {"columns": columns, "rate_hz": source.rate_hz}
    told = {"streams": streams, "events": [event.name for event in events]}
    return json.dumps(told, indent=2).encode()
