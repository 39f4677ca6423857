"""Score a policy: both of PushT's metrics, with confidence intervals, over seeded episodes."""

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dp_hub import __version__
from dp_hub.errors import PolicyError
from dp_hub.rollout.episodes import Cost, EpisodeResult, EpisodeRunner, Policy
from dp_hub.rollout.execution import Execution
from dp_hub.rollout.intervals import Interval, ShareInterval, bootstrap_mean, share_interval
from dp_hub.rollout.tasks import MAX_STEPS, check_env, make_tables, needed_features, only_first

BATCH_CPU, BATCH_GPU = 25, 100
"""Episodes in a group unless told otherwise: on a CPU small enough to share 50 between two
processes, elsewhere large, since there a call costs the same for one row and for a hundred."""


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
    first_executed: int  # index in a chunk of the first action that is executed
    processes: int = 1

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
                "processes": self.processes,
                "policy_s": self.cost.policy_s,
                "policy_calls": self.cost.calls,
                "policy_rows": self.cost.rows,
                "env_steps": steps,
            },
            "versions": _versions(),
            "episodes": [result.as_dict() for result in self.episodes],
        }


@dataclass(frozen=True)
class Job:
    """What an evaluation runs, whichever policy; made by `make_job`, checked.

    Attributes:
        env: name of the environment.
        groups: seeds; those of a group run together as one batch.
        features: observations that the policy is given.
        execution: how its chunks are carried out.
        max_steps: an episode's limit.
        only_first: features of which the policy is given the first numbers only, and how many.
    """

    env: str
    groups: tuple[range, ...]
    features: tuple[str, ...]
    execution: Execution
    max_steps: int
    only_first: Mapping[str, int] = field(default_factory=dict)

    def runner(
        self, policy: Policy, on_finish: Callable[[EpisodeResult], None] | None
    ) -> EpisodeRunner:
        """Runs any of the groups, one after the other."""
        largest = max(len(group) for group in self.groups)
        return EpisodeRunner(
            policy,
            make_tables(self.env, largest, self.features, self.max_steps),
            features={name: self.only_first.get(name) for name in self.features},
            execution=self.execution,
            on_finish=on_finish,
        )

    def settings(self) -> dict[str, Any]:
        """What the scores depend on beside the policy, as plain values."""
        return {
            "seed": self.groups[0].start,
            "episodes": sum(len(group) for group in self.groups),
            "batch_size": len(self.groups[0]),
            "max_steps": self.max_steps,
            **self.execution.as_dict(),
            **({"only_first": dict(self.only_first)} if self.only_first else {}),
        }


def make_job(
    config: Any,
    *,
    shapes: Mapping[str, int | tuple[int, int, int]] | None = None,
    env: str = "pusht",
    episodes: int = 50,
    seed: int = 100_000,
    batch_size: int = BATCH_CPU,
    max_steps: int | None = None,
    execution: Execution | None = None,
) -> Job:
    """Plan an evaluation of a policy with this configuration. Other arguments as of `evaluate`.

    Args:
        config: of the policy.
        shapes: of its features, to be compared with what the environment gives.
    Raises:
        PolicyError: it observes what the environment does not give, or cannot be run that way.
    """
    check_env(env)
    if episodes < 1 or batch_size < 1:
        raise PolicyError(f"{episodes} episodes in batches of {batch_size}: both must be positive")
    stop = seed + episodes
    starts = range(seed, stop, batch_size)
    features = needed_features(config.observations, env)
    return Job(
        env=env,
        groups=tuple(range(start, min(start + batch_size, stop)) for start in starts),
        features=features,
        execution=(execution or Execution()).for_policy(config),
        max_steps=max_steps or MAX_STEPS[env],
        only_first=only_first(shapes, features, env) if shapes else {},
    )


def evaluate(
    policy: Policy,
    *,
    env: str = "pusht",
    episodes: int = 50,
    seed: int = 100_000,
    batch_size: int = BATCH_CPU,
    max_steps: int | None = None,
    execution: Execution | None = None,
    interval: ShareInterval = "wilson",
    on_finish: Callable[[EpisodeResult], None] | None = None,
) -> Evaluation:
    """Run a policy over the seeds ``seed`` ... ``seed + episodes - 1`` and score it.

    An episode's start and its noise follow from its seed alone, so the same call gives the same
    scores, and so do other batch sizes as far as the policy's arithmetic is the same for them
    (matrix products may differ in the last bit, which contact can amplify). The same batch size
    gives the same scores exactly, on several processes too: `dp_hub.rollout.worker`.

    Args:
        policy: see `Policy`; used through ``config`` and ``predict_action`` only, and where it has
            them the shapes of its ``features``.
        env: ``pusht``.
        batch_size: so many consecutive seeds run together.
        max_steps: an episode's limit; the environment's own (300) when None.
        execution: how chunks are carried out; None: as the policy was trained.
        interval: of the success rate.
        on_finish: called with each episode as it ends.
    Raises:
        PolicyError: it observes what the environment does not give, or predicts no numbers.
    """
    job = make_job(
        policy.config,
        shapes=getattr(policy, "features", None),
        env=env,
        episodes=episodes,
        seed=seed,
        batch_size=batch_size,
        max_steps=max_steps,
        execution=execution,
    )
    began = time.perf_counter()
    runner = job.runner(policy, on_finish)
    results = [result for group in job.groups for result in runner.run(group)]
    return summarise(
        job,
        results,
        first_executed=job.execution.first_executed(policy.config),
        cost=runner.cost,
        wall_s=time.perf_counter() - began,
        interval=interval,
    )


def summarise(
    job: Job,
    results: Sequence[EpisodeResult],
    *,
    first_executed: int,
    cost: Cost,
    wall_s: float,
    interval: ShareInterval = "wilson",
    processes: int = 1,
) -> Evaluation:
    """The scores of some episodes, at least one."""
    best = np.array([result.max_reward for result in results])
    return Evaluation(
        env=job.env,
        episodes=tuple(results),
        reward=bootstrap_mean(best),
        success=share_interval(sum(result.success for result in results), len(results), interval),
        config=job.settings(),
        cost=cost,
        wall_s=wall_s,
        first_executed=first_executed,
        processes=processes,
    )


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Compute with ``n`` threads: how many there are may change the last bit of a sum."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
