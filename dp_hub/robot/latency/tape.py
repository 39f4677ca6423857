"""What a robot's streams give while it is measured: longer than their rings remember."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from dp_hub.robot.session.camera import PICTURE
from dp_hub.robot.shared.ring import Ring, Samples

_LOOKED_AT = 40_000
"""Numbers of a picture that are compared: enough to see a movement, and quick."""


@dataclass(frozen=True, eq=False)
class Taped:
    """One stream.

    Args:
        times_s: float64 (n,), of its samples.
        put_s: float64 (n,), when they were put into the ring.
        values: float64 (n,): the number that moves, or of a camera, how much a frame differs from
            the one before; NaN of the first.
        lost: samples that were gone before they were looked at.
    """

    times_s: np.ndarray
    put_s: np.ndarray
    values: np.ndarray
    lost: int

    def between(self, start_s: float, end_s: float) -> "Taped":
        """Those whose times are in there."""
        inside = (self.times_s >= start_s) & (self.times_s <= end_s)
        return Taped(self.times_s[inside], self.put_s[inside], self.values[inside], self.lost)


Reduce = Callable[[Samples], np.ndarray]
"""To one number a sample, float64 (k,)."""


@dataclass
class _Stream:
    ring: Ring
    reduce: Reduce
    next: int
    parts: list[Samples] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    lost: int = 0

    def look(self) -> None:
        fresh = self.ring.since(self.next)
        self.lost += fresh.lost
        self.next += fresh.lost + len(fresh)
        if len(fresh):
            self.values.append(self.reduce(fresh))
            # Pictures are not kept.
            self.parts.append(Samples(fresh.numbers, fresh.times_s, fresh.put_s, {}, 0))

    def taped(self) -> Taped:
        none = [np.empty(0)]
        times_s, put_s = (
            np.concatenate([getattr(part, name) for part in self.parts] or none)
            for name in ("times_s", "put_s")
        )
        return Taped(times_s, put_s, np.concatenate(self.values or none), self.lost)


class Tape:
    """Follows streams from now on; `look` often enough that no ring has gone round.

    Args:
        rings: by stream.
        number: which number of ``position`` and ``target`` is followed.
    """

    def __init__(self, rings: Mapping[str, Ring], number: int) -> None:
        self._streams = {
            name: _Stream(ring, _reduce(ring, number), ring.count) for name, ring in rings.items()
        }

    def look(self) -> None:
        """Take what is new."""
        for stream in self._streams.values():
            stream.look()

    def __getitem__(self, stream: str) -> Taped:
        return self._streams[stream].taped()


def _reduce(ring: Ring, number: int) -> Reduce:
    names = [one.name for one in ring.spec.fields]
    if PICTURE in names:
        return _Changes(ring.spec.fields[names.index(PICTURE)].shape)
    name = "position" if "position" in names else "target"

    def one_number(samples: Samples) -> np.ndarray:
        numbers = samples.values[name].astype(np.float64)
        return numbers.reshape(len(samples), -1)[:, min(number, numbers[0].size - 1)]

    return one_number


class _Changes:
    """How much each picture differs from the one before: the mean difference of its numbers."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._every = max(1, int(np.sqrt(np.prod(shape) / _LOOKED_AT)))
        self._before: np.ndarray | None = None

    def __call__(self, samples: Samples) -> np.ndarray:
        every = self._every
        found = np.empty(len(samples))
        for i, picture in enumerate(samples.values[PICTURE]):
            now = picture[::every, ::every].astype(np.int16)
            before, self._before = self._before, now
            found[i] = np.nan if before is None else np.abs(now - before).mean()
        return found
