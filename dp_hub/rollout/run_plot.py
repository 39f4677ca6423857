"""Scores of several training seeds as a picture: against steps, and against minutes."""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np

from dp_hub.rollout.files import replacing
from dp_hub.rollout.runs import Curve


def mean_curve(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps that all runs have a score of, and the mean score and mean minutes there."""
    common = reduce(np.intersect1d, [curve.step for curve in curves])
    rows = [np.isin(curve.step, common) for curve in curves]
    pairs = list(zip(curves, rows, strict=True))
    score = np.mean([curve.score[row] for curve, row in pairs], axis=0)
    return common, score, np.mean([curve.minutes[row] for curve, row in pairs], axis=0)


def write_plot(curves: Sequence[Curve], path: str | Path, *, metric: str) -> Path:
    """Save one line per run and their mean as PNG, against steps and against minutes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timed = all(np.isfinite(curve.minutes).all() for curve in curves)
    figure = Figure(figsize=(11 if timed else 6, 4.2), layout="constrained")
    FigureCanvasAgg(figure)  # never a window
    panels = figure.subplots(1, 2 if timed else 1, sharey=True, squeeze=False)[0]
    step, score, minutes = mean_curve(curves)
    for panel, label in zip(panels, ("optimiser steps", "minutes of training"), strict=False):
        by_step = label == "optimiser steps"
        for curve in curves:
            x = curve.step if by_step else curve.minutes
            panel.plot(x, curve.score, marker=".", linewidth=1, alpha=0.7, label=curve.name)
        if len(curves) > 1 and len(step):
            x = step if by_step else minutes
            panel.plot(x, score, color="black", linewidth=2, label=f"mean of {len(curves)}")
        panel.set_xlabel(label)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(metric)
    panels[0].legend(fontsize="small")
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=120)
    return Path(path)
