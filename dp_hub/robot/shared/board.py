"""Numbers with names that one process writes and all may read: heartbeats, switches, counters."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dp_hub.robot.shared.segment import Segment


@dataclass(frozen=True)
class BoardSpec:
    """What another process needs to attach."""

    segment: str
    names: tuple[str, ...]


class Board:
    """Cells of 8 bytes, float64, 0 at first. A store is seen whole or not at all.

    Each cell is written by one process only, or counts would get lost. Cells are exact for whole
    numbers up to 2**53. Nothing orders stores to different cells, or to a ring, on all CPUs.
    """

    def __init__(self, segment: Segment, spec: BoardSpec) -> None:
        self.spec = spec
        self._segment = segment
        self._index = {name: at for at, name in enumerate(spec.names)}
        self._cells = segment.floats(len(spec.names), 0)

    @classmethod
    def create(cls, names: Sequence[str]) -> "Board":
        """Make one. Raises RobotError: shared memory is full."""
        assert names and len(set(names)) == len(names), names
        segment = Segment.create(8 * len(names))
        return cls(segment, BoardSpec(segment.name, tuple(names)))

    @classmethod
    def attach(cls, spec: BoardSpec) -> "Board":
        """Map one that another process made. Raises RobotError: it is gone."""
        return cls(Segment(spec.segment), spec)

    def __getitem__(self, name: str) -> float:
        return self._cells[self._index[name]]

    def __setitem__(self, name: str, value: float) -> None:
        self._cells[self._index[name]] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def close(self) -> None:
        """Let go. It cannot be used any more."""
        self._cells.release()
        self._segment.close()

    def unlink(self) -> None:
        """Remove it: nobody can attach any more. Nothing, in a process that did not make it."""
        self._segment.unlink()
