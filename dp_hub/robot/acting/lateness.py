"""What became of a policy's answers, counted: nothing that is dropped is dropped in silence."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from dp_hub.robot.acting.schedule import Scheduled

EDGES_MS = (10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)
"""Where the bins of the histogram end; one more is open."""


@dataclass(frozen=True)
class Lateness:
    """Sums over the answers of a rollout.

    Args:
        answers: how many there were.
        late: of them, came after the n_action_steps of the answer before were through.
        useless: of them, had no action left that was not past.
        dropped: actions that were past.
        extended: actions of an old chunk carried out after its time, for want of a new one.
        held: late answers for which the robot had to hold.
        merged: targets made of more than one answer.
        latency_sum_s: from the observation to the arm moving by the answer, summed.
        latency_most_s: the longest.
        late_sum_s: how late the late ones were, summed.
        late_most_s: the latest.
        histogram: answers by latency, a bin for each of ``EDGES_MS`` and an open one.
    """

    answers: int = 0
    late: int = 0
    useless: int = 0
    dropped: int = 0
    extended: int = 0
    held: int = 0
    merged: int = 0
    latency_sum_s: float = 0.0
    latency_most_s: float = 0.0
    late_sum_s: float = 0.0
    late_most_s: float = 0.0
    histogram: tuple[int, ...] = (0,) * (len(EDGES_MS) + 1)

    def then(self, one: Scheduled, *, held: bool = False) -> "Lateness":
        """With one more answer; ``held``: there was nothing left to carry out before it."""
        bin_ = int(np.searchsorted(EDGES_MS, one.latency_s * 1000 - 1e-6))
        counts = list(self.histogram)
        counts[bin_] += 1
        return replace(
            self,
            answers=self.answers + 1,
            late=self.late + one.late,
            useless=self.useless + (not one.plans),
            dropped=self.dropped + one.dropped,
            extended=self.extended + one.extended,
            held=self.held + held,
            merged=self.merged + one.merged,
            latency_sum_s=self.latency_sum_s + one.latency_s,
            latency_most_s=max(self.latency_most_s, one.latency_s),
            late_sum_s=self.late_sum_s + one.late_s,
            late_most_s=max(self.late_most_s, one.late_s),
            histogram=tuple(counts),
        )

    def quantile_ms(self, share: float) -> float:
        """A latency that ``share`` of the answers did not exceed, to the width of a bin."""
        wanted, seen = share * self.answers, 0
        for edge, count in zip(EDGES_MS, self.histogram, strict=False):
            seen += count
            if seen >= wanted:
                return min(float(edge), 1000 * self.latency_most_s)
        return 1000 * self.latency_most_s

    def line(self) -> str:
        """For a log: what there is to know, in one line."""
        if not self.answers:
            return "no answers"
        told = [
            f"{self.answers} answers, {1000 * self.latency_sum_s / self.answers:.0f} ms after "
            f"their observation on average (95 % within {self.quantile_ms(0.95):.0f} ms, "
            f"longest {1000 * self.latency_most_s:.0f} ms)",
            f"{self.dropped} past actions dropped",
        ]
        if self.late:
            told.append(f"{self.late} answers late, by at most {1000 * self.late_most_s:.0f} ms")
        told += [f"{self.extended} old actions went on"] if self.extended else []
        told += [f"{self.held} times held"] if self.held else []
        told += [f"{self.useless} answers all past"] if self.useless else []
        told += [f"{self.merged} targets merged"] if self.merged else []
        return "; ".join(told)

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold."""
        kept = {one.name: getattr(self, one.name) for one in fields(self)}
        return kept | {"histogram": list(self.histogram), "edges_ms": list(EDGES_MS)}
