"""Limits applied to every target on its way out, so that no way of planning gets round them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dp_hub.robot.motion.following import braked, kept_inside, length, towards
from dp_hub.robot.motion.limits import Limits
from dp_hub.robot.motion.rotation_vectors import difference, turned
from dp_hub.robot.space import Space

_MOST_PERIODS = 2.0
_TELLING_S = 0.01
_TINY = 1e-9
_ROUNDING = 2e-15  # of a step to a goal: six roundings of at most twice the larger number

Kind = Literal["box", "step", "speed", "acceleration"]


@dataclass(frozen=True)
class Excess:
    """A limit that a target ran into at one tick.

    Args:
        kind: of the limit.
        what: the key in the configuration.
        amount: for ``box``, how far outside; for ``step``, how far away; for ``speed``, how fast
            the plan goes; for ``acceleration``, how far behind the plan the command is.
        limit: what is allowed of it; of being behind, what is not worth telling.
    """

    kind: Kind
    what: str
    amount: float
    limit: float


class Limiter:
    """The command: where the actuator is told to be, and how fast that moves.

    A tick is taken for two periods at most. One that comes 100 ms late must not be answered with
    100 ms of way in one step: the actuator has stood still since, or braked, and would be asked to
    catch up at several times the allowed speed. So the command goes on from where it was, behind
    its plan, and for the time it was left alone its velocity counts as braked.

    Args:
        space: of the actuator.
        limits: checked against it.
        period_s: of ticks.
        start: float64 (D,), the position it starts from.
    """

    def __init__(self, space: Space, limits: Limits, *, period_s: float, start: np.ndarray) -> None:
        self._size = space.size
        self._linear = list(space.linear)
        self._limits = limits
        self._period_s = period_s
        self._parts = _parts(space, limits, period_s)
        everywhere = [np.inf] * len(self._linear)
        self._low = np.array(limits.low or [-side for side in everywhere])
        self._high = np.array(limits.high or everywhere)
        self.place(start)

    def place(self, position: np.ndarray) -> None:
        """Be at rest at a position, float64 (D,)."""
        for part in self._parts:
            part.place(position)

    @property
    def position(self) -> np.ndarray:
        """The command, float64 (D,)."""
        position = np.empty(self._size)
        for part in self._parts:
            position[part.indices] = part.position.ravel()
        return position

    @property
    def at_rest(self) -> bool:
        """Whether it does not move."""
        return not any(part.velocity.any() for part in self._parts)

    def brake(self, elapsed_s: float) -> None:
        """Move on for one tick, braking."""
        dt_s = self._after_stall(elapsed_s)
        for part in self._parts:
            part.brake(dt_s)

    def follow(
        self, wanted: Callable[[float], np.ndarray], measured: np.ndarray, elapsed_s: float
    ) -> list[Excess]:
        """Move on for one tick towards what is wanted.

        An actuator with a limited acceleration stops v/2a later than one without. To be in time
        none the less, it looks as far ahead in what is planned: at a steady speed it then is where
        it should be when it should be there, and it brakes in time for the end of the plan.

        Args:
            wanted: the target, float64 (D,), so many seconds from now.
            measured: float64 (D,), the last measured position.
            elapsed_s: since the last tick.
        Returns:
            The limits it ran into.
        """
        if elapsed_s <= 0.0:
            return []
        target, excess = self._bounded(wanted(0.0), measured)
        dt_s = self._after_stall(elapsed_s)
        for part in self._parts:
            chased = target.copy()
            for row, lead_s in zip(part.rows, part.leads_s(), strict=True):
                if lead_s > 0.0:
                    chased[row] = self._bounded(wanted(lead_s), measured)[0][row]
            part.follow(chased, dt_s)
            excess += part.judged(target, elapsed_s)
        return excess

    def _after_stall(self, elapsed_s: float) -> float:
        dt_s = min(max(elapsed_s, 0.0), _MOST_PERIODS * self._period_s)
        if elapsed_s > dt_s:
            for part in self._parts:
                part.slow_down(elapsed_s - dt_s)
        return dt_s

    def _bounded(self, target: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, list[Excess]]:
        """In the box, then near to what is measured; the box comes first where both cannot be."""
        excess: list[Excess] = []
        asked = target[self._linear]
        inside = np.minimum(np.maximum(asked, self._low), self._high)
        outside = _norm(asked - inside)
        if outside > 0.0:
            excess.append(Excess("box", "low, high", outside, 0.0))
        step = self._limits.step
        here = measured[self._linear]
        far = _norm(inside - here)
        if step is not None and far > step:
            excess.append(Excess("step", "step", far, step))
            near = here + (inside - here) * (step / far)
            inside = np.minimum(np.maximum(near, self._low), self._high)
        result = target.copy()
        result[self._linear] = inside
        return result, excess


def _norm(vector: np.ndarray) -> float:
    return math.sqrt(vector @ vector)  # several times as fast as numpy's for a few numbers


def _parts(space: Space, limits: Limits, period_s: float) -> "list[_Part]":
    linear = list(space.linear)
    each = isinstance(limits.speed, list) or isinstance(limits.acceleration, list)
    rows = [[i] for i in linear] if each else [linear]
    parts = []
    if linear:
        parts.append(_Part(rows, "", limits, period_s))
    if space.rotation_at is not None:
        turn = list(range(space.rotation_at, space.rotation_at + 3))
        parts.append(_Part([turn], "rotation_", limits, period_s))
    return parts


class _Part:
    """Numbers that are limited in one way: those that are no rotation, or the rotation."""

    def __init__(
        self, rows: Sequence[list[int]], prefix: str, limits: Limits, period_s: float
    ) -> None:
        self.rows = rows
        self.indices = [i for row in rows for i in row]
        self._prefix = prefix
        self._shape = (len(rows), len(rows[0]))
        speed = getattr(limits, f"{prefix}speed")
        acceleration = getattr(limits, f"{prefix}acceleration")
        self._speed = np.full((len(rows), 1), np.inf)
        self._speed[:, 0] = np.inf if speed is None else speed
        self._acceleration: np.ndarray | None = None
        if acceleration is not None:
            self._acceleration = np.empty((len(rows), 1))
            self._acceleration[:, 0] = acceleration
        box = () if prefix or limits.low is None else (limits.low, limits.high)
        self._box = [np.array(side, dtype=np.float64).reshape(self._shape) for side in box]
        self._slack = self._way_worth_telling(period_s)
        self._fell_behind = np.zeros((len(rows), 1), dtype=bool)

    def _way_worth_telling(self, period_s: float) -> np.ndarray:
        """How far a command is behind its plan before that is told: of 10 ms, or a tick's way."""
        time_s = max(period_s, _TELLING_S)
        if self._acceleration is None:
            return np.where(np.isinf(self._speed), 0.0, self._speed * time_s)
        return np.where(np.isinf(self._speed), self._acceleration * time_s**2, self._speed * time_s)

    def place(self, position: np.ndarray) -> None:
        self.position = position[self.indices].reshape(self._shape)
        self.velocity = np.zeros(self._shape)
        self._asked = self.position
        self._fell_behind[:] = False

    def leads_s(self) -> np.ndarray:
        """How far each row looks ahead, (rows,)."""
        if self._acceleration is None:
            return np.zeros(len(self.rows))
        return (length(self.velocity) / (2.0 * self._acceleration))[:, 0]

    def slow_down(self, time_s: float) -> None:
        self.velocity = braked(self.velocity, self._acceleration, time_s)

    def brake(self, dt_s: float) -> None:
        self.velocity = braked(self.velocity, self._acceleration, dt_s)
        self._move(dt_s)
        self._asked = self.position

    def follow(self, target: np.ndarray, dt_s: float) -> None:
        goal = target[self.indices].reshape(self._shape)
        wanted = towards(self._gap(goal), self.velocity, self._speed, self._acceleration, dt_s)
        if self._box:
            low, high = self._box_now()
            wanted = kept_inside(
                wanted, self.velocity, self.position, low, high, self._acceleration, dt_s
            )
        self.velocity = wanted
        self._move(dt_s, goal)

    def judged(self, target: np.ndarray, elapsed_s: float) -> list[Excess]:
        """What the plan asks for beyond the limits, and whether the command is behind it."""
        goal = target[self.indices].reshape(self._shape)
        asked = length(self._gap(goal, self._asked)) / elapsed_s
        self._asked = goal
        lag = length(self._gap(goal))
        behind = lag > self._slack + _TINY * (1.0 + np.abs(goal).max())
        too_fast = asked > self._speed * (1.0 + 1e-6)
        self._fell_behind = too_fast | (self._fell_behind & behind)
        excess = []
        if self._fell_behind.any():
            row = int(np.argmax(np.where(self._fell_behind, asked / self._speed, -1.0)))
            excess.append(self._excess("speed", asked[row], self._speed[row]))
        slow = behind & ~self._fell_behind
        if self._acceleration is not None and slow.any():
            row = int(np.argmax(np.where(slow, lag, -1.0)))
            excess.append(self._excess("acceleration", lag[row], self._slack[row]))
        return excess

    def _excess(self, kind: Kind, amount: np.ndarray, limit: np.ndarray) -> Excess:
        return Excess(kind, self._prefix + kind, float(amount[0]), float(limit[0]))

    def _gap(self, goal: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        start = self.position if start is None else start
        if self._prefix:
            return difference(start[0], goal[0])[None]
        return goal - start

    def _box_now(self) -> tuple[np.ndarray, np.ndarray]:
        """The box, widened to a command that starts outside: it may stay or come nearer."""
        low, high = self._box
        return np.minimum(low, self.position), np.maximum(high, self.position)

    def _move(self, dt_s: float, goal: np.ndarray | None = None) -> None:
        way = self.velocity * dt_s
        if self._prefix:
            self.position = turned(self.position[0], way[0])[None]
            return
        moved = self.position + way
        if goal is not None:  # what is sent is what was planned, to the last bit
            rounding = _ROUNDING * np.maximum(np.abs(self.position), np.abs(goal))
            moved = np.where(np.abs(goal - moved) <= rounding, goal, moved)
        if self._box:  # no more than rounding
            moved = np.clip(moved, *self._box_now())
        self.position = moved
