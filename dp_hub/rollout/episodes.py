"""Episodes of a policy in many environments at once.

Every slot of the batch runs one episode after the other; a finished one makes room for the next
when the policy is asked again, so no inference is spent on it. What an episode does depends on
its own seed only: its noise comes from a generator of its own.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dp_hub.envs.pusht.vector import PushTVector
from dp_hub.errors import PolicyError


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
class Plan:
    """One answer of the policy."""

    step: int  # executed steps when it was asked
    chunk: np.ndarray  # float32 (Tp, Da), from the first observed step on


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


class _Slot:
    """An episode under way in one environment of the batch."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        self.rewards: list[float] = []
        self.actions: list[np.ndarray] = []
        self.plans: list[Plan] = []
        self.success = False

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
    """Runs a policy through the episodes of some seeds.

    Args:
        policy: see `Policy`; in eval mode.
        tables: the environments, as many as fit one batch.
        features: observations to give the policy.
        on_finish: called with each episode as it ends.
    """

    def __init__(
        self,
        policy: Policy,
        tables: PushTVector,
        *,
        features: Sequence[str],
        on_finish: Callable[[EpisodeResult], None] | None = None,
    ) -> None:
        self._policy, self._tables, self._features = policy, tables, tuple(features)
        self._on_finish = on_finish
        self._slots: list[_Slot | None] = [None] * tables.n_envs
        self._history: dict[str, np.ndarray] = {}  # each (n_envs, To, ...)
        self.cost = Cost()

    def run(self, seeds: Sequence[int]) -> list[EpisodeResult]:
        """One episode per seed, in the order of ``seeds``."""
        waiting = iter(seeds)
        finished: dict[int, EpisodeResult] = {}
        while self._fill(waiting):
            actions = self._ask()
            for result in self._execute(actions):
                finished[result.seed] = result
                if self._on_finish:
                    self._on_finish(result)
        return [finished[seed] for seed in seeds]

    def _running(self) -> np.ndarray:
        return np.flatnonzero([slot is not None for slot in self._slots])

    def _fill(self, waiting: Iterator[int]) -> bool:
        """Start waiting episodes in free slots; whether any slot is running."""
        started = []
        for i, slot in enumerate(self._slots):
            if slot is None and (seed := next(waiting, None)) is not None:
                self._slots[i] = _Slot(seed)
                self._tables.restart(i, seed)
                started.append(i)
        if started:
            observation = self._tables.observe()
            for name in self._features:
                self._pad(name, observation[name], started)
        return len(self._running()) > 0

    def _pad(self, name: str, values: np.ndarray, started: list[int]) -> None:
        """A new episode's history is its first observation over and over."""
        if name not in self._history:
            n_obs_steps = self._policy.config.n_obs_steps
            shape = (len(values), n_obs_steps, *values.shape[1:])
            dtype = np.uint8 if values.dtype == np.uint8 else np.float32
            self._history[name] = np.zeros(shape, dtype)
        self._history[name][started] = values[started][:, None]

    def _ask(self) -> np.ndarray:
        """Actions of the running slots, float64 (n_envs, Ta, Da); other rows are zero."""
        rows = self._running()
        slots = [slot for slot in self._slots if slot is not None]
        obs = {name: torch.from_numpy(kept[rows]) for name, kept in self._history.items()}
        began = time.perf_counter()
        with torch.inference_mode():
            answer = self._policy.predict_action(obs, generator=[s.generator for s in slots])
        chunks = answer["action_pred"].float().cpu().numpy()
        due = answer["action"].double().cpu().numpy()
        self.cost.policy_s += time.perf_counter() - began
        self.cost.calls += 1
        self.cost.rows += len(rows)
        for slot, chunk, action in zip(slots, chunks, due, strict=True):
            if not np.isfinite(action).all():
                raise PolicyError(
                    f"the policy's actions for seed {slot.seed} are not finite numbers "
                    f"(step {len(slot.rewards)}): {action.ravel()[:4]}..."
                )
            slot.plans.append(Plan(len(slot.rewards), chunk))
        actions = np.zeros((len(self._slots), *due.shape[1:]))
        actions[rows] = due
        return actions

    def _execute(self, actions: np.ndarray) -> list[EpisodeResult]:
        """Carry out the chunk; the episodes that ended on the way."""
        ended = []
        for k in range(actions.shape[1]):
            rows = self._running()
            if len(rows) == 0:
                break
            active = np.isin(np.arange(len(self._slots)), rows)
            observation, reward, terminated = self._tables.step(actions[:, k], active)
            over = terminated | self._tables.truncated()
            self._remember(observation, rows)
            for i in rows:
                slot = self._slots[i]
                assert slot is not None, i
                slot.rewards.append(float(reward[i]))
                slot.actions.append(actions[i, k].copy())
                slot.success = bool(terminated[i])
                if over[i]:
                    ended.append(slot.result())
                    self._slots[i] = None
        return ended

    def _remember(self, observation: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
        for name, kept in self._history.items():
            kept[rows, :-1] = kept[rows, 1:]
            kept[rows, -1] = observation[name][rows]
