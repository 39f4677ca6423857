"""The table of PushT as a world: the offline environment's physics, 0.01 s a step."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dp_hub.envs.pusht.physics import SUCCESS_COVERAGE, PushTPhysics, keypoints_of
from dp_hub.errors import ConfigError
from dp_hub.robot.fields import Field
from dp_hub.robot.space import Space
from dp_hub.robot.worlds.control import control_port
from dp_hub.robot.worlds.ports import RingPort
from dp_hub.robot.worlds.world import (
    CONTROL,
    STATE,
    TARGET,
    TRUTH,
    Faults,
    target_port,
    truth_port,
)

PLANE = Space(("x", "y"), ("px", "px"))
"""Where the agent of PushT is, on its table of 512 x 512 px; y points down."""
_BLOCK = ("block_x", "block_y", "block_angle")
_BLOCK_UNITS = ("px", "px", "rad")
_RATE_HZ = 100.0
CAMERA = "camera"


class PushTWorld:
    """A round agent pushes a T over a table, 100 physics steps a second.

    Args:
        seed: of the start state of the first episode.
        image_px: width and height of the camera's pictures; the demonstrations have 96.
        camera_hz: pictures a second, at most 100.
        episode_s: an episode is over after so long, counted from its first target.
        state_latency_s: from a state being true to its being readable.
        camera_latency_s: the same of pictures.
        action_latency_s: from a target being sent to its acting.
        camera_stall_s: the camera shows nothing for so long,
        camera_stall_every_s: as often.
    """

    summary = "a round agent that pushes a T over a table, as PushT offline"
    actuators = (TARGET,)
    views = (CAMERA,)
    period_s = 1.0 / _RATE_HZ
    score_every_s = 0.1

    def __init__(
        self,
        *,
        seed: int = 0,
        image_px: int = 96,
        camera_hz: float = 30.0,
        episode_s: float = 30.0,
        state_latency_s: float = 0.0,
        camera_latency_s: float = 0.0,
        action_latency_s: float = 0.0,
        camera_stall_s: float = 0.0,
        camera_stall_every_s: float = 10.0,
    ) -> None:
        if not 16 <= image_px <= 512:
            raise ConfigError(f"`image_px` of the world `pusht` is {image_px}, not 16 to 512")
        if not 0 < camera_hz <= _RATE_HZ:
            raise ConfigError(f"`camera_hz` of the world `pusht` is {camera_hz}, not up to 100")
        self.seed, self.image_px, self.episode_s = seed, image_px, episode_s
        self.faults = Faults(
            state_latency_s,
            camera_latency_s,
            action_latency_s,
            camera_stall_s,
            camera_stall_every_s,
        )
        picture = Field("picture", (image_px, image_px, 3), "uint8")
        self.rings = {
            STATE: RingPort(_state_fields(), _RATE_HZ),
            TRUTH: truth_port(_RATE_HZ, "coverage"),
            CAMERA: RingPort((picture,), camera_hz),
            TARGET: target_port(PLANE),
        }
        self.queues = {CONTROL: control_port(5)}
        self._table: Any = None
        self._drawing: Any = None
        self._rest = (0.0, 0.0)

    def open(self) -> None:
        """Build the table."""
        from dp_hub.envs.pusht.drawing import PushTDrawing  # pygame, only where it draws

        self._table, self._drawing = PushTPhysics(), PushTDrawing()

    def reset(self, seed: int | None, state: np.ndarray | None) -> None:
        """From a seed as every PushT environment, or exactly from float64 (5,) as recorded."""
        if state is None:
            self._table.reset(seed)
        else:
            self._table.reset_to(state, legacy=False)
        self._rest = (self._table.agent_x, self._table.agent_y)

    def step(self, targets: Mapping[str, np.ndarray]) -> None:
        """One hundredth of a second; without a target the agent stands still."""
        target = targets.get(TARGET)
        x, y = self._rest if target is None else target.tolist()
        self._table.substep(x, y, 1)

    def state(self) -> dict[str, np.ndarray]:
        """See docs/robots.md; ``state`` and ``keypoints`` are what `PushTVector` observes."""
        table = self._table
        state = table.state()
        return {
            "position": state[:2],
            "velocity": np.array((table.velocity_x, table.velocity_y)),
            "block": state[2:],
            "keypoints": keypoints_of(*table.block_pose()).reshape(-1),
            "state": state,
        }

    def view(self, name: str) -> dict[str, np.ndarray]:
        """The picture now, pixel for pixel as the demonstrations' (contact marks included)."""
        return {"picture": self._drawing.frame(self._table, self.image_px)}

    def score(self) -> dict[str, float]:
        """The share of the goal that is covered; success is above 0.95, and there reward is 1."""
        coverage = self._table.coverage()
        return {
            "coverage": coverage,
            "reward": min(max(coverage / SUCCESS_COVERAGE, 0.0), 1.0),
            "success": float(coverage > SUCCESS_COVERAGE),
        }

    def close(self) -> None:
        """Nothing to let go of."""


def _state_fields() -> tuple[Field, ...]:
    points = [f"{axis}_{i}" for i in range(1, 10) for axis in ("x", "y")]
    return (
        Field("position", (2,), units=PLANE.units, names=PLANE.names),
        Field("velocity", (2,), units=("px/s", "px/s"), names=("vx", "vy")),
        Field("block", (3,), units=_BLOCK_UNITS, names=_BLOCK),
        Field("keypoints", (18,), units=("px",) * 18, names=tuple(points)),
        Field(
            "state",
            (5,),
            units=("px", "px", *_BLOCK_UNITS),
            names=("agent_x", "agent_y", *_BLOCK),
        ),
    )
