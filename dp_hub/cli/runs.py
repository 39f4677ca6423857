"""``dp-hub runs``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dp_hub.cli.scoring import say

if TYPE_CHECKING:
    from dp_hub.rollout.comparison import Scores
    from dp_hub.rollout.intervals import Interval
    from dp_hub.rollout.run_summary import Summed
    from dp_hub.rollout.runs import Curve


def runs(
    folders: list[Path] = typer.Argument(..., help="Training runs, or folders of such."),
    metric: str = typer.Option("rollout/mean_max_reward", help="Its name in metrics.jsonl."),
    json: Path | None = typer.Option(None, help="Write all numbers to this file."),
    plot: Path | None = typer.Option(None, help="Draw score against steps and minutes, PNG."),
) -> None:
    """Sum up the seeds of a training as in the paper: maximum, mean of the last 10, and others.

    Held-out evaluations (every scores.json below a run) are averaged over the seeds too. Tables
    go to stdout.
    """
    from dp_hub.cli.evaluate import check_suffix
    from dp_hub.errors import DataError
    from dp_hub.rollout.run_plot import write_plot
    from dp_hub.rollout.run_summary import sum_up
    from dp_hub.rollout.runs import find_runs, held_out_scores, read_curves

    check_suffix(json, ".json")
    if plot is not None and plot.suffix.lower() != ".png":
        raise DataError(f"{plot} does not end in .png", hint="--plot writes a .png file")
    found = find_runs(folders)
    read = read_curves(found, metric)
    curves = [curve for curve in read if len(curve.score)]
    held_out = held_out_scores(found)
    _tell_missing([curve.name for curve in read if not len(curve.score)], metric)
    if not curves and not held_out:
        raise DataError(
            f"none of the {len(found)} runs has scores: {metric} was not measured",
            hint="train with --rollout.every N, or `dp-hub eval RUN/policy --out RUN/eval`",
        )
    summed = sum_up(curves) if curves else []
    if curves:
        _print_curves(curves, summed, metric)
    if held_out:
        _print_held_out(held_out)
    if json is not None:
        from dp_hub.rollout.files import write_json

        say(write_json(_values(metric, curves, summed, held_out), json))
    if plot is not None:
        if not curves:
            raise DataError(f"nothing to draw: {metric} was not measured in any run")
        say(write_plot(curves, plot, metric=metric))


def _tell_missing(names: list[str], metric: str) -> None:
    if names:
        typer.echo(f"left out, as {metric} was not measured: {', '.join(names)}", err=True)


def _print_curves(curves: Sequence["Curve"], summed: Sequence["Summed"], metric: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(metric, *[curve.name for curve in curves], "mean", "std")
    for row in summed:
        table.add_row(row.name, *map(_number, row.each), _number(row.mean), _number(row.std))
    counts = [str(len(curve.score)) for curve in curves]
    table.add_row("scores", *counts, "", "", style="dim")
    table.add_row("last step", *[f"{curve.step[-1]:,}" for curve in curves], "", "", style="dim")
    Console().print(table)


def _print_held_out(held_out: dict[str, list["Scores"]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("held out", "runs", "mean max reward (95 %)", "success (95 %)")
    for path, scores in held_out.items():
        reward, success = _means(scores)
        table.add_row(path, str(len(scores)), _told(reward, ".4f"), _told(success, ".1%"))
    Console().print(table)


def _means(scores: Sequence["Scores"]) -> tuple["Interval", "Interval"]:
    """Over runs, of each one's mean reward and success rate."""
    import numpy as np

    from dp_hub.rollout.intervals import t_mean

    reward = t_mean(np.array([one.max_reward.mean() for one in scores]))
    return reward, t_mean(np.array([one.success.mean() for one in scores]))


def _values(
    metric: str,
    curves: Sequence["Curve"],
    summed: Sequence["Summed"],
    held_out: dict[str, list["Scores"]],
) -> dict[str, Any]:
    return {
        "metric": metric,
        "runs": [
            {
                "name": curve.name,
                "step": curve.step.tolist(),
                "score": curve.score.tolist(),
                "minutes": [_or_none(value) for value in curve.minutes.tolist()],
            }
            for curve in curves
        ],
        "summary": {
            row.name: {
                "each": [_or_none(value) for value in row.each],
                "mean": _or_none(row.mean),
                "std": _or_none(row.std),
            }
            for row in summed
        },
        "held_out": {
            path: dict(
                zip(
                    ("mean_max_reward", "success_rate"),
                    (_interval_values(one) for one in _means(scores)),
                    strict=True,
                ),
                files=[one.name for one in scores],
            )
            for path, scores in held_out.items()
        },
    }


def _interval_values(interval: "Interval") -> dict[str, Any]:
    values = interval.as_dict()
    return values | {key: _or_none(values[key]) for key in ("low", "high")}


def _or_none(value: float) -> float | None:
    return None if value != value else value


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.4f}"


def _told(interval: "Interval", form: str) -> str:
    value = f"{interval.value:{form}}"
    if interval.low != interval.low:
        return value
    return f"{value} ({interval.low:{form}} to {interval.high:{form}})"
