"""The cameras of the world ``mujoco_arm``: each draws its pictures in its own process."""

import sys
from typing import Any, Literal

import numpy as np

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.devices.protocols import Frame
from dp_hub.robot.devices.sim_arm import Stamp
from dp_hub.robot.devices.sim_camera import Views
from dp_hub.robot.worlds.mujoco_model import load_model, load_mujoco
from dp_hub.robot.worlds.ports import Ports

_LARGEST_PX = (1280, 960)


class SimArmCamera:
    """A camera of the world ``mujoco_arm``. Its pictures have no shadows, which cost most.

    Args:
        ports: of the world.
        view: ``front`` looks at the table from across it, ``wrist`` moves with the stick.
        width: of pictures, px.
        height: of pictures, px.
        stamp: ``true``: frames carry the time at which they were true; ``arrival``: at which what
            they are drawn from came.
    """

    summary = "camera of the simulated world mujoco_arm"

    def __init__(
        self,
        *,
        ports: Ports,
        view: Literal["front", "wrist"] = "front",
        width: int = 320,
        height: int = 240,
        stamp: Stamp = "true",
    ) -> None:
        if not (8 <= width <= _LARGEST_PX[0] and 8 <= height <= _LARGEST_PX[1]):
            raise ConfigError(f"pictures of {width} x {height} px; at most 1280 x 960 can be drawn")
        self.shape = (height, width, 3)
        self._view = view
        self._views = Views(ports, view, stamp)
        self._artist: _Artist | None = None

    def open(self) -> None:
        """Pictures from now on. Raises RobotError: nothing here can draw without a display."""
        self._artist = _Artist(self._view, self.shape)
        self._views.open()

    def grab(self, timeout_s: float) -> Frame | None:
        """The newest picture not seen yet; it is drawn now."""
        assert self._artist is not None, "open it first"
        fresh = self._views.next(timeout_s)
        if fresh is None:
            return None
        return Frame(fresh[0], self._artist.draw(fresh[1].values["qpos"][-1]))

    def close(self) -> None:
        """Let go of the memory and of what drew."""
        self._views.close()
        if self._artist is not None:
            self._artist.close()
        self._artist = None


class _Artist:
    """Draws the model as one camera sees it."""

    def __init__(self, view: str, shape: tuple[int, int, int]) -> None:
        self._mujoco: Any = load_mujoco()
        self._view = view
        self._model = load_model(self._mujoco)
        self._data = self._mujoco.MjData(self._model)
        try:
            self._renderer = self._mujoco.Renderer(self._model, shape[0], shape[1])
        except (AttributeError, ImportError, RuntimeError, self._mujoco.FatalError) as error:
            raise RobotError(
                f"MuJoCo cannot draw here without a display: {error}",
                hint="install Mesa's EGL (`apt-get install libegl1 libgl1-mesa-dri`), or "
                "`libosmesa6` and set MUJOCO_GL=osmesa"
                if sys.platform == "linux"
                else None,
            ) from error
        for costly in (
            self._mujoco.mjtRndFlag.mjRND_SHADOW,
            self._mujoco.mjtRndFlag.mjRND_REFLECTION,
        ):
            self._renderer.scene.flags[costly] = 0

    def draw(self, qpos: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3)."""
        self._data.qpos[:] = qpos
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_camlight(self._model, self._data)
        self._renderer.update_scene(self._data, self._view)
        picture: np.ndarray = self._renderer.render()
        return picture

    def close(self) -> None:
        self._renderer.close()
