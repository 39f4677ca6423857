"""One stream on a grid: which value is used at which step, and what became of the others."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip
from dp_hub.replay.recording import Stream
from dp_hub.replay.rotations import continuous, slerp
from dp_hub.replay.timeline.grid import SAME_S, Follow, Grid, Method
from dp_hub.replay.timeline.taken import Taken


@dataclass(frozen=True, eq=False)
class Followed:
    """A stream on a grid of T steps.

    Args:
        values: ``(T, ...)``: an array for numbers and texts. Pictures are read no sooner than they
            are sliced: a `VideoClip` where successive frames of one at the grid's rate are used,
            so that they can be copied; else a `Taken`.
        index: int64 ``(T,)``, number of the value in the stream that is used at each step; of two
            that are interpolated the one before.
        weight: float64 ``(T,)``, how much of the next value there is; None where all are 0.
        stream: what was followed.
        grid: when the steps are.
        how: the request.
    """

    values: Any
    index: np.ndarray
    weight: np.ndarray | None
    stream: Stream
    grid: Grid
    how: Follow

    @property
    def method(self) -> Method:
        """What was done: ``hold`` where looking ahead was forbidden."""
        return self.how.used_method

    @property
    def used_s(self) -> np.ndarray:
        """Time of each value used as the stream gives it, float64 ``(T,)``."""
        return self.stream.times_s[self.index]

    @cached_property
    def offset_s(self) -> np.ndarray:
        """Time of each step less the time at which its value was true, float64 ``(T,)``.

        The age of the value: below 0 for a nearest one that comes after the step. Of interpolated
        values it is the way to the one before.
        """
        since = self.stream.times_s - (self.grid.start_s + self.how.latency_s)
        return self.grid.since_start_s - since[self.index]

    @property
    def is_repeated(self) -> np.ndarray:
        """bool ``(T,)``: steps that show the same value as the step before; interpolated never."""
        same = np.zeros(len(self.index), bool)
        if self.method in ("hold", "nearest"):
            same[1:] = np.diff(self.index) == 0
        return same

    @property
    def left_out(self) -> np.ndarray:
        """int64 ``(T,)``: values between the one before and this step's that are not used."""
        skipped = np.zeros(len(self.index), np.int64)
        ahead = np.zeros(len(self.index), np.int64)
        if self.weight is not None:
            ahead = (self.weight > 0).astype(np.int64)
        last = self.index + ahead
        skipped[1:] = np.maximum(self.index[1:] - last[:-1] - 1, 0)
        return skipped

    @property
    def repeated(self) -> int:
        """Steps that show the same value as the step before."""
        return int(self.is_repeated.sum())

    @property
    def dropped(self) -> int:
        """Values between the first and the last used one that are not used."""
        return int(self.left_out.sum())


def follow(stream: Stream, grid: Grid, how: Follow) -> Followed:
    """Put a stream on a grid.

    Values whose times are the grid's (to a microsecond) are taken as they are, bit by bit.

    Args:
        stream: at least one value.
        grid: the steps, none before the first value. After the last one that value holds.
        how: method, latency, and whether a value may come from after its step.
    Raises:
        DataError: the stream is empty or begins after the grid, its values cannot be interpolated,
            or are no rotations.
    """
    if not len(stream):
        raise DataError("an empty stream cannot be followed")
    since = stream.times_s - (grid.start_s + how.latency_s)  # exact to the last bits of the times
    steps = grid.since_start_s
    index = np.searchsorted(since, steps + SAME_S, side="right") - 1
    if len(index) and index[0] < 0:
        raise DataError(
            f"the first value comes {since[0]:.3f} s after the first step",
            hint="an episode begins when all its streams are there, see find_grids",
        )
    method = how.used_method
    if method == "nearest":
        index = _nearest(since, steps, index)
    weight = _weights(since, steps, index) if method in ("linear", "slerp") else None
    if method in ("linear", "slerp"):
        _check_numbers(stream)
    if weight is None:
        values = _taken(stream, index, grid)
    elif method == "linear":
        values = _mixed(stream, index, weight)
    else:
        assert how.rotation is not None
        values = _turned(stream, index, weight, how.rotation)
    if method == "slerp" and str(how.rotation).startswith("quat"):
        values = continuous(np.asarray(values))
    return Followed(values, index, weight, stream, grid, how)


def _nearest(since: np.ndarray, steps: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The value after where that is nearer; of several at one time the last."""
    after = np.minimum(index + 1, len(since) - 1)
    nearer = np.abs(since[after] - steps) < np.abs(steps - since[index])
    picked = np.where(nearer, after, index)
    return np.searchsorted(since, since[picked], side="right") - 1


def _weights(since: np.ndarray, steps: np.ndarray, index: np.ndarray) -> np.ndarray | None:
    """How far each step is to the value after, 0 at the value before; None if all are."""
    after = np.minimum(index + 1, len(since) - 1)
    way = steps - since[index]
    way[way <= SAME_S] = 0.0
    if not way.any():
        return None
    between = since[after] - since[index]
    return np.divide(way, between, out=np.zeros_like(way), where=between > 0).clip(0, 1)


def _check_numbers(stream: Stream) -> None:
    kind = np.dtype(stream.values.dtype).kind
    if kind not in "fiu":
        raise DataError(
            f"values of type {np.dtype(stream.values.dtype)} cannot be interpolated",
            hint="method: hold",
        )


def _taken(stream: Stream, index: np.ndarray, grid: Grid) -> Any:
    """Values by number, as they are."""
    values = stream.values
    first, count = int(index[0]) if len(index) else 0, len(index)
    row = count > 0 and int(index[-1]) == first + count - 1 and bool((np.diff(index) == 1).all())
    if isinstance(values, VideoClip) and row and values.rate == grid.fps:
        return values.part(first, count)
    if not isinstance(values, np.ndarray) or stream.kind == "picture":
        return Taken(values, index)
    return values[first : first + count] if row else values[index]


def _mixed(stream: Stream, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Between neighbours, in float64; the result has the type of the values, if that has
    fractions."""
    near, low = _near(stream, index)
    kind = near.dtype if near.dtype.kind == "f" else np.dtype(np.float64)
    index = index - low
    after = np.minimum(index + 1, len(near) - 1)
    share = weight.reshape(-1, *(1 for _ in near.shape[1:]))
    before = near[index]
    mixed = before + share * (near[after].astype(np.float64) - before)
    out = mixed.astype(kind)
    exact = weight == 0
    out[exact] = before[exact]  # a value that is not finite may come after it
    return out


def _turned(stream: Stream, index: np.ndarray, weight: np.ndarray, name: str) -> np.ndarray:
    near, low = _near(stream, index)
    kind = near.dtype if near.dtype.kind == "f" else np.dtype(np.float64)
    index = index - low
    out = near[index].astype(kind)
    moved = np.flatnonzero(weight > 0)
    if len(moved):
        out[moved] = slerp(near[index[moved]], near[index[moved] + 1], weight[moved], name)
    return out


def _near(stream: Stream, index: np.ndarray) -> tuple[np.ndarray, int]:
    """The values from the first used on to the one after the last, and the number of the first."""
    low, high = int(index[0]), int(index[-1]) + 2
    return np.asarray(stream.values[low:high]), low
