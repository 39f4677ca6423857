"""Faults of a robot, and what is documented to come of each.

Every kind is a function that is given a moving robot, does something to it and waits for the
documented state; what it returns or raises is all that is known of the outcome. How far the agent
moved, and what was left behind, is the same for all and looked at by `try_out`.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import faults_robot
import numpy as np
from faults_robot import CENTER, GIVE_UP_S, HOLD_AFTER_S, MAX_AGE_S, RADIUS, SPEED, Setup
from faults_watch import Child, NotAsDocumented, Robot, wait_until

State = Literal["hold", "stop", "continue"]
HANGS_S = 2.0  # see dp_hub/robot/session/parts.py
SLACK_S = 4.0  # of a busy machine
REST_S, AT_REST = 1.5, 3.0  # after a hold or a stop it moves slower than that, px/s
ROOM = 30.0  # px off the circle that a plan leads along
STOP, CONT, KILL = signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL


@dataclass
class Case:
    """One fault under way.

    Args:
        robot: moving.
        state: that is documented.
        rng: for what is left to chance.
        server: its policy's, if that is elsewhere.
    """

    robot: Robot
    state: State
    rng: np.random.Generator
    server: "Server | None" = None
    ends: bool = False
    state_s: float | None = None
    began_s: float = field(default_factory=time.monotonic)

    def reached(self, true: Callable[[], bool], within_s: float, what: str) -> None:
        """Wait for the documented state, timed from the fault."""
        left_s = self.began_s + within_s + SLACK_S - time.monotonic()
        wait_until(true, max(left_s, 0.0), f"{what} (it is {self.robot.state})")
        self.state_s = time.monotonic() - self.began_s

    def holds(self, within_s: float) -> None:
        """It holds, at rest, and stays there until something is done."""
        robot, before = self.robot, self.holds_before
        self.reached(lambda: robot.count("holds") > before, within_s, "it holds")

    def stops(self, within_s: float, why: str) -> None:
        """Every arm is stopped, and the run ends with a reason."""
        self.ends = True
        robot = self.robot
        self.reached(lambda: robot.board["session.stop"] != 0.0, within_s, "it stops")
        self.says(why)

    def says(self, why: str) -> None:
        """The run ends by itself, with an error that says why."""
        over = self.robot.heard(faults_robot.Over, 20.0)
        if over.kind not in ("RobotError", "PolicyAway") or why not in over.message:
            raise NotAsDocumented(f"it ended with {over}, expected an error with {why!r}")

    def rests(self) -> None:
        """After a while it does not move, and goes on not to."""
        time.sleep(REST_S)
        if (speed := self.robot.speed) > AT_REST:
            raise NotAsDocumented(f"at rest it moves with {speed:.1f} px/s")

    def ended(self, how: str) -> bool:
        """Whether an episode has ended so since the fault."""
        return how in self.robot.status.ended[self.ended_before :]

    def begins(self) -> None:
        """The fault comes now."""
        self.holds_before, self.began_s = self.robot.count("holds"), time.monotonic()
        self.ended_before = len(self.robot.status.ended)
        self.until_s = np.inf

    def goes_on(self, within_s: float = 40.0) -> None:
        """By itself; where that is the state that is documented, it is timed."""
        if self.state == "hold" and self.state_s is not None:
            rest_s = self.began_s + self.state_s + REST_S
            self.until_s = min(self.until_s, time.monotonic(), rest_s)
        took_s = self.robot.goes_on(within_s)
        if self.state_s is None:
            self.state_s = took_s

    def goes_on_by_key(self) -> None:
        """When somebody lets it."""
        self.until_s = min(self.until_s, time.monotonic())
        self.robot.key("c")
        self.robot.goes_on(60.0)

    holds_before: int = 0
    ended_before: int = 0
    until_s: float = np.inf


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Args:
        name: as in docs/robots.md.
        state: that is documented.
        do: does it, waits for the state, and lets it go on where that is documented.
        setup: options of the `Setup` that it needs.
        fresh: nothing can be done to the robot after it.
        off_circle: px that the agent may be off its circle, else `ROOM`.
        group: of the issue's list.
    """

    name: str
    state: State
    do: Callable[[Case], None]
    group: str
    setup: tuple[tuple[str, Any], ...] = ()
    fresh: bool = False
    off_circle: float = ROOM
    wild_clock: bool = False


class Server(Child):
    """A policy server at a port of its own."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__("server", port, str(folder))
        try:
            self.url, self.token_file, self.policy = self.heard(tuple)
        except BaseException:
            self.end()
            raise
        self.folder = folder
        self.pids()

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])


# Cameras and the world


def stall(seconds: float) -> Callable[[Case], None]:
    """The camera shows nothing for so long."""

    def do(case: Case) -> None:
        case.robot.order("stall", seconds)
        _after_pause(case, seconds)

    return do


def pause(name: str, seconds: float) -> Callable[[Case], None]:
    """A process does not get the processor for so long."""

    def do(case: Case) -> None:
        case.robot.signal(name, STOP)
        try:
            if seconds > HANGS_S:
                case.stops(HANGS_S, "")
            else:
                time.sleep(seconds)
        finally:
            with suppress(ProcessLookupError):
                case.robot.signal(name, CONT)
        if seconds <= HANGS_S:
            _after_pause(case, 0.0)

    return do


def _after_pause(case: Case, seconds: float) -> None:
    if seconds > MAX_AGE_S or (case.robot.count("holds") > case.holds_before):
        case.holds(MAX_AGE_S)
    time.sleep(seconds)
    case.goes_on()


def pause_holds(name: str, seconds: float) -> Callable[[Case], None]:
    """A process does not get the processor so long that the robot holds meanwhile."""

    def do(case: Case) -> None:
        case.robot.signal(name, STOP)
        try:
            case.holds(max(MAX_AGE_S, HOLD_AFTER_S))
            time.sleep(max(0.0, seconds - (time.monotonic() - case.began_s)))
        finally:
            case.robot.signal(name, CONT)
        case.goes_on()

    return do


def kill(name: str) -> Callable[[Case], None]:
    """A process without which the robot cannot be used is killed."""

    def do(case: Case) -> None:
        case.robot.signal(name, KILL)
        case.stops(0.5, "killed by SIGKILL")

    return do


def camera_clock(case: Case) -> None:
    """The camera's clock steps all the time."""
    before = case.robot.status.restamped
    case.reached(lambda: case.robot.status.restamped > before, 3.0, "frames are restamped")
    case.goes_on()


def wall_clock(case: Case) -> None:
    """`time.time` jumps by hours at every call, in all processes."""
    time.sleep(1.0)
    case.goes_on()


# The policy


def policy_killed(case: Case) -> None:
    """It is started again by the key that lets it go on."""
    old = case.robot.pid("policy")
    case.robot.signal("policy", KILL)
    _away_and_back(case, 0.6)
    if case.robot.pid("policy") == old:
        raise NotAsDocumented("the policy was not started again")


def policy_hangs(case: Case) -> None:
    """Likewise, after ``give_up_s``; the one that hangs is ended."""
    case.robot.signal("policy", STOP)
    _away_and_back(case, GIVE_UP_S + 0.6)


def answers_too_late(case: Case) -> None:
    """An answer after ``give_up_s`` is none."""
    case.robot.order("spoil", {"delay_s": 2 * GIVE_UP_S})
    wait_until(lambda: case.ended("policy away"), GIVE_UP_S + 3.0 + SLACK_S, "away")
    case.robot.order("spoil", {"delay_s": 0.0})
    _away_and_back(case, GIVE_UP_S + 3.0)


def _away_and_back(case: Case, within_s: float) -> None:
    robot = case.robot
    case.reached(
        lambda: case.ended("policy away") and robot.state in ("holding", "idle"),
        within_s,
        "the policy is away, and it holds",
    )
    case.rests()
    case.goes_on_by_key()


def late(rule: str) -> Callable[[Case], None]:
    """Answers take longer than the actions that are carried out."""

    def do(case: Case) -> None:
        robot = case.robot
        delay = {"delay_s": 1.3 if rule == "hold" else 0.9}
        if rule == "stop":  # on a busy machine it may end by itself, too
            _set_late(case, rule, before=lambda: robot.order("spoil", delay))
        else:
            _set_late(case, rule)
            robot.goes_on()
            case.begins()
            robot.order("spoil", delay)
        if rule == "stop":
            case.holds(5.0)
            wait_until(lambda: case.ended("late"), SLACK_S, "the episode ends")
            case.rests()
        elif rule == "hold":
            case.reached(lambda: robot.speed < AT_REST, 3.0, "it stays where it is")
        else:
            time.sleep(2.0)
        robot.order("spoil", {"delay_s": 0.0})
        if rule != "stop":
            case.goes_on()
        _set_late(case, "extend")
        robot.goes_on()

    return do


def _set_late(case: Case, rule: str, before: Callable[[], None] = lambda: None) -> None:
    """Between two episodes."""
    robot = case.robot
    robot.key("s")
    wait_until(lambda: not robot.status.drives, SLACK_S, "the episode ends")
    robot.order("late", rule)
    if case.state_s is None:
        wait_until(lambda: robot.state == "holding", SLACK_S, "it holds")
        case.begins()
    before()
    robot.key("c")


def not_a_number(case: Case) -> None:
    """An answer with NaN."""
    case.ends = True
    case.robot.order("spoil", {"nan": 1.0})
    case.holds(1.5)
    case.says("not finite")


def emergency_while_it_hangs(case: Case) -> None:
    """The emergency stop does not wait for a policy."""
    case.robot.signal("policy", STOP)
    time.sleep(0.3)
    case.began_s, case.ends = time.monotonic(), True
    case.robot.key("esc")
    case.reached(lambda: case.robot.state == "stopped", 0.1, "it stops")


def emergency_while_it_starts(case: Case) -> None:
    """Nor for one that is being started again."""
    robot = case.robot
    robot.signal("policy", KILL)
    wait_until(lambda: case.ended("policy away"), SLACK_S, "the episode ends")
    robot.key("c")
    time.sleep(0.1)
    case.began_s, case.ends = time.monotonic(), True
    robot.key("esc")
    case.reached(lambda: robot.state == "stopped", 0.1, "it stops")


# The session and the controller


def session_killed(case: Case) -> None:
    """Controllers hold, stop their arms and end by themselves; so does all else."""
    case.ends = True
    case.robot.signal("session", KILL)
    case.reached(lambda: case.robot.state in ("holding", "stopped"), HOLD_AFTER_S, "it holds")


def interrupted(number: int) -> Callable[[Case], None]:
    """Ctrl-C, or SIGTERM as the commands take it."""

    def do(case: Case) -> None:
        case.ends = True
        case.robot.signal("session", number)
        case.holds(1.0)

    return do


def full_queue(case: Case) -> None:
    """A controller takes no commands for a while: plans are thrown away and counted."""
    robot = case.robot
    robot.signal("arm", STOP)
    robot.order("flood", 40)
    try:
        wait_until(lambda: robot.status.full > 0, 1.0, "the queue is full")
    finally:
        robot.signal("arm", CONT)
    case.goes_on()


def hold_in_a_full_queue(case: Case) -> None:
    """The order to hold is not lost with them."""
    robot = case.robot
    robot.signal("arm", STOP)
    robot.order("flood", 40)
    robot.key("s")
    try:
        wait_until(lambda: not robot.status.drives, 1.0, "the episode ends")
        time.sleep(0.3)
    finally:
        robot.signal("arm", CONT)
    case.holds(1.0)
    case.rests()
    case.goes_on_by_key()


# Plans


def plan(kind: str) -> Callable[[Case], None]:
    """A plan that nobody should make."""

    def do(case: Case) -> None:
        robot = case.robot
        robot.key("s")
        wait_until(lambda: robot.state in ("holding", "idle"), SLACK_S, "it holds")
        robot.key("c")
        robot.goes_on()
        refused = robot.count("refused")
        case.begins()
        robot.order("plan", _bad_plan(kind, case.rng))
        if kind == "not finite":
            case.reached(lambda: robot.count("refused") > refused, 1.0, "it is refused")
        time.sleep(0.5)
        case.goes_on()

    return do


def _bad_plan(kind: str, rng: np.random.Generator) -> tuple[list[float], list[list[float]]]:
    angle = rng.uniform(0, 2 * np.pi, 3)
    round_ = CENTER + RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    times = [0.1, 0.2, 0.3]
    match kind:
        case "outside":
            return times, (CENTER + rng.choice([-1e4, 1e4], (3, 2))).tolist()
        case "not finite":
            return times, [[np.nan, np.inf]] * 3
        case "long past":
            return [-100.0, -99.0, -98.0], round_.tolist()
        case _:
            return [1000.0, 1001.0, 1002.0], round_.tolist()


# Servers


def server_killed(case: Case) -> None:
    """The next question, after a key, connects to the one that is started in its place."""
    server = case.server
    assert server is not None
    os.kill(server.process.pid, KILL)
    case.holds(1.5)
    wait_until(lambda: case.ended("policy away"), SLACK_S, "the episode ends")
    server.gone()
    folder, port = server.folder, server.port
    server.end()
    case.server = Server(folder, port)
    case.rests()
    case.goes_on_by_key()


def server_hangs(case: Case) -> None:
    """It comes back later."""
    assert case.server is not None
    os.kill(case.server.process.pid, STOP)
    try:
        case.holds(GIVE_UP_S + 1.0)
        case.rests()
    finally:
        os.kill(case.server.process.pid, CONT)
    case.goes_on_by_key()


def connection_lost(case: Case) -> None:
    """The robot's connection is cut."""
    case.robot.order("drop")
    time.sleep(1.0)
    if case.ended("policy away"):
        case.holds(1.0)
        case.goes_on_by_key()
    else:
        case.goes_on()


def other_client_leaves(case: Case) -> None:
    """Another client asks and is gone before the answer."""
    from dp_hub.robot.inference.client import PolicyClient

    server = case.server
    assert server is not None
    other = PolicyClient(server.url, token_file=server.token_file)
    info = other.info
    obs = {name: np.zeros(info.observed_shape(name), info.observed_dtype(name))
           for name in info.observed}  # fmt: skip
    other.predict(obs)
    other._connection.socket.close()
    time.sleep(0.5)
    case.goes_on()
    other.close()


# Those who look on


def recorder_killed(case: Case) -> None:
    """A run that cannot be recorded ends."""
    case.ends = True
    case.robot.signal("recorder", KILL)
    case.holds(1.0)
    case.says("recorder")


def view_killed(case: Case) -> None:
    """Nobody needs it."""
    case.robot.signal("view", KILL)
    time.sleep(0.5)
    case.goes_on()


REMOTE = (("remote", True),)
KINDS = (
    Kind("camera stalls 0.3 s", "continue", stall(0.3), "camera"),
    Kind("camera stalls 1.5 s", "hold", stall(1.5), "camera"),
    Kind("camera's process stopped 0.3 s", "continue", pause("top", 0.3), "camera"),
    Kind("camera's process stopped 1.5 s", "hold", pause_holds("top", 1.5), "camera"),
    Kind("camera's process stopped 3 s", "stop", pause("top", 3.0), "camera", fresh=True),
    Kind("camera's process killed", "stop", kill("top"), "camera", fresh=True),
    Kind("camera's clock steps", "continue", camera_clock, "clocks", (("clock_steps", True),)),
    Kind("wall clock jumps", "continue", wall_clock, "clocks", wild_clock=True),
    Kind("world stopped 0.3 s", "continue", pause("world", 0.3), "world"),
    Kind("world stopped 3 s", "stop", pause("world", 3.0), "world", fresh=True),
    Kind("world killed", "stop", kill("world"), "world", fresh=True),
    Kind("policy killed", "hold", policy_killed, "policy"),
    Kind("policy hangs", "hold", policy_hangs, "policy"),
    Kind("emergency stop while policy hangs", "stop", emergency_while_it_hangs, "policy",
         fresh=True),
    Kind(
        "emergency stop while policy starts",
        "stop",
        emergency_while_it_starts,
        "policy",
        fresh=True,
    ),
    Kind("answer with NaN", "hold", not_a_number, "policy", fresh=True),
    Kind("answers after give_up_s", "hold", answers_too_late, "late answers"),
    Kind("answers late, extend", "continue", late("extend"), "late answers"),
    Kind("answers late, hold", "hold", late("hold"), "late answers"),
    Kind("answers late, stop", "hold", late("stop"), "late answers"),
    Kind("controller stopped 0.3 s", "continue", pause("arm", 0.3), "controller"),
    Kind("controller stopped 3 s", "stop", pause("arm", 3.0), "controller", fresh=True),
    Kind("controller killed", "stop", kill("arm"), "controller", fresh=True),
    Kind("command queue full", "continue", full_queue, "full queues"),
    Kind("hold into a full queue", "hold", hold_in_a_full_queue, "full queues"),
    Kind("session stopped 0.3 s", "continue", pause("session", 0.3), "session"),
    Kind("session stopped 3 s", "hold", pause_holds("session", 3.0), "session"),
    Kind("session killed", "hold", session_killed, "session", fresh=True),
    Kind("session interrupted (Ctrl-C)", "hold", interrupted(signal.SIGINT), "session",
         fresh=True),
    Kind("plan outside the workspace", "continue", plan("outside"), "plans", off_circle=400.0),
    Kind("plan not finite", "continue", plan("not finite"), "plans"),
    Kind("plan long past", "continue", plan("long past"), "plans", off_circle=RADIUS + ROOM),
    Kind("plan far in the future", "continue", plan("future"), "plans", off_circle=RADIUS + ROOM),
    Kind("policy server killed", "hold", server_killed, "server", REMOTE),
    Kind("policy server hangs", "hold", server_hangs, "server", REMOTE),
    Kind("connection to the server lost", "continue", connection_lost, "server", REMOTE),
    Kind("another client leaves", "continue", other_client_leaves, "server", REMOTE),
    Kind("recorder killed", "hold", recorder_killed, "recorder", (("record", True),), fresh=True),
    Kind("live view killed", "continue", view_killed, "view", (("view", True),), fresh=True),
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What became of one fault.

    Args:
        kind, state: as documented.
        failed: what was not; None: all was as documented.
        state_s: from the fault to the state.
        moved_px: the farthest that the agent was from where the fault found it, until it went on.
        speed: its highest speed after it, px/s.
        gone_s: until nothing was left of the robot, if it ended.
    """

    kind: str
    state: State
    failed: str | None
    state_s: float | None
    moved_px: float
    speed: float
    gone_s: float | None


class Bench:
    """Robots for faults, kept on for the next one as long as that is possible."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._n = 0
        self._key: Any = None
        self._robot: Robot | None = None
        self._server: Server | None = None

    def try_out(self, kind: Kind, rng: np.random.Generator) -> Result:
        """Do one fault, and look at what comes of it."""
        robot = self._robot_for(kind, rng)
        case = Case(
            robot, kind.state, rng, self._server if ("remote", True) in kind.setup else None
        )
        failed, gone_s = None, None
        try:
            robot.goes_on(60.0)
            time.sleep(rng.uniform(0.0, 0.5))
            before = len(robot.pids()), len(robot.segments())
            case.begins()
            first_s = case.began_s
            kind.do(case)
            if kind.state != "continue":
                _check_rest(case)
            if case.ends:
                gone_s = robot.gone()
            else:
                _check_nothing_leaked(robot, before)
            _check_bounds(robot, kind, first_s)
        except NotAsDocumented as error:
            failed = str(error)
        self._server = case.server or self._server
        moved, speed = _motion(robot, case.began_s, case.until_s)
        if failed or case.ends or kind.fresh:
            if failed is None and not case.ends:
                robot.key("q")
                with_end_s = robot.gone()
                gone_s = with_end_s
            self._let_go()
        return Result(kind.name, kind.state, failed, case.state_s, moved, speed, gone_s)

    def close(self) -> list[str]:
        """End what is on; what was not as it should be then."""
        problems = []
        for child in (self._robot, self._server):
            if child is None:
                continue
            if isinstance(child, Robot):
                child.key("q")
            else:
                child.process.terminate()
            try:
                child.gone()
            except NotAsDocumented as error:
                problems.append(str(error))
            child.end()
        self._robot = self._server = None
        return problems

    def _let_go(self) -> None:
        if self._robot is not None:
            self._robot.end()
        self._robot = None

    def _robot_for(self, kind: Kind, rng: np.random.Generator) -> Robot:
        key = (kind.setup, kind.wild_clock)
        if self._robot is not None and key == self._key and not self._robot.has_ended:
            return self._robot
        if self._robot is not None:
            self._robot.key("q")
            self._robot.gone()
            self._let_go()
        self._key, options = key, dict(kind.setup)
        self._n += 1
        folder = self._folder / str(self._n)
        folder.mkdir(parents=True)
        if options.pop("remote", False):
            if self._server is None:
                self._server = Server(self._folder)
            options |= {"url": self._server.url, "token_file": self._server.token_file}
        setup = Setup(str(folder), **options)
        self._robot = Robot(setup, wild_clock=kind.wild_clock)
        self._robot.key("c")
        return self._robot


def _check_rest(case: Case) -> None:
    """Where it ended, it was at rest some time after the state; else `rests` has looked."""
    if not case.ends:
        return
    assert case.state_s is not None
    rest_s = case.began_s + case.state_s + REST_S
    times_s, _, speeds = case.robot.trace.since(rest_s)
    if len(times_s) and speeds.max() > AT_REST:
        raise NotAsDocumented(f"at rest it moves with {speeds.max():.1f} px/s")


def _check_nothing_leaked(robot: Robot, before: tuple[int, int]) -> None:
    def same() -> bool:
        return (len(robot.pids()), len(robot.segments())) <= before

    wait_until(same, 10.0, f"processes and memory as before, {before}")


def _check_bounds(robot: Robot, kind: Kind, since_s: float) -> None:
    """The agent kept to what plans and limits allow, whatever happened."""
    _, positions, speeds = robot.trace.since(since_s)
    if not len(positions):
        return
    off = np.abs(np.linalg.norm(positions - CENTER, axis=1) - RADIUS).max()
    inside = (positions >= 0.0).all() and (positions <= 512.0).all()
    if not inside or off > kind.off_circle:
        raise NotAsDocumented(f"the agent was {off:.0f} px off its circle, inside: {inside}")
    if speeds.max() > 1.1 * SPEED:
        raise NotAsDocumented(f"it moved with {speeds.max():.0f} px/s, the limit is {SPEED:g}")


def _motion(robot: Robot, since_s: float, until_s: float) -> tuple[float, float]:
    times_s, positions, speeds = robot.trace.since(since_s)
    positions, speeds = positions[times_s <= until_s], speeds[times_s <= until_s]
    if not len(positions):
        return 0.0, 0.0
    return float(np.linalg.norm(positions - positions[0], axis=1).max()), float(speeds.max())
