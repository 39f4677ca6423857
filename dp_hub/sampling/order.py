"""The order in which windows are drawn: a function of seed and epoch, split among processes."""

from collections.abc import Iterator, Mapping

import numpy as np
from torch.utils.data import Sampler

from dp_hub.errors import ConfigError

_SAME = ("seed", "batch_size", "world_size", "n_windows")


def epoch_order(n_windows: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of one epoch, int64 (W,). The same on every machine and in every process."""
    return np.random.default_rng([seed, epoch]).permutation(n_windows)


class EpochBatches(Sampler[np.ndarray]):
    """Batches of window rows, one epoch a pass; any batch of any epoch can be the first one.

    The processes of a training share one order: batch k of the whole, ``batch_size * world_size``
    windows, is cut into ``world_size`` parts, so together they see what one process with batches
    of that size would. Each process has the same number of batches, and none comes twice, except
    that without ``drop_last`` the last, short batch is filled up to a multiple of ``world_size``
    with the first windows of the epoch.

    Args:
        n_windows: rows to draw from.
        batch_size: windows in a batch of one process.
        seed: of the order, 0 or more.
        shuffle: False for the order of the table, in every epoch.
        drop_last: leave out the windows that do not fill a whole batch for every process.
        rank: number of this process.
        world_size: number of processes.
        group: batches that one optimiser step adds up; with ``drop_last`` an epoch has whole groups
            only, so that it has the same windows, however a step's are split into batches.
    Raises:
        ConfigError: sizes that give no batch, or a rank that does not exist.
    """

    def __init__(
        self,
        n_windows: int,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
        group: int = 1,
    ) -> None:
        needed = batch_size * world_size * group if drop_last else 1
        _check(n_windows, batch_size, seed, rank, world_size, group, needed)
        self.n_windows = n_windows
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.group = group
        self.epoch = 0
        self.start_batch = 0

    def __len__(self) -> int:
        """Batches in a whole epoch, whichever the next pass starts at."""
        whole, rest = divmod(self.n_windows, self.batch_size * self.world_size)
        if self.drop_last:
            return whole - whole % self.group
        return whole + 1 if rest else whole

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Let the next pass be ``epoch``, from its batch ``start_batch`` on."""
        if epoch < 0 or not 0 <= start_batch <= len(self):
            raise ConfigError(
                f"no batch {start_batch} of epoch {epoch}: an epoch has {len(self)} batches"
            )
        self.epoch, self.start_batch = epoch, start_batch

    def order(self) -> np.ndarray:
        """All rows of the current epoch, int64 (W,)."""
        if self.shuffle:
            return epoch_order(self.n_windows, self.seed, self.epoch)
        return np.arange(self.n_windows)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Rows of one batch each, int64 (B,). A pass that ends moves on to the next epoch."""
        order = self.order()
        for batch in range(self.start_batch, len(self)):
            yield self.rows(order, batch)
        self.set_epoch(self.epoch + 1)

    def rows(self, order: np.ndarray, batch: int) -> np.ndarray:
        """This process's part of one batch of ``order``, int64 (B,)."""
        size = self.batch_size * self.world_size
        whole = order[batch * size : (batch + 1) * size]
        short = -len(whole) % self.world_size
        if short:
            whole = np.concatenate([whole, np.resize(order, short)])
        part = len(whole) // self.world_size
        return whole[self.rank * part : (self.rank + 1) * part]


def position(batches: EpochBatches, epoch: int, batch: int) -> dict[str, int]:
    """Where a training is in an order of batches: plain numbers, for a checkpoint's JSON."""
    return {"epoch": epoch, "batch": batch, **{name: getattr(batches, name) for name in _SAME}}


def check_position(batches: EpochBatches, state: Mapping[str, int]) -> None:
    """Refuse a `position` from which the same batches cannot follow.

    Raises:
        ConfigError: it was taken from another seed, batch size, number of processes or windows.
    """
    if state.keys() != position(batches, 0, 0).keys():
        raise ConfigError(
            "cannot continue the order of batches: it was drawn by streaming",
            hint="resume with the settings the training began with",
        )
    for name in _SAME:
        mine = getattr(batches, name)
        if state[name] != mine:
            raise ConfigError(
                f"cannot continue the order of batches: {name} was {state[name]}, is {mine}",
                hint="resume with the settings and the data the training began with",
            )


def _check(
    n_windows: int,
    batch_size: int,
    seed: int,
    rank: int,
    world_size: int,
    group: int,
    needed: int,
) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}", hint="a batch holds at least one window")
    if seed < 0:
        raise ConfigError(f"seed is {seed}", hint="a seed is 0 or more")
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank {rank} of {world_size} processes does not exist")
    if n_windows < needed:
        batches = "one batch" if group == 1 else f"{group} batches"
        most = n_windows // (world_size * group)
        raise ConfigError(
            f"{n_windows} windows do not fill {batches} of {batch_size} "
            f"for each of {world_size} process(es)",
            hint=f"take a batch_size of at most {most}, or more episodes"
            if most
            else "take more episodes, or fewer processes",
        )
