"""A person's hand becomes targets: on a virtual clock, with a robot that does as it is told."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from session_help import robot_of

from dp_hub.config import build
from dp_hub.errors import ConfigError
from dp_hub.robot.clock import VirtualClock
from dp_hub.robot.config import RobotConfig
from dp_hub.robot.devices import registry
from dp_hub.robot.devices.protocols import Hand
from dp_hub.robot.session.hand import HandDriver, moved
from dp_hub.robot.space import POSE, Space

PLANE = Space(("x", "y"), ("m", "m"))
WIDTH = Space(("width",), ("m",))
PERIOD_S = 0.02


class MadeHand:
    """A teleop whose hand is set by the test; `install` makes it known as ``made``."""

    hand: Hand

    def __init__(self) -> None:
        self.is_open = False

    def open(self) -> None:
        self.is_open = True

    def read(self) -> Hand:
        return MadeHand.hand

    def close(self) -> None:
        self.is_open = False


class Robot:
    """What a hand needs of a session: a robot that is where it was told to be."""

    def __init__(self, config: RobotConfig, **spaces: Space) -> None:
        self.config, self.clock = config, VirtualClock(100.0)
        self.parts = SimpleNamespace(spaces=spaces, ports=None)
        self.at = {name: np.zeros(space.size) for name, space in spaces.items()}
        self.moves: list[tuple[str, float, np.ndarray, float]] = []

    def position(self, name: str) -> np.ndarray:
        return self.at[name]

    def move(self, name: str, times_s: np.ndarray, targets: np.ndarray, from_s: float) -> bool:
        self.at[name] = targets[-1]
        self.moves.append((name, float(times_s[0]), targets[0], from_s))
        return True


@pytest.fixture(autouse=True)
def install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.load_device
    monkeypatch.setattr(
        registry,
        "load_device",
        lambda group, name: MadeHand if name == "made" else real(group, name),
    )
    MadeHand.hand = Hand(0.0)


def robot(space: Space = PLANE, *, arm: dict[str, Any] | None = None, **teleop: Any) -> Robot:
    values: dict[str, Any] = {
        "robot_type": "made",
        "fps": 10,
        "arms": {"arm": {"device": "ur", "interpolation": "hold", **(arm or {})}},
        "grippers": {"claw": {"device": "g", "limits": {"low": [0.0], "high": [0.08]}}},
        "observations": {"observation.state": "arm.position"},
        "action": ["arm"],
        "teleop": {"device": "made", "rate_hz": 1 / PERIOD_S, **teleop},
    }
    return Robot(build(RobotConfig, values, where="made"), arm=space, claw=WIDTH)


def led(one: Robot, hand: Hand, seconds: float) -> HandDriver:
    """A hand that is held like this for a while, looked at 200 times a second."""
    MadeHand.hand = hand
    assert one.config.teleop is not None
    with HandDriver(one, one.config.teleop) as driver:  # type: ignore[arg-type]
        driver.start()
        for _ in range(round(seconds * 200)):
            driver.step()
            one.clock.sleep_until(one.clock.now_s() + 0.005)
        driver.pause()
        driver.step()
    return driver


def velocity(*numbers: float) -> Hand:
    return Hand(0.0, velocity=np.array([*numbers, *[0.0] * (6 - len(numbers))]))


def test_a_deflection_is_a_speed() -> None:
    one = robot(speed=0.2)
    led(one, velocity(1.0, -0.5), 2.0)
    assert np.allclose(one.at["arm"], [0.4, -0.2])
    assert len(one.moves) == 100, "as often as it is read, not as often as it is looked at"
    assert np.allclose(np.diff([due_s for _, due_s, _, _ in one.moves]), PERIOD_S, atol=0.0051)


def test_by_default_full_deflection_is_half_the_limit() -> None:
    one = robot(arm={"limits": {"speed": 0.6}})
    led(one, velocity(1.0), 1.0)
    assert one.at["arm"][0] == pytest.approx(0.3)
    one = robot(arm={"limits": {"speed": [0.6, 0.2], "acceleration": [1, 1]}})
    led(one, velocity(1.0), 1.0)
    assert one.at["arm"][0] == pytest.approx(0.1)


def test_it_begins_where_the_robot_is_and_rests_with_the_hand() -> None:
    one = robot(speed=0.2)
    one.at["arm"] = np.array([0.3, 0.4])
    led(one, velocity(), 0.5)
    assert np.array_equal(one.at["arm"], [0.3, 0.4])


def test_beyond_the_workspace_it_does_not_run_away() -> None:
    one = robot(arm={"limits": {"low": [-0.1, -0.1], "high": [0.1, 0.1]}}, speed=0.5)
    led(one, velocity(1.0), 2.0)
    assert one.at["arm"][0] == 0.1
    led(one, velocity(-1.0), 0.1)
    assert one.at["arm"][0] == pytest.approx(0.05), "the way back begins at once"


def test_rotations_turn_about_the_axes_of_the_base() -> None:
    one = robot(POSE, speed=0.1, rotation_speed=0.5)
    start = Rotation.from_euler("xyz", [0.3, -0.2, 1.0])
    one.at["arm"] = np.concatenate([[0.1, 0.2, 0.3], start.as_rotvec()])
    led(one, velocity(0, 0, 0, 0, 0, 1.0), 1.0)
    turned = Rotation.from_rotvec(one.at["arm"][3:])
    assert (Rotation.from_rotvec([0, 0, 0.5]) * start * turned.inv()).magnitude() < 1e-9
    assert np.allclose(one.at["arm"][:3], [0.1, 0.2, 0.3])


def test_a_target_of_the_device_is_taken_as_it_is() -> None:
    one = robot(arm={"limits": {"low": [0, 0], "high": [1, 1]}})
    led(one, Hand(0.0, target=np.array([0.5, 3.0])), 0.1)
    assert np.array_equal(one.at["arm"], [0.5, 1.0])


def test_the_gripper_opens_and_closes_within_its_limits() -> None:
    one = robot(speed=0.2, gripper="claw", gripper_speed=0.05)
    led(one, Hand(0.0, gripper=1.0), 1.0)
    assert one.at["claw"][0] == pytest.approx(0.05)
    led(one, Hand(0.0, gripper=1.0), 1.0)
    assert one.at["claw"][0] == 0.08
    led(one, Hand(0.0, gripper=-1.0), 4.0)
    assert one.at["claw"][0] == 0.0


def test_targets_are_due_when_the_arm_can_follow() -> None:
    one = robot(arm={"action_latency_s": 0.1}, speed=0.2)
    led(one, velocity(1.0), PERIOD_S)
    assert one.moves[0][1] == one.moves[0][3] == pytest.approx(100.1)
    one = robot(arm={"interpolation": "linear", "action_latency_s": 0.1}, speed=0.2)
    led(one, velocity(1.0), PERIOD_S)
    assert one.moves[0][1] == pytest.approx(100.1 + PERIOD_S), "the way takes a period"


def test_after_a_stall_nothing_is_made_up_for() -> None:
    one = robot(speed=1.0)
    MadeHand.hand = velocity(1.0)
    assert one.config.teleop is not None
    with HandDriver(one, one.config.teleop) as driver:  # type: ignore[arg-type]
        driver.start()
        driver.step()
        one.clock.sleep_until(101.0)
        for _ in range(3):
            driver.step()
    assert one.at["arm"][0] == pytest.approx(2 * PERIOD_S)


def test_a_hand_of_unknown_speed_or_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="how fast `made` moves arm is not known") as refused:
        led(robot(), velocity(1.0), 0.1)
    assert "teleop.speed" in str(refused.value)
    with pytest.raises(ConfigError, match="how fast `made` turns arm is not known"):
        led(robot(POSE, speed=0.1), velocity(0, 0, 0, 1.0), 0.1)
    config = robot_of(teleop={"device": "keybord"})
    with pytest.raises(ConfigError, match="no teleop called 'keybord'") as refused:
        HandDriver(Robot(config, arm=PLANE), config.teleop)  # type: ignore[arg-type]
    assert "did you mean `keyboard`?" in str(refused.value)


def test_a_move_changes_nothing_of_the_target_it_is_given() -> None:
    target = np.array([1.0, 2.0])
    result = moved(target, np.ones(6), PLANE, speed=0.5, turning=1.0)
    assert np.array_equal(target, [1.0, 2.0]) and np.array_equal(result, [1.5, 2.5])
