"""What is planned, remembered from answer to answer."""

from typing import Literal

from dp_hub.robot.acting.lateness import Lateness
from dp_hub.robot.acting.overlap import Overlap, overlap_of
from dp_hub.robot.acting.rules import Rules
from dp_hub.robot.acting.schedule import Chunk, Pacing, Scheduled, plan_chunk
from dp_hub.robot.acting.timeline import Timeline
from dp_hub.robot.clock import SAME_S

State = Literal["empty", "running", "extending", "holding", "stopped"]

_KEPT_S = 2.0
"""How long the past is remembered, for real-time chunking."""


class Scheduler:
    """Takes answers and remembers what is planned; everything it decides is `plan_chunk`'s.

    Args:
        rules: how actions are timed and merged, and what a late answer does.
        pacing: the steps.

    Attributes:
        planned: what is planned, with what was lately; None if nothing is.
        lateness: of the answers so far.
    """

    def __init__(self, rules: Rules, pacing: Pacing) -> None:
        self.rules, self.pacing = rules, pacing
        self.planned: Timeline | None = None
        self.lateness = Lateness()
        self._until_s: float | None = None
        self._earlier: list[Timeline] = []
        self._number = 0  # of the next plan

    def accept(self, chunk: Chunk, *, now_s: float) -> Scheduled:
        """Plan by an answer that is there now, and count what became of it."""
        held = self.state(now_s) in ("holding", "stopped")
        result = plan_chunk(
            chunk,
            self.rules,
            self.pacing,
            number=self._number,
            now_s=now_s,
            previous=self.planned,
            until_s=self._until_s,
            earlier=self._earlier,
        )
        self._number += len(result.plans)
        self.lateness = self.lateness.then(result, held=held)
        if result.plans:
            self._remember(result, now_s)
        return result

    def state(self, now_s: float) -> State:
        """What the arm does by the plan, if it is told now.

        ``empty``: there is none yet. ``running``. ``extending``: the next answer is late, and the
        rest of the old chunk is carried out. ``holding``: there is nothing left. ``stopped``:
        likewise, and the rules want the rollout to end.
        """
        if self.planned is None or self._until_s is None:
            return "empty"
        reach_s = now_s + self.pacing.action_latency_s
        if reach_s <= self._until_s + SAME_S:
            return "running"
        if self.rules.late == "extend" and reach_s <= self.planned.end_s + SAME_S:
            return "extending"
        return "stopped" if self.rules.late == "stop" else "holding"

    def overlap(
        self, observed_s: float, *, latency_s: float, horizon: int, n_obs_steps: int
    ) -> Overlap | None:
        """What to tell the policy of the plan in force, for real-time chunking.

        Args:
            observed_s: time of the newest observed step it is asked with.
            latency_s: how long the answer may take, from then to the arm moving (`Pace.latency_s`).
            horizon: Tp.
            n_obs_steps: To.
        Returns:
            None if nothing is planned there.
        """
        reach_s = observed_s + latency_s
        return overlap_of(
            self.planned,
            start_s=observed_s if self.rules.timing == "observed" else reach_s,
            settled_s=reach_s,
            horizon=horizon,
            n_obs_steps=n_obs_steps,
            period_s=self.pacing.period_s,
        )

    def forget(self) -> None:
        """The plan was thrown away: the controller held, or a person took over."""
        self.planned, self._until_s, self._earlier = None, None, []

    def _remember(self, result: Scheduled, now_s: float) -> None:
        assert result.whole is not None
        from_s = result.plans[0].replace_from_s
        if self.planned is None:
            self.planned = result.whole
        else:
            self.planned = self.planned.then(result.whole, from_s=from_s, keep_s=_KEPT_S)
        self._until_s = result.until_s
        still = [one for one in self._earlier if one.end_s > now_s]
        self._earlier = [*still, result.placed] if self.rules.merge == "ensemble" else []
