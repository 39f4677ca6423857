"""What a simulated world is: a plant that is stepped, and what its surroundings see of it.

A world is made twice: in the process that starts it, for the memory it needs, and in its own, where
`open` builds the plant (making it touches no simulator). `dp_hub.robot.worlds.process` runs it
against the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dp_hub.errors import ConfigError
from dp_hub.robot.fields import Field
from dp_hub.robot.space import Space
from dp_hub.robot.worlds.ports import QueuePort, RingPort

TARGET_HZ = 500.0
"""The fastest controller that a target ring is sized for."""
TRUTH = "truth"
STATE = "state"
TARGET = "target"
CONTROL = "control"


@dataclass(frozen=True)
class Faults:
    """What a world does worse than it could.

    Args:
        state_latency_s: from a state being true to its being readable.
        camera_latency_s: the same of pictures.
        action_latency_s: from a target being sent to its acting.
        camera_stall_s: no pictures for so long,
        camera_stall_every_s: as often.
    """

    state_latency_s: float = 0.0
    camera_latency_s: float = 0.0
    action_latency_s: float = 0.0
    camera_stall_s: float = 0.0
    camera_stall_every_s: float = 10.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < 1e6:
                raise ConfigError(
                    f"`{name}` of a simulated world is {value}, not seconds from 0 on"
                )
        if self.camera_stall_s >= self.camera_stall_every_s:
            raise ConfigError(
                f"cameras that stall for {self.camera_stall_s} s every "
                f"{self.camera_stall_every_s} s never show anything"
            )


class World(Protocol):
    """A plant with one or more actuators and cameras.

    Attributes:
        rings: what it writes and reads. ``state`` is written every so many steps, ``truth`` with
            it; those named in ``views`` at their rates; those named in ``actuators`` are targets,
            with one field ``target`` float64 (D,), written by the devices.
        queues: ``control``, see `dp_hub.robot.worlds.control`.
        actuators: names of the rings of targets.
        views: names of the rings of cameras.
        period_s: of a step.
        score_every_s: how often it is scored from the first target on, as the offline environment
            does after each of its steps.
        episode_s: an episode is over after so long.
        faults: see there.
        seed: of the first episode.
    """

    rings: Mapping[str, RingPort]
    queues: Mapping[str, QueuePort]
    actuators: tuple[str, ...]
    views: tuple[str, ...]
    period_s: float
    score_every_s: float
    episode_s: float
    faults: Faults
    seed: int

    def open(self) -> None:
        """Build the plant. Raises RobotError: its simulator is missing."""

    def reset(self, seed: int | None, state: np.ndarray | None) -> None:
        """Begin anew from a seed or from a start state; everything stands still."""

    def step(self, targets: Mapping[str, np.ndarray]) -> None:
        """One period. An actuator without a target stays where it is."""

    def state(self) -> dict[str, np.ndarray]:
        """What the ring ``state`` holds."""

    def view(self, name: str) -> dict[str, np.ndarray]:
        """What the ring of one camera holds: a picture, or what it is drawn from."""

    def score(self) -> dict[str, float]:
        """How well it stands: ``reward`` in [0, 1], ``success`` 0 or 1, and the world's own."""

    def close(self) -> None:
        """Let go; never raises."""


def target_port(space: Space) -> RingPort:
    """The ring of an actuator's targets."""
    aim = Field("target", (space.size,), units=space.units, names=space.names)
    return RingPort((aim,), TARGET_HZ)


def truth_port(rate_hz: float, *scores: str) -> RingPort:
    """The ring ``truth``: numbers float64 (), those of every world and a world's own ``scores``.

    ``episode`` counts resets, from 1; ``seed`` is -1 where it began from a state; ``steps`` are the
    periods scored since the first target; ``over`` is 1 once it succeeded or its time is up;
    ``skipped`` counts the steps left out since the start because the process came too late.
    """
    own = ("reward", "success", *scores)
    common = ("episode", "seed", "elapsed_s", "steps", "max_reward", "over", "skipped")
    return RingPort(tuple(Field(name, ()) for name in (*common, *own)), rate_hz)
