"""What a world is asked from outside: to begin anew, and faults that come while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.clock import Clock, MonotonicClock
from dp_hub.robot.fields import Field
from dp_hub.robot.worlds.ports import Ports, QueuePort
from dp_hub.robot.worlds.world import CONTROL, TRUTH

_KINDS = ("reset", "reset_to", "stall")
_CAPACITY = 32


@dataclass(frozen=True)
class Request:
    """One message of the queue ``control``.

    Args:
        kind: ``reset`` from ``seed``; ``reset_to`` the ``state``; ``stall`` the cameras for
            ``value`` seconds.
    """

    kind: str
    seed: int = 0
    value: float = 0.0
    state: np.ndarray | None = None


def control_port(n_state: int) -> QueuePort:
    """The queue ``control`` of a world whose start states are float64 (n_state,)."""
    fields = (
        Field("kind", (), "int64"),
        Field("seed", (), "int64"),
        Field("value", ()),
        Field("state", (n_state,)),
    )
    return QueuePort(fields, _CAPACITY)


def pack(request: Request, n_state: int) -> dict[str, np.ndarray]:
    """A request as the queue takes it."""
    state = np.zeros(n_state) if request.state is None else np.asarray(request.state, np.float64)
    if state.shape != (n_state,):
        raise RobotError(
            f"a start state of this world has {n_state} numbers, not shape {state.shape}"
        )
    return {
        "kind": np.array(_KINDS.index(request.kind)),
        "seed": np.array(request.seed),
        "value": np.array(request.value),
        "state": state,
    }


def unpack(message: Mapping[str, np.ndarray]) -> Request:
    """The request in a message."""
    kind = _KINDS[int(message["kind"])]
    state = np.array(message["state"]) if kind == "reset_to" else None
    return Request(kind, int(message["seed"]), float(message["value"]), state)


class WorldControl:
    """Asks a running world; of one process and thread only (the queue has one producer)."""

    def __init__(self, ports: Ports, *, clock: Clock | None = None) -> None:
        from dp_hub.robot.shared.queue import Queue
        from dp_hub.robot.shared.ring import Ring

        spec = ports.queue(CONTROL)
        [field] = [one for one in spec.fields if one.name == "state"]
        self._n_state = field.shape[0]
        self._queue = Queue.attach(spec)
        self._truth = Ring.attach(ports.ring(TRUTH))
        self._clock = clock or MonotonicClock()

    def ask(self, request: Request) -> None:
        """Ask and do not wait. Raises QueueFull: the world does not listen any more."""
        self._queue.put(pack(request, self._n_state))

    def stall_cameras(self, seconds: float) -> None:
        """No camera shows anything for ``seconds``."""
        self.ask(Request("stall", value=seconds))

    def reset(
        self, seed: int | None = None, state: np.ndarray | None = None, *, timeout_s: float = 5.0
    ) -> float:
        """Begin an episode from a seed or a state, and wait until it has begun.

        What was sent before counts no more: the actuators stand still until a new target comes. A
        controller goes on sending the target it holds, so the world also leaves out targets equal
        to the last one from before.

        Returns:
            When it began, monotonic seconds: samples older than this are the last episode's.
        Raises:
            RobotError: the world did not answer in time.
        """
        assert (seed is None) != (state is None), "a seed or a state"
        before = self.episode()
        if state is None:
            self.ask(Request("reset", seed=int(seed or 0)))
        else:
            self.ask(Request("reset_to", state=np.asarray(state, np.float64)))
        until_s = self._clock.now_s() + timeout_s
        while self.episode() == before:
            now_s = self._clock.now_s()
            if now_s >= until_s:
                raise RobotError(f"the simulated world did not begin anew within {timeout_s} s")
            self._clock.sleep_until(now_s + 0.002)
        return self._began_s(before)

    def episode(self) -> int:
        """Number of the episode that runs, from 1; 0 if the world has not begun."""
        newest = self._truth.last(1).values["episode"]
        return int(newest[-1]) if len(newest) else 0

    def truth(self) -> dict[str, float]:
        """The newest truth by name, see `truth_port`; empty if the world has not begun."""
        values = self._truth.last(1).values
        return {name: float(column[-1]) for name, column in values.items() if len(column)}

    def close(self) -> None:
        """Let go of the memory."""
        self._queue.close()
        self._truth.close()

    def _began_s(self, before: int) -> float:
        recent = self._truth.last(10**6)
        after = recent.values["episode"] > before
        return float(recent.times_s[after][0])
