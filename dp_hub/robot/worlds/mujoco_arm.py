"""An arm of six joints that pushes a block to its goal: MuJoCo's physics, 500 steps a second.

The cameras' pictures are drawn by their own processes, from the positions that the rings ``front``
and ``wrist`` hold: drawing takes milliseconds, which the physics has not.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from dp_hub.errors import ConfigError
from dp_hub.robot.fields import Field
from dp_hub.robot.space import POSE, joints
from dp_hub.robot.worlds.control import control_port
from dp_hub.robot.worlds.mujoco_model import CAMERAS, HOME, N_JOINTS, load_model, load_mujoco
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

SUCCESS_OVERLAP = 0.9
GOAL_M = (0.6, 0.0)
HALF_SIZE_M = (0.05, 0.03, 0.025)
"""Of the block; the goal is its footprint, along x."""
_RATE_HZ = 500.0
_STATE_HZ = 125.0
_N_QPOS = N_JOINTS + 7
_BLOCK = slice(N_JOINTS, _N_QPOS)


class MujocoArmWorld:
    """A table with an arm of six joints that pushes a block to its goal.

    Args:
        seed: of the start state of the first episode.
        control: targets are the tool's ``pose`` in the base's frame, or ``joints``.
        camera_hz: pictures a second of each camera.
        episode_s: an episode is over after so long, counted from its first target.
        state_latency_s: from a state being true to its being readable.
        camera_latency_s: the same of pictures, the time to draw them not counted.
        action_latency_s: from a target being sent to its acting.
        camera_stall_s: the cameras show nothing for so long,
        camera_stall_every_s: as often.
    """

    summary = "an arm of six joints that pushes a block to its goal, in MuJoCo"
    actuators = (TARGET,)
    views = CAMERAS
    period_s = 1.0 / _RATE_HZ
    score_every_s = 0.1

    def __init__(
        self,
        *,
        seed: int = 0,
        control: Literal["pose", "joints"] = "pose",
        camera_hz: float = 30.0,
        episode_s: float = 60.0,
        state_latency_s: float = 0.0,
        camera_latency_s: float = 0.0,
        action_latency_s: float = 0.0,
        camera_stall_s: float = 0.0,
        camera_stall_every_s: float = 10.0,
    ) -> None:
        if not 0 < camera_hz <= _RATE_HZ:
            raise ConfigError(f"`camera_hz` of the world `mujoco_arm` is {camera_hz}, not to 500")
        self.seed, self.episode_s, self.control = seed, episode_s, control
        self.faults = Faults(
            state_latency_s,
            camera_latency_s,
            action_latency_s,
            camera_stall_s,
            camera_stall_every_s,
        )
        space = POSE if control == "pose" else joints(N_JOINTS)
        view = RingPort((Field("qpos", (_N_QPOS,)),), camera_hz)
        self.rings = {
            STATE: RingPort(_state_fields(control), _STATE_HZ),
            TRUTH: truth_port(
                _STATE_HZ, "overlap", "distance_m", "block_x", "block_y", "block_angle"
            ),
            **{name: view for name in CAMERAS},
            TARGET: target_port(space),
        }
        self.queues = {CONTROL: control_port(3)}
        self._plant: _Plant | None = None

    def open(self) -> None:
        """Load the model. Raises RobotError: MuJoCo is not installed."""
        self._plant = _Plant()

    def reset(self, seed: int | None, state: np.ndarray | None) -> None:
        """The arm at home, and the block from a seed or at float64 (3,): x, y in m, angle."""
        self._opened.reset(start_state(seed or 0) if state is None else state)

    def step(self, targets: Mapping[str, np.ndarray]) -> None:
        """Two thousandths of a second."""
        if TARGET in targets and self.control == "pose":
            self._opened.aim_at_pose(targets[TARGET], self.period_s)
        elif TARGET in targets:
            self._opened.joints = targets[TARGET]
        self._opened.step()

    def state(self) -> dict[str, np.ndarray]:
        """See docs/robots.md."""
        plant = self._opened
        pose, turned = plant.tool(), plant.data.qpos[:N_JOINTS].copy()
        return {
            "position": pose if self.control == "pose" else turned,
            "pose": pose,
            "joints": turned,
            "joint_velocity": plant.data.qvel[:N_JOINTS].copy(),
            "block": plant.block(),
        }

    def view(self, name: str) -> dict[str, np.ndarray]:
        """What a camera's picture is drawn from."""
        return {"qpos": self._opened.data.qpos.copy()}

    def score(self) -> dict[str, float]:
        """The share of the goal under the block; success is above 0.9, and there reward is 1."""
        x, y, angle = self._opened.block().tolist()
        covered = overlap(x, y, angle)
        return {
            "overlap": covered,
            "distance_m": float(np.hypot(x - GOAL_M[0], y - GOAL_M[1])),
            "block_x": x,
            "block_y": y,
            "block_angle": angle,
            "reward": min(covered / SUCCESS_OVERLAP, 1.0),
            "success": float(covered > SUCCESS_OVERLAP),
        }

    def close(self) -> None:
        """Nothing to let go of."""

    @property
    def _opened(self) -> "_Plant":
        assert self._plant is not None, "open it first"
        return self._plant


class _Plant:
    """The arm and the block in MuJoCo."""

    def __init__(self) -> None:
        from dp_hub.robot.worlds.mujoco_kinematics import Kinematics

        self._mujoco: Any = load_mujoco()
        self._model = load_model(self._mujoco)
        self.data = self._mujoco.MjData(self._model)
        self._kinematics = Kinematics(self._mujoco, self._model)
        self.joints = np.array(HOME)

    def reset(self, block: np.ndarray) -> None:
        """The arm at home, the block at x, y, angle; nothing moves."""
        x, y, angle = (float(value) for value in block)
        self._mujoco.mj_resetData(self._model, self.data)
        self.joints = np.array(HOME)
        self.data.qpos[:N_JOINTS] = self.joints
        turn = (np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2))
        self.data.qpos[_BLOCK] = (x, y, HALF_SIZE_M[2], *turn)
        self.data.ctrl[:] = self.joints
        self._mujoco.mj_forward(self._model, self.data)

    def aim_at_pose(self, pose: np.ndarray, within_s: float) -> None:
        """Bring the joints that are asked for nearer to the tool's pose."""
        self.joints = self._kinematics.nearer(self.joints, pose, within_s)

    def step(self) -> None:
        """One physics step, the joints' controllers following ``joints``."""
        self.data.ctrl[:] = self.joints
        self._mujoco.mj_step(self._model, self.data)

    def tool(self) -> np.ndarray:
        """The tool's pose, float64 (6,)."""
        return self._kinematics.pose(self.data.qpos[:N_JOINTS])

    def block(self) -> np.ndarray:
        """The block's x, y in m and its angle about z in [-pi, pi), float64 (3,)."""
        x, y, _, qw, qx, qy, qz = self.data.qpos[_BLOCK].tolist()
        angle = np.arctan2(2 * (qw * qz + qx * qy), 1 - 2 * (qy * qy + qz * qz))
        return np.array((x, y, angle if angle < np.pi else -np.pi))


def start_state(seed: int) -> np.ndarray:
    """Where the block starts, float64 (3,): before the goal, turned anyhow."""
    rng = np.random.default_rng(seed)
    return np.array((rng.uniform(0.43, 0.53), rng.uniform(-0.15, 0.15), rng.uniform(-np.pi, np.pi)))


def overlap(x: float, y: float, angle: float) -> float:
    """Share of the goal under a block at this pose, from points 2 mm apart."""
    across, along = (x - GOAL_M[0], y - GOAL_M[1])
    cos, sin = np.cos(angle), np.sin(angle)
    dx, dy = _GOAL_POINTS[:, 0] - across, _GOAL_POINTS[:, 1] - along
    inside = np.abs(cos * dx + sin * dy) <= HALF_SIZE_M[0]
    inside &= np.abs(cos * dy - sin * dx) <= HALF_SIZE_M[1]
    return float(inside.mean())


def _grid() -> np.ndarray:
    xs, ys = (np.arange(-half + 0.001, half, 0.002) for half in HALF_SIZE_M[:2])
    return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)


_GOAL_POINTS = _grid()


def _state_fields(control: str) -> tuple[Field, ...]:
    turns = joints(N_JOINTS)
    space = POSE if control == "pose" else turns
    return (
        Field("position", (space.size,), units=space.units, names=space.names),
        Field("pose", (6,), units=POSE.units, names=POSE.names),
        Field("joints", (6,), units=turns.units, names=turns.names),
        Field("joint_velocity", (6,), units=("rad/s",) * 6, names=turns.names),
        Field("block", (3,), units=("m", "m", "rad"), names=("x", "y", "angle")),
    )
