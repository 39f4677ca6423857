"""Confidence intervals of the two numbers every evaluation reports."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from dp_hub.rollout.beta import beta_quantile, t_quantile

_Z_95 = 1.959963984540054

ShareInterval = Literal["wilson", "beta", "bootstrap"]


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float
    method: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def bootstrap_mean(values: np.ndarray, *, draws: int = 10_000, seed: int = 0) -> Interval:
    """The mean of ``values`` (n,) with its percentile bootstrap interval."""
    rng = np.random.default_rng(seed)
    n = len(values)
    means = values[rng.integers(n, size=(draws, n))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    method = f"percentile bootstrap over episodes, {draws} draws"
    return Interval(float(values.mean()), float(low), float(high), method)


def share_interval(successes: int, n: int, method: ShareInterval) -> Interval:
    """The share of ``successes`` in ``n`` trials with an interval by one of three methods."""
    match method:
        case "wilson":
            return wilson(successes, n)
        case "beta":
            return jeffreys(successes, n)
        case "bootstrap":
            return bootstrap_mean(np.repeat([1.0, 0.0], [successes, n - successes]))


def wilson(successes: int, n: int) -> Interval:
    """The share of ``successes`` in ``n`` trials with its Wilson score interval."""
    share, z2 = successes / n, _Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), "Wilson score")


def jeffreys(successes: int, n: int) -> Interval:
    """The share of ``successes`` in ``n`` trials with Jeffreys' interval.

    Quantiles of Beta(successes + 1/2, failures + 1/2), and the end itself where there were only
    failures or only successes (Brown, Cai and DasGupta 2001, section 4.1.2).
    """
    a, b = successes + 0.5, n - successes + 0.5
    low = 0.0 if successes == 0 else beta_quantile(0.025, a, b)
    high = 1.0 if successes == n else beta_quantile(0.975, a, b)
    return Interval(successes / n, low, high, "Jeffreys beta")


def t_mean(values: np.ndarray) -> Interval:
    """The mean of ``values`` (n,) with Student's t interval: for a few training seeds.

    A single value has no interval: its ends are NaN.
    """
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, "none of a single training seed")
    half = t_quantile(0.975, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, f"Student t over {n} training seeds")
