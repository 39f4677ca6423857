"""Moves an actuator along a path through the session, and stops it when anything is not as it was.

The rest of the robot stands still. What a controller limits and refuses holds here as anywhere.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.latency.paths import Path, Reach
from dp_hub.robot.latency.tape import Tape
from dp_hub.robot.motion.plan import MAX_POINTS
from dp_hub.robot.session.session import Session

AHEAD_S = 0.5
"""So far in advance plans are sent."""
_TOGETHER_S = 0.1
"""Points of so much of the path are one plan, so that a controller's queue lasts for seconds."""
_LOOK_S = 0.005
_ASTRAY = 5.0
"""An actuator that is so many travels away from where it may be is stopped."""

Progress = Callable[[float], None]
"""Told the share that is done, 0 to 1."""


@contextmanager
def careful(session: Session) -> Iterator[None]:
    """Whatever ends what is done inside ends the movement: Ctrl-C holds, an error stops."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        session.hold()
        raise
    except BaseException:
        session.stop()
        raise


def watch(session: Session, tape: Tape, lasts_s: float, progress: Progress) -> None:
    """Nothing moves; the tape runs."""
    start_s = session.clock.now_s()
    while (since_s := session.clock.now_s() - start_s) < lasts_s:
        _turn(session, tape)
        progress(since_s / lasts_s)


def play(
    session: Session, tape: Tape, actuator: str, how: Reach, path: Path, progress: Progress
) -> float:
    """Move along a path; the tape runs.

    Args:
        session: on.
        tape: has the actuator's stream.
        actuator: its name.
        how: what of it moves.
        path: from where it is.
        progress: told now and then.
    Returns:
        When the path began, monotonic seconds.
    Raises:
        RobotError: a process failed, or the actuator holds, was stopped or goes astray.
    """
    session.beat()  # plans are refused of a commander that is not well
    home = session.position(actuator)
    latency_s = session.config.actuators[actuator].action_latency_s
    start_s = session.clock.now_s() + latency_s + AHEAD_S
    end_s = start_s + path.lasts_s
    sent = 0
    while (now_s := session.clock.now_s()) < end_s + latency_s:
        until_s = _TOGETHER_S * math.ceil((now_s + latency_s + AHEAD_S - start_s) / _TOGETHER_S)
        due = int(np.searchsorted(path.times_s, until_s, side="right"))
        while sent < due:
            last = min(due, sent + MAX_POINTS)
            _send(session, actuator, home, how, path, slice(sent, last), start_s)
            sent = last
        _turn(session, tape)
        _check(session, actuator, home, how, sent > 0)
        progress((now_s - start_s) / path.lasts_s)
    return start_s


def _send(
    session: Session,
    actuator: str,
    home: np.ndarray,
    how: Reach,
    path: Path,
    points: slice,
    start_s: float,
) -> None:
    times_s = start_s + path.times_s[points]
    targets = np.tile(home, (len(times_s), 1))
    targets[:, how.number] += path.offsets[points]
    if not session.move(actuator, times_s, targets, float(times_s[0])):
        raise RobotError(f"the controller of {actuator} takes no plans any more: its queue is full")


def _turn(session: Session, tape: Tape) -> None:
    session.beat()
    session.check()
    tape.look()
    session.clock.sleep_until(session.clock.now_s() + _LOOK_S)


def _check(session: Session, actuator: str, home: np.ndarray, how: Reach, begun: bool) -> None:
    state = session.state_of(actuator)
    if state in ("holding", "stopped") and begun:
        raise RobotError(
            f"{actuator} is {state} in the middle of a movement",
            hint="its controller logged why; a machine too busy to beat is one reason",
        )
    away = float(session.position(actuator)[how.number] - home[how.number])
    low, high = sorted((0.0, how.travel))
    room = _ASTRAY * abs(how.travel)
    if not low - room <= away <= high + room:
        raise RobotError(
            f"{actuator} went astray: it is {away:g} from where it began, and was to go "
            f"{how.travel:g}"
        )
