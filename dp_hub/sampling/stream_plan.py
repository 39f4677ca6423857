"""The order in which a dataset is streamed: a function of seed, epoch, processes and pool size.

Files are permuted, then the episodes within each file, so that a file is needed during one stretch
of the epoch only. The windows of the episodes in that order make one long line; each process takes
an equal stretch of it. Along its stretch a process forms pools: runs of episodes that fit into a
given memory, whose windows are drawn in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Streams of random numbers of one seed and epoch.
_OF_EPISODES, _OF_WINDOWS = 1, 2


@dataclass(frozen=True)
class Pool:
    """Episodes that are in memory together.

    Attributes:
        episodes: int64 (P,), in the order of the epoch.
        skipped: windows of the first episode that are another process's.
        begin: windows this process draws before those of this pool.
        n_windows: windows it draws from it.
    """

    episodes: np.ndarray
    skipped: int
    begin: int
    n_windows: int


def episode_order(groups: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """All episodes, int64 (E,), those of a file side by side.

    Args:
        groups: int (E, G), the files each episode lies in, the kind with the largest files first.
            A file of a later kind that two of an earlier kind share is met twice.
        seed, epoch: of the draw.
    """
    generator = np.random.default_rng([seed, epoch, _OF_EPISODES])
    keys = [generator.permutation(len(groups))]
    for column in groups.T[::-1]:
        keys.append(generator.permutation(int(column.max()) + 1)[column])
    return np.lexsort(keys)  # by the last key first


def pools(
    order: np.ndarray,
    counts: np.ndarray,
    costs: np.ndarray,
    *,
    rank: int,
    world_size: int,
    pool_bytes: int,
) -> list[Pool]:
    """What one process draws in an epoch.

    Every process has ``sum(counts) // world_size`` windows; the few left over are left out.

    Args:
        order: int (E,), from `episode_order`.
        counts: int (E,), windows of each episode; those with none are passed over.
        costs: int (E,), bytes of each in memory.
        rank, world_size: which process of how many.
        pool_bytes: of a pool; an episode larger than that makes a pool of its own.
    """
    order = order[counts[order] > 0]
    stops = np.cumsum(counts[order])
    starts = stops - counts[order]
    each = int(stops[-1]) // world_size
    low, high = rank * each, (rank + 1) * each
    first = int(np.searchsorted(stops, low, side="right"))
    end = int(np.searchsorted(stops, high, side="left")) + 1
    result = []
    for a, b in _cuts(costs[order], first, end, pool_bytes):
        begin, stop = max(low, int(starts[a])), min(high, int(stops[b - 1]))
        result.append(Pool(order[a:b], begin - int(starts[a]), begin - low, stop - begin))
    return result


def window_order(pool: Pool, number: int, *, seed: int, epoch: int, rank: int) -> np.ndarray:
    """The order of the windows of an epoch's pool: rows of its table, int64 (n_windows,)."""
    generator = np.random.default_rng([seed, epoch, _OF_WINDOWS, rank, number])
    return pool.skipped + generator.permutation(pool.n_windows)


def _cuts(costs: np.ndarray, first: int, end: int, most: int) -> Sequence[tuple[int, int]]:
    """Runs of ``first`` up to ``end`` that cost no more than ``most``, or are one."""
    upto = np.concatenate([[0], np.cumsum(costs)])
    cuts = []
    while first < end:
        stop = int(np.searchsorted(upto, upto[first] + most, side="right")) - 1
        stop = min(max(stop, first + 1), end)
        cuts.append((first, stop))
        first = stop
    return cuts
