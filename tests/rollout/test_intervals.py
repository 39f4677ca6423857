import numpy as np
import pytest

from dp_hub.rollout.intervals import bootstrap_mean, wilson


def test_wilson_interval_of_published_example() -> None:
    # Newcombe (1998), Statistics in Medicine 17: 81 of 263 gives 0.2553 to 0.3662
    interval = wilson(81, 263)
    assert interval.value == pytest.approx(0.308, abs=5e-4)
    assert (interval.low, interval.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(("successes", "inside"), [(0, 0.02), (50, 0.98)])
def test_wilson_interval_is_not_empty_at_the_ends(successes: int, inside: float) -> None:
    interval = wilson(successes, 50)
    assert interval.low <= inside <= interval.high
    assert 0 <= interval.low < interval.high <= 1


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        interval = bootstrap_mean(rng.beta(5, 1, size=50), draws=500)
        covered += interval.low <= 5 / 6 <= interval.high
    assert 0.89 <= covered / 200 <= 0.98


def test_bootstrap_of_equal_values_is_a_point() -> None:
    interval = bootstrap_mean(np.full(10, 0.5))
    assert (interval.low, interval.value, interval.high) == (0.5, 0.5, 0.5)
