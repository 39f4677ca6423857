"""``dp-hub eval``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dp_hub.cli.scoring import Scored, Settings, say

if TYPE_CHECKING:
    from dp_hub.rollout.evaluation import Evaluation


class IntervalName(StrEnum):
    """Confidence intervals of a share."""

    wilson = "wilson"
    beta = "beta"
    bootstrap = "bootstrap"


def evaluate(
    policy: str = typer.Argument(..., help="A policy folder, or a Hub name user/name[@revision]."),
    env: str = typer.Option("pusht", help="The environment: pusht."),
    episodes: int = typer.Option(50, min=1, help="How many, with consecutive seeds."),
    seed: int = typer.Option(100_000, min=0, help="Seed of the first episode."),
    json: Path | None = typer.Option(None, help="Write scores and settings to this file."),
    picture: Path | None = typer.Option(None, help="Write a contact sheet, PNG, to this file."),
    video: Path | None = typer.Option(None, help="Write a video, mp4, to this file."),
    out: Path | None = typer.Option(
        None, help="Write scores.json, contact_sheet.png and video.mp4 into this folder."
    ),
    to_card: bool = typer.Option(
        False, help="Add the scores to the policy's README.md, in place of the same evaluation's."
    ),
    steps: int | None = typer.Option(None, min=1, help="Sampling steps per prediction."),
    scheduler: str | None = typer.Option(
        None, help="Sampler: ddpm, ddim, dpmsolver++ or euler, as the policy was trained."
    ),
    n_action_steps: int | None = typer.Option(
        None, min=1, help="Execution horizon: steps executed per prediction."
    ),
    latency_steps: int = typer.Option(
        0, min=0, help="Simulated delay: observations are so old, so many first actions are past."
    ),
    ensemble: float | None = typer.Option(
        None,
        help="Temporal ensembling: predict at every step, average what was predicted for it "
        "with weights exp(-ENSEMBLE * i), i = 0 the oldest. ACT's is 0.01.",
    ),
    interval: IntervalName = typer.Option(
        IntervalName.wilson, help="Interval of the success rate; beta is Jeffreys'."
    ),
    device: str = typer.Option("auto", help="cpu, cuda, mps; auto takes the best there is."),
    processes: int | None = typer.Option(
        None, min=1, help="At most so many; default: the cores on a CPU, else 1. Same scores."
    ),
    batch_size: int | None = typer.Option(
        None, min=1, help="So many seeds run as one batch; default 25 on a CPU, else 100."
    ),
    each: bool = typer.Option(False, help="Print a row for every episode too."),
) -> None:
    """Score a policy in simulation: mean of maximum rewards and success rate.

    The same command gives the same scores. A table goes to stdout.
    """
    from dp_hub.cli.scoring import score
    from dp_hub.cli.to_card import add_to_card, check_card

    for path, suffix in ((json, ".json"), (picture, ".png"), (video, ".mp4")):
        check_suffix(path, suffix)
    if out is not None:
        json = json or out / "scores.json"
        picture = picture or out / "contact_sheet.png"
        video = video or out / "video.mp4"
    if to_card:
        check_card(policy)
    settings = Settings(
        env=env,
        episodes=episodes,
        seed=seed,
        processes=processes,
        batch_size=batch_size,
        device=device,
        scheduler=scheduler,
        steps=steps,
        n_action_steps=n_action_steps,
        latency_steps=latency_steps,
        ensemble=ensemble,
        interval=interval.value,
    )
    scored = score(policy, settings)
    _print_table(scored.evaluation, each=each)
    _save(scored, json, picture, video)
    if to_card:
        add_to_card(scored)


def check_suffix(path: Path | None, suffix: str) -> None:
    """Say that a name does not fit its format before minutes of evaluation, not after."""
    from dp_hub.errors import DataError

    if path is not None and path.suffix.lower() != suffix:
        option = {".json": "json", ".png": "picture", ".mp4": "video"}[suffix]
        raise DataError(
            f"{path} does not end in {suffix}", hint=f"--{option} writes a {suffix} file"
        )


def _save(scored: Scored, json: Path | None, picture: Path | None, video: Path | None) -> None:
    if json is not None:
        from dp_hub.rollout.files import write_json

        say(write_json(scored.values, json))
    if picture is not None:
        from dp_hub.rollout.picture import write_picture

        say(write_picture(scored.evaluation, picture, title=scored.name))
    if video is not None:
        from dp_hub.rollout.video import write_video

        say(write_video(scored.evaluation, video))


def _print_table(evaluation: "Evaluation", *, each: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    reward, success = evaluation.reward, evaluation.success
    n = len(evaluation.episodes)
    steps = sum(result.steps for result in evaluation.episodes)
    table = Table("", "value", "95 % interval", title=f"{evaluation.env}, {n} episodes")
    table.add_row(
        "mean max reward", f"{reward.value:.4f}", f"{reward.low:.4f} to {reward.high:.4f}"
    )
    table.add_row(
        "success rate", f"{success.value:.1%}", f"{success.low:.1%} to {success.high:.1%}"
    )
    table.add_row("mean steps", f"{steps / n:.1f}", "")
    for name, first in evaluation.config.get("only_first", {}).items():
        table.add_row(name, f"first {first} numbers", "")
    table.add_row("wall time", f"{evaluation.wall_s:.1f} s", "")
    console.print(table)
    if each:
        rows = Table("seed", "max reward", "final reward", "success", "steps")
        for result in evaluation.episodes:
            rows.add_row(
                str(result.seed),
                f"{result.max_reward:.4f}",
                f"{result.final_reward:.4f}",
                "yes" if result.success else "no",
                str(result.steps),
            )
        console.print(rows)
