"""A camera whose own clock steps: by hours, by tenths of a second, forwards and back."""

from dp_hub.robot.devices.protocols import Frame
from dp_hub.robot.devices.sim_camera import SimCamera
from dp_hub.robot.worlds.ports import Ports

_STEPS_S = (0.0, 3600.0, 0.0, -3600.0, 0.3, -0.3)
_EVERY = 12  # frames


class FaultyClock:
    """The camera of ``pusht``.

    Args:
        ports: of the world.
    """

    summary = "a camera whose clock steps"

    def __init__(self, *, ports: Ports) -> None:
        self._camera = SimCamera(ports=ports)
        self.shape = self._camera.shape
        self._frames = 0

    def open(self) -> None:
        """See `SimCamera`."""
        self._camera.open()

    def grab(self, timeout_s: float) -> Frame | None:
        """The next frame at a time that steps."""
        frame = self._camera.grab(timeout_s)
        if frame is None:
            return None
        self._frames += 1
        step_s = _STEPS_S[self._frames // _EVERY % len(_STEPS_S)]
        return Frame(frame.time_s + step_s, frame.picture)

    def close(self) -> None:
        """See `SimCamera`."""
        self._camera.close()
