"""Where the tool is for given joints, and which joints bring it where it should be."""

from typing import Any

import numpy as np

from dp_hub.robot.worlds.mujoco_model import N_JOINTS

_DAMPING = 0.02  # of joints against the tool's m and rad: steady near singular poses
_FASTEST_RAD_S = 3.0
_FAR_M, _FAR_RAD = 0.1, 0.5  # of what is farther only the direction counts: it is linear near by


class Kinematics:
    """The arm without its dynamics. A pose is float64 (6,): x, y, z in m and a rotation vector."""

    def __init__(self, mujoco: Any, model: Any) -> None:
        self._mujoco, self._model = mujoco, model
        self._data = mujoco.MjData(model)
        self._tool = model.site("tool").id
        self._range = model.jnt_range[:N_JOINTS].T.copy()
        self._jacobian = np.zeros((6, model.nv))

    def pose(self, joints: np.ndarray) -> np.ndarray:
        """The tool's pose, for joints float64 (6,) in rad."""
        place, turn = self._tool_at(joints)
        rotation = np.zeros(3)
        self._mujoco.mju_quat2Vel(rotation, turn, 1.0)
        return np.concatenate([place, rotation])

    def nearer(self, joints: np.ndarray, pose: np.ndarray, within_s: float) -> np.ndarray:
        """Joints that bring the tool nearer to ``pose``: one step of damped least squares.

        Args:
            joints: float64 (6,), where to start from.
            pose: float64 (6,), where the tool should be.
            within_s: time for it; no joint goes faster than 3 rad/s, nor out of its range.
        """
        error = self._error(joints, pose)
        self._mujoco.mj_comPos(self._model, self._data)
        whole = self._jacobian
        self._mujoco.mj_jacSite(self._model, self._data, whole[:3], whole[3:], self._tool)
        jacobian = whole[:, :N_JOINTS]
        # The farther it is, the more damped: out of reach, it would tremble at the stretched arm.
        damping = _DAMPING**2 + float(error @ error)
        damped = jacobian @ jacobian.T + damping * np.eye(6)
        change = jacobian.T @ np.linalg.solve(damped, error)
        change *= min(1.0, _FASTEST_RAD_S * within_s / max(float(np.abs(change).max()), 1e-12))
        return np.clip(joints + change, *self._range)

    def _error(self, joints: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """From the tool to ``pose``, float64 (6,): m along and rad about the base's axes."""
        mujoco = self._mujoco
        place, turn = self._tool_at(joints)
        wanted, back, between, about = np.zeros(4), np.zeros(4), np.zeros(4), np.zeros(3)
        angle = float(np.linalg.norm(pose[3:]))
        mujoco.mju_axisAngle2Quat(wanted, pose[3:] / max(angle, 1e-12), angle)
        mujoco.mju_negQuat(back, turn)
        mujoco.mju_mulQuat(between, wanted, back)
        mujoco.mju_quat2Vel(about, between, 1.0)
        return np.concatenate([_at_most(pose[:3] - place, _FAR_M), _at_most(about, _FAR_RAD)])

    def _tool_at(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        data = self._data
        data.qpos[:N_JOINTS] = joints
        self._mujoco.mj_kinematics(self._model, data)
        turn = np.zeros(4)
        self._mujoco.mju_mat2Quat(turn, data.site_xmat[self._tool])
        return data.site_xpos[self._tool].copy(), turn


def _at_most(vector: np.ndarray, length: float) -> np.ndarray:
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-12))
