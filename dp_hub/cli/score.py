"""``dp-hub score``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dp_hub.cli.evaluate import IntervalName

if TYPE_CHECKING:
    from dp_hub.robot.scores.episodes import EpisodeScore
    from dp_hub.rollout.intervals import Interval


def score(
    dataset: Annotated[
        str, typer.Argument(metavar="DIR", help="Recorded episodes: a folder or Hub name.")
    ],
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="PICTURE|DATASET#EPISODE",
            help="What the last frame should look like: a picture's file, or the last frame of an "
            "episode.",
        ),
    ] = None,
    feature: Annotated[
        str | None, typer.Option(help="The pictures to compare. Default: the only ones.")
    ] = None,
    hsv: Annotated[
        str,
        typer.Option(
            metavar="H-H,S-S,V-V",
            help="Colours of the object in OpenCV's HSV: hue 0-179, the others 0-255.",
        ),
    ] = "0-255,130-216,150-230",
    success_key: Annotated[
        str, typer.Option(help="The fact of an episode that says whether it succeeded.")
    ] = "success",
    block: Annotated[
        str | None,
        typer.Option(
            metavar="FEATURE",
            help="PushT's block pose (3 numbers) or state (5). Default: found in recordings of "
            "the simulated robot.",
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="FIRST-LAST", help="Only episodes with these seeds.")
    ] = None,
    interval: Annotated[
        IntervalName, typer.Option(help="Interval of the success rate; beta is Jeffreys'.")
    ] = IntervalName.wilson,
    each: Annotated[bool, typer.Option("--each", help="A line for each episode too.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write scores to this file.")] = None,
) -> None:
    """Score recorded episodes: how much of the object lies where it should, and successes.

    By success as the person at the robot said it; by the block's pose where it was recorded, as of
    simulated PushT; by the last picture of each episode where a reference is given: intersection
    over union of the pixels of the object's colours. A table goes to stdout.
    """
    from dp_hub.cli.evaluate import check_suffix
    from dp_hub.cli.scoring import say
    from dp_hub.dataset.reader import open_dataset
    from dp_hub.robot.scores.episodes import (
        find_block,
        parse_seeds,
        read_reference,
        score_episodes,
    )
    from dp_hub.robot.scores.pictures import read_range
    from dp_hub.rollout.files import write_json

    check_suffix(json, ".json")
    colours = read_range(hsv)
    opened = open_dataset(dataset)
    found = None if reference is None else read_reference(reference, feature, colours)
    if block is None and reference is None:
        block = find_block(opened)
    scores = score_episodes(
        opened,
        success_key=success_key,
        block=block,
        reference=found,
        feature=feature,
        colours=colours,
        seeds=None if seeds is None else parse_seeds(seeds),
    )
    sums = _sums(scores, interval.value)
    _print_table(dataset, scores, sums, each=each)
    if json is not None:
        values = {
            "dataset": dataset,
            "revision": opened.revision,
            "fingerprint": opened.fingerprint,
            "by": {"block": block, "reference": reference, "hsv": hsv if reference else None},
            "sums": {name: one.as_dict() for name, one in sums.items()},
            "episodes": [one.as_dict() for one in scores],
        }
        say(write_json(values, json))


def _sums(scores: list["EpisodeScore"], method: Any) -> dict[str, "Interval"]:
    """Mean and interval of everything that is known of all or some episodes."""
    import numpy as np

    from dp_hub.rollout.intervals import bootstrap_mean, share_interval

    sums = {}
    for name in ("iou", "max_reward"):
        values = [getattr(one, name) for one in scores if getattr(one, name) is not None]
        if values:
            sums[name] = bootstrap_mean(np.array(values))
    told = [one.success for one in scores if one.success is not None]
    if told:
        sums["success"] = share_interval(sum(told), len(told), method)
    return sums


_NAMES = {
    "iou": "final IoU, mean",
    "max_reward": "max reward, mean",
    "success": "success rate",
}


def _print_table(
    name: str, scores: list["EpisodeScore"], sums: dict[str, "Interval"], *, each: bool
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if each:
        table = Table("episode", "seed", "frames", "final IoU", "max reward", "success")
        for one in scores:
            table.add_row(
                str(one.episode),
                "" if one.seed is None else str(one.seed),
                str(one.frames),
                _number(one.iou),
                _number(one.max_reward),
                "" if one.success is None else "yes" if one.success else "no",
            )
        console.print(table)
    table = Table("", "value", "95 % interval", title=f"{name}, {len(scores)} episodes")
    for key, interval in sums.items():
        share = key == "success"
        low, high = interval.low, interval.high
        table.add_row(
            _NAMES[key],
            f"{interval.value:.1%}" if share else f"{interval.value:.4f}",
            f"{low:.1%} to {high:.1%}" if share else f"{low:.4f} to {high:.4f}",
        )
    console.print(table)
    unknown = sum(one.success is None for one in scores)
    if 0 < unknown < len(scores):
        console.print(f"of {unknown} episodes nobody said whether they succeeded", highlight=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
