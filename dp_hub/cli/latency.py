"""``dp-hub latency``."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dp_hub.cli.robot_options import Certificate, Realtime, Robot, Server, TokenFile
from dp_hub.cli.robots import loaded, policy_of, say, scheduling
from dp_hub.errors import ConfigError

if TYPE_CHECKING:
    from dp_hub.robot.config import RobotConfig
    from dp_hub.robot.inference.protocol import Inference
    from dp_hub.robot.latency.choosing import Chosen
    from dp_hub.robot.latency.finding import Findings
    from dp_hub.robot.latency.measuring import Planned, Report, Wanted


def latency(
    robot: Robot,
    policy: str | None = typer.Option(
        None, help="Ask this policy, too: a folder, or a Hub name user/name[@revision]."
    ),
    server: Server = None,
    token_file: TokenFile = None,
    certificate: Certificate = None,
    still: bool = typer.Option(
        False, "--still", help="Move nothing: only how streams come, and the policy."
    ),
    arm: str | None = typer.Option(
        None, help="The arm or gripper that moves. Default: the first of the action."
    ),
    number: str | None = typer.Option(
        None, help="Its number that moves, such as x or joint_1. Default: the first."
    ),
    amplitude: float | None = typer.Option(
        None, help="How far, in its units. Default: 2 % of the workspace's smallest side."
    ),
    moves: int = typer.Option(8, min=4, max=100, help="Small moves, there and back."),
    sweep_s: float = typer.Option(8.0, min=4, max=60, help="Seconds it moves to and fro."),
    questions: int = typer.Option(20, min=1, help="To the policy."),
    state_latency: float | None = typer.Option(
        None, min=0, help="Seconds, of the arm's readings, if known. Default: the configuration's."
    ),
    action: str = typer.Option(
        "dead", help="What the action latency is: dead (until it begins to move) or lag (all)."
    ),
    write: bool = typer.Option(
        False, "--write", help="Write the latencies into the configuration."
    ),
    to: Path | None = typer.Option(
        None, help="Write a copy of the configuration with them to this new file instead."
    ),
    yes: bool = typer.Option(False, "--yes", help="Do not ask before a real robot moves."),
    realtime: Realtime = None,
    device: str = typer.Option("auto", help="cpu, cuda, mps; auto takes the best there is."),
    steps: int | None = typer.Option(None, min=1, help="Sampling steps per prediction."),
    scheduler: str | None = typer.Option(
        None, help="Sampler: ddpm, ddim, dpmsolver++ or euler, as the policy was trained."
    ),
    threads: int = typer.Option(1, min=1, help="Of the CPU for the policy."),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """Measure how late a robot sees, acts and thinks, and write it into its configuration.

    The arm moves a little around where it is, within its limits; what will move is told before. A
    real robot asks first. Ctrl-C holds. Tables go to stdout.
    """
    from dp_hub.robot.latency.choosing import choose
    from dp_hub.robot.latency.measuring import Wanted

    if action not in ("dead", "lag"):
        raise ConfigError(f"--action is {action!r}; it is dead or lag")
    config = loaded(robot)
    file = _target(robot, write=write, to=to)
    wanted = Wanted(arm, number, amplitude, moves, sweep_s, questions=questions)
    inference = None
    if policy is not None or server is not None:
        inference = policy_of(
            policy, server, token_file=token_file, certificate=certificate,
            options={"scheduler": scheduler, "steps": steps, "device": device, "threads": threads},
        )  # fmt: skip
    found = _measure(config, wanted, inference, still=still, yes=yes, realtime=realtime)
    chosen = choose(found, config, state_latency_s=state_latency, follows=action)  # type: ignore[arg-type]  # checked above
    _print(found, config, chosen, json=json)
    if write or to is not None:
        _write(file, chosen, to)
    elif chosen.values and not json:
        say("add --write to put these into the configuration, or --to FILE for a copy with them")


def _target(robot: str, *, write: bool, to: Path | None) -> Path:
    """The configuration's file. Raises ConfigError: it could not be written in the end."""
    from dp_hub.robot.config import bundled_robots, find_robot

    file = find_robot(robot)
    if write and to is not None:
        raise ConfigError("--write changes the configuration, --to makes another: choose one")
    if write and file.stem in bundled_robots() and not Path(robot).exists():
        raise ConfigError(
            f"{robot} comes with dp_hub and is not changed",
            hint=f"make a copy of your own with the latencies in it: --to my_{robot}.yaml",
        )
    if to is not None and to.exists():
        raise ConfigError(f"{to} already exists", hint="choose another name, or remove it first")
    return file


def _measure(
    config: "RobotConfig",
    wanted: "Wanted",
    inference: "Inference | None",
    *,
    still: bool,
    yes: bool,
    realtime: bool | None,
) -> "Findings":
    from dp_hub.cli.robots import while_loading
    from dp_hub.robot.latency.measuring import measure, plan
    from dp_hub.robot.session.session import Session

    with ExitStack() as stack:
        if inference is not None:
            stack.callback(inference.close)
            inference.start()
        session = stack.enter_context(Session(config, scheduling=scheduling(config, realtime)))
        planned = None if still else plan(session, wanted)
        if planned is not None:
            _tell(session.config, planned, yes=yes)
        if inference is not None:
            while_loading(session, inference)
        report = stack.enter_context(_progress())
        return measure(session, wanted, planned, inference, report)


def _tell(config: "RobotConfig", planned: "Planned", *, yes: bool) -> None:
    say(planned.line())
    if not config.is_simulated and not yes:
        # Nothing has been planned yet: while nobody beats, the controllers rest.
        typer.confirm("Is the way free, and a hand on the emergency stop?", abort=True, err=True)


@contextmanager
def _progress() -> "Iterator[Report]":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def report(what: str) -> Any:
            task = bar.add_task(what, total=1.0)
            return lambda share: bar.update(task, completed=min(max(share, 0.0), 1.0))

        yield report


def _print(found: "Findings", config: "RobotConfig", chosen: "Chosen", *, json: bool) -> None:
    from dp_hub.cli.latency_tables import as_json, print_tables

    if json:
        from json import dumps

        print(dumps(as_json(found, config, chosen), indent=2))
    else:
        print_tables(found, config, chosen)


def _write(file: Path, chosen: "Chosen", to: Path | None) -> None:
    from dp_hub.robot.config import load_robot
    from dp_hub.robot.latency import writing

    if not chosen.values:
        raise ConfigError("nothing was measured that could be written")
    target, backup = writing.write(file, chosen.values, to=to)
    load_robot(target)
    say(f"wrote {target if to is None else to}")
    if backup is not None:
        say(f"what it was before: {backup}")
