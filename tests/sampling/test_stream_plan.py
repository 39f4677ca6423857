"""The order of streaming, as a function of numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dp_hub.sampling.stream_plan import episode_order, pools, window_order


def made_up(n_episodes, per_file, seed=0):
    """Groups (data files of ``per_file`` episodes, videos of two), window counts, and costs."""
    generator = np.random.default_rng(seed)
    number = np.arange(n_episodes)
    groups = np.stack([number // per_file, number // 2], axis=1)
    return groups, generator.integers(0, 30, n_episodes), generator.integers(1, 100, n_episodes)


def drawn(plan, *, seed, epoch, rank):
    """(episode, number of the window in it) in the order drawn, from pools and their order."""
    for number, pool in enumerate(plan):
        rows = window_order(pool, number, seed=seed, epoch=epoch, rank=rank)
        assert len(rows) == pool.n_windows
        yield pool, rows


def windows_of(plan, counts, *, seed=0, epoch=0, rank=0):
    found = []
    for pool, rows in drawn(plan, seed=seed, epoch=epoch, rank=rank):
        table = [(e, k) for e in pool.episodes.tolist() for k in range(counts[e])]
        found += [table[row] for row in rows.tolist()]
    return found


@settings(max_examples=60)
@given(
    n_episodes=st.integers(1, 40),
    per_file=st.integers(1, 9),
    world_size=st.integers(1, 5),
    pool_bytes=st.integers(1, 1000),
    seed=st.integers(0, 3),
)
def test_processes_share_every_window_but_a_few(n_episodes, per_file, world_size, pool_bytes, seed):
    groups, counts, costs = made_up(n_episodes, per_file, seed)
    total = int(counts.sum())
    if total < world_size:
        return
    order = episode_order(groups, seed=seed, epoch=3)
    shares = []
    for rank in range(world_size):
        plan = pools(order, counts, costs, rank=rank, world_size=world_size, pool_bytes=pool_bytes)
        shares.append(windows_of(plan, counts, seed=seed, epoch=3, rank=rank))
        assert [pool.begin for pool in plan] == np.cumsum(
            [0, *(pool.n_windows for pool in plan)]
        ).tolist()[:-1]
        for pool in plan:
            assert len(pool.episodes) == 1 or costs[pool.episodes].sum() <= pool_bytes
    assert {len(share) for share in shares} == {total // world_size}
    together = [window for share in shares for window in share]
    assert len(set(together)) == len(together) == total // world_size * world_size


def test_episodes_of_a_file_stay_together_and_so_do_those_of_a_video_within_it():
    groups, _, _ = made_up(60, per_file=10)
    order = episode_order(groups, seed=1, epoch=0)
    assert sorted(order.tolist()) == list(range(60))
    for kind in range(2):
        numbers = groups[order, kind]
        assert np.count_nonzero(np.diff(numbers)) == len(np.unique(numbers)) - 1
    assert (order != np.arange(60)).mean() > 0.8
    assert (np.diff(order) == 1).mean() < 0.7


def test_one_large_file_is_shuffled_through_and_through():
    order = episode_order(np.zeros((500, 1), int), seed=0, epoch=0)
    assert (np.diff(order) == 1).sum() < 10


def test_epochs_and_seeds_have_orders_of_their_own_that_stay():
    groups, counts, costs = made_up(60, per_file=10)

    def order(seed, epoch):
        plan = pools(
            episode_order(groups, seed=seed, epoch=epoch),
            counts,
            costs,
            rank=0,
            world_size=1,
            pool_bytes=300,
        )
        return windows_of(plan, counts, seed=seed, epoch=epoch)

    assert order(0, 0) == order(0, 0)
    orders = [order(0, 0), order(0, 1), order(1, 0), order(1, 1)]
    assert len({tuple(one) for one in orders}) == 4
    assert len({frozenset(one) for one in orders}) == 1


def test_order_is_the_stored_one():
    """A checkpoint of today continues with the order of tomorrow's numpy and dp_hub."""
    groups, counts, costs = made_up(12, per_file=4)
    order = episode_order(groups, seed=42, epoch=7)
    [first, *_] = pools(order, counts, costs, rank=1, world_size=2, pool_bytes=200)
    rows = window_order(first, 0, seed=42, epoch=7, rank=1)
    assert order.tolist() == ORDER
    assert (first.episodes.tolist(), first.skipped, first.n_windows) == FIRST
    assert rows[:8].tolist() == ROWS


ORDER = [1, 0, 3, 2, 4, 5, 7, 6, 10, 11, 9, 8]
FIRST = ([6, 10, 11], 0, 48)
ROWS = [41, 8, 7, 19, 2, 0, 3, 27]


@pytest.mark.parametrize("pool_bytes", [1, 10**9])
def test_pool_holds_at_least_an_episode_and_at_most_all(pool_bytes):
    groups, counts, costs = made_up(20, per_file=5)
    order = episode_order(groups, seed=0, epoch=0)
    plan = pools(order, counts, costs, rank=0, world_size=1, pool_bytes=pool_bytes)
    assert len(plan) == (1 if pool_bytes > 1 else np.count_nonzero(counts))
