"""From streams at their own rates to the observed steps of a policy, by the times they were true.

The newest step is the anchor: the newest time at which every stream has a value. So the newest
frame of the slowest camera is always used, and nothing is guessed beyond what was measured. The
steps before it are whole periods earlier.

    observation = observe(samples, uses, now_s=now, n_obs_steps=2, period_s=0.1)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.replay.rotations import slerp
from dp_hub.robot.clock import SAME_S

if TYPE_CHECKING:
    from dp_hub.robot.shared.ring import Samples

Method = Literal["nearest", "linear", "slerp"]


@dataclass(frozen=True)
class StreamUse:
    """How one stream becomes steps.

    Args:
        ring: name of the ring whose samples hold it.
        field: which of their arrays it is.
        method: ``nearest``: the value nearest in time, as it is; of two as near the older one.
            ``linear``: between the values before and after, in float64. ``slerp``: likewise, but
            the three numbers at ``rotation_at``, a rotation vector, on the shortest turn.
        latency_s: from the moment a value was true to its time in the ring; it is taken off.
        max_age_s: a newest value that was true longer ago than this is `Stale`.
        rotation_at: index of the first of the three numbers of a rotation vector.
    """

    ring: str
    field: str
    method: Method = "nearest"
    latency_s: float = 0.0
    max_age_s: float = 0.5
    rotation_at: int | None = None

    def __post_init__(self) -> None:
        assert (self.method == "slerp") == (self.rotation_at is not None), self


class Stale(RobotError):
    """A stream's newest value is too old to act on.

    Attributes:
        stream: its name.
        age_s: how long ago its newest value was true; infinite if there is none.
        limit_s: how long ago it may be.
    """

    def __init__(self, stream: str, age_s: float, limit_s: float) -> None:
        self.stream, self.age_s, self.limit_s = stream, age_s, limit_s
        if np.isinf(age_s):
            what = f"{stream} has not given anything yet"
        else:
            what = f"the newest of {stream} is {age_s:.3f} s old, and {limit_s:.3f} s is the limit"
        super().__init__(what, hint="is its device still there? `max_age_s` is the limit")


@dataclass(frozen=True, eq=False)
class Observation:
    """What is observed at To steps, the oldest first.

    Args:
        values: by stream or feature, ``(To, ...)``.
        anchor_s: time of the newest step.
        times_s: of the steps, float64 (To,).
        used_s: by stream, float64 (To,): when the value used at each step was true. Of
            interpolated values that is the step.
        ages_s: by stream, how long before ``now_s`` the value of the newest step was true.
        skew_s: how far apart in time the streams' values of the newest step are.
        repeated: steps, over all streams, that were before the oldest value there is and show it.
    """

    values: Mapping[str, np.ndarray]
    anchor_s: float
    times_s: np.ndarray
    used_s: Mapping[str, np.ndarray]
    ages_s: Mapping[str, float]
    skew_s: float
    repeated: int


def observe(
    samples: "Mapping[str, Samples]",
    uses: Mapping[str, StreamUse],
    *,
    now_s: float,
    n_obs_steps: int,
    period_s: float,
) -> Observation:
    """The newest observation there is.

    Args:
        samples: by ring, the newest ones; how many are needed tells `samples_needed`.
        uses: by stream; at least one.
        now_s: monotonic seconds.
        n_obs_steps: To.
        period_s: between steps.
    Raises:
        Stale: a stream has no value, or none that is new enough.
        RobotError: numbers that are not finite.
    """
    newest_s = newest(samples, uses)
    check_fresh(newest_s, uses, now_s=now_s)
    return align(
        samples,
        uses,
        anchor_s=anchor(newest_s),
        now_s=now_s,
        n_obs_steps=n_obs_steps,
        period_s=period_s,
    )


def newest(samples: "Mapping[str, Samples]", uses: Mapping[str, StreamUse]) -> dict[str, float]:
    """By stream, when its newest value was true, latency taken off; -inf where there is none."""
    return {
        name: float(samples[use.ring].times_s[-1]) - use.latency_s
        if len(samples[use.ring].times_s)
        else -np.inf
        for name, use in uses.items()
    }


def anchor(newest_s: Mapping[str, float]) -> float:
    """The newest time at which every stream has a value.

    Args:
        newest_s: by stream, when its newest value was true (`newest`).
    """
    return min(newest_s.values())


def check_fresh(
    newest_s: Mapping[str, float], uses: Mapping[str, StreamUse], *, now_s: float
) -> None:
    """Raises Stale, of the stream that is farthest over its limit, if one is."""
    worst = max(newest_s, key=lambda name: now_s - newest_s[name] - uses[name].max_age_s)
    age_s, limit_s = now_s - newest_s[worst], uses[worst].max_age_s
    if age_s > limit_s:
        raise Stale(worst, age_s, limit_s)


def align(
    samples: "Mapping[str, Samples]",
    uses: Mapping[str, StreamUse],
    *,
    anchor_s: float,
    now_s: float,
    n_obs_steps: int,
    period_s: float,
) -> Observation:
    """Every stream at the steps ``anchor_s - k * period_s``, k from To - 1 to 0.

    Steps before the oldest value show it; after the newest value there is no step, for the anchor
    is the newest time of one stream and not after that of any other.

    Args:
        samples: by ring; those of every use hold at least one.
        uses: by stream.
        anchor_s: `anchor`.
        now_s: for the ages.
        n_obs_steps: To.
        period_s: between steps.
    Raises:
        RobotError: numbers that are not finite.
    """
    steps_s = anchor_s - period_s * np.arange(n_obs_steps - 1, -1, -1, dtype=np.float64)
    values: dict[str, np.ndarray] = {}
    used_s: dict[str, np.ndarray] = {}
    repeated = 0
    for name, use in uses.items():
        times_s = samples[use.ring].times_s - use.latency_s
        take = _nearest if use.method == "nearest" else _between(use.rotation_at)
        values[name], used_s[name] = take(times_s, samples[use.ring].values[use.field], steps_s)
        repeated += int((steps_s < times_s[0] - SAME_S).sum())
        _check_finite(name, values[name])
    last = [used[-1] for used in used_s.values()]
    return Observation(
        values=values,
        anchor_s=float(anchor_s),
        times_s=steps_s,
        used_s=used_s,
        ages_s={name: float(now_s - used[-1]) for name, used in used_s.items()},
        skew_s=float(max(last) - min(last)),
        repeated=repeated,
    )


def samples_needed(
    rate_hz: float, *, n_obs_steps: int, period_s: float, max_age_s: float = 0.5
) -> int:
    """How many of a ring's newest samples to ask for, so that all steps find theirs.

    Args:
        rate_hz: samples per second.
        n_obs_steps: To.
        period_s: between steps.
        max_age_s: the largest of all streams: so far back another one may put the anchor.
    """
    reach_s = (n_obs_steps - 1) * period_s + max_age_s
    return int(np.ceil(rate_hz * reach_s)) + 2


_Taken = tuple[np.ndarray, np.ndarray]


def _nearest(times_s: np.ndarray, values: np.ndarray, steps_s: np.ndarray) -> _Taken:
    before = np.clip(np.searchsorted(times_s, steps_s + SAME_S, side="right") - 1, 0, None)
    after = np.minimum(before + 1, len(times_s) - 1)
    nearer = np.abs(times_s[after] - steps_s) < np.abs(steps_s - times_s[before]) - SAME_S
    index = np.where(nearer, after, before)
    return values[index], times_s[index]


def _between(
    rotation_at: int | None,
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], _Taken]:
    def take(times_s: np.ndarray, values: np.ndarray, steps_s: np.ndarray) -> _Taken:
        before = np.clip(np.searchsorted(times_s, steps_s, side="right") - 1, 0, None)
        after = np.minimum(before + 1, len(times_s) - 1)
        gap_s = times_s[after] - times_s[before]
        way_s = np.clip(steps_s - times_s[before], 0, None)
        weight = np.divide(way_s, gap_s, out=np.zeros_like(way_s), where=gap_s > 0).clip(0, 1)
        first, last = values[before].astype(np.float64), values[after].astype(np.float64)
        mixed = first + weight.reshape(-1, *(1,) * (first.ndim - 1)) * (last - first)
        if rotation_at is not None:
            turn = slice(rotation_at, rotation_at + 3)
            mixed[:, turn] = slerp(first[:, turn], last[:, turn], weight, "rotvec")
        return mixed, np.clip(steps_s, times_s[0], times_s[-1])

    return take


def _check_finite(name: str, values: np.ndarray) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise RobotError(
            f"{name} holds {np.count_nonzero(~np.isfinite(values))} numbers that are not finite",
            hint="its driver or sensor is at fault: a policy would answer with more of them",
        )
