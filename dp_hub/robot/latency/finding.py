"""What tapes of a robot say about its latencies. Pure."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dp_hub.robot.latency.signals import (
    Delay,
    Spread,
    first_beyond,
    lag,
    picture_delay,
    rest,
)
from dp_hub.robot.latency.tape import Taped

REST_S = 0.2
"""Of rest before a move, to know the noise."""
SIGMAS = 6.0
LEAST_SHARE = 0.005
"""Of a move: less is no movement, however quiet the position is."""


@dataclass(frozen=True)
class StreamTiming:
    """How one stream comes.

    Args:
        samples: that were seen.
        rate_hz: of their times.
        wanted_hz: by the configuration.
        transport: from a sample's time to its being there for others.
        jitter_s: 95 % of the intervals between times differ at most so much from their median.
        longest_s: interval.
        lost: samples that were not seen.
    """

    samples: int
    rate_hz: float
    wanted_hz: float
    transport: Spread | None
    jitter_s: float
    longest_s: float
    lost: int


def stream_timing(taped: Taped, wanted_hz: float) -> StreamTiming:
    """Of what was taped; zeros where there were fewer than two samples."""
    gaps = np.diff(taped.times_s)
    if not len(gaps):
        return StreamTiming(len(taped.times_s), 0.0, wanted_hz, None, 0.0, 0.0, taped.lost)
    usual = float(np.median(gaps))
    return StreamTiming(
        samples=len(taped.times_s),
        rate_hz=float(len(gaps) / (taped.times_s[-1] - taped.times_s[0])),
        wanted_hz=wanted_hz,
        transport=Spread.of(taped.put_s - taped.times_s),
        jitter_s=float(np.percentile(np.abs(gaps - usual), 95)),
        longest_s=float(gaps.max()),
        lost=taped.lost,
    )


@dataclass(frozen=True)
class DeadTime:
    """From a target being sent to the first movement.

    Args:
        moves: that were made.
        spread: of those that were seen.
        threshold: what counts as a movement, in the units of the number that moved.
        why_not: a sentence; None where ``spread`` counts.
    """

    moves: int
    spread: Spread | None
    threshold: float
    why_not: str | None = None


def dead_time(
    sent: Taped, position: Taped, starts_s: np.ndarray, travel: float, *, within_s: float
) -> DeadTime:
    """Both leave their rest when they are beyond the same threshold.

    Args:
        sent: targets.
        position: measured.
        starts_s: float64 (S,), when moves were planned to begin.
        travel: of a move.
        within_s: of a move's beginning, the time in which it is looked for.
    """
    noise = [rest(_resting(position, at_s).values)[1] for at_s in starts_s]
    threshold = max(SIGMAS * float(np.median(noise)), LEAST_SHARE * abs(travel))
    found = []
    for at_s in starts_s:
        began_s = _left(sent, at_s, at_s + within_s, threshold, held=True)
        if began_s is None:
            continue
        moved_s = _left(position, at_s, at_s + within_s, threshold, held=False)
        if moved_s is not None:
            found.append(moved_s - began_s)
    moves = len(starts_s)
    if threshold > 0.5 * abs(travel):
        reason = f"the position's noise hides a movement of {abs(travel):g}"
        return DeadTime(moves, None, threshold, reason)
    if 2 * len(found) < moves:
        reason = f"it was seen to move in {len(found)} of {moves} moves only"
        return DeadTime(moves, None, threshold, reason)
    return DeadTime(moves, Spread.of(found), threshold)


def _resting(taped: Taped, at_s: float) -> Taped:
    """Before a move; the nearest sample if there was none in the time."""
    resting = taped.between(at_s - REST_S, at_s)
    if len(resting.times_s):
        return resting
    first = min(int(np.searchsorted(taped.times_s, at_s)), len(taped.times_s) - 1)
    only = slice(max(first, 0), max(first, 0) + 1)
    return Taped(taped.times_s[only], taped.put_s[only], taped.values[only], taped.lost)


def _left(
    taped: Taped, start_s: float, end_s: float, threshold: float, *, held: bool
) -> float | None:
    middle, _ = rest(_resting(taped, start_s).values)
    moving = taped.between(start_s - 0.05, end_s)
    return first_beyond(moving.times_s, moving.values, middle, threshold, held=held)


def position_lag(sent: Taped, position: Taped) -> Delay:
    """Of a sweep: how much later the position is than the targets."""
    if len(sent.times_s) < 2:
        return Delay(None, 0.0, "nothing was sent")
    return lag(position.times_s, position.values, sent.times_s, sent.values)


def frames_lag(frames: Taped, position: Taped) -> Delay:
    """Of a sweep: how much later than the position's a camera's times are; negative: earlier."""
    if len(frames.times_s) < 8 or len(position.times_s) < 8:
        return Delay(None, 0.0, "too few frames or positions were seen")
    apart = frames.apart
    changes = frames.values[apart:]
    if np.isnan(changes).any():  # the tape had only just begun
        return Delay(None, 0.0, "too few frames were seen")
    found = picture_delay(frames.times_s, changes, position.times_s, position.values, apart=apart)
    if found.why_not is None:
        return found
    return Delay(None, found.correlation, f"{found.why_not}; {VIEW}")


VIEW = "what moves has to be in view, well lit and alone, and a larger --amplitude helps"


@dataclass(frozen=True)
class Asked:
    """A policy's answers.

    Args:
        policy: its name.
        first_s: the first answer's time from being asked, which is often longer; not in the others.
        answers: from being asked to the answer.
        observed: from the observation's time to the answer.
        compute: the policy's own share of ``answers``.
    """

    policy: str
    first_s: float
    answers: Spread
    observed: Spread
    compute: Spread


@dataclass(frozen=True)
class Findings:
    """All that was measured.

    Args:
        robot: its type.
        streams: by name.
        counts: of devices, as `Session.counts` has them.
        actuator: what was moved; None: nothing was.
        moved: the name of the number that moved.
        unit: of it.
        travel: how far it moved, with a sign.
        dead_time: see there.
        lag: of the position behind targets.
        cameras: how much later than the position's their times are.
        inference: of a policy, if one was asked.
    """

    robot: str
    streams: dict[str, StreamTiming]
    counts: dict[str, Any]
    actuator: str | None = None
    moved: str | None = None
    unit: str | None = None
    travel: float = 0.0
    dead_time: DeadTime | None = None
    lag: Delay | None = None
    cameras: dict[str, Delay] | None = None
    inference: Asked | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
