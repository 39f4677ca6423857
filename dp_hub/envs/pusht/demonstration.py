"""Plays an episode of PushT with the scripted demonstrator and records it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from dp_hub.envs.pusht.expert import Expert, ExpertConfig, Plan
from dp_hub.envs.pusht.expert_motion import Tremor
from dp_hub.envs.pusht.expert_search import Moving, Push
from dp_hub.envs.pusht.physics import SUCCESS_COVERAGE, PushTPhysics
from dp_hub.envs.pusht.tape import Tape

# Targets lie on this grid, which float32 holds exactly: the float32 actions of a recording are
# those that were carried out, so that replaying them gives the recorded states bit for bit.
_PARTS_PER_PX = 16
_EDGE_PX = 6.0


@dataclass(frozen=True)
class Demonstration:
    """An episode played by the demonstrator.

    Args:
        seed: of the start state and of the demonstrator's choices.
        arrays: see `dp_hub.envs.pusht.tape.Tape.arrays`.
        coverage: the greatest share of the goal covered.
    """

    seed: int
    arrays: dict[str, np.ndarray]
    coverage: float

    @property
    def success(self) -> bool:
        """Whether the T came home."""
        return self.coverage > SUCCESS_COVERAGE


def demonstrate(
    seed: int, config: ExpertConfig | None = None, *, images: bool = False
) -> Demonstration:
    """Play one episode from the original's start state of ``seed``."""
    config = config or ExpertConfig()
    table = PushTPhysics()
    table.reset(seed)
    tape = Tape(table, images=images, contacts=False)
    hand = Demonstrator(table, seed, config, tape=tape)
    hand.play()
    return Demonstration(seed, tape.arrays(), hand.coverage)


class Table(Protocol):
    """What the demonstrator sees of a table, a `PushTPhysics` or one that is elsewhere."""

    agent_x: float
    agent_y: float
    velocity_x: float
    velocity_y: float

    def block_pose(self) -> tuple[float, float, float]:
        """See `PushTPhysics`."""

    def coverage(self) -> float:
        """See `PushTPhysics`."""

    def step(self, target_x: float, target_y: float) -> None:
        """One control period."""


class Demonstrator:
    """Carries out what the expert says, not quite steadily, and looks again while it pushes.

    Args:
        table: to play on.
        seed: of its choices.
        config: how it moves and chooses.
        tape: that records it.
    """

    def __init__(
        self, table: Table, seed: int, config: ExpertConfig, *, tape: Tape | None = None
    ) -> None:
        rng = np.random.default_rng(seed)
        self.table, self.tape, self.config = table, tape, config
        self.n_steps = 0
        self.expert = Expert(config, rng=rng)
        self.tremor = Tremor(config.tremor, rng)
        self.target = np.array((table.agent_x, table.agent_y))
        self.coverage = 0.0

    @property
    def out_of_time(self) -> bool:
        """Whether the episode is as long as it may be."""
        return self.n_steps >= self.config.max_steps

    def play(self) -> None:
        """Push until the T is home, or time is up."""
        touch_ups = 0
        while not self.out_of_time and touch_ups <= self.config.touch_ups:
            self.play_push()
            if self.table.coverage() > self.config.end_coverage:
                break
            touch_ups += self.coverage > SUCCESS_COVERAGE

    def play_push(self) -> None:
        """Walk to the next push and make it."""
        agent = np.array((self.table.agent_x, self.table.agent_y))
        plan = self.expert.plan(agent, self.target, self.table.block_pose())
        before = self.target
        self._move(plan.walk)
        walked = plan.walk if len(plan.walk) > 1 else np.array([before, self.target])
        self._shove(plan, speed=float(np.hypot(*(walked[-1] - walked[-2]))))
        self._move([self.target])  # a moment to come to rest

    def _shove(self, plan: Plan, speed: float) -> None:
        push: Push = plan.push
        while not self.out_of_time:
            table = self.table
            moving = Moving(
                pose=table.block_pose(),
                agent=(table.agent_x, table.agent_y),
                velocity=(table.velocity_x, table.velocity_y),
                speed=max(speed, 2.0),
                patience=self.config.patience * plan.pace,
            )
            push = replace(push, contact=tuple(self.target.tolist()))
            push, targets = self.expert.steer(push, moving)
            if len(targets) == 0:
                return
            before = self.target
            targets = targets[: self.config.look_steps]
            self._move(targets)
            ends = np.concatenate([[before], targets])
            speed = float(np.hypot(*(ends[-1] - ends[-2])))
            push = replace(push, heading=push.heading + push.bend * math.dist(ends[0], ends[-1]))

    def _move(self, targets: Iterable[np.ndarray]) -> None:
        """Give the agent these targets, one a control step, as well as a hand can."""
        self.tremor.settle()
        before = self.target
        for target in targets:
            if self.out_of_time:
                return
            off = self.tremor.next(float(np.hypot(*(target - before))))
            before = target
            aim = np.clip(target + off, _EDGE_PX, 512.0 - _EDGE_PX)
            self.target = np.round(aim * _PARTS_PER_PX) / _PARTS_PER_PX
            if self.tape is not None:
                self.tape.add(self.target)
            self.n_steps += 1
            self.table.step(*self.target.tolist())
            self.coverage = max(self.coverage, self.table.coverage())
