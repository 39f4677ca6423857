"""What is recorded: rings of samples with times of their own, and events that are told."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dp_hub.errors import ConfigError
from dp_hub.robot.fields import Field

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class SamplesLike(Protocol):
    """Samples of a ring, copies, in order of time.

    Attributes:
        numbers: int64 ``(k,)``, which ones.
        times_s: float64 ``(k,)``.
        values: by field, ``(k, ...)``.
        lost: how many were asked for and are gone.
    """

    @property
    def numbers(self) -> np.ndarray: ...
    @property
    def times_s(self) -> np.ndarray: ...
    @property
    def values(self) -> Mapping[str, np.ndarray]: ...
    @property
    def lost(self) -> int: ...


class RingLike(Protocol):
    """Where samples are read from: `dp_hub.robot.shared.ring.Ring`."""

    @property
    def count(self) -> int:
        """How many there ever were."""

    def since(self, number: int, /) -> Any:
        """`SamplesLike`: all of that number or a later one that are still there."""


@dataclass(frozen=True)
class StreamSource:
    """One stream to record.

    Args:
        name: of its files: letters, digits and ``_``.
        ring: its samples.
        fields: of the ring. Where one of them holds pictures, uint8 ``(H, W, 3)``, the stream is a
            camera and the others are not recorded.
        rate_hz: how often samples come, about.
        has_before: whether samples from before an episode say something of it, as readings do; what
            was sent to an arm belonged to whatever moved it then.
    """

    name: str
    ring: RingLike
    fields: Sequence[Field]
    rate_hz: float
    has_before: bool = True

    @property
    def picture(self) -> Field | None:
        """The field with pictures; None where there are numbers only."""
        return next((field for field in self.fields if field.is_picture), None)


@dataclass(frozen=True)
class EventKind:
    """Something that holds from when it is told until it is told again.

    Args:
        name: of its table.
        column: of the values in it; the stream is then ``name/column``.
        dtype: ``int64``, ``bool`` or ``string``.
        first: its value when an episode begins; None: no value.
    """

    name: str
    column: str
    dtype: str
    first: Any = None

    @property
    def stream(self) -> str:
        """What it is called in a mapping."""
        return f"{self.name}/{self.column}"


RECORDING = EventKind("recording", "on", "bool")
STAGE = EventKind("stage", "number", "int64", 0)
INTERVENTION = EventKind("intervention", "on", "bool", False)
KEY = EventKind("key", "pressed", "string")
EVENTS = (RECORDING, STAGE, INTERVENTION, KEY)


def check_sources(sources: Sequence[StreamSource]) -> None:
    """Raises ConfigError if streams cannot be told apart by the names of their files."""
    taken = {event.name for event in EVENTS}
    for source in sources:
        if not _NAME.fullmatch(source.name):
            raise ConfigError(
                f"a stream to record is called {source.name!r}",
                hint="names are letters, digits and _, and begin with a letter",
            )
        if source.name in taken:
            raise ConfigError(
                f"two streams to record are called {source.name!r}", hint="rename one of them"
            )
        taken.add(source.name)
