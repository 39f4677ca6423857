"""What a controller tells of itself on the board, and how late its ticks were."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import numpy as np

from dp_hub.robot.motion.motion import STATES, Counts, Motion, State

EDGES_S = tuple(
    ms / 1e3
    for ms in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100)
)
"""Upper ends of the counted latenesses; one more count is for what was later still."""

_COUNTS = tuple(field.name for field in fields(Counts))


class Cells(Protocol):
    """A board."""

    def __getitem__(self, name: str) -> float: ...

    def __setitem__(self, name: str, value: float) -> None: ...


def cells(name: str) -> tuple[str, ...]:
    """The cells that the controller called ``name`` writes; a board for it must have them."""
    own = ("state", "plan", "ticks", "missed", "latest_s", "restamped", *_COUNTS)
    return (*(f"{name}.{one}" for one in own), *_late_cells(name))


@dataclass(frozen=True)
class Report:
    """What a controller has told.

    Args:
        state: now.
        plan: number of the newest plan; -1: none yet.
        ticks: that were.
        missed: periods that went by without one.
        latest_s: the greatest lateness of a tick.
        late: int64 (``len(EDGES_S) + 1``,), ticks of each lateness.
        counts: of `Motion`.
        restamped: readings whose own time could not be, and that have the time at which they came.
    """

    state: State
    plan: int
    ticks: int
    missed: int
    latest_s: float
    late: np.ndarray
    counts: Counts
    restamped: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values; ``late_ticks`` has one count for each of ``late_edges_ms`` and one more."""
        own = {name: getattr(self, name) for name in ("state", "plan", "ticks", "missed")}
        return {
            **own,
            "restamped": self.restamped,
            "latest_ms": 1000 * self.latest_s,
            "within_1_ms": self.share_within(0.001),
            "late_edges_ms": [1000 * edge for edge in EDGES_S],
            "late_ticks": self.late.tolist(),
            **asdict(self.counts),
        }

    def late_s(self, share: float) -> float:
        """An upper bound, from `EDGES_S`, of the lateness of this share (0 to 1) of the ticks."""
        if not self.late.sum():
            return 0.0
        enough = np.cumsum(self.late) >= share * self.late.sum() - 1e-9
        return min([*EDGES_S, self.latest_s][int(np.argmax(enough))], self.latest_s)

    def share_within(self, late_s: float) -> float:
        """Which share of the ticks was at most so late, one of `EDGES_S`."""
        assert late_s in EDGES_S, (late_s, EDGES_S)
        total = int(self.late.sum())
        return float(self.late[: EDGES_S.index(late_s) + 1].sum()) / total if total else 1.0


def read_report(board: Cells, name: str) -> Report:
    """What the controller called ``name`` has told by now."""
    return Report(
        state=STATES[int(board[f"{name}.state"])],
        plan=int(board[f"{name}.plan"]),
        ticks=int(board[f"{name}.ticks"]),
        missed=int(board[f"{name}.missed"]),
        latest_s=board[f"{name}.latest_s"],
        late=np.array([board[cell] for cell in _late_cells(name)], dtype=np.int64),
        counts=Counts(**{one: int(board[f"{name}.{one}"]) for one in _COUNTS}),
        restamped=int(board[f"{name}.restamped"]),
    )


class Reporter:
    """Writes the cells of one controller, from 0.

    Args:
        board: with its `cells`.
        name: of the controller.
    """

    def __init__(self, board: Cells, name: str) -> None:
        self._board, self._name = board, name
        self._late = _late_cells(name)
        self._cells: Mapping[str, str] = {one: f"{name}.{one}" for one in _COUNTS}
        for cell in cells(name):
            board[cell] = 0.0
        board[f"{name}.plan"] = -1.0

    def ticked(self, late_s: float, missed: int) -> None:
        """Count a tick."""
        board, name = self._board, self._name
        board[f"{name}.ticks"] += 1
        board[f"{name}.missed"] += missed
        board[f"{name}.latest_s"] = max(board[f"{name}.latest_s"], late_s)
        board[self._late[int(np.searchsorted(EDGES_S, late_s))]] += 1

    def restamped(self) -> None:
        """Count a reading with an impossible time."""
        self._board[f"{self._name}.restamped"] += 1

    def tell(self, motion: Motion) -> None:
        """Where it is, and its counts."""
        self._board[f"{self._name}.state"] = STATES.index(motion.state)
        self._board[f"{self._name}.plan"] = motion.newest
        for one, cell in self._cells.items():
            self._board[cell] = getattr(motion.counts, one)


def _late_cells(name: str) -> tuple[str, ...]:
    return tuple(f"{name}.late_{i}" for i in range(len(EDGES_S) + 1))
