"""Confidence intervals of the two numbers every evaluation reports."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_Z_95 = 1.959963984540054


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


def wilson(successes: int, n: int) -> Interval:
    """The share of ``successes`` in ``n`` trials with its Wilson score interval."""
    share, z2 = successes / n, _Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), "Wilson score")
