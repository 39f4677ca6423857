"""What a robot's streams give while it is measured: longer than their rings remember."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from dp_hub.robot.session.camera import PICTURE
from dp_hub.robot.shared.ring import Ring, Samples

APART_S = 0.1
"""Between frames that are compared: far enough apart for a slow movement to be seen."""
_LOOKED_AT = 40_000
"""Numbers of a picture that are compared: enough to see a movement, and quick."""


@dataclass(frozen=True, eq=False)
class Taped:
    """One stream.

    Args:
        times_s: float64 (n,), of its samples.
        put_s: float64 (n,), when they were put into the ring.
        values: float64 (n,): the number that moves, or of a camera, how much a frame differs from
            the one ``apart`` before; NaN of the first ones.
        lost: samples that were gone before they were looked at.
        apart: frames; 1 of numbers.
    """

    times_s: np.ndarray
    put_s: np.ndarray
    values: np.ndarray
    lost: int
    apart: int = 1

    def between(self, start_s: float, end_s: float) -> "Taped":
        """Those whose times are in there."""
        inside = (self.times_s >= start_s) & (self.times_s <= end_s)
        return replace(
            self,
            times_s=self.times_s[inside],
            put_s=self.put_s[inside],
            values=self.values[inside],
        )


Reduce = Callable[[Samples], np.ndarray]
"""To one number a sample, float64 (k,)."""


@dataclass
class _Stream:
    ring: Ring
    reduce: Reduce
    next: int
    apart: int
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
        return Taped(times_s, put_s, np.concatenate(self.values or none), self.lost, self.apart)


class Tape:
    """Follows streams from now on; `look` often enough that no ring has gone round.

    Args:
        rings: by stream.
        rates_hz: of cameras, by stream.
        number: which number of ``position`` and ``target`` is followed.
    """

    def __init__(
        self, rings: Mapping[str, Ring], rates_hz: Mapping[str, float], number: int
    ) -> None:
        self._streams = {}
        for name, ring in rings.items():
            apart = max(1, round(APART_S * rates_hz[name])) if _is_camera(ring) else 1
            self._streams[name] = _Stream(ring, _reduce(ring, number, apart), ring.count, apart)

    def look(self) -> None:
        """Take what is new."""
        for stream in self._streams.values():
            stream.look()

    def __getitem__(self, stream: str) -> Taped:
        return self._streams[stream].taped()


def _is_camera(ring: Ring) -> bool:
    return any(one.name == PICTURE for one in ring.spec.fields)


def _reduce(ring: Ring, number: int, apart: int) -> Reduce:
    names = [one.name for one in ring.spec.fields]
    if _is_camera(ring):
        return _Changes(ring.spec.fields[names.index(PICTURE)].shape, apart)
    name = "position" if "position" in names else "target"

    def one_number(samples: Samples) -> np.ndarray:
        numbers = samples.values[name].astype(np.float64)
        return numbers.reshape(len(samples), -1)[:, min(number, numbers[0].size - 1)]

    return one_number


class _Changes:
    """How much each picture differs from one before: the mean difference of its numbers."""

    def __init__(self, shape: tuple[int, ...], apart: int) -> None:
        self._every = max(1, int(np.sqrt(np.prod(shape) / _LOOKED_AT)))
        self._before: deque[np.ndarray] = deque(maxlen=apart)

    def __call__(self, samples: Samples) -> np.ndarray:
        every, before = self._every, self._before
        found = np.full(len(samples), np.nan)
        for i, picture in enumerate(samples.values[PICTURE]):
            now = picture[::every, ::every].astype(np.int16)
            if len(before) == before.maxlen:
                found[i] = np.abs(now - before[0]).mean()
            before.append(now)
        return found
