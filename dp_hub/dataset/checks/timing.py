"""The index columns of the rows, and their times against the grid ``frame_index / fps``."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from dp_hub.dataset.checks.bounds import Bounds
from dp_hub.dataset.checks.finding import Finding, found
from dp_hub.dataset.checks.frames import Run
from dp_hub.dataset.checks.thresholds import DRIFT, GAP, RATE_DIFFERENCE, TOLERANCE_S


class RowOrder:
    """Checks ``index``, ``episode_index`` and ``frame_index``; remembers the tasks of episodes.

    Args:
        bounds: the episodes.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._wrong: dict[str, list[int]] = {}
        self._first: dict[str, str] = {}
        self.tasks: list[tuple[int, ...]] = [()] * len(bounds.starts)

    def add(self, run: Run) -> None:
        """Look at one episode."""
        frame = np.arange(run.length)
        number = int(self._bounds.number[run.at])
        self._compare(run, "index", frame + self._bounds.first[run.at])
        self._compare(run, "episode_index", np.full(run.length, number))
        self._compare(run, "frame_index", frame)
        if "task_index" in run.columns:
            self.tasks[run.at] = tuple(np.unique(run.columns["task_index"]).tolist())

    def _compare(self, run: Run, name: str, expected: np.ndarray) -> None:
        if name not in run.columns:
            return
        values = run.columns[name][:, 0]
        if np.array_equal(values, expected):
            return
        row = int(np.flatnonzero(values != expected)[0])
        where = f"frame {row} of episode {int(self._bounds.number[run.at])}"
        self._first.setdefault(name, f"{name} is {values[row]} in {where}, not {expected[row]}")
        self._wrong.setdefault(name, []).append(int(self._bounds.number[run.at]))

    @property
    def wrong_columns(self) -> set[str]:
        """Index columns that are wrong somewhere."""
        return set(self._wrong)

    def findings(self) -> Iterator[Finding]:
        """What is out of order."""
        ids = {"index": "DATA-001", "episode_index": "DATA-002", "frame_index": "DATA-003"}
        for name, episodes in self._wrong.items():
            yield found(ids[name], self._first[name], episodes)


class Timing:
    """Checks timestamps. Of each episode only the gravest fault counts, so that one fault is one.

    Args:
        bounds: the episodes.
        fps: of the grid.
    """

    def __init__(self, bounds: Bounds, fps: float) -> None:
        self._bounds, self._fps = bounds, fps
        self._wrong: dict[str, list[int]] = {}
        self._worst: dict[str, float] = {}
        self.max_deviation_s = 0.0
        self._n_gaps = 0

    def add(self, run: Run) -> None:
        """Look at one episode."""
        if "timestamp" not in run.columns:
            return
        seconds = run.columns["timestamp"][:, 0].astype(np.float64)
        with np.errstate(invalid="ignore"):
            off = np.abs(seconds - np.arange(run.length) / self._fps)
        # float32 cannot be nearer than this to large times.
        tolerance = TOLERANCE_S + seconds.max() * 1.2e-7
        if (off <= tolerance).all():
            self.max_deviation_s = max(self.max_deviation_s, float(off.max()))
            return
        steps = np.diff(seconds)
        id, amount = self._kind(steps, off)
        number = int(self._bounds.number[run.at])
        self._wrong.setdefault(id, []).append(number)
        self._worst[id] = max(self._worst.get(id, 0.0), amount)
        gaps = int((steps > GAP / self._fps).sum())
        if gaps and id in ("TIME-001", "TIME-005"):
            self._n_gaps += gaps
            self._wrong.setdefault("TIME-003", []).append(number)
            self._worst["TIME-003"] = max(self._worst.get("TIME-003", 0.0), float(steps.max()))

    def _kind(self, steps: np.ndarray, off: np.ndarray) -> tuple[str, float]:
        """The rule that fits best, and by how much it is broken."""
        worst = float(np.nanmax(off)) if np.isfinite(off).any() else float("inf")
        if not (steps > 0).all() or not np.isfinite(off).all():
            return "TIME-002", float(np.nanmin(steps, initial=0.0))
        median = float(np.median(steps)) if len(steps) else 1 / self._fps
        if abs(median - 1 / self._fps) > RATE_DIFFERENCE / self._fps:
            return "TIME-004", 1 / median
        if off[-1] > DRIFT / self._fps and not (steps > GAP / self._fps).any():
            return "TIME-005", float(off[-1])
        return "TIME-001", worst

    @property
    def any_wrong(self) -> bool:
        """Whether any timestamp is off the grid."""
        return bool(self._wrong)

    def findings(self) -> Iterator[Finding]:
        """What is off the grid."""
        texts: dict[str, Any] = {
            "TIME-001": "timestamps lie up to {:.6f} s off frame_index / fps",
            "TIME-002": "timestamps do not rise, or are not numbers",
            "TIME-003": "{gaps} steps are longer than 1.5 / fps, the longest {:.3f} s",
            "TIME-004": "the median step is that of {:.3f} Hz; fps is {fps:g}",
            "TIME-005": "timestamps drift by up to {:.4f} s",
        }
        for id, episodes in self._wrong.items():
            what = texts[id].format(self._worst[id], gaps=self._n_gaps, fps=self._fps)
            yield found(id, what, episodes)
