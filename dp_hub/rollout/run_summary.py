"""The seeds of a training summed up as in the paper.

Its tables give, per cell, the maximum and the average of the last ten checkpoints, each averaged
over three training seeds; the original's ``multirun_metrics`` has more of the kind. A maximum over
checkpoints is optimistic: it was chosen on the episodes it is told of.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dp_hub.rollout.runs import Curve

K = 10

Summary = Callable[[Curve], float]


@dataclass(frozen=True)
class Summed:
    """One figure of all runs.

    Attributes:
        name: of the figure.
        each: one number per run, NaN where it cannot be told.
        mean: over the runs; NaN unless all have it.
        std: over the runs (n - 1); NaN for a single one.
    """

    name: str
    each: tuple[float, ...]
    mean: float
    std: float


def sum_up(curves: Sequence[Curve]) -> list[Summed]:
    """Every figure of `SUMMARIES` over the runs, none of them empty."""
    return [_summed(name, [figure(curve) for curve in curves]) for name, figure in SUMMARIES]


def _summed(name: str, each: Sequence[float]) -> Summed:
    values = np.array(each)
    std = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Summed(name, tuple(each), float(values.mean()), std)


def _max(curve: Curve) -> float:
    return float(curve.score.max())


def _mean_of_last(curve: Curve) -> float:
    return float(curve.score[-K:].mean())


def _around_max(curve: Curve) -> float:
    """Mean of K scores around the first maximum, K / 2 before it; fewer at the ends."""
    best = int(curve.score.argmax())
    return float(curve.score[max(0, best - K // 2) : best + K // 2].mean())


def _best_window(curve: Curve) -> float:
    """Highest mean of K scores in a row; of all scores where there are fewer."""
    width = min(K, len(curve.score))
    return float(np.lib.stride_tricks.sliding_window_view(curve.score, width).mean(axis=1).max())


def _by_loss(curve: Curve, loss: np.ndarray, k: int) -> float:
    """Mean score at the k lowest losses; NaN where losses are missing."""
    if np.isnan(loss).any():
        return math.nan
    return float(curve.score[np.argsort(loss, kind="stable")[:k]].mean())


def _last(curve: Curve) -> float:
    return float(curve.score[-1])


SUMMARIES: tuple[tuple[str, Summary], ...] = (
    ("max", _max),
    (f"mean of last {K}", _mean_of_last),
    ("k_around_max", _around_max),
    ("max_k_window", _best_window),
    ("min_train_loss", lambda curve: _by_loss(curve, curve.train_loss, 1)),
    ("k_min_train_loss", lambda curve: _by_loss(curve, curve.train_loss, K)),
    ("min_val_loss", lambda curve: _by_loss(curve, curve.val_loss, 1)),
    ("k_min_val_loss", lambda curve: _by_loss(curve, curve.val_loss, K)),
    ("last", _last),
)
"""Name and figure, by the original's names where it has one; k is 10."""
