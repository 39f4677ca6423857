"""From a policy's answer to targets with times: what is past goes, what overlaps is merged.

The one chunk convention of dp_hub: a chunk starts at the first observed step, so the action for
the newest observed step has index To - 1; it is due when that step was observed.

When is an action past? With ``hold`` each one counts for a period, so it is past when the next one
is due already; of the one whose period has begun the rest is still carried out. With ``linear`` it
is a place to be at a time, and past when that time is. Times are those at which the arm moves: now
and ``action_latency_s``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dp_hub.robot.acting.rules import Rules
from dp_hub.robot.acting.timeline import Timeline, blended, ensembled
from dp_hub.robot.clock import SAME_S
from dp_hub.robot.motion.plan import MAX_POINTS, Plan
from dp_hub.robot.motion.trajectory import Interpolation


@dataclass(frozen=True, eq=False)
class Chunk:
    """One answer of the policy.

    Args:
        observed_s: time of the newest observed step it was predicted from.
        actions: float (n, Da), from the first observed step on, a period apart.
        n_obs_steps: To.
    """

    observed_s: float
    actions: np.ndarray
    n_obs_steps: int


@dataclass(frozen=True)
class Pacing:
    """The steps of a policy on this robot.

    Args:
        period_s: between actions.
        n_action_steps: Ta, actions carried out before the next answer takes over.
        action_latency_s: from sending an action to the arm moving.
        interpolation: what the controller does between targets.
        rotations_at: indices in an action where the three numbers of a rotation vector begin.
    """

    period_s: float
    n_action_steps: int
    action_latency_s: float = 0.0
    interpolation: Interpolation = "hold"
    rotations_at: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Scheduled:
    """What became of an answer.

    Args:
        plans: what to send to the controller, one after the other: more than one where a chunk is
            longer than a plan may be, none if all actions were past.
        whole: the plan with the rest of the chunk, sent or not, and merged like it.
        placed: all actions from index To - 1 on at their times, as the policy gave them.
        until_s: when the next answer should take over.
        latency_s: from the observation to the arm moving by this answer.
        dropped: actions that were past.
        merged: targets that are of more than one answer.
        late_s: how long after the time before's ``until_s`` it came; 0 if in time.
        extended: actions of the answer before that were begun after its ``until_s``.
    """

    plans: tuple[Plan, ...]
    whole: Timeline | None
    placed: Timeline
    until_s: float
    latency_s: float
    dropped: int
    merged: int
    late_s: float
    extended: int

    @property
    def late(self) -> bool:
        """The answer before was through its n_action_steps already."""
        return self.late_s > 0


def plan_chunk(
    chunk: Chunk,
    rules: Rules,
    pacing: Pacing,
    *,
    number: int,
    now_s: float,
    previous: Timeline | None = None,
    until_s: float | None = None,
    earlier: Sequence[Timeline] = (),
) -> Scheduled:
    """What to do with an answer that is there now.

    Args:
        chunk: the answer.
        rules: how actions are timed and merged, and how many are planned.
        pacing: the steps.
        number: of the first plan.
        now_s: monotonic seconds.
        previous: what is planned already, the rest of its chunk included.
        until_s: `Scheduled.until_s` of the answer before; None if there is nothing to be late for.
        earlier: `Scheduled.placed` of answers before, the oldest first, for ``ensemble``.
    """
    reach_s = now_s + pacing.action_latency_s
    placed = place(chunk, rules, pacing, reach_s=reach_s)
    late_s = 0.0 if until_s is None or reach_s <= until_s + SAME_S else reach_s - until_s
    dropped = n_past(placed.times_s, pacing, reach_s)
    if dropped == len(placed.times_s):
        over_s = until_s if until_s is not None else reach_s
        age_s = reach_s - chunk.observed_s
        return Scheduled((), None, placed, over_s, age_s, dropped, 0, late_s, 0)
    new = replace(placed, times_s=placed.times_s[dropped:], targets=placed.targets[dropped:])
    targets, merged = _merged(rules, previous, earlier, new)
    whole = replace(new, targets=targets)
    first_s = float(whole.times_s[0])
    begun = int(first_s < reach_s - SAME_S)  # it was due before: the rest of it comes on top
    through = begun + pacing.n_action_steps
    return Scheduled(
        plans=_sent(whole, through, rules, number, min(first_s, reach_s)),
        whole=whole,
        placed=placed,
        until_s=min(first_s + through * pacing.period_s, whole.end_s),
        latency_s=reach_s - chunk.observed_s,
        dropped=dropped,
        merged=merged,
        late_s=late_s,
        extended=_extended(previous, until_s, max(reach_s, first_s), rules),
    )


def place(chunk: Chunk, rules: Rules, pacing: Pacing, *, reach_s: float) -> Timeline:
    """The actions from index To - 1 on at their times.

    Args:
        chunk: the answer.
        rules: ``timing`` of them.
        pacing: the steps.
        reach_s: when the arm can move by them at the soonest.
    """
    actions = np.asarray(chunk.actions[chunk.n_obs_steps - 1 :], np.float64)
    start_s = chunk.observed_s if rules.timing == "observed" else reach_s
    times_s = start_s + pacing.period_s * np.arange(len(actions))
    return Timeline(times_s, actions, pacing.period_s, pacing.interpolation, pacing.rotations_at)


def n_past(times_s: np.ndarray, pacing: Pacing, reach_s: float) -> int:
    """How many of the first actions are past.

    Args:
        times_s: float64 (n,), when they are due.
        pacing: with ``hold`` an action is past when the next one is due.
        reach_s: when the arm can move.
    """
    if pacing.interpolation == "hold":
        return int((times_s + pacing.period_s <= reach_s + SAME_S).sum())
    return int((times_s < reach_s - SAME_S).sum())


def _merged(
    rules: Rules, previous: Timeline | None, earlier: Sequence[Timeline], new: Timeline
) -> tuple[np.ndarray, int]:
    if rules.merge == "blend" and previous is not None:
        return blended(previous, new)
    if rules.merge == "ensemble":
        return ensembled(earlier, new, rules.ensemble)
    return new.targets, 0


def _sent(
    whole: Timeline, through: int, rules: Rules, number: int, from_s: float
) -> tuple[Plan, ...]:
    """What the controller is given: all of it, so that a late answer finds it moving, or not."""
    extra = 1 if whole.interpolation == "linear" else 0  # a way that is begun has an end too
    count = len(whole.times_s) if rules.late == "extend" else through + extra
    times_s, targets = whole.times_s[:count], whole.targets[:count]
    return tuple(
        Plan(
            number + k,
            times_s[i : i + MAX_POINTS],
            targets[i : i + MAX_POINTS],
            float(times_s[i]) if i else from_s,
        )
        for k, i in enumerate(range(0, len(times_s), MAX_POINTS))
    )


def _extended(previous: Timeline | None, until_s: float | None, over_s: float, rules: Rules) -> int:
    """Actions of the chunk before that were begun after their time, until the new ones."""
    if previous is None or until_s is None or rules.late != "extend":
        return 0
    after_s = previous.times_s + (previous.period_s if previous.interpolation == "hold" else 0.0)
    return int(((after_s > until_s + SAME_S) & (previous.times_s < over_s - SAME_S)).sum())
