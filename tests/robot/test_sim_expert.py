"""The scripted demonstrator as a hand: it pushes the T home in real time, and waits politely."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from world_help import in_process, wait_for

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices.sim_arm import SimArm
from dp_hub.robot.devices.sim_expert import SimExpert
from dp_hub.robot.worlds.control import WorldControl
from dp_hub.robot.worlds.ports import Ports, WorldMemory
from dp_hub.robot.worlds.pusht import PushTWorld
from dp_hub.robot.worlds.world import World

NEAR_HOME = np.array([400.0, 400.0, 225.0, 270.0, 0.9])


@pytest.fixture
def ports() -> Iterator[Ports]:
    with in_process(PushTWorld) as (_, opened):
        yield opened


@pytest.fixture
def control(ports: Ports) -> Iterator[WorldControl]:
    one = WorldControl(ports)
    yield one
    one.close()


@pytest.fixture
def arm(ports: Ports) -> Iterator[SimArm]:
    one = SimArm(ports=ports, silent_s=30.0)
    one.open()
    yield one
    one.close()


@pytest.fixture
def hand(ports: Ports) -> Iterator[SimExpert]:
    one = SimExpert(ports=ports, seed=1)
    one.open()
    yield one
    one.close()


def test_it_pushes_the_t_home_and_is_quick_to_read(
    control: WorldControl, arm: SimArm, hand: SimExpert
) -> None:
    control.reset(state=NEAR_HOME)
    assert control.truth()["reward"] < 0.9
    took_s, targets = [], []

    def driven() -> bool:
        before_s = time.monotonic()
        target = hand.read().target
        took_s.append(time.monotonic() - before_s)
        if target is not None:
            targets.append(tuple(target.tolist()))
            arm.send(target)
        return control.truth()["over"] == 1

    wait_for(driven, 40)
    assert control.truth()["success"] == 1
    assert np.median(took_s) < 0.002
    steps = control.truth()["steps"]
    assert 5 < len(set(targets)) <= steps + 15  # ten a second, and while it thinks none


def test_where_nobody_follows_it_keeps_near_the_agent(
    control: WorldControl, arm: SimArm, hand: SimExpert
) -> None:
    control.reset(seed=4)
    here = arm.read().values["position"]
    farthest = 0.0

    def looked() -> bool:
        nonlocal farthest
        target = hand.read().target
        if target is not None:
            farthest = max(farthest, float(np.hypot(*(target - here))))
        return farthest > 120

    wait_for(looked)  # it has gone off
    wait_for(lambda: np.hypot(*(hand.read().target - here)) < 1)  # it has seen that, and is back
    assert farthest < 150


def test_unread_it_does_not_play(control: WorldControl, arm: SimArm, hand: SimExpert) -> None:
    control.reset(seed=5)
    time.sleep(1.0)
    assert hand.read().target == pytest.approx(arm.read().values["position"])


def test_closing_leaves_no_thread(ports: Ports) -> None:
    hand = SimExpert(ports=ports)
    hand.open()
    hand.close()
    hand.close()
    assert "sim-expert" not in {thread.name for thread in threading.enumerate()}


def test_another_world_is_refused() -> None:
    from dp_hub.robot.worlds.mujoco_arm import MujocoArmWorld

    world: World = MujocoArmWorld()
    with WorldMemory(world) as memory, pytest.raises(RobotError, match="another"):
        SimExpert(ports=memory.ports).open()


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError):
        SimExpert(ports=Ports(), tremor=-1.0)
