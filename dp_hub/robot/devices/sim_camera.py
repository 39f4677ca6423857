"""The camera of a simulated world that draws its own pictures."""

from dp_hub.robot.clock import Clock, MonotonicClock
from dp_hub.robot.devices.protocols import Frame
from dp_hub.robot.devices.sim_arm import Stamp
from dp_hub.robot.shared.ring import Ring, Samples
from dp_hub.robot.worlds.ports import Ports

_POLL_S = 0.002


class SimCamera:
    """A camera over the table of ``pusht``; the size and rate of its pictures are the world's.

    Args:
        ports: of the world.
        view: name of the ring of pictures.
        stamp: ``true``: frames carry the time at which they were true; ``arrival``: at which they
            came, as those of most hardware.
    """

    summary = "camera of the simulated world pusht"

    def __init__(self, *, ports: Ports, view: str = "camera", stamp: Stamp = "true") -> None:
        spec = ports.ring(view)
        [picture] = spec.fields
        height, width, _ = picture.shape
        self.shape = (height, width, 3)
        self._views = Views(ports, view, stamp)

    def open(self) -> None:
        """Pictures from now on."""
        self._views.open()

    def grab(self, timeout_s: float) -> Frame | None:
        """The newest picture not seen yet."""
        fresh = self._views.next(timeout_s)
        return None if fresh is None else Frame(fresh[0], fresh[1].values["picture"][-1])

    def close(self) -> None:
        """Let go of the memory."""
        self._views.close()


class Views:
    """What the world shows to one camera, each sample once."""

    def __init__(self, ports: Ports, view: str, stamp: Stamp) -> None:
        self._spec, self._stamp = ports.ring(view), stamp
        self._clock: Clock = MonotonicClock()
        self._ring: Ring | None = None
        self._seen = 0

    def open(self) -> None:
        """Only what comes from now on counts."""
        self._ring = Ring.attach(self._spec)
        self._seen = self._ring.count

    def next(self, timeout_s: float) -> tuple[float, Samples] | None:
        """The newest sample that was not given yet and its time, waited for ``timeout_s``."""
        assert self._ring is not None, "open it first"
        until_s = self._clock.now_s() + timeout_s
        while self._ring.count <= self._seen:
            now_s = self._clock.now_s()
            if now_s >= until_s:
                return None
            self._clock.sleep_until(min(now_s + _POLL_S, until_s))
        newest = self._ring.last(1)
        self._seen = int(newest.numbers[-1]) + 1
        times_s = newest.times_s if self._stamp == "true" else newest.put_s
        return float(times_s[-1]), newest

    def close(self) -> None:
        """Let go of the memory."""
        if self._ring is not None:
            self._ring.close()
        self._ring = None
