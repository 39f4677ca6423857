"""The arm of a simulated world, as its controller sees it: states from a ring, targets into one."""

from typing import Literal

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.clock import Clock, MonotonicClock
from dp_hub.robot.devices.protocols import Reading
from dp_hub.robot.shared.ring import Ring
from dp_hub.robot.space import Space
from dp_hub.robot.worlds.ports import Ports
from dp_hub.robot.worlds.world import STATE, TARGET

Stamp = Literal["true", "arrival"]
"""The time of a sample: when it was true or, as of most hardware, when it came."""
_FIRST_STATE_S = 10.0
_POLL_S = 0.002


class SimArm:
    """The arm of a simulated world.

    Its targets are what the world takes: px on the table of ``pusht``, the tool's pose or joints of
    ``mujoco_arm``.

    Args:
        ports: of the world.
        stamp: ``true``: readings carry the time at which they were true; ``arrival``: at which they
            came, as those of hardware without a clock of its own.
        silent_s: a world that has told nothing for so long is taken for dead.
    """

    summary = "arm of a simulated world"

    def __init__(self, *, ports: Ports, stamp: Stamp = "true", silent_s: float = 2.0) -> None:
        self._ports, self._stamp, self._silent_s = ports, stamp, silent_s
        [aim] = ports.ring(TARGET).fields
        self.space = Space(aim.names, aim.units, aim.rotation_at)
        self.fields = tuple(ports.ring(STATE).fields)
        self.clock: Clock = MonotonicClock()
        self._state: Ring | None = None
        self._target: Ring | None = None
        self._stopped = False

    def open(self) -> None:
        """Wait for the world's first state. Raises RobotError: there is none."""
        self._state = Ring.attach(self._ports.ring(STATE))
        self._target = Ring.attach(self._ports.ring(TARGET))
        self._stopped = False
        until_s = self.clock.now_s() + _FIRST_STATE_S
        while not self._state.count:
            now_s = self.clock.now_s()
            if now_s > until_s:
                raise RobotError(f"the simulated world has told no state in {_FIRST_STATE_S} s")
            self.clock.sleep_until(now_s + _POLL_S)

    def read(self) -> Reading:
        """The newest state. Raises RobotError: the world is silent."""
        assert self._state is not None, "open it first"
        newest = self._state.last(1)
        quiet_s = self.clock.now_s() - float(newest.put_s[-1])
        if quiet_s > self._silent_s:
            raise RobotError(
                f"the simulated world has told no state for {quiet_s:.1f} s",
                hint="its process has ended, or does not get the processor",
            )
        time_s = newest.times_s if self._stamp == "true" else newest.put_s
        return Reading(
            float(time_s[-1]), {name: values[-1] for name, values in newest.values.items()}
        )

    def send(self, target: np.ndarray) -> None:
        """Follow ``target``, float64 (D,); nothing once it is stopped."""
        assert self._target is not None, "open it first"
        if not self._stopped:
            self._target.put(self.clock.now_s(), {"target": np.asarray(target, np.float64)})

    def hold(self) -> None:
        """The target is where it is now."""
        self.send(self.read().values["position"])

    def stop(self) -> None:
        """Stay where it was last seen, and take no more targets."""
        assert self._state is not None, "open it first"
        self.send(self._state.last(1).values["position"][-1])
        self._stopped = True

    def close(self) -> None:
        """Let go of the memory; the world goes on towards the last target."""
        for ring in (self._state, self._target):
            if ring is not None:
                ring.close()
        self._state = self._target = None
