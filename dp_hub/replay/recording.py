"""What robots record before it is on one clock: streams, each with times of its own.

Formats whose rows belong together (replay buffers, HDF5 demonstrations) yield `Episode`s; formats
that hold streams at different rates (bags, cameras beside tables) yield `Recording`s. A mapping
then says which episodes and features become of them, `dp_hub.replay.timeline` puts them on a grid.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from dp_hub.errors import DataError

StreamKind = Literal["state", "command", "picture", "event"]


@dataclass(frozen=True, eq=False)
class Stream:
    """What one sensor, command or camera gave over time.

    Args:
        values: ``(n, ...)``: an array, or anything with ``len``, ``shape``, ``dtype``, ``ndim``
            and slices that give arrays, such as a `dp_hub.replay.clip.VideoClip`; pictures are
            uint8 ``(n, H, W, C)`` and decoded no sooner than they are sliced.
        times_s: float64 ``(n,)``, when each value was true (captured, commanded), in order, on the
            one clock of the recording.
        kind: ``state`` is measured and can be interpolated; a ``command`` holds until the next one;
            an ``event`` (a flag, a number of a stage, a text as an object array) likewise.
        logged_s: float64 ``(n,)``, when each was written down, where that is another time.
        names: of the numbers of a value, where the source has names for them.
        about: what the source calls its type (a message type, a codec), for people.
    Raises:
        DataError: as many times as values are wanted, finite and in order.
    """

    values: Any
    times_s: np.ndarray
    kind: StreamKind = "state"
    logged_s: np.ndarray | None = None
    names: tuple[str, ...] = ()
    about: str = ""

    def __post_init__(self) -> None:
        if self.times_s.shape != (len(self.values),):
            raise DataError(f"a stream has {len(self.values)} values and {len(self.times_s)} times")
        if not np.isfinite(self.times_s).all() or (np.diff(self.times_s) < 0).any():
            raise DataError("the times of a stream are not finite or not in order")

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Recording:
    """What was recorded in one go: one bag, one folder, one episode of several files.

    Args:
        name: which one it is, for messages and the dataset's provenance (a path within the source).
        streams: by name; names may hold any character but ``[`` and ``]``.
        task: what was to be done, in words.
        metadata: facts about the recording that JSON can hold.
    """

    name: str
    streams: Mapping[str, Stream]
    task: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
