"""What following did to each stream: the numbers of the report, in bounded memory.

A report is made for every episode and added up in order, `a.then(b)`; the sum is the same whoever
made the parts, and JSON brings it back exactly. Means, counts and extremes are exact; the 95th
percentile is told to 5 %.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.recording import Stream
from dp_hub.replay.timeline.following import Followed
from dp_hub.replay.timeline.gaps import Gap
from dp_hub.replay.timeline.grid import Follow
from dp_hub.replay.timeline.offset_trace import OffsetTrace, trace_of

_BINS_LEAST_S, _BINS_RATIO = 1e-6, 1.05  # of the histogram that the percentile is read from
_MOST_GAPS = 100  # that are named


@dataclass(frozen=True)
class StreamReport:
    """How one stream followed the grid, over some episodes.

    Args:
        method: ``hold``, ``nearest``, ``linear`` or ``slerp``; several as ``hold, linear``.
        latency_s: that was taken off its times.
        steps: of the dataset.
        values: of the source, between the first and the last used one of each episode.
        intervals: between those, that are no gaps.
        intervals_s: their sum.
        squares_s2: the sum of their squares.
        longest_s: the longest of them.
        gaps: longer than the limit.
        gaps_s: their sum.
        longest_gap_s: the longest of them.
        late_s: the most that it began after the first stream of a recording.
        early_s: the most that it ended before the last stream of a recording.
        repeated: steps that show the same value as the step before.
        dropped: values that no step uses.
        offset_sum_s: of all steps, step less value.
        offset_least_s: the smallest; below 0 is a value from after its step.
        offset_most_s: the largest.
        ages: how often ``abs(offset)`` fell into each bin of a growing width.
        worst: name of the episode with the largest offset.
        trace: offsets over time, in a bounded number of pieces.
    """

    method: str
    latency_s: float
    steps: int = 0
    values: int = 0
    intervals: int = 0
    intervals_s: float = 0.0
    squares_s2: float = 0.0
    longest_s: float = 0.0
    gaps: int = 0
    gaps_s: float = 0.0
    longest_gap_s: float = 0.0
    late_s: float = 0.0
    early_s: float = 0.0
    repeated: int = 0
    dropped: int = 0
    offset_sum_s: float = 0.0
    offset_least_s: float = 0.0
    offset_most_s: float = 0.0
    ages: Mapping[int, int] = field(default_factory=dict)
    worst: str = ""
    trace: OffsetTrace = field(default_factory=OffsetTrace)

    @property
    def rate_hz(self) -> float | None:
        """Values per second, gaps left out; None of a single value."""
        return self.intervals / self.intervals_s if self.intervals_s > 0 else None

    @property
    def jitter_s(self) -> float | None:
        """Standard deviation of the time between values, gaps left out."""
        if not self.intervals:
            return None
        mean = self.intervals_s / self.intervals
        return math.sqrt(max(0.0, self.squares_s2 / self.intervals - mean * mean))

    @property
    def offset_mean_s(self) -> float:
        """Mean of step less value."""
        return self.offset_sum_s / self.steps if self.steps else 0.0

    @property
    def offset_p95_s(self) -> float:
        """What 95 % of the steps' absolute offsets are within, up to 5 % too much."""
        wanted, seen = 0.95 * self.steps, 0
        most = max(self.offset_most_s, -self.offset_least_s)
        for bin_, count in sorted(self.ages.items()):
            seen += count
            if seen >= wanted:
                return min(most, _BINS_LEAST_S * _BINS_RATIO**bin_) if bin_ else 0.0
        return most

    def then(self, other: "StreamReport") -> "StreamReport":
        """This report and that of the episodes after it."""
        added = (
            "steps", "values", "intervals", "intervals_s", "squares_s2", "gaps", "gaps_s",
            "repeated", "dropped", "offset_sum_s",
        )  # fmt: skip
        stepped = [one for one in (self, other) if one.steps] or [self]
        low = min(stepped, key=lambda one: one.offset_least_s)
        high = max(stepped, key=lambda one: one.offset_most_s)
        ages = dict(self.ages)
        for bin_, count in other.ages.items():
            ages[bin_] = ages.get(bin_, 0) + count
        largest = ("longest_s", "longest_gap_s", "late_s", "early_s")
        methods = dict.fromkeys([*self.method.split(", "), *other.method.split(", ")])
        return StreamReport(
            method=", ".join(methods),
            latency_s=other.latency_s,
            offset_least_s=low.offset_least_s,
            offset_most_s=high.offset_most_s,
            ages=dict(sorted(ages.items())),
            worst=high.worst,
            trace=self.trace.then(other.trace),
            **{name: getattr(self, name) + getattr(other, name) for name in added},
            **{name: max(getattr(self, name), getattr(other, name)) for name in largest},
        )

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold, with the numbers that people look for first."""
        told = {
            "rate_hz": self.rate_hz,
            "jitter_s": self.jitter_s,
            "offset_mean_s": self.offset_mean_s,
            "offset_p95_s": self.offset_p95_s,
        }
        kept = {one.name: getattr(self, one.name) for one in fields(self)}
        kept["ages"] = {str(bin_): count for bin_, count in self.ages.items()}
        kept["trace"] = self.trace.to_json()
        return told | kept

    @staticmethod
    def from_json(kept: Mapping[str, Any]) -> "StreamReport":
        """The report of `to_json`. Raises DataError if it is none."""
        try:
            kinds: dict[Any, Any] = {str: str, int: int, float: float}
            values: dict[str, Any] = {
                one.name: kinds[one.type](kept[one.name])
                for one in fields(StreamReport)
                if one.type in kinds
            }
            values["ages"] = {int(bin_): int(n) for bin_, n in kept["ages"].items()}
            values["trace"] = OffsetTrace.from_json(kept["trace"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"no report of how a stream was followed: {error!r}") from None
        return StreamReport(**values)


@dataclass(frozen=True)
class AlignmentReport:
    """How the streams of a dataset followed its grid.

    Args:
        fps: of the grid.
        episodes: how many.
        streams: by name, or by whatever name the caller gave each.
        gaps: the first 100 with the recording they are in; ``StreamReport.gaps`` counts all.
        rejected: recordings left out because of a gap, the first 100.
        left_out: parts of recordings that became no episode, and why, the first 100.
        n_left_out: how many they are.
    """

    fps: float
    episodes: int = 0
    streams: Mapping[str, StreamReport] = field(default_factory=dict)
    gaps: Sequence[tuple[str, Gap]] = ()
    rejected: Sequence[str] = ()
    left_out: Sequence[str] = ()
    n_left_out: int = 0

    @property
    def steps(self) -> int:
        """Steps of the dataset."""
        return max((one.steps for one in self.streams.values()), default=0)

    def then(self, other: "AlignmentReport") -> "AlignmentReport":
        """This report and that of the episodes after it."""
        streams = dict(self.streams)
        for name, one in other.streams.items():
            streams[name] = streams[name].then(one) if name in streams else one
        return AlignmentReport(
            fps=other.fps,
            episodes=self.episodes + other.episodes,
            streams=streams,
            gaps=(*self.gaps, *other.gaps)[:_MOST_GAPS],
            rejected=(*self.rejected, *other.rejected)[:_MOST_GAPS],
            left_out=(*self.left_out, *other.left_out)[:_MOST_GAPS],
            n_left_out=self.n_left_out + other.n_left_out,
        )

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "fps": self.fps,
            "episodes": self.episodes,
            "streams": {name: one.to_json() for name, one in self.streams.items()},
            "gaps": [[name, g.stream, g.start_s, g.stop_s] for name, g in self.gaps],
            "rejected": list(self.rejected),
            "left_out": list(self.left_out),
            "n_left_out": self.n_left_out,
        }

    @staticmethod
    def from_json(kept: Mapping[str, Any]) -> "AlignmentReport":
        """The report of `to_json`. Raises DataError if it is none."""
        try:
            return AlignmentReport(
                fps=float(kept["fps"]),
                episodes=int(kept["episodes"]),
                streams={
                    name: StreamReport.from_json(one) for name, one in kept["streams"].items()
                },
                gaps=tuple((name, Gap(*gap)) for name, *gap in kept["gaps"]),
                rejected=tuple(kept["rejected"]),
                left_out=tuple(map(str, kept.get("left_out", ()))),
                n_left_out=int(kept.get("n_left_out", 0)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"no report of how streams were followed: {error!r}") from None


def report_episode(name: str, followed: Mapping[str, Followed], *, fps: float) -> AlignmentReport:
    """The report of one episode.

    Args:
        name: of the episode or its recording, for people.
        followed: by name of the stream, or of the feature's part.
        fps: of the grid.
    """
    streams = {key: _stream_report(name, one) for key, one in followed.items()}
    return AlignmentReport(fps, 1, streams)


def report_recording(
    name: str,
    streams: Mapping[str, Stream],
    follows: Mapping[str, Follow],
    gaps: Sequence[Gap],
    *,
    fps: float,
    rejected: bool = False,
    left_out: Sequence[str] = (),
) -> AlignmentReport:
    """What is to be told of one recording besides its episodes, as a report of no episodes.

    Args:
        name: of the recording.
        streams: those that grids were found for.
        follows: how each follows.
        gaps: from `find_grids`.
        fps: of the grid.
        rejected: the recording is left out.
        left_out: why parts of it became no episode, a sentence each.
    """
    first = {key: one.times_s[0] - follows[key].latency_s for key, one in streams.items()}
    last = {key: one.times_s[-1] - follows[key].latency_s for key, one in streams.items()}
    lengths: dict[str, list[float]] = {key: [] for key in streams}
    for gap in gaps:
        lengths[gap.stream].append(gap.length_s)
    reports = {
        key: StreamReport(
            method=follows[key].used_method,
            latency_s=follows[key].latency_s,
            gaps=len(lengths[key]),
            gaps_s=math.fsum(lengths[key]),
            longest_gap_s=max(lengths[key], default=0.0),
            late_s=float(first[key] - min(first.values())),
            early_s=float(max(last.values()) - last[key]),
        )
        for key in streams
    }
    named = tuple((name, gap) for gap in gaps[:_MOST_GAPS])
    return AlignmentReport(
        fps=fps,
        streams=reports,
        gaps=named,
        rejected=(name,) if rejected else (),
        left_out=tuple(f"{name}: {why}" for why in left_out[:_MOST_GAPS]),
        n_left_out=len(left_out),
    )


def _stream_report(name: str, one: Followed) -> StreamReport:
    first, last = int(one.index[0]), int(one.index[-1])
    if one.weight is not None and one.weight[-1] > 0:
        last += 1
    between = np.diff(one.stream.times_s[first : last + 1])
    limit = one.how.max_gap_s
    if limit is not None:
        between = between[between <= limit]
    offset = one.offset_s
    return StreamReport(
        method=one.method,
        latency_s=one.how.latency_s,
        steps=len(offset),
        values=last + 1 - first,
        intervals=len(between),
        intervals_s=float(between.sum()),
        squares_s2=float((between**2).sum()),
        longest_s=float(between.max(initial=0.0)),
        repeated=one.repeated,
        dropped=one.dropped,
        offset_sum_s=float(offset.sum()),
        offset_least_s=float(offset.min()),
        offset_most_s=float(offset.max()),
        ages=_histogram(np.abs(offset)),
        worst=name,
        trace=trace_of(offset, one.is_repeated, one.left_out),
    )


def _histogram(ages_s: np.ndarray) -> dict[int, int]:
    """Bin 0 is up to a microsecond, bin k up to 1.05 ** k of them."""
    large = np.maximum(ages_s / _BINS_LEAST_S, 1.0)
    bins = np.ceil(np.log(large) / math.log(_BINS_RATIO) - 1e-9).astype(np.int64)
    number, count = np.unique(bins, return_counts=True)
    return dict(zip(number.tolist(), count.tolist(), strict=True))
