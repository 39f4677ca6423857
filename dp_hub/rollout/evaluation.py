"""Score a policy: both of PushT's metrics, with confidence intervals, over seeded episodes."""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp_hub import __version__
from dp_hub.errors import PolicyError
from dp_hub.rollout.episodes import Cost, EpisodeResult, EpisodeRunner, Policy
from dp_hub.rollout.intervals import Interval, bootstrap_mean, wilson
from dp_hub.rollout.tasks import MAX_STEPS, check_env, make_tables, needed_features


@dataclass(frozen=True)
class Evaluation:
    """The scores of one policy.

    ``mean_max_reward`` is the mean over episodes of each one's highest reward (the paper's
    number), ``success_rate`` the share of episodes that ever covered more than 95 % of the goal.
    """

    env: str
    episodes: tuple[EpisodeResult, ...]
    reward: Interval
    success: Interval
    config: dict[str, Any]
    cost: Cost
    wall_s: float

    @property
    def mean_max_reward(self) -> float:
        """The estimate; ``reward`` has its confidence interval too."""
        return self.reward.value

    @property
    def success_rate(self) -> float:
        """The estimate; ``success`` has its confidence interval too."""
        return self.success.value

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values: metrics, cost, settings, versions and one row per episode."""
        n, steps = len(self.episodes), sum(result.steps for result in self.episodes)
        return {
            "env": self.env,
            "n_episodes": n,
            "metrics": {
                "mean_max_reward": self.reward.as_dict(),
                "success_rate": self.success.as_dict(),
                "mean_steps": steps / n,
            },
            "config": self.config,
            "cost": {
                "wall_s": self.wall_s,
                "policy_s": self.cost.policy_s,
                "policy_calls": self.cost.calls,
                "policy_rows": self.cost.rows,
                "env_steps": steps,
            },
            "versions": _versions(),
            "episodes": [result.as_dict() for result in self.episodes],
        }


def evaluate(
    policy: Policy,
    *,
    env: str = "pusht",
    episodes: int = 50,
    seed: int = 100_000,
    batch_size: int = 64,
    max_steps: int | None = None,
    on_finish: Callable[[EpisodeResult], None] | None = None,
) -> Evaluation:
    """Run a policy over the seeds ``seed`` ... ``seed + episodes - 1`` and score it.

    An episode's start and its noise follow from its seed alone, so the same call gives the same
    scores, and so do other batch sizes as far as the policy's arithmetic is the same for them
    (matrix products may differ in the last bit, which contact can amplify).

    Args:
        policy: see `Policy`; used through ``config`` and ``predict_action`` only.
        env: ``pusht``.
        batch_size: most environments that run at once.
        max_steps: an episode's limit; the environment's own (300) when None.
        on_finish: called with each episode as it ends.
    Raises:
        PolicyError: it observes what the environment does not give, or predicts no numbers.
    """
    check_env(env)
    if episodes < 1 or batch_size < 1:
        raise PolicyError(f"{episodes} episodes in batches of {batch_size}: both must be positive")
    features = needed_features(policy.config.observations, env)
    limit = max_steps or MAX_STEPS[env]
    began = time.perf_counter()
    tables = make_tables(env, min(batch_size, episodes), features, limit)
    runner = EpisodeRunner(policy, tables, features=features, on_finish=on_finish)
    results = runner.run(range(seed, seed + episodes))
    wall_s = time.perf_counter() - began
    config = {"seed": seed, "episodes": episodes, "batch_size": batch_size, "max_steps": limit}
    return summarise(env, results, config=config, cost=runner.cost, wall_s=wall_s)


def summarise(
    env: str,
    results: Sequence[EpisodeResult],
    *,
    config: dict[str, Any],
    cost: Cost,
    wall_s: float,
) -> Evaluation:
    """The scores of some episodes, at least one."""
    best = np.array([result.max_reward for result in results])
    return Evaluation(
        env=env,
        episodes=tuple(results),
        reward=bootstrap_mean(best),
        success=wilson(sum(result.success for result in results), len(results)),
        config=config,
        cost=cost,
        wall_s=wall_s,
    )


def _versions() -> dict[str, str]:
    import pymunk
    import torch

    return {
        "dp_hub": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pymunk": pymunk.version,
    }
