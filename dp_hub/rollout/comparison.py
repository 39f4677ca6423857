"""Two policies on the same start states: the difference, episode by episode.

Pairing takes out how hard each start state is, which is most of the spread of scores.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.errors import DataError
from dp_hub.rollout.intervals import Interval, bootstrap_mean

# Whatever else differs is what is compared.
SAME = ("env", "seeds", "max_steps")
SETTINGS = ("scheduler", "steps", "n_action_steps", "latency_steps", "ensemble", "batch_size")


@dataclass(frozen=True)
class Scores:
    """What is compared: one evaluation, from scores.json or just made.

    Attributes:
        name: for the table.
        env: name of the environment.
        seeds: of the episodes.
        max_steps: an episode's limit.
        max_reward: float64 (E,).
        success: bool (E,).
        settings: how the policy was run.
    """

    name: str
    env: str
    seeds: tuple[int, ...]
    max_steps: int
    max_reward: np.ndarray
    success: np.ndarray
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """A beside B. Differences are A - B."""

    a: Scores
    b: Scores
    reward: Interval
    """Difference of the means of maximum rewards, with a bootstrap interval over pairs."""
    success: float
    """Difference of the success rates."""
    only_a: int
    """Episodes in which A alone succeeded."""
    only_b: int
    """Episodes in which B alone succeeded."""
    p_success: float
    """McNemar's exact test of equal success rates, two-sided."""
    wins: int
    """Episodes in which A's maximum reward is the higher one."""
    ties: int
    losses: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "env": self.a.env,
            "n_episodes": len(self.a.seeds),
            "seed": self.a.seeds[0],
            "a": _side(self.a),
            "b": _side(self.b),
            "mean_max_reward_difference": self.reward.as_dict(),
            "success_rate_difference": self.success,
            "only_a_succeeded": self.only_a,
            "only_b_succeeded": self.only_b,
            "mcnemar_p": self.p_success,
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
        }


def compare(a: Scores, b: Scores) -> Comparison:
    """Compare two evaluations of the same episodes.

    Raises:
        DataError: their episodes are not the same ones, and how they differ.
    """
    _check_same(a, b)
    difference = a.max_reward - b.max_reward
    only_a, only_b = int((a.success & ~b.success).sum()), int((b.success & ~a.success).sum())
    return Comparison(
        a=a,
        b=b,
        reward=bootstrap_mean(difference),
        success=float(a.success.mean() - b.success.mean()),
        only_a=only_a,
        only_b=only_b,
        p_success=mcnemar_exact(only_a, only_b),
        wins=int((difference > 0).sum()),
        ties=int((difference == 0).sum()),
        losses=int((difference < 0).sum()),
    )


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p-value that both succeed equally often, from the pairs in which one did alone.

    Under that hypothesis ``only_a`` of the n discordant pairs is binomial(n, 1/2).
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n)


def scores_from(values: Mapping[str, Any], *, name: str) -> Scores:
    """From what scores.json holds. Raises KeyError, TypeError or ValueError if it is not that."""
    rows, config = values["episodes"], values["config"]
    if not rows:
        raise ValueError("no episodes")
    return Scores(
        name=name,
        env=str(values["env"]),
        seeds=tuple(int(row["seed"]) for row in rows),
        max_steps=int(config["max_steps"]),
        max_reward=np.array([float(row["max_reward"]) for row in rows]),
        success=np.array([bool(row["success"]) for row in rows]),
        settings={key: config.get(key) for key in SETTINGS},
    )


def read_scores(path: Path) -> Scores:
    """A scores.json as ``dp-hub eval`` writes it. Raises DataError."""
    try:
        return scores_from(json.loads(path.read_text(encoding="utf-8")), name=str(path))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except KeyError as error:
        raise DataError(f"{path} does not hold scores: it lacks {error}", hint=_HINT) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} does not hold scores: {error}", hint=_HINT) from None


_HINT = "`dp-hub eval POLICY --json scores.json` writes such a file"


def _check_same(a: Scores, b: Scores) -> None:
    different = [key for key in SAME if getattr(a, key) != getattr(b, key)]
    if not different:
        return
    told = [f"{key}: {_short(getattr(a, key))} and {_short(getattr(b, key))}" for key in different]
    raise DataError(
        f"{a.name} and {b.name} were not run on the same episodes: {'; '.join(told)}",
        hint="evaluate both with the same --env, --seed and --episodes",
    )


def check_seeds(scores: Scores, seed: int, episodes: int) -> None:
    """Raises DataError unless the episodes are those of ``episodes`` seeds from ``seed`` on."""
    wanted = tuple(range(seed, seed + episodes))
    if scores.seeds != wanted:
        raise DataError(
            f"{scores.name} has other episodes than asked for: seeds {_short(scores.seeds)}, "
            f"not {_short(wanted)}",
            hint="leave out --seed and --episodes to take the file's",
        )


def _short(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    if value == tuple(range(value[0], value[0] + len(value))):
        return f"{value[0]} to {value[-1]}"
    return f"{len(value)} seeds, {', '.join(map(str, value[:3]))}, ..."


def _side(scores: Scores) -> dict[str, Any]:
    return {
        "name": scores.name,
        "mean_max_reward": float(scores.max_reward.mean()),
        "success_rate": float(scores.success.mean()),
        "settings": dict(scores.settings),
    }
