"""What training runs left behind: scores by step, losses, and held-out evaluations."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.errors import DataError
from dp_hub.rollout.comparison import Scores, read_scores

METRICS = "metrics.jsonl"
TRAIN_LOSS, VAL_LOSS, ELAPSED_S = "train/loss", "val/loss", "train/elapsed_s"


@dataclass(frozen=True)
class Curve:
    """The scores of one run in the order of its steps; a loss that was not measured is NaN.

    Attributes:
        name: of the run.
        step: int64 (n,).
        score: float64 (n,).
        train_loss: float64 (n,), as last told at or before each step.
        val_loss: float64 (n,), likewise.
        minutes: float64 (n,) of training by then.
    """

    name: str
    step: np.ndarray
    score: np.ndarray
    train_loss: np.ndarray
    val_loss: np.ndarray
    minutes: np.ndarray


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The runs among ``folders``, and those directly inside of one that is not a run itself.

    Raises:
        DataError: a folder is not there or holds no run.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}")
        inside = [folder] if (folder / METRICS).is_file() else []
        inside = inside or sorted(path.parent for path in folder.glob(f"*/{METRICS}"))
        if not inside:
            raise DataError(
                f"{folder} holds no training run: neither it nor a folder in it has a {METRICS}",
                hint="give the out_dir of a run, or the folder that recipes/sweep.py filled",
            )
        found += inside
    return list(dict.fromkeys(found))


def read_curves(runs: Sequence[Path], metric: str) -> list[Curve]:
    """`read_curve` of every run; by their folders' names if these tell them apart."""
    short = [run.resolve().name for run in runs]
    names = short if len(set(short)) == len(short) else [str(run) for run in runs]
    return [read_curve(run, metric, name=name) for run, name in zip(runs, names, strict=True)]


def read_curve(run: Path, metric: str, *, name: str) -> Curve:
    """The curve of one number of a run, empty if it was never measured.

    Args:
        run: a training run's output folder.
        metric: as it is called in metrics.jsonl, such as ``rollout/mean_max_reward``.
        name: of the run, for tables.
    Raises:
        DataError: metrics.jsonl cannot be read.
    """
    newest = {TRAIN_LOSS: math.nan, VAL_LOSS: math.nan, ELAPSED_S: math.nan}
    rows: dict[int, tuple[float, ...]] = {}
    for entry in _entries(run / METRICS):
        newest |= {name: float(entry[name]) for name in newest if entry.get(name) is not None}
        if entry.get(metric) is not None:
            values = (newest[TRAIN_LOSS], newest[VAL_LOSS], newest[ELAPSED_S] / 60)
            rows[int(entry["step"])] = (float(entry[metric]), *values)
    steps = sorted(rows)
    table = np.array([rows[step] for step in steps], np.float64).reshape(-1, 4)
    return Curve(name, np.array(steps, np.int64), *table.T)


def held_out_scores(runs: Sequence[Path]) -> dict[str, list[Scores]]:
    """The evaluations below runs (every ``scores.json``), by their path inside of the run.

    Raises:
        DataError: one of them is not what ``dp-hub eval`` writes.
    """
    found: dict[str, list[Scores]] = {}
    for run in runs:
        for path in sorted(run.rglob("scores.json")):
            found.setdefault(str(path.relative_to(run)), []).append(read_scores(path))
    return found


def _entries(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; the last one may have been cut by a crash."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(_entry(line))
        except (ValueError, TypeError) as error:
            if number < len(lines):
                raise DataError(f"line {number} of {path} is not a metric: {error}") from None
    return entries


def _entry(line: str) -> dict[str, Any]:
    entry = json.loads(line)
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
        raise ValueError(f"no object with a step: {line[:60]}")
    wrong = [name for name, value in entry.items() if not isinstance(value, int | float | None)]
    if wrong:
        raise ValueError(f"{wrong[0]} is not a number: {str(entry[wrong[0]])[:60]}")
    return entry
