"""How chunks become actions: which part of them is executed, how late, and how they are averaged.

The one chunk convention of dp_hub: a chunk starts at the first observed step, so an action for the
newest observed step has index To - 1.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dp_hub.errors import PolicyError

ACT_ENSEMBLE = 0.01
"""The m of ACT's temporal ensembling (Zhao et al. 2023, section V)."""


@dataclass(frozen=True)
class Plan:
    """One answer of the policy."""

    step: int  # executed steps when it was asked
    chunk: np.ndarray  # float (Tp, Da), from the first observed step on


@dataclass(frozen=True)
class Execution:
    """How a policy's chunks are carried out.

    Args:
        n_action_steps: steps executed before the policy is asked again; None as it was trained.
        latency_steps: age of the newest observation when its first action is executed. The policy
            sees observations that are so many steps old, and as many of its first actions are past
            before they can be executed (``n_latency_steps`` of the original's runners).
        ensemble: ask at every step and average all chunks' actions for the current step with
            weights exp(-ensemble * i), i = 0 the oldest (ACT); None for no averaging.
    """

    n_action_steps: int | None = None
    latency_steps: int = 0
    ensemble: float | None = None

    def for_policy(self, config: Any) -> "Execution":
        """With ``n_action_steps`` filled in, and checked against a policy's configuration.

        Raises:
            PolicyError: a chunk is not long enough, or the settings contradict each other.
        """
        if self.latency_steps < 0:
            raise PolicyError(f"latency_steps is {self.latency_steps}; it cannot be negative")
        if self.ensemble is not None:
            self._check_ensemble(self.ensemble)
        each = 1 if self.ensemble is not None else self.n_action_steps or config.n_action_steps
        room = config.horizon - config.n_obs_steps + 1 - self.latency_steps
        if not 1 <= each <= room:
            late = f" {self.latency_steps} steps late" if self.latency_steps else ""
            raise PolicyError(
                f"{each} steps cannot be executed{late}: chunks of {config.horizon} steps with "
                f"{config.n_obs_steps} observed ones leave {max(room, 0)}",
                hint="a smaller n_action_steps or latency_steps",
            )
        return Execution(each, self.latency_steps, self.ensemble)

    def _check_ensemble(self, m: float) -> None:
        if not np.isfinite(m):
            raise PolicyError(f"ensemble is {m}; ACT's is {ACT_ENSEMBLE}")
        if self.n_action_steps not in (None, 1):
            raise PolicyError(
                f"n_action_steps is {self.n_action_steps}, but ensembling asks at every step",
                hint="leave out one of the two",
            )

    def first_executed(self, config: Any) -> int:
        """Index in a chunk of the first action that is executed."""
        return config.n_obs_steps - 1 + self.latency_steps

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def ensembled(predictions: np.ndarray, m: float) -> np.ndarray:
    """Temporal ensembling (Zhao et al. 2023, algorithm 2): one action from several predictions.

    Args:
        predictions: float (n, Da), all for one step, the oldest first.
        m: weights are exp(-m * i), i = 0 the oldest; 0 for the plain mean, larger for older ones.
    Returns:
        float64 (Da,).
    """
    weights = np.exp(-m * np.arange(len(predictions)))
    return weights @ predictions.astype(np.float64) / weights.sum()


def action_at(step: int, plans: Sequence[Plan], first: int, ensemble: float | None) -> np.ndarray:
    """The action to execute, float64 (Da,).

    Args:
        step: executed steps so far.
        plans: the policy's answers so far, the oldest first; the last one covers ``step``.
        first: `Execution.first_executed`.
        ensemble: `Execution.ensemble`.
    """
    if ensemble is None:
        newest = plans[-1]
        return newest.chunk[first + step - newest.step].astype(np.float64)
    indices = [first + step - plan.step for plan in plans]
    covering = [
        plan.chunk[i] for i, plan in zip(indices, plans, strict=True) if i < len(plan.chunk)
    ]
    return ensembled(np.stack(covering), ensemble)
