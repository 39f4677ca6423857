"""When the policy is asked next: by the observations, and ahead of time where answers take long."""

import math
from collections import deque
from typing import Literal

import numpy as np

from dp_hub.robot.clock import SAME_S


class Pace:
    """Chooses the observations that the policy is asked with.

    The next one is ``n_action_steps`` periods after the last one it was asked with, or ``ahead``
    steps less: then the answer is there when those actions are through, not only their number
    later, and no action beyond them is carried out. Of the observations that there are the nearest
    one is taken, so that a camera's frames set the beat and nothing drifts against them.

    Args:
        period_s: between actions.
        n_action_steps: Ta.
        ahead: steps; ``auto``: as many as the measured latencies need, at most Ta - 1.
        grid_s: between observations; 0 if they can be had at any time.
        share: of the answers that ``auto`` lets come in time.
        memory: how many of the newest latencies count.
    """

    def __init__(
        self,
        *,
        period_s: float,
        n_action_steps: int,
        ahead: int | Literal["auto"] = 0,
        grid_s: float = 0.0,
        share: float = 0.95,
        memory: int = 100,
    ) -> None:
        assert ahead == "auto" or 0 <= ahead < n_action_steps, (ahead, n_action_steps)
        self._period_s, self._n_action_steps = period_s, n_action_steps
        self._ahead, self._grid_s, self._share = ahead, grid_s, share
        self._latencies_s: deque[float] = deque(maxlen=memory)
        self._last_s: float | None = None

    @property
    def latency_s(self) -> float:
        """What ``share`` of the newest latencies did not exceed; 0 before the first."""
        if not self._latencies_s:
            return 0.0
        kept = np.fromiter(self._latencies_s, np.float64)
        return float(np.quantile(kept, self._share, method="higher"))

    @property
    def ahead(self) -> int:
        """Steps by which it asks earlier."""
        if self._ahead != "auto":
            return self._ahead
        steps = math.ceil((self.latency_s - SAME_S) / self._period_s)
        return min(max(steps, 0), self._n_action_steps - 1)

    @property
    def next_s(self) -> float:
        """Time of the observation to ask with next; -inf: the first there is."""
        if self._last_s is None:
            return -math.inf
        return self._last_s + (self._n_action_steps - self.ahead) * self._period_s

    def wants(self, observed_s: float) -> bool:
        """Whether to ask with the newest observation, of this time."""
        return observed_s >= self.next_s - self._grid_s / 2 - SAME_S

    def asked(self, observed_s: float) -> None:
        """The policy was asked with the observation of this time."""
        self._last_s = observed_s

    def answered(self, latency_s: float) -> None:
        """An answer came; from its observation to the arm moving by it (`Scheduled.latency_s`)."""
        self._latencies_s.append(latency_s)

    def reset(self) -> None:
        """Ask with the next observation; what was measured stays."""
        self._last_s = None
