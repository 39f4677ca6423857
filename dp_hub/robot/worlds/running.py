"""The stepping of a world: which target acts when, what is told when, and how an episode stands.

Pure of clocks: the time comes in, so a virtual one does as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dp_hub.robot.clock import SAME_S
from dp_hub.robot.worlds.control import Request
from dp_hub.robot.worlds.world import STATE, TRUTH, Faults, World

if TYPE_CHECKING:
    from dp_hub.robot.shared.ring import Ring

CATCH_UP_S = 0.2
"""After a stall, steps of at most so long are made up for; the rest is left out and counted."""


class Running:
    """A world that runs, from `start_s` on.

    Args:
        world: opened.
        rings: by name, as many as the world has.
        start_s: when its first episode begins.
    """

    def __init__(self, world: World, rings: Mapping[str, Ring], *, start_s: float) -> None:
        self._world, self._faults = world, world.faults
        late_s = self._faults.action_latency_s
        self._targets = {name: Targets(rings[name], late_s) for name in world.actuators}
        lags = {STATE: self._faults.state_latency_s, TRUTH: 0.0}
        lags |= {name: self._faults.camera_latency_s for name in world.views}
        self._outlets = {
            name: Outlet(rings[name], world.rings[name].rate_hz, lag, start_s)
            for name, lag in lags.items()
        }
        self._start_s, self._before_s = start_s, start_s
        self._stalled_until_s = start_s
        self._skipped = 0
        self._episode = Episode(0, -1)
        self._begin(Request("reset", seed=world.seed), start_s)

    def tick(self, due_s: float, *, missed: int = 0, requests: Sequence[Request] = ()) -> None:
        """Go on to ``due_s``.

        Args:
            due_s: a period after the last tick, or more where some were missed.
            missed: ticks between this and the last one that did not happen.
            requests: that came in the meantime.
        """
        began = [self._carry_out(request, due_s) for request in requests]
        if not any(began):
            period_s = self._world.period_s
            owed = min(missed, round(CATCH_UP_S / period_s))
            self._skipped += missed - owed
            for i in range(owed, -1, -1):
                self._step(due_s - i * period_s)
        self._before_s = due_s
        for outlet in self._outlets.values():
            outlet.deliver(due_s)

    def _carry_out(self, request: Request, now_s: float) -> bool:
        """Whether an episode began."""
        if request.kind == "stall":
            self._stalled_until_s = now_s + request.value
        else:
            self._begin(request, now_s)
        return request.kind in ("reset", "reset_to")

    def _begin(self, request: Request, now_s: float) -> None:
        seed = request.seed if request.state is None else None
        self._world.reset(seed, request.state)
        for targets in self._targets.values():
            targets.forget()
        for outlet in self._outlets.values():
            outlet.forget()
        self._episode = Episode(self._episode.number + 1, -1 if seed is None else seed)
        self._tell(now_s, always=True)

    def _step(self, now_s: float) -> None:
        """From the period's end before ``now_s`` to ``now_s``."""
        begin_s = now_s - self._world.period_s
        targets = {name: inbox.at(begin_s) for name, inbox in self._targets.items()}
        given = {name: target for name, target in targets.items() if target is not None}
        self._world.step(given)
        if given or self._episode.begun_s is not None:
            self._episode.stepped(self._world, begin_s)
        self._tell(now_s, always=False)

    def _tell(self, now_s: float, *, always: bool) -> None:
        """Put what is due into the rings; the truth last, so that whoever sees it sees the rest."""
        world, outlets = self._world, self._outlets
        if outlets[STATE].due(now_s) or always:
            outlets[STATE].put(now_s, world.state())
        for name in world.views:
            if (outlets[name].due(now_s) or always) and not self._stalled(now_s):
                outlets[name].put(now_s, world.view(name))
        if outlets[TRUTH].due(now_s) or always:
            truth = self._episode.truth(world, now_s) | {"skipped": float(self._skipped)}
            outlets[TRUTH].put(now_s, {key: np.asarray(value) for key, value in truth.items()})

    def _stalled(self, now_s: float) -> bool:
        faults: Faults = self._faults
        into_s = (now_s - self._start_s) % faults.camera_stall_every_s
        regular = into_s >= faults.camera_stall_every_s - faults.camera_stall_s
        return now_s < self._stalled_until_s or (faults.camera_stall_s > 0 and regular)


class Targets:
    """The targets of one actuator, each acting from its time plus a latency on.

    Args:
        ring: they come by.
        latency_s: see above.
    """

    def __init__(self, ring: Ring, latency_s: float) -> None:
        self._latency_s = latency_s
        self._ring, self._next = ring, 0
        self._waiting: deque[tuple[float, np.ndarray]] = deque()
        self._now: np.ndarray | None = None
        self._stale: np.ndarray | None = None

    def at(self, time_s: float) -> np.ndarray | None:
        """The target that acts at ``time_s``, float64 (D,); None before the first."""
        self._take()
        while self._waiting and self._waiting[0][0] + self._latency_s <= time_s + SAME_S:
            self._now = self._waiting.popleft()[1]
        return self._now

    def forget(self) -> None:
        """What came until now counts no more, nor what repeats the last of it.

        A controller that holds its target sends it on and on: it was meant for the last episode.
        """
        self._take()
        if self._waiting:
            self._stale = self._waiting[-1][1]
        elif self._now is not None:
            self._stale = self._now
        self._now = None
        self._waiting.clear()

    def _take(self) -> None:
        fresh = self._ring.since(self._next)
        if not len(fresh.numbers):
            return
        self._next = int(fresh.numbers[-1]) + 1
        for time_s, target in zip(fresh.times_s.tolist(), fresh.values["target"], strict=True):
            if self._stale is not None and np.array_equal(target, self._stale):
                continue
            self._stale = None
            self._waiting.append((time_s, target))


class Outlet:
    """A ring that is written at its rate, each sample a latency after it was true."""

    def __init__(self, ring: Ring, rate_hz: float, latency_s: float, start_s: float) -> None:
        self._ring, self._rate_hz, self._latency_s = ring, rate_hz, latency_s
        self._start_s, self._next = start_s, 0
        self._under_way: deque[tuple[float, dict[str, np.ndarray]]] = deque()

    def due(self, time_s: float) -> bool:
        """Whether a sample is due at ``time_s``; asked once for each time."""
        number = int((time_s - self._start_s + SAME_S) * self._rate_hz)
        if number < self._next:
            return False
        self._next = number + 1
        return True

    def put(self, time_s: float, values: dict[str, np.ndarray]) -> None:
        """Send what was true at ``time_s``."""
        if self._latency_s == 0:
            self._ring.put(time_s, values)
        else:
            self._under_way.append((time_s, values))

    def forget(self) -> None:
        """What has not arrived yet never will: another episode begins."""
        self._under_way.clear()

    def deliver(self, now_s: float) -> None:
        """What has arrived by ``now_s``."""
        while self._under_way and self._under_way[0][0] + self._latency_s <= now_s + SAME_S:
            self._ring.put(*self._under_way.popleft())


@dataclass
class Episode:
    """How one episode stands: scored once a control period from its first target on.

    So a policy that acts in time gets the score that the offline environment gives it.
    """

    number: int
    seed: int
    begun_s: float | None = None
    steps: int = 0
    max_reward: float = 0.0
    success: float = 0.0
    _substeps: int = 0

    def stepped(self, world: World, begin_s: float) -> None:
        """Count a step that began at ``begin_s``."""
        if self.begun_s is None:
            self.begun_s = begin_s
        self._substeps += 1
        if self._substeps % round(world.score_every_s / world.period_s):
            return
        score = world.score()
        self.steps += 1
        self.max_reward = max(self.max_reward, score["reward"])
        self.success = max(self.success, score["success"])

    def truth(self, world: World, now_s: float) -> dict[str, float]:
        """What the ring ``truth`` tells, but for ``skipped``."""
        elapsed_s = 0.0 if self.begun_s is None else now_s - self.begun_s
        return world.score() | {
            "episode": float(self.number),
            "seed": float(self.seed),
            "elapsed_s": elapsed_s,
            "steps": float(self.steps),
            "max_reward": self.max_reward,
            "success": self.success,
            "over": float(self.success > 0 or elapsed_s >= world.episode_s - SAME_S),
        }
