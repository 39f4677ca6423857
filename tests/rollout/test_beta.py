"""Beta and Student quantiles against closed forms and printed tables."""

import math

import pytest

from dp_hub.rollout.beta import beta_cdf, beta_quantile, t_quantile
from dp_hub.rollout.intervals import jeffreys, share_interval


@pytest.mark.parametrize("x", [1e-6, 0.1, 0.3, 0.5, 0.77, 0.999])
def test_beta_of_two_halves_is_the_arcsine_law(x: float) -> None:
    assert beta_cdf(x, 0.5, 0.5) == pytest.approx(2 / math.pi * math.asin(math.sqrt(x)), rel=1e-12)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (3, 8), (40, 2), (120, 381)])
@pytest.mark.parametrize("x", [0.03, 0.25, 0.6, 0.97])
def test_beta_of_whole_numbers_is_a_binomial_tail(a: int, b: int, x: float) -> None:
    n = a + b - 1
    tail = math.fsum(math.comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1))
    assert beta_cdf(x, a, b) == pytest.approx(tail, rel=1e-11, abs=1e-300)


def test_quantile_inverts_the_distribution() -> None:
    for p in (0.025, 0.5, 0.975):
        for a, b in ((0.5, 500.5), (300.5, 200.5), (2.0, 0.5)):
            assert beta_cdf(beta_quantile(p, a, b), a, b) == pytest.approx(p, rel=1e-10)


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (10, 2.22814), (100, 1.98397)]
)
def test_student_quantiles_are_those_of_the_printed_table(freedom: int, t: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(t, rel=2e-6)


@pytest.mark.parametrize(
    ("successes", "low", "high"),
    # Brown, Cai and DasGupta (2001), Statistical Science 16, n = 10
    [(0, 0.0, 0.217), (1, 0.011, 0.381), (2, 0.044, 0.503), (3, 0.093, 0.606)],
)
def test_jeffreys_interval_of_the_published_table(successes: int, low: float, high: float) -> None:
    interval = jeffreys(successes, 10)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5.1e-4)
    mirrored = jeffreys(10 - successes, 10)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((interval.low, interval.high))


def test_every_interval_of_a_share_holds_it_and_names_its_method() -> None:
    methods = {name: share_interval(31, 50, name) for name in ("wilson", "beta", "bootstrap")}
    assert len({interval.method for interval in methods.values()}) == 3
    for interval in methods.values():
        assert interval.value == 0.62
        assert 0.47 < interval.low < 0.51 and 0.73 < interval.high < 0.77
