"""Where the streams of a recording are all there: the grids of its episodes.

A grid begins when every stream has its first value. Streams that run at the grid's own rate jitter
around it; where steps lie between their clusters of times, none of them is doubled here and left
out there. So a grid begins up to one step later than it could.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.recording import Stream
from dp_hub.replay.timeline.grid import SAME_S, Follow, Grid, median_period_s

OnGap = Literal["split", "reject", "error", "keep"]
Span = tuple[float, float]

_SAME_RATE = 0.02  # a period this close to the grid's is the grid's
_TOGETHER = 8  # values; more would seldom be without a lost one among them
_ROOM = 0.25  # of a step, behind the first one, that is kept clear of values
_MOST_LATE = 0.05  # of the values come there nevertheless
MOST_STEPS = 100_000_000


@dataclass(frozen=True)
class Gap:
    """Two successive values of a stream that are too far apart.

    Args:
        stream: its name.
        start_s: time of the value before the gap, latency taken off.
        stop_s: time of the value after it.
    """

    stream: str
    start_s: float
    stop_s: float

    @property
    def length_s(self) -> float:
        """Seconds from one value to the next."""
        return self.stop_s - self.start_s


def find_grids(
    streams: Mapping[str, Stream],
    follows: Mapping[str, Follow],
    fps: Fraction | float,
    *,
    start_s: float | None = None,
    stop_s: float | None = None,
    on_gap: OnGap = "split",
) -> tuple[list[Grid], list[Gap]]:
    """The grids of the stretches in which all streams are there, and the gaps between them.

    A stream is there from its first value to its last. A value that is held lasts one usual period
    of its stream, or ``max_gap_s`` if that is shorter: before a gap and at the end too.

    Args:
        streams: those that are needed, by name.
        follows: how each follows; names that are no stream are passed over.
        fps: steps per second.
        start_s: no step is before then.
        stop_s: no step is then or later.
        on_gap: ``split``: one grid for each stretch without gaps. ``reject``: no grid if there is a
            gap. ``keep``: one grid over all gaps, values from before are held and values on both
            sides interpolated, whatever the gap. ``error``: a gap is an error.
    Returns:
        The grids in order of time, with at least one step each; the gaps between the first and the
        last step.
    Raises:
        DataError: a stream is empty, the streams are never there together, or there is a gap and it
            is an error.
    """
    rate = exact_fps(fps)
    if on_gap not in get_args(OnGap):
        raise DataError(f"on_gap is {on_gap!r}", hint=f"choose one of {', '.join(get_args(OnGap))}")
    if not streams:
        raise DataError("a grid needs at least one stream")
    tracks = [_track(name, stream, follows[name], rate) for name, stream in streams.items()]
    if on_gap != "keep":
        _check_limits(tracks)
    whole = _common(tracks, start_s, stop_s)
    gaps = sorted((g for track in tracks for g in track.gaps(whole)), key=lambda g: g.start_s)
    if gaps and on_gap == "error":
        raise DataError(
            _gap_told(gaps[0], len(gaps)), hint="on_gap: split makes two episodes of it"
        )
    if gaps and on_gap == "reject":
        return [], gaps
    holes = [] if on_gap == "keep" else [hole for t in tracks for hole in t.holes(whole)]
    spans = list(_without(whole, holes))
    grids = [_grid(span, tracks, rate) for span in spans]
    kept = [grid for grid in grids if grid.count]
    if not kept:
        raise DataError(_nothing_told(whole, gaps, rate), hint=_NOTHING)
    return kept, gaps


_NOTHING = "a longer max_gap_s, or on_gap: keep, bridges gaps; or are there too few steps a second?"


def exact_fps(fps: Fraction | float) -> Fraction:
    """Steps per second as a fraction: 29.97 is 30000/1001. Raises DataError unless above 0."""
    if isinstance(fps, Fraction):
        exact = fps
    elif not np.isfinite(fps):
        raise DataError(f"fps is {fps}")
    else:
        ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
        near = fps > 10 and abs(float(ntsc) - fps) < 0.005
        exact = ntsc if near else Fraction(fps).limit_denominator(100_000)
    if not 0 < exact <= 100_000:
        raise DataError(f"fps is {fps}; it has to be above 0 and at most 100000")
    return exact


@dataclass(frozen=True, eq=False)
class _Track:
    """When a stream is there.

    Args:
        times_s: float64 (n,), latency taken off.
        usual_s: between two values; None where there is one only.
        at_rate: whether values come as often as the grid has steps.
    """

    name: str
    times_s: np.ndarray
    how: Follow
    usual_s: float | None
    at_rate: bool

    @property
    def lasts_s(self) -> float:
        """How long a value counts that has none after it."""
        if self.how.used_method != "hold":
            return 0.0
        if self.how.max_gap_s is None:
            return np.inf
        return min(self.how.max_gap_s, self.usual_s or self.how.max_gap_s)

    @property
    def first_s(self) -> float:
        return float(self.times_s[0])

    @property
    def end_s(self) -> float:
        """From then on it is not there; at the last value itself it is."""
        return max(float(self.times_s[-1]) + self.lasts_s, self.first_s)

    def _places(self, whole: Span) -> np.ndarray:
        """Numbers of the values that have a gap behind them, int64."""
        if self.how.max_gap_s is None:
            return np.empty(0, np.int64)
        far = np.flatnonzero(np.diff(self.times_s) > self.how.max_gap_s + SAME_S)
        inside = (self.times_s[far + 1] > whole[0]) & (self.times_s[far] < whole[1])
        return far[inside]

    def gaps(self, whole: Span) -> list[Gap]:
        """Those between ``whole``'s ends."""
        times = self.times_s
        return [Gap(self.name, float(times[i]), float(times[i + 1])) for i in self._places(whole)]

    def holes(self, whole: Span) -> list[Span]:
        """What steps have to stay out of: from a time on, and before another."""
        times = self.times_s
        # At the last value itself the stream is still there.
        lasts = max(self.lasts_s, 2 * SAME_S)
        return [(float(times[i]) + lasts, float(times[i + 1])) for i in self._places(whole)]


def _track(name: str, stream: Stream, how: Follow, rate: Fraction) -> _Track:
    if not len(stream):
        raise DataError(
            f"the stream {name} is empty", hint="leave it out, or look at the recording's topics"
        )
    if len(stream) == 1 and how.used_method in ("linear", "slerp"):
        raise DataError(
            f"the stream {name} has a single value, at {stream.times_s[0]:.3f} s; nothing can be "
            "interpolated",
            hint="method: hold uses it for the whole recording",
        )
    usual, step = median_period_s(stream.times_s), float(1 / rate)
    at_rate = usual is not None and _is_step(stream.times_s, step)
    if usual is not None and at_rate:
        usual = min(usual, step)  # or a last value that came late would be shown twice
    return _Track(name, stream.times_s - how.latency_s, how, usual, at_rate)


def _check_limits(tracks: Sequence[_Track]) -> None:
    for track in tracks:
        limit, usual = track.how.max_gap_s, track.usual_s
        if limit is not None and usual is not None and limit < usual:
            raise DataError(
                f"max_gap_s of {track.name} is {limit:g}, but its values usually come every "
                f"{usual:.4g} s: everything would be a gap",
                hint=f"give more than that, for instance {5 * usual:.2g}",
            )


def _common(tracks: Sequence[_Track], start_s: float | None, stop_s: float | None) -> Span:
    late = max(tracks, key=lambda track: track.first_s)
    early = min(tracks, key=lambda track: track.end_s)
    start, stop = late.first_s, early.end_s
    if np.isinf(stop):  # nothing says when it ends: the last value does
        stop = max(float(track.times_s[-1]) for track in tracks) + 2 * SAME_S
    elif early.lasts_s == 0:
        stop += 2 * SAME_S
    if stop <= start:
        raise DataError(
            f"{early.name} ends at {early.end_s:.3f} s, before {late.name} begins at "
            f"{late.first_s:.3f} s: they are never there together",
            hint="are both on one clock? latency_s moves a stream, leaving it out does without it",
        )
    asked = (start if start_s is None else max(start, start_s),
             stop if stop_s is None else min(stop, stop_s))  # fmt: skip
    if asked[1] <= asked[0]:
        raise DataError(
            f"the streams are there together from {start:.3f} to {stop:.3f} s, not between "
            f"{asked[0]:.3f} and {asked[1]:.3f} s as asked"
        )
    return asked


def _without(whole: Span, holes: Sequence[Span]) -> Iterator[Span]:
    """What is left of ``whole`` between the holes."""
    at = whole[0]
    for start, stop in sorted(holes):
        if start > at:
            yield at, min(start, whole[1])
        at = max(at, stop)
    if at < whole[1]:
        yield at, whole[1]


def _grid(span: Span, tracks: Sequence[_Track], rate: Fraction) -> Grid:
    """The grid within ``span``: at its start or up to one step after it, before its end."""
    fps, (start, stop) = float(rate), span
    start += _phase(span, tracks, fps) / fps
    count = int(np.ceil((stop - start - SAME_S) * fps))
    if count > MOST_STEPS:
        raise DataError(
            f"{stop - start:.0f} s at {fps:g} fps are {count} steps; no recording is so long",
            hint="are all streams on one clock, and are their times in seconds?",
        )
    return Grid(start, max(0, count), rate)


def _phase(span: Span, tracks: Sequence[_Track], fps: float) -> float:
    """Where the grid starts after the beginning of ``span``, in steps from 0 to 1.

    Right after the values that come every step, where the fewest come in the next quarter of one.
    """
    within = [
        track.times_s[slice(*np.searchsorted(track.times_s, span))]
        for track in tracks
        if track.how.used_method == "hold" and track.at_rate
    ]
    around = np.sort(np.remainder((np.concatenate([*within, []]) - span[0]) * fps, 1.0))
    if not len(around):
        return 0.0
    twice = np.concatenate([around, around + 1])
    place = np.arange(len(around))
    late = np.searchsorted(twice, around + _ROOM, side="right") - 1 - place
    room = twice[place + 1] - around
    best = int(np.lexsort((-room, late))[0])
    if late[best] > _MOST_LATE * len(around):
        return 0.0  # at another rate after all, or without any
    phase = float(around[best])
    return 0.0 if min(phase, 1 - phase) <= SAME_S * fps else phase


def _is_step(times_s: np.ndarray, step_s: float) -> bool:
    """Whether values come once a step, as some of them together tell: jitter blurs single ones."""
    some = min(_TOGETHER, len(times_s) - 1)
    period_s = float(np.median(times_s[some:] - times_s[:-some])) / some
    return abs(period_s / step_s - 1) < _SAME_RATE


def _gap_told(gap: Gap, count: int) -> str:
    more = f"; {count - 1} more gaps" if count > 1 else ""
    return (
        f"{gap.stream} has nothing for {gap.length_s:.3f} s, from {gap.start_s:.3f} to "
        f"{gap.stop_s:.3f} s{more}"
    )


def _nothing_told(whole: Span, gaps: Sequence[Gap], rate: Fraction) -> str:
    many = f"{len(gaps)} gaps leave" if len(gaps) > 1 else "the gap leaves"
    between = many if gaps else "the streams leave"
    return f"{between} no step at {float(rate):g} fps from {whole[0]:.3f} to {whole[1]:.3f} s"
