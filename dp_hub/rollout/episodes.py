"""Episodes of a policy in many environments at once.

A group of episodes starts together and runs until all have ended; a finished one leaves the batch,
so no inference is spent on it. Each has a generator of its own for its noise, and nothing outside
a group has a part in its arithmetic, so scores are a function of the seeds and the size of groups:
in whatever order or process the groups run.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dp_hub.envs.pusht.vector import PushTVector
from dp_hub.errors import PolicyError
from dp_hub.rollout.execution import Execution, Plan, action_at


class Policy(Protocol):
    """What is asked of a policy. ``dp_hub.policies`` has them; anything of this form will do."""

    @property
    def config(self) -> Any:
        """Has ``observations``, ``n_obs_steps``, ``n_action_steps`` and ``horizon``."""

    def predict_action(
        self, obs: dict[str, Tensor], *, generator: Sequence[torch.Generator]
    ) -> Mapping[str, Tensor]:
        """``action`` (B, Ta, Da) to execute and ``action_pred`` (B, Tp, Da), raw units."""


@dataclass(frozen=True)
class EpisodeResult:
    """One episode: its score, and all that is needed to show it again."""

    seed: int
    max_reward: float
    final_reward: float
    success: bool
    steps: int
    actions: np.ndarray = field(repr=False)  # float64 (steps, Da)
    plans: tuple[Plan, ...] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Its row of the table: the scores, without actions and plans."""
        names = ("seed", "max_reward", "final_reward", "success", "steps")
        return {name: getattr(self, name) for name in names}


@dataclass
class Cost:
    """What the policy cost."""

    calls: int = 0
    rows: int = 0
    policy_s: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.calls + other.calls, self.rows + other.rows, self.policy_s + other.policy_s
        )


class _Slot:
    """An episode under way in one environment of the batch."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        self.rewards: list[float] = []
        self.actions: list[np.ndarray] = []
        self.plans: list[Plan] = []
        self.success = False

    @property
    def recent(self) -> list[Plan]:
        """The plans that may still have a part in the next action."""
        return self.plans[-len(self.plans[-1].chunk) :]

    def result(self) -> EpisodeResult:
        return EpisodeResult(
            seed=self.seed,
            max_reward=max(self.rewards),
            final_reward=self.rewards[-1],
            success=self.success,
            steps=len(self.rewards),
            actions=np.array(self.actions),
            plans=tuple(self.plans),
        )


class EpisodeRunner:
    """Runs a policy through groups of episodes.

    Args:
        policy: see `Policy`; in eval mode.
        tables: the environments, as many as the largest group has episodes.
        features: observations to give the policy; how many of the first numbers, or None for all.
        execution: made for this policy (`Execution.for_policy`).
        on_finish: called with each episode as it ends.
    """

    def __init__(
        self,
        policy: Policy,
        tables: PushTVector,
        *,
        features: Mapping[str, int | None],
        execution: Execution,
        on_finish: Callable[[EpisodeResult], None] | None = None,
    ) -> None:
        assert execution.n_action_steps is not None, execution
        self._policy, self._tables, self._features = policy, tables, dict(features)
        self._every, self._execution = execution.n_action_steps, execution
        self._first = execution.first_executed(policy.config)
        self._on_finish = on_finish
        self._slots: dict[int, _Slot] = {}  # the running ones, by environment
        self._history: dict[str, np.ndarray] = {}  # each (n_envs, To + latency_steps, ...)
        self.cost = Cost()

    def run(self, seeds: Sequence[int]) -> list[EpisodeResult]:
        """One episode per seed, started together, in the order of ``seeds``."""
        self._start(seeds)
        finished: dict[int, EpisodeResult] = {}
        step = 0
        while self._slots:
            if step % self._every == 0:
                self._ask(step)
            for result in self._step(self._actions(step)):
                finished[result.seed] = result
                if self._on_finish:
                    self._on_finish(result)
            step += 1
        return [finished[seed] for seed in seeds]

    def _start(self, seeds: Sequence[int]) -> None:
        """New episodes; the history of each is its first observation over and over."""
        assert len(seeds) <= self._tables.n_envs, (len(seeds), self._tables.n_envs)
        self._slots = {i: _Slot(seed) for i, seed in enumerate(seeds)}
        for i, seed in enumerate(seeds):
            self._tables.restart(i, seed)
        observation = self._observed(self._tables.observe())
        kept = self._policy.config.n_obs_steps + self._execution.latency_steps
        for name, values in observation.items():
            dtype = np.uint8 if values.dtype == np.uint8 else np.float32
            self._history[name] = np.repeat(values.astype(dtype)[:, None], kept, axis=1)

    def _ask(self, step: int) -> None:
        """One call of the policy for all running episodes."""
        rows, slots = list(self._slots), list(self._slots.values())
        seen = self._policy.config.n_obs_steps  # the older ones where observations are late
        obs = {name: torch.from_numpy(kept[rows, :seen]) for name, kept in self._history.items()}
        began = time.perf_counter()
        with torch.inference_mode():
            answer = self._policy.predict_action(obs, generator=[s.generator for s in slots])
        chunks = _numbers(answer["action_pred"])
        self.cost += Cost(1, len(rows), time.perf_counter() - began)
        for slot, chunk in zip(slots, chunks, strict=True):
            if not np.isfinite(chunk).all():
                raise PolicyError(
                    f"the policy's actions for seed {slot.seed} are not finite numbers "
                    f"(step {step}): {chunk[self._first :].ravel()[:4]}..."
                )
            slot.plans.append(Plan(step, chunk))

    def _actions(self, step: int) -> np.ndarray:
        """What every environment does next, float64 (n_envs, Da); zero where none is running."""
        due = {
            i: action_at(step, slot.recent, self._first, self._execution.ensemble)
            for i, slot in self._slots.items()
        }
        actions = np.zeros((self._tables.n_envs, len(next(iter(due.values())))))
        for i, action in due.items():
            actions[i] = action
        return actions

    def _step(self, actions: np.ndarray) -> list[EpisodeResult]:
        """Carry out one action of each running episode; those that ended with it."""
        rows = list(self._slots)
        active = np.isin(np.arange(self._tables.n_envs), rows)
        observation, reward, terminated = self._tables.step(actions, active)
        over = terminated | self._tables.truncated()
        self._remember(self._observed(observation), rows)
        ended = []
        for i in rows:
            slot = self._slots[i]
            slot.rewards.append(float(reward[i]))
            slot.actions.append(actions[i].copy())
            slot.success = bool(terminated[i])
            if over[i]:
                ended.append(slot.result())
                del self._slots[i]
        return ended

    def _observed(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: given[name][:, :first] for name, first in self._features.items()}

    def _remember(self, observation: Mapping[str, np.ndarray], rows: list[int]) -> None:
        for name, kept in self._history.items():
            kept[rows, :-1] = kept[rows, 1:]
            kept[rows, -1] = observation[name][rows]


def _numbers(values: Tensor) -> np.ndarray:
    """float64 if they are, else float32."""
    return (values if values.dtype == torch.float64 else values.float()).cpu().numpy()
