"""A person drives a robot: what a hand asks for becomes targets."""

from typing import Any

import numpy as np

from dp_hub.errors import ConfigError
from dp_hub.robot.config import TeleopConfig
from dp_hub.robot.devices.protocols import Hand, Teleop
from dp_hub.robot.devices.registry import TELEOPS, device_call
from dp_hub.robot.motion.rotation_vectors import turned
from dp_hub.robot.session.session import Session
from dp_hub.robot.space import Space


class HandDriver:
    """Drives by a teleoperation device. Use as a context manager.

    Args:
        session: on.
        config: of the device and what moves with it.
    Raises:
        ConfigError: no such device; by `step`: no speed is known for what moves.
        RobotError: the device is away.
    """

    def __init__(self, session: Session, config: TeleopConfig) -> None:
        self._session, self._config = session, config
        self._moves = config.moves or session.config.action[0]
        call = device_call(TELEOPS, config.device, config.options, where="teleop")
        ports = session.parts.ports
        self._device: Teleop = call.make(ports)
        self._space = session.parts.spaces[self._moves]
        limits = session.config.actuators[self._moves].limits
        self._low, self._high = limits.low, limits.high
        self._speed = config.speed or _half(limits.speed)
        self._turning = config.rotation_speed or _half(limits.rotation_speed)
        self._period_s = 1.0 / config.rate_hz
        self._target = np.zeros(self._space.size)
        self._width = 0.0
        self._due_s = np.inf
        self.buttons: frozenset[str] = frozenset()
        """That were down when it was read last."""

    def __enter__(self) -> "HandDriver":
        self._device.open()
        return self

    def __exit__(self, *_: Any) -> None:
        self._device.close()

    def start(self) -> None:
        """The hand leads from where the robot is."""
        self._target = np.array(self._session.position(self._moves), np.float64)
        if self._config.gripper:
            self._width = float(self._session.position(self._config.gripper)[0])
        self._due_s = self._session.clock.now_s()

    def pause(self) -> None:
        """The hand leads no more; the robot goes on to its last target."""
        self._due_s = np.inf

    def step(self) -> None:
        """Read the hand when it is time, and move. Raises RobotError: the device is gone."""
        now_s = self._session.clock.now_s()
        if now_s < self._due_s:
            return
        # After a stall it goes on from now: what was not read is not made up for.
        due_s = self._due_s + self._period_s
        self._due_s = due_s if due_s > now_s else now_s + self._period_s
        hand = self._device.read()
        self.buttons = hand.buttons
        self._target = self._within(self._next(hand))
        self._move(self._moves, self._target, now_s)
        if self._config.gripper:
            self._grip(hand, now_s)

    def _next(self, hand: Hand) -> np.ndarray:
        if hand.target is not None:
            return np.asarray(hand.target, np.float64)
        if not hand.velocity.any():
            return self._target
        speed, turning = self._speed, self._turning
        if speed is None:
            raise self._unknown("moves", "speed")
        if turning is None and self._space.rotation_at is not None and hand.velocity[3:].any():
            raise self._unknown("turns", "rotation_speed")
        by = hand.velocity * self._period_s
        return moved(self._target, by, self._space, speed=speed, turning=turning or 0.0)

    def _unknown(self, does: str, key: str) -> ConfigError:
        return ConfigError(
            f"how fast `{self._config.device}` {does} {self._moves} is not known",
            hint=f"set teleop.{key}, or {self._moves}'s limits.{key}",
        )

    def _within(self, target: np.ndarray) -> np.ndarray:
        # Beyond the workspace a hand would have to come back all the way before anything moves.
        if self._low is None or self._high is None:
            return target
        inside = target.copy()
        linear = list(self._space.linear)
        inside[linear] = np.clip(target[linear], self._low, self._high)
        return inside

    def _grip(self, hand: Hand, now_s: float) -> None:
        name = self._config.gripper
        assert name is not None
        self._width += hand.gripper * self._config.gripper_speed * self._period_s
        limits = self._session.config.grippers[name].limits
        if limits.low and limits.high:
            self._width = float(np.clip(self._width, limits.low[0], limits.high[0]))
        self._move(name, np.array([self._width]), now_s)

    def _move(self, actuator: str, target: np.ndarray, now_s: float) -> None:
        config = self._session.config.actuators[actuator]
        ahead_s = config.action_latency_s
        due_s = now_s + ahead_s + (self._period_s if config.interpolation == "linear" else 0.0)
        self._session.move(actuator, np.array([due_s]), target[None], now_s + ahead_s)


def moved(
    target: np.ndarray, by: np.ndarray, space: Space, *, speed: float, turning: float
) -> np.ndarray:
    """A target after a hand's move.

    Args:
        target: float64 (D,).
        by: float64 (6,), full speeds times seconds along and about x, y, z of the base.
        space: of the target.
        speed, turning: full speeds.
    """
    result = target.copy()
    linear = list(space.linear)[:3] if space.rotation_at is not None else list(space.linear)
    result[linear] += speed * by[: len(linear)]
    if space.rotation_at is not None:
        part = slice(space.rotation_at, space.rotation_at + 3)
        result[part] = turned(target[part], turning * by[3:])
    return result


def _half(limit: float | list[float] | None) -> float | None:
    if limit is None:
        return None
    return (min(limit) if isinstance(limit, list) else limit) / 2
