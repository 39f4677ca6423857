"""The robot that `benchmarks/robot_faults.py` does things to, in a process of its own.

It is what `dp-hub rollout` runs, `Episodes` over a `Session`, driven by a stand-in policy that goes
round in circles. Keys and orders come over a connection, read as a key source is, and how it stands
goes back. Another role is a policy server over the same stand-in.

    python benchmarks/faults_robot.py robot|server ADDRESS
"""

import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.config import build
from dp_hub.errors import DpHubError
from dp_hub.robot.config import RobotConfig, load_robot
from dp_hub.robot.inference.local import LocalInference, PolicyJob
from dp_hub.robot.inference.mailbox import Mailbox, Reply
from dp_hub.robot.inference.remote import RemoteInference
from dp_hub.robot.motion.plan import Plan
from dp_hub.robot.session.driver import PolicyDriver, with_options
from dp_hub.robot.session.episodes import Crew, Episodes, Outcome, Wanted
from dp_hub.robot.session.session import Session
from dp_hub.robot.shared.board import Board, BoardSpec
from dp_hub.robot.worker import Context

CENTER, RADIUS, TURN = np.array((320.0, 320.0)), 80.0, 1.0  # px, px, rad/s
SPEED, ACCELERATION = 150.0, 800.0  # limits, px/s and px/s2
START = (320.0, 400.0, 90.0, 90.0, 0.0)  # the block is out of the way
GIVE_UP_S, MAX_AGE_S, HOLD_AFTER_S = 2.0, 0.5, 0.5
PERIOD_S, HORIZON, OBSERVED = 0.1, 16, 2
_TELL_S = 0.02


@dataclass(frozen=True)
class Setup:
    """Which robot.

    Args:
        folder: for its files.
        url, token_file: of a policy server; None: the policy is a process of the robot's.
        record, view: with a recorder, with a live view.
        clock_steps: the camera's own clock steps.
        linger_s: it waits so long before it ends on an error, so that arms can be seen at rest.
    """

    folder: str
    url: str | None = None
    token_file: str | None = None
    record: bool = False
    view: bool = False
    clock_steps: bool = False
    linger_s: float = 1.0


@dataclass(frozen=True)
class Up:
    """The robot is on: its processes, and where its motion can be watched."""

    pids: dict[str, int]
    world: Any  # spec of the ring of the world's states
    sent: Any  # of the ring of targets
    board: Any


@dataclass(frozen=True)
class Status:
    """How it stands."""

    drives: bool
    asked: int
    stale: int
    full: int
    restamped: int
    ended: tuple[str, ...]
    policy: int
    records: bool = False


@dataclass(frozen=True)
class Over:
    """It has ended: by itself, or by an error of a kind, with a message."""

    kind: str
    message: str = ""


def config_of(setup: Setup) -> RobotConfig:
    """PushT with limits, an episode that lasts for ever, and little patience."""
    values = load_robot("pusht").model_dump(mode="json")
    values["world"]["options"] = {"episode_s": 1e6}
    values["episode_s"] = 1e6
    values["hold_after_s"] = HOLD_AFTER_S
    arm = values["arms"]["arm"]
    arm |= {"interpolation": "linear", "max_age_s": MAX_AGE_S}
    arm["limits"] |= {"speed": SPEED, "acceleration": ACCELERATION}
    values["cameras"]["top"]["max_age_s"] = MAX_AGE_S
    if setup.clock_steps:
        values["cameras"]["top"]["device"] = "faulty_clock"
    values["inference"] |= {"give_up_s": GIVE_UP_S, "n_action_steps": 5}
    return build(RobotConfig, values, where="the robot of faults")


def policy_folder(folder: Path) -> Path:
    """What of a policy is read before it is loaded."""
    policy = {
        "kind": "diffusion",
        "n_obs_steps": OBSERVED,
        "n_action_steps": 5,
        "horizon": HORIZON,
        "observations": ["observation.state", "observation.image"],
        "action": "action",
    }
    features = {"observation.state": 5, "observation.image": [96, 96, 3], "action": 2}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"policy": policy, "features": features}))
    return folder


def circle(at: np.ndarray) -> np.ndarray:
    """A chunk from where the agent is, float64 (2,), on along the circle: float32 (Tp, 2)."""
    angle = np.arctan2(*(at - CENTER)[::-1])
    steps = np.arange(HORIZON) - (OBSERVED - 1)
    angles = angle + TURN * PERIOD_S * steps
    return (CENTER + RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32)


def think(context: Context, job: PolicyJob, cells: BoardSpec) -> None:
    """The policy's process."""
    mailbox, board = Mailbox.attach(job.mail), Board.attach(cells)
    context.ready()
    while not context.stopping:
        context.beat(time.monotonic())
        question = mailbox.question()
        if question is None:
            time.sleep(0.002)
            continue
        chunk = circle(question.obs["observation.state"][-1, :2].astype(np.float64))
        if board["nan"]:
            chunk[3] = np.nan
        time.sleep(board["delay_s"])
        mailbox.reply(Reply(question.number, chunk, board["delay_s"]))
    board.close()


def circles(folder: Path, stack: ExitStack) -> tuple[LocalInference, Board]:
    """The stand-in policy, and the cells that spoil it."""
    board = Board.create(["delay_s", "nan"])
    stack.callback(board.close)
    stack.callback(board.unlink)
    main = partial(think, cells=board.spec)
    policy = LocalInference(policy_folder(folder), name="circles", main=main)
    stack.callback(policy.close)
    return policy, board


@dataclass
class Orders:
    """A key source: keys and orders from the other end of a connection."""

    connection: Connection
    does: dict[str, Callable[[Any], None]]
    status: Callable[[], Status]
    _told_s: float = 0.0
    _open: bool = True

    def read(self) -> list[str]:
        """Keys since the last call."""
        keys = []
        while self._open and self.connection.poll():
            what, value = self.connection.recv()
            if what == "key":
                keys.append(value)
            else:
                self.does[what](value)
        now_s = time.monotonic()
        if now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            self.connection.send(self.status())
        return keys

    def close(self) -> None:
        """Nothing to let go of."""


def robot(connection: Connection, setup: Setup) -> None:
    """Run until a key or an error ends it, and say which."""
    try:
        _run(connection, setup)
        connection.send(Over("quit"))
    except DpHubError as error:
        connection.send(Over(type(error).__name__, error.message))
    except (KeyboardInterrupt, SystemExit) as ending:
        connection.send(Over(type(ending).__name__))
        raise


@dataclass
class _Made:
    session: Session
    inference: Any
    driver: PolicyDriver
    board: Board | None = None
    recorder: Any = None
    view: Any = None
    outcomes: list[Outcome] = field(default_factory=list)
    asked_before: int = 0  # of drivers before this one


def _run(connection: Connection, setup: Setup) -> None:
    folder = Path(setup.folder)
    with ExitStack() as stack:
        board: Board | None = None
        inference: Any
        if setup.url is None:
            inference, board = circles(folder / "policy", stack)
        else:
            inference = RemoteInference(setup.url, token_file=setup.token_file)
            stack.callback(inference.close)
        inference.start()
        session = stack.enter_context(Session(config_of(setup)))
        inference.wait_ready(60.0)
        session.reset(state=np.array(START))
        driver = PolicyDriver(session, inference, session.config.inference)
        made = _Made(session, inference, driver, board)
        _add_others(made, setup, stack)
        connection.send(_up(made))
        _episodes(connection, made, setup)


def _add_others(made: _Made, setup: Setup, stack: ExitStack) -> None:
    session = made.session
    if setup.view:
        from dp_hub.robot.view.live import LiveView

        made.view = LiveView({name: session.rings[name].spec for name in session.config.cameras})
        made.view.start()
        stack.callback(made.view.close)
    if setup.record:
        from dp_hub.robot.recording.process import RecorderProcess
        from dp_hub.robot.session.recording import recorder_job

        to = Path(setup.folder) / "data"
        made.recorder = RecorderProcess(recorder_job(session, to, None, source={}))
        stack.callback(made.recorder.kill)
        made.recorder.start_process()


def _up(made: _Made) -> Up:
    parts = made.session.parts
    pids = {name: worker.pid for name, worker in parts.workers.items()} | {"session": os.getpid()}
    for name, one in (("view", made.view), ("recorder", made.recorder)):
        if one is not None:
            pids[name] = one._worker.pid
    assert parts.ports is not None
    rings = made.session.rings
    return Up(pids, parts.ports.ring("state"), rings["arm.sent"].spec, parts.board.spec)


def _episodes(connection: Connection, made: _Made, setup: Setup) -> None:
    session = made.session
    orders = Orders(connection, _orders(made), lambda: _status(made))
    from dp_hub.robot.keys.table import ROLLOUT

    crew = Crew(orders, ROLLOUT, made.driver, None, made.recorder, view=made.view)
    wanted = Wanted(episodes=None, by_itself=False, episode_s=1e6)
    orders.does["late"] = partial(_new_driver, made, crew)
    try:
        Episodes(session, crew, wanted, on_end=made.outcomes.append).run()
    except DpHubError:
        time.sleep(setup.linger_s)
        raise


def _new_driver(made: _Made, crew: Crew, late: str) -> None:
    how = with_options(made.session.config.inference, late=late)
    made.asked_before += made.driver.told.asked
    made.driver = crew.policy = PolicyDriver(made.session, made.inference, how)


def _status(made: _Made) -> Status:
    told = made.driver.told
    restamped = made.session.counts()["top"]["restamped"]
    local = isinstance(made.inference, LocalInference)
    return Status(
        drives=made.driver.running,
        asked=made.asked_before + told.asked,
        stale=told.stale,
        full=made.session.full_queues,
        restamped=int(restamped),
        ended=tuple(one.ended for one in made.outcomes),
        policy=made.inference.pid if local else 0,
    )


def _orders(made: _Made) -> dict[str, Callable[[Any], None]]:
    session = made.session

    def spoil(values: dict[str, float]) -> None:
        assert made.board is not None
        for name, value in values.items():
            made.board[name] = value

    def plan(after: tuple[list[float], list[list[float]]]) -> None:
        now_s = session.clock.now_s()
        times_s = now_s + np.asarray(after[0], np.float64)
        session.send(Plan(0, times_s, np.asarray(after[1], np.float64), float(now_s)))

    def flood(n: int) -> None:
        for _ in range(n):
            plan(([0.2], [session.position("arm").tolist()]))

    def drop(_: Any) -> None:
        made.inference._client._connection.socket.shutdown(socket.SHUT_RDWR)

    def stall(seconds: float) -> None:
        assert session.world is not None
        session.world.stall_cameras(seconds)

    return {"spoil": spoil, "plan": plan, "flood": flood, "drop": drop, "stall": stall}


def server(connection: Connection, port: int, folder: str) -> None:
    """A policy server, until it is terminated."""
    from dp_hub.robot.inference.serving import open_door, serve

    with ExitStack() as stack:
        inference, _ = circles(Path(folder) / "served", stack)
        inference.start()
        inference.wait_ready(60.0)
        door = open_door(port=port, token_file=Path(folder) / "token")
        told = (door.url, str(door.token_file), inference.pid)
        serve(inference, door, clients=3, on_ready=lambda: connection.send(told))


def main() -> None:
    """Connect to who started this, and be what it says."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(message)s")
    # A shell that starts this in the background has it ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Client(f"\0{sys.argv[2]}", family="AF_UNIX") as given:
        {"robot": robot, "server": server}[sys.argv[1]](given, *given.recv())


if __name__ == "__main__":
    import faults_robot  # what goes over the connection is of that module, on both sides

    faults_robot.main()
