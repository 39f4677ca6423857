"""A hand on the world ``pusht`` that needs no person: the scripted demonstrator in real time.

It looks into the world and plans in a thread, since a plan takes it a tenth of a second or more; in
the meantime it rests, as a person who thinks.
"""

import math
import threading

import numpy as np

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.clock import Clock, MonotonicClock
from dp_hub.robot.devices.protocols import Hand
from dp_hub.robot.shared.ring import Ring
from dp_hub.robot.worlds.ports import Ports
from dp_hub.robot.worlds.world import STATE, TRUTH

_STEP_S = 0.1
_POLL_S = 0.01
_LET_GO_S = 0.5  # a hand that was not read for so long is in nobody's use
_NOT_FOLLOWED_PX = 120.0  # the agent trails a moving target by some 60 px
_LOOK_AGAIN_S = 1.0


class SimExpert:
    """The scripted demonstrator of PushT, giving the agent's target ten times a second.

    It begins whenever an episode does, or when it is read after it was not, and rests once the T is
    home. Where the agent does not follow, as when a policy drives it, it starts anew from there.

    Args:
        ports: of the world ``pusht``.
        seed: of its choices, with the episode's number added.
        tremor: how unsteady it is, see `dp_hub.envs.pusht.expert_motion.Tremor`.
    """

    summary = "PushT's scripted demonstrator, as a hand on the simulated world pusht"

    def __init__(self, *, ports: Ports, seed: int = 0, tremor: float = 0.25) -> None:
        if seed < 0 or not 0 <= tremor < 10:
            raise ConfigError(f"`seed` {seed} and `tremor` {tremor} of `sim_expert` are from 0 on")
        self._ports, self._seed, self._tremor = ports, seed, tremor
        self._clock: Clock = MonotonicClock()
        self._table: _Table | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Begin to look. Raises RobotError: the world is gone, or is another."""
        if "keypoints" not in {field.name for field in self._ports.ring(STATE).fields}:
            raise RobotError("`sim_expert` plays PushT, and the simulated world is another")
        self._table = _Table(self._ports, self._clock)
        self._thread = threading.Thread(target=self._play, name="sim-expert", daemon=True)
        self._thread.start()

    def read(self) -> Hand:
        """The target now; None until it has looked."""
        assert self._table is not None and self._thread is not None, "open it first"
        if not self._thread.is_alive():
            raise RobotError(
                "the scripted demonstrator has ended", hint="its error is in what was printed above"
            )
        now_s = self._clock.now_s()
        self._table.read_s = now_s
        return Hand(now_s, target=self._table.target)

    def close(self) -> None:
        """Stop planning and let go of the memory."""
        if self._table is None or self._thread is None:
            return
        self._table.ended.set()
        self._thread.join(10.0)
        self._table.close()
        self._table = self._thread = None

    def _play(self) -> None:
        from dp_hub.envs.pusht.demonstration import Demonstrator
        from dp_hub.envs.pusht.expert import ExpertConfig

        table = self._table
        assert table is not None
        config = ExpertConfig(tremor=self._tremor)
        while not table.ended.is_set():
            if not table.wanted():
                self._clock.sleep_until(self._clock.now_s() + _POLL_S)
                continue
            try:
                episode = table.begin()
                Demonstrator(table, self._seed + episode, config).play()
                table.finished = episode
            except _LetGoError:
                continue


class _LetGoError(Exception):
    """What was being played is over."""


class _Table:
    """The world's table as the demonstrator steps it: a step is a target that lasts 0.1 s.

    ``target``, ``read_s`` and ``ended`` are looked at by two threads; each is replaced whole.
    """

    def __init__(self, ports: Ports, clock: Clock) -> None:
        self._state, self._truth = Ring.attach(ports.ring(STATE)), Ring.attach(ports.ring(TRUTH))
        self._clock = clock
        self.target: np.ndarray | None = None
        self.read_s = -math.inf
        self.ended = threading.Event()
        self.finished = 0
        self._episode, self._due_s, self._rest_until_s = 0, 0.0, -math.inf
        self.agent_x = self.agent_y = self.velocity_x = self.velocity_y = 0.0
        self._block = (0.0, 0.0, 0.0)

    def wanted(self) -> bool:
        """Whether there is something to play, and someone reads it."""
        now_s = self._clock.now_s()
        if not self._look():
            return False
        if self._episode != self.finished:
            self.target = np.array((self.agent_x, self.agent_y))
        return (
            self._episode != self.finished
            and now_s - self.read_s < _LET_GO_S
            and now_s >= self._rest_until_s
        )

    def begin(self) -> int:
        """Number of the episode that is played from now on."""
        self._due_s = self._clock.now_s()
        return self._episode

    def block_pose(self) -> tuple[float, float, float]:
        """x, y in px, angle in rad."""
        return self._block

    def coverage(self) -> float:
        """Share of the goal covered."""
        from dp_hub.envs.pusht.physics import coverage_of

        return coverage_of(*self._block)

    def step(self, target_x: float, target_y: float) -> None:
        """Give the target and let its time go by. Raises _LetGoError."""
        self.target = np.array((target_x, target_y))
        self._due_s = max(self._due_s, self._clock.now_s()) + _STEP_S
        self._clock.sleep_until(self._due_s)
        episode = self._episode
        self._look()
        if self.ended.is_set() or self._episode != episode:
            raise _LetGoError
        if self._due_s - self.read_s > _LET_GO_S:
            raise _LetGoError
        if math.dist((target_x, target_y), (self.agent_x, self.agent_y)) > _NOT_FOLLOWED_PX:
            self._rest_until_s = self._due_s + _LOOK_AGAIN_S
            raise _LetGoError

    def close(self) -> None:
        """Let go of the memory."""
        self._state.close()
        self._truth.close()

    def _look(self) -> bool:
        """Take in what is newest; False while there is nothing."""
        state, truth = self._state.last(1).values, self._truth.last(1).values
        if not len(state["state"]) or not len(truth["episode"]):
            return False
        self.agent_x, self.agent_y = state["position"][-1].tolist()
        self.velocity_x, self.velocity_y = state["velocity"][-1].tolist()
        x, y, angle = state["block"][-1].tolist()
        self._block = (x, y, angle)
        self._episode = int(truth["episode"][-1])
        return True
