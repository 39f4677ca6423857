"""``dp-hub record``."""

from pathlib import Path

import typer

from dp_hub.cli.robot_options import (
    ROBOT_HELP,
    DryRun,
    EpisodeS,
    Keys,
    Overlay,
    Raw,
    Realtime,
    View,
)

app = typer.Typer()  # its help is that of `record`


@app.callback(invoke_without_command=True)
def record(
    context: typer.Context,
    robot: str | None = typer.Option(None, help=ROBOT_HELP),
    to: Path | None = typer.Option(None, help="The dataset, made or continued."),
    raw: Raw = None,
    task: str | None = typer.Option(None, help="What is done. Default: the configuration's."),
    episodes: int | None = typer.Option(None, min=1, help="How many. Default: until you quit."),
    seed: int = typer.Option(0, min=0, help="Of the first simulated start state."),
    episode_s: EpisodeS = None,
    by_itself: bool = typer.Option(
        False, "--by-itself", help="In simulation, begin every episode without a key."
    ),
    realtime: Realtime = None,
    dry_run: DryRun = False,
    view: View = None,
    overlay: Overlay = None,
    keys: Keys = None,
) -> None:
    """Record demonstrations of a robot (--robot), or of PushT by mouse (`dp-hub record pusht`).

    All streams are kept raw, and a dataset is made of them on the robot's grid.

    Keys: c start, s stop and save, Backspace (twice) drop the last episode, Space next stage, Esc
    emergency stop, q quit. Every saved episode is durable; a killed recorder loses at most the one
    that is being recorded, and the same command continues.
    """
    if context.invoked_subcommand is not None:
        return
    if robot is None or to is None:
        if robot is None and to is None:
            print(context.get_help())
            raise typer.Exit
        context.fail("--robot and --to go together")
    from dp_hub.cli.robot_recording import record_robot

    record_robot(
        robot,
        to,
        raw=raw,
        task=task,
        episodes=episodes,
        seed=seed,
        episode_s=episode_s,
        by_itself=by_itself,
        realtime=realtime,
        dry_run=dry_run,
        view=view,
        overlay=overlay,
        keys=keys,
    )


@app.command("pusht")
def pusht(
    to: Path = typer.Option(..., help="The replay buffer to make: a .zarr folder or .zarr.zip."),
    expert: bool = typer.Option(
        False, "--expert", help="Record the scripted demonstrator instead of your mouse."
    ),
    episodes: int | None = typer.Option(
        None, help="How many; 100 for the demonstrator, as many as you like by hand."
    ),
    seed: int = typer.Option(
        0, help="Start state of the first episode; policies are evaluated on 100000 and up."
    ),
    images: bool | None = typer.Option(
        None, "--images/--no-images", help="96x96 frames too; always by hand. [default: no-images]"
    ),
    workers: int = typer.Option(1, help="Processes that the demonstrator plays in."),
) -> None:
    """Record PushT: the scripted demonstrator (--expert), or you with the mouse.

    By hand, a window opens: click near the agent to take hold of it and push the T onto the green
    outline. Hold Space to pause, R starts the episode again, Q quits. Each finished episode is
    saved; the same command continues after the last one.
    """
    if expert:
        _expert(to, 100 if episodes is None else episodes, seed, bool(images), workers)
        return
    _refuse_expert_options(images=images, workers=workers)
    _by_hand(to, episodes, seed)


def _refuse_expert_options(*, images: bool | None, workers: int) -> None:
    from dp_hub.errors import ConfigError

    if images is not None or workers != 1:
        name = "--workers" if images is None else "--images/--no-images"
        raise ConfigError(
            f"{name} is for the scripted demonstrator; by hand, frames are always recorded",
            hint="add --expert, or leave the option out",
        )


def _expert(to: Path, episodes: int, seed: int, images: bool, workers: int) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress
    from rich.progress import TimeRemainingColumn as Remaining

    from dp_hub.envs.pusht.demonstration import Demonstration
    from dp_hub.envs.pusht.recorder import record_expert

    columns = ("recording", BarColumn(), MofNCompleteColumn(), "episodes", Remaining(compact=True))

    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=episodes)

        def progress(demo: Demonstration) -> None:
            if demo.success:
                bar.advance(task)
            else:
                bar.console.print(
                    f"seed {demo.seed}: not solved ({demo.coverage:.0%} of the goal), skipped"
                )

        made = record_expert(
            to, n_episodes=episodes, seed=seed, images=images, workers=workers, progress=progress
        )
    skipped = f", {len(made.skipped_seeds)} seeds skipped" if made.skipped_seeds else ""
    print(f"{to}: {len(made.episodes)} episodes, {made.n_steps} steps{skipped}")


def _by_hand(to: Path, episodes: int | None, seed: int) -> None:
    from dp_hub.envs.pusht.recorder import check_numbers
    from dp_hub.envs.pusht.teleop import Window, record_by_hand

    check_numbers(1 if episodes is None else episodes, seed)
    window = Window()
    try:
        n = record_by_hand(to, window, seed=seed, n_episodes=episodes)
    finally:
        window.close()
    print(f"{to}: {n} episodes")
