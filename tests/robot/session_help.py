"""Robots for the tests of sessions: small, quick to start, and told in plain values."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from dp_hub.config import build
from dp_hub.robot.config import RobotConfig, find_robot, read_yaml
from dp_hub.robot.motion.plan import Plan
from dp_hub.robot.session.orders import Orders
from dp_hub.robot.session.session import Session

PATIENT_S = 10.0
"""No robot of a test holds, and nothing is too old, because the machine stood still for a while."""


def robot_of(name: str = "pusht", **changes: Any) -> RobotConfig:
    """A bundled robot with some of its keys replaced; patient where nothing else is said."""
    robot = copy.deepcopy(read_yaml(find_robot(name)) | changes)
    robot.setdefault("hold_after_s", PATIENT_S)
    for one in [*robot["arms"].values(), *robot["cameras"].values()]:
        one.setdefault("max_age_s", PATIENT_S)
    for one in robot["arms"].values():
        if one["device"].startswith("sim_"):
            one.setdefault("options", {}).setdefault("silent_s", PATIENT_S)
    return build(RobotConfig, robot, where=name)


def without_cameras(**changes: Any) -> RobotConfig:
    """PushT seen by its state only: two processes less to start and to draw."""
    observed = {"observation.state": "arm.state"}
    return robot_of(cameras={}, observations=observed, **changes)


def real_robot(**limits: Any) -> dict[str, Any]:
    """A UR arm as plain values, with these limits; nobody is at its address."""
    return {
        "robot_type": "ur5",
        "fps": 10,
        "arms": {"arm": {"device": "ur", "options": {"host": "127.0.0.1"}, "limits": limits}},
        "observations": {"observation.state": "arm.pose"},
        "action": ["arm"],
        "teleop": {"device": "keyboard"},
    }


def wait_until(session: Session, done: Callable[[], Any], most_s: float = 30.0) -> None:
    """Keep the session alive until something is so."""
    until_s = time.monotonic() + most_s
    while not done():
        assert time.monotonic() < until_s, "it takes too long"
        session.beat()
        session.check()
        time.sleep(0.005)


def wait_s(session: Session, seconds: float) -> None:
    """Keep the session alive for a while."""
    until_s = time.monotonic() + seconds
    wait_until(session, lambda: time.monotonic() >= until_s)


def plans_sent(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Those that controllers are sent from now on; the list grows."""
    plans: list[Plan] = []
    move = Orders.move

    def noted(self: Orders, name: str, times_s: Any, targets: Any, from_s: float) -> bool:
        plans.append(Plan(len(plans) + 1, times_s, targets, from_s))
        return move(self, name, times_s, targets, from_s)

    monkeypatch.setattr(Orders, "move", noted)
    return plans


@contextmanager
def on(config: RobotConfig, *, seed: int | None = 3, **options: Any) -> Iterator[Session]:
    """A session, reset to a seed."""
    with Session(config, **options) as session:
        if seed is not None:
            session.reset(seed)
        yield session


def sent_of(session: Session, actuator: str = "arm") -> tuple[np.ndarray, np.ndarray]:
    """Times float64 (n,) and targets float64 (n, D) that were sent to an actuator."""
    samples = session.last(f"{actuator}.sent", 10_000)
    return samples.times_s, samples.values["target"]
