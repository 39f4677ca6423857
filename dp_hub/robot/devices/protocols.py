"""What a device is. Anything of these forms will do; an entry point gives it a name.

A device is made in one process and used in another: making it must not touch hardware, `open`
does. Every call is made from the one process (and thread) that opened it. Times are
`time.monotonic()` seconds; a driver whose device has a clock of its own translates.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from dp_hub.robot.fields import Field
from dp_hub.robot.space import Space


@dataclass(frozen=True)
class Reading:
    """What an actuator measured.

    Args:
        time_s: when it was true.
        values: one array for each of the actuator's ``fields``.
    """

    time_s: float
    values: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Frame:
    """One picture: uint8 (H, W, 3), RGB, and when it was taken."""

    time_s: float
    picture: np.ndarray


@dataclass(frozen=True)
class Hand:
    """What a person asks for.

    Args:
        time_s: when it was read.
        velocity: float64 (6,), shares of full speed in [-1, 1]: along x, y, z, about x, y, z of
            the robot's base. An actuator of fewer numbers takes the first ones.
        target: float64 (D,) where the device gives positions (a leader arm, a mouse) in the units
            of the actuator; None: ``velocity`` counts.
        gripper: share of full speed in [-1, 1], positive opens.
        buttons: names of the buttons that are down.
    """

    time_s: float
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(6))
    target: np.ndarray | None = None
    gripper: float = 0.0
    buttons: frozenset[str] = frozenset()


class Actuator(Protocol):
    """What follows targets: an `Arm` or a `Gripper`. Every call returns well under a period.

    Attributes:
        space: of targets.
        fields: of readings; one is called ``position``, float64 (D,), in ``space``.
    """

    space: Space
    fields: tuple[Field, ...]

    def open(self) -> None:
        """Connect. Raises RobotError."""

    def read(self) -> Reading:
        """The newest reading. Raises RobotError: the device is gone, or has stopped itself."""

    def send(self, target: np.ndarray) -> None:
        """Follow ``target``, float64 (D,), until the next one, which comes a period later."""

    def hold(self) -> None:
        """Stay where it is: called once when a hold has come to rest. It keeps reading."""

    def stop(self) -> None:
        """Stop at once and take no targets until it is opened again: the emergency stop."""

    def close(self) -> None:
        """Let go, whatever state it is in; never raises."""


class Arm(Actuator, Protocol):
    """An actuator that carries a tool: `space` is ``POSE`` or joints in rad (or px on a plane)."""


class Gripper(Actuator, Protocol):
    """An actuator with one number, the ``width`` between its fingers in m."""


class Camera(Protocol):
    """Gives pictures.

    Attributes:
        shape: (H, W, 3) of its pictures, known after `open` at the latest.
    """

    shape: tuple[int, int, int]

    def open(self) -> None:
        """Connect. Raises RobotError."""

    def grab(self, timeout_s: float) -> Frame | None:
        """Wait for the next picture, not longer than ``timeout_s``; None if there was none.

        Raises:
            RobotError: the camera is gone.
        """

    def close(self) -> None:
        """Let go; never raises."""


class Teleop(Protocol):
    """A hand on a device."""

    def open(self) -> None:
        """Connect. Raises RobotError."""

    def read(self) -> Hand:
        """What is asked for now; returns at once. Raises RobotError: the device is gone."""

    def close(self) -> None:
        """Let go; never raises."""
