"""What an actuator is told at every tick: a pure machine of four states over times it is given.

| state   | is sent       | moving next     | holding next | idle next               |
|---------|---------------|-----------------|--------------|-------------------------|
| idle    | nothing       | by a plan       | by `hold`    |                         |
| moving  | the command   |                 | by `hold`    |                         |
| holding | until at rest | by a plan (1)   |              | by `resume`, at rest    |
| stopped | nothing       | never           | never        | never                   |

`stop` leads to ``stopped`` from every state, and nothing leads out of it.

(1) A hold that ``needs_resume`` waits for `resume` and refuses plans until then. One that does not
(the commander was lost for a while) ends by itself with the next plan. Either way the plan that was
being followed is thrown away, and only a plan of a higher number than any before is accepted.

* **idle**: there is no plan. Nothing is sent, and the command is wherever the actuator is measured,
  so that a plan begins from there.
* **moving**: follows its plan. After the last point it stays at that point and keeps sending it.
* **holding**: brakes to rest, within v²/2a, and then sends nothing more: the actuator is told to
  stay where it is. What is measured then is where the next plan begins.
* **stopped**: the emergency stop. It lasts until the controller is started again.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dp_hub.robot.motion.limiting import Limiter
from dp_hub.robot.motion.limits import Limits
from dp_hub.robot.motion.plan import Plan
from dp_hub.robot.motion.trajectory import Interpolation, resting
from dp_hub.robot.motion.violations import Event, Events
from dp_hub.robot.space import Space

State = Literal["idle", "moving", "holding", "stopped"]
STATES: tuple[State, ...] = ("idle", "moving", "holding", "stopped")


@dataclass
class Counts:
    """Since the start. ``clipped_box`` and ``limited_...`` count ticks, the others what they say.

    Args:
        plans: accepted.
        points: of accepted plans.
        late_points: came when their time and the next one's had passed: never used.
        replaced: points that were still to come when a newer plan took their place.
        refused: plans that were not accepted.
        ran_dry: times that a plan was followed to its end and none came.
        clipped_box: a target outside the workspace.
        limited_speed: a plan faster than allowed, until the command has caught up.
        limited_acceleration: the command clearly behind its plan otherwise.
        limited_step: a target too far from the measured position.
        holds: times that it began to hold.
    """

    plans: int = 0
    points: int = 0
    late_points: int = 0
    replaced: int = 0
    refused: int = 0
    ran_dry: int = 0
    clipped_box: int = 0
    limited_speed: int = 0
    limited_acceleration: int = 0
    limited_step: int = 0
    holds: int = 0


_FARTHEST = 1e9  # no target of a robot, in any unit; nothing overflows below it
_COUNTED = {
    "box": "clipped_box",
    "step": "limited_step",
    "speed": "limited_speed",
    "acceleration": "limited_acceleration",
}


class Motion:
    """See the table above. It has no clock: every call is told the time.

    Args:
        space: of the actuator.
        limits: checked against it.
        interpolation: between way-points.
        start: float64 (D,), the measured position.
        period_s: of ticks.
        ahead_s: from sending a target to the actuator being there: targets are asked for that much
            later than now.
    """

    def __init__(
        self,
        space: Space,
        limits: Limits,
        interpolation: Interpolation,
        *,
        start: np.ndarray,
        period_s: float,
        ahead_s: float = 0.0,
    ) -> None:
        self.counts = Counts()
        self.newest = -1
        self._events = Events()
        self._space, self._interpolation = space, interpolation
        self._period_s, self._ahead_s = period_s, ahead_s
        self._measured = np.array(start, dtype=np.float64)
        self._limiter = Limiter(space, limits, period_s=period_s, start=self._measured)
        self._trajectory = resting(self._measured, -np.inf, space, interpolation)
        self._state: State = "idle"
        self._needs_resume = self._resumed = False
        self._held = False
        self._dry_s = np.inf
        self._last_s: float | None = None

    @property
    def state(self) -> State:
        """One of the four in the table above."""
        return self._state

    @property
    def at_rest(self) -> bool:
        """Whether the command does not move."""
        return self._limiter.at_rest

    @property
    def held(self) -> bool:
        """Whether it holds and is at rest: the actuator has its last target, and is to stay."""
        return self._state == "holding" and self._held

    @property
    def command(self) -> np.ndarray:
        """Where the actuator is told to be, or would be: float64 (D,)."""
        return self._limiter.position

    def saw(self, position: np.ndarray) -> None:
        """Tell the newest measured position, float64 (D,)."""
        self._measured = np.array(position, dtype=np.float64)
        if self._state == "idle" or self.held:
            self._limiter.place(self._measured)

    def accept(self, plan: Plan, now_s: float) -> bool:
        """Follow a plan from now on. False if it is refused, which an event explains."""
        why = self._objection(plan)
        if why is not None:
            self.refuse(plan, now_s, why)
            return False
        at_s = now_s + self._ahead_s
        here, here_s = self.command, at_s
        if self._state != "moving":
            self._trajectory = resting(here, at_s, self._space, self._interpolation)
        elif self._interpolation == "hold":
            here = self._trajectory.at(at_s)
        elif self._last_s is not None:  # the command is that of the last tick
            here_s = min(at_s, self._last_s + self._ahead_s)
        accepted = self._trajectory.accept(plan, at_s, here, here_s)
        self._trajectory = accepted.trajectory
        self._state, self._dry_s = "moving", accepted.trajectory.end_s
        if (
            self._interpolation == "hold" and len(plan.times_s) > 1
        ):  # a step lasts as the one before
            self._dry_s += float(plan.times_s[-1] - plan.times_s[-2])
        self.newest = plan.number
        self.counts.plans += 1
        self.counts.points += len(plan.times_s)
        self.counts.late_points += accepted.late
        self.counts.replaced += accepted.replaced
        return True

    def refuse(self, plan: Plan, now_s: float, why: str) -> None:
        """Throw a plan away. One that was made before it will not be accepted later."""
        self.newest = max(self.newest, plan.number)
        self.counts.refused += 1
        self._events.tell("refused", f"plan {plan.number} is refused: {why}", now_s)

    def hold(self, now_s: float, reason: str, *, needs_resume: bool = True) -> None:
        """Throw the plan away and come to rest. In ``stopped`` it does nothing.

        Args:
            now_s: monotonic seconds.
            reason: for the log.
            needs_resume: whether plans are refused until `resume`.
        """
        if self._state == "stopped":
            return
        if self._state != "holding":
            self._held = self._state == "idle"
            self._state, self._needs_resume, self._resumed = "holding", needs_resume, False
            self.counts.holds += 1
            self._events.tell("hold", f"holds: {reason}", now_s)
        elif needs_resume and not self._needs_resume:
            self._needs_resume, self._resumed = True, False
            self._events.tell("hold", f"holds until it is resumed: {reason}", now_s)

    def resume(self, now_s: float) -> None:
        """Take plans again after a hold. In the other states it does nothing."""
        if self._state == "holding" and not self._resumed:
            self._needs_resume, self._resumed = False, True
            self._events.tell("resume", "takes plans again", now_s)

    def stop(self, now_s: float, reason: str) -> None:
        """Send nothing any more."""
        if self._state != "stopped":
            self._state = "stopped"
            self._events.tell("stop", f"stopped: {reason}", now_s)

    def target(self, now_s: float) -> np.ndarray | None:
        """What to send at this tick, float64 (D,) within all limits; None: nothing."""
        elapsed_s = self._period_s if self._last_s is None else max(0.0, now_s - self._last_s)
        self._last_s = now_s if self._last_s is None else max(now_s, self._last_s)
        if self._state == "moving":
            return self._follow(now_s, elapsed_s)
        return self._come_to_rest(elapsed_s) if self._state == "holding" else None

    def take_events(self) -> list[Event]:
        """Events that are over and were not taken before; violations go on until they are over."""
        return self._events.take()

    def close(self) -> list[Event]:
        """All events that are left, when the controller ends."""
        self._events.close()
        return self._events.take()

    def _objection(self, plan: Plan) -> str | None:
        if self._state == "stopped":
            return "the controller is stopped"
        if self._state == "holding" and self._needs_resume:
            return "the controller holds until it is resumed"
        if plan.number <= self.newest:
            return f"plan {self.newest} came before it"
        if plan.targets.shape[1] != self._space.size:
            return f"{plan.targets.shape[1]} numbers a point instead of {self._space.size}"
        if not (np.isfinite(plan.times_s).all() and np.all(np.diff(plan.times_s) > 0.0)):
            return f"its times do not increase: {plan.times_s.tolist()}"
        if np.isnan(plan.replace_from_s):
            return "the time from which it replaces others is not a number"
        usable = np.abs(plan.targets) <= _FARTHEST
        if not usable.all():
            point, number = np.argwhere(~usable)[0]
            value = plan.targets[point, number]
            return f"`{self._space.names[number]}` of its point {point} is {value}"
        return None

    def _follow(self, now_s: float, elapsed_s: float) -> np.ndarray:
        at_s = now_s + self._ahead_s
        if at_s > self._dry_s:
            self._dry_s = np.inf
            self.counts.ran_dry += 1
            self._events.tell("dry", f"plan {self.newest} is at its end and no other came", now_s)
        sees_ahead = self._interpolation == "linear"  # a step comes at its time, not earlier
        excess = self._limiter.follow(
            lambda lead_s: self._trajectory.at(at_s + lead_s * sees_ahead),
            self._measured,
            elapsed_s,
        )
        for kind in {one.kind for one in excess}:
            name = _COUNTED[kind]
            setattr(self.counts, name, getattr(self.counts, name) + 1)
        self._events.see(excess, now_s)
        return self.command

    def _come_to_rest(self, elapsed_s: float) -> np.ndarray | None:
        if not self._held and not self.at_rest:
            self._limiter.brake(elapsed_s)
            return self.command
        self._held = True
        if self._resumed:
            self._state = "idle"
        return None
