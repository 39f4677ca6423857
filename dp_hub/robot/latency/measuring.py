"""Measures a robot: how its streams come, what its arm does after a target, what a camera sees."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.inference.protocol import Inference
from dp_hub.robot.latency.asking import ask
from dp_hub.robot.latency.finding import (
    Findings,
    dead_time,
    frames_lag,
    position_lag,
    stream_timing,
)
from dp_hub.robot.latency.paths import Path, Reach, reach, steps, sweep
from dp_hub.robot.latency.playing import Progress, careful, play, watch
from dp_hub.robot.latency.tape import Tape
from dp_hub.robot.session.session import Session

Report = Callable[[str], Progress]
"""Told what begins; gives what is told how far it is."""


@dataclass(frozen=True)
class Wanted:
    """What is measured, and how long.

    Args:
        actuator: that moves; None: the first that an action moves.
        number: the name of its number that moves; None: the first that is no rotation.
        amplitude: how far, in its units; None: 2 % of the smallest side of its workspace.
        moves: there and back counted each.
        sweep_s: how long it moves to and fro.
        watch_s: how long nothing moves and the streams are watched.
        questions: to the policy.
    """

    actuator: str | None = None
    number: str | None = None
    amplitude: float | None = None
    moves: int = 8
    sweep_s: float = 8.0
    watch_s: float = 3.0
    questions: int = 20


@dataclass(frozen=True)
class Planned:
    """What will move.

    Args:
        actuator: its name.
        how: far, of which number.
        name: of the number.
        unit: of it.
        here: where it is.
        there: where it goes, and comes back from.
        lasts_s: all of it.
    """

    actuator: str
    how: Reach
    name: str
    unit: str
    here: float
    there: float
    lasts_s: float
    steps: Path
    sweep: Path

    def line(self) -> str:
        """For a person, before it moves."""
        return (
            f"{self.actuator} moves along {self.name} between {self.here:g} and {self.there:g} "
            f"{self.unit} for {self.lasts_s:.0f} s: {len(self.steps.starts_s)} moves there and "
            "back, then to and fro, ever faster"
        )


def plan(session: Session, wanted: Wanted) -> Planned:
    """What would move, from where it is now.

    Raises:
        ConfigError: no such actuator or number, no workspace, or no room in it.
        RobotError: it is outside its workspace.
    """
    config = session.config
    name = wanted.actuator or config.action[0]
    if name not in config.actuators:
        raise ConfigError(
            f"no arm or gripper is called {name!r}; there is {_all(config.actuators)}"
        )
    space, position = session.parts.spaces[name], session.position(name)
    if wanted.number is not None and wanted.number not in space.names:
        raise ConfigError(f"{name} has no number {wanted.number!r}; it has {_all(space.names)}")
    how = reach(
        space,
        config.actuators[name].limits,
        position,
        number=None if wanted.number is None else space.names.index(wanted.number),
        amplitude=wanted.amplitude,
        where=f"the configuration's limits of {name}",
    )
    jumps, waves = steps(how, wanted.moves), sweep(how, lasts_s=wanted.sweep_s)
    here = float(position[how.number])
    return Planned(
        actuator=name,
        how=how,
        name=space.names[how.number],
        unit=space.units[how.number],
        here=here,
        there=here + how.travel,
        lasts_s=jumps.lasts_s + waves.lasts_s,
        steps=jumps,
        sweep=waves,
    )


def measure(
    session: Session,
    wanted: Wanted,
    planned: Planned | None,
    inference: Inference | None,
    report: Report,
) -> Findings:
    """All that is wanted.

    Args:
        session: on.
        wanted: see there.
        planned: what moves; None: nothing does, and what needs it is not measured.
        inference: ready; None: no policy is asked.
        report: see there.
    Raises:
        RobotError: something failed; what moved was stopped.
    """
    with careful(session):
        found = _streams(session, wanted, report("watching the streams"))
        if planned is not None:
            found = _movement(session, planned, found, report)
        if inference is not None:
            asked = ask(session, inference, wanted.questions, report("asking the policy"))
            found = replace(found, inference=asked)
        return replace(found, counts=session.counts())


def _streams(session: Session, wanted: Wanted, progress: Progress) -> Findings:
    config = session.config
    names = [*config.actuators, *config.cameras]
    tape = Tape({name: session.rings[name] for name in names}, session.parts.rates_hz, 0)
    watch(session, tape, wanted.watch_s, progress)
    rates_hz = session.parts.rates_hz
    timings = {name: stream_timing(tape[name], rates_hz[name]) for name in names}
    return Findings(config.robot_type, timings, {})


def _movement(session: Session, planned: Planned, found: Findings, report: Report) -> Findings:
    name, cameras = planned.actuator, list(session.config.cameras)
    check_place(planned, session.position(name))
    rings = {one: session.rings[one] for one in (name, f"{name}.sent", *cameras)}
    tape = Tape(rings, session.parts.rates_hz, planned.how.number)
    jumps_s = play(session, tape, name, planned.how, planned.steps, report("small moves"))
    waves_s = play(session, tape, name, planned.how, planned.sweep, report("to and fro"))
    sent, position = tape[f"{name}.sent"], tape[name]
    starts_s = jumps_s + planned.steps.starts_s
    during = waves_s, waves_s + planned.sweep.lasts_s
    return replace(
        found,
        actuator=name,
        moved=planned.name,
        unit=planned.unit,
        travel=planned.how.travel,
        dead_time=dead_time(
            sent, position, starts_s, planned.how.travel, within_s=_apart(starts_s)
        ),
        lag=position_lag(sent.between(*during), position.between(*during)),
        cameras={one: frames_lag(tape[one].between(*during), position) for one in cameras},
    )


def check_place(planned: Planned, position: np.ndarray) -> None:
    """Raises RobotError if the actuator is not where it was when people were told what will move.

    Args:
        planned: what they were told; it is checked against the workspace from there only.
        position: float64 (D,), where it is now.
    """
    here = float(position[planned.how.number])
    if abs(here - planned.here) > 0.5 * abs(planned.how.travel):
        raise RobotError(
            f"{planned.actuator} was at {planned.name} = {planned.here:g} {planned.unit} when it "
            f"was told what moves, and is at {here:g} now",
            hint="start again, and leave it where it is",
        )


def _apart(starts_s: np.ndarray) -> float:
    return float(np.diff(starts_s).min()) - 0.05 if len(starts_s) > 1 else 1.0


def _all(names: Iterable[str]) -> str:
    return ", ".join(names)
