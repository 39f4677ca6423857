"""Batches of windows from columns in memory or memory-mapped: one gather per column and batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dp_hub.errors import ConfigError
from dp_hub.sampling.frame_file import FrameFile
from dp_hub.sampling.gather import PAD_KEY, as_stored, check_fit, observed_keys
from dp_hub.sampling.order import EpochBatches
from dp_hub.sampling.twins import TwinPictures
from dp_hub.sampling.windows import WindowTable

Batch = dict[str, Tensor]
Column = np.ndarray | TwinPictures


class WindowDataset(Dataset[Batch]):
    """The windows of a table, read from columns.

    A batch holds every observed column, float32 (B, n_obs_steps, D) or uint8
    (B, n_obs_steps, H, W, C); ``action``, float32 (B, horizon, Da); ``action_is_pad``, bool
    (B, horizon), True where the action repeats the episode's edge. Of the observed columns only
    the first ``n_obs_steps`` frames of a window are read.

    Args:
        columns: whole columns, (N, ...), as :meth:`dp_hub.dataset.reader.Dataset.column` gives
            them. Pictures that are memory maps are read from their files, batch by batch, so they
            take no memory, and go to other processes by name.
        table: the windows.
        horizon: of the table; checked.
        n_obs_steps: observed frames, the first of each window.
        action_key: the column of actions; ``action`` in the batch.
        keys: the observed columns; all named ``observation...`` when None.
    Raises:
        DataError: a column is missing, shorter than the windows reach, or not numbers.
        ConfigError: another horizon than the table's, or more observed steps than it has.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        table: WindowTable,
        *,
        horizon: int,
        n_obs_steps: int,
        action_key: str = "action",
        keys: Sequence[str] | None = None,
    ) -> None:
        if horizon != table.horizon:
            raise ConfigError(f"horizon is {horizon}, but the windows have {table.horizon} frames")
        self.table = table
        self.n_obs_steps = n_obs_steps
        observed = {
            name: as_stored(columns[name]) for name in observed_keys(columns, keys, action_key)
        }
        self.actions = as_stored(columns[action_key])
        last_frame = int(table.hi.max(initial=0))
        check_fit({**observed, action_key: self.actions}, last_frame, n_obs_steps, table.horizon)
        self.observed = {name: FrameFile.of(column) or column for name, column in observed.items()}

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> Batch:
        """One window: as a batch, without the first dimension."""
        return {name: values[0] for name, values in self.__getitems__(np.array([row])).items()}

    def __getitems__(self, rows: np.ndarray | Sequence[int]) -> Batch:
        """The batch of some windows, rows int64 (B,) of the table."""
        rows = np.asarray(rows)
        frames = self.table.frames(rows)
        seen = np.ascontiguousarray(frames[:, : self.n_obs_steps])
        batch = {name: _take(column, seen) for name, column in self.observed.items()}
        batch["action"] = _take(self.actions, frames)
        batch[PAD_KEY] = torch.from_numpy(self.table.is_pad(rows))
        return batch


class WindowLoader(DataLoader[Batch]):
    """A DataLoader whose passes are epochs of a known order; see :func:`make_loader`."""

    batches: EpochBatches

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Let the next pass be ``epoch``, from its batch ``start_batch`` on.

        Order and content of the batches depend on nothing else, so a training continues exactly
        with ``epoch, start_batch = divmod(batches_seen, len(loader))``.
        """
        self.batches.set_epoch(epoch, start_batch)


def make_loader(
    dataset: WindowDataset,
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = True,
    drop_last: bool = True,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> WindowLoader:
    """A resumable loader of whole batches, already split among processes.

    Each process of a training makes its own with its ``rank``; accelerate's ``prepare`` is not
    needed, and would split a second time. A pass that ends moves on to the next epoch;
    ``set_epoch`` goes anywhere. Without worker processes it is fastest: to gather a batch costs
    less than to send it.

    Args: as :class:`dp_hub.sampling.order.EpochBatches` and ``torch.utils.data.DataLoader``.
    """
    batches = EpochBatches(
        len(dataset),
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
    )
    loader = WindowLoader(
        dataset,
        batch_sampler=batches,  # type: ignore[arg-type]  # rows as arrays, not lists of int
        collate_fn=_as_is,
        num_workers=num_workers,
        pin_memory=pin_memory,
    )
    loader.batches = batches
    return loader


def _as_is(batch: Any) -> Any:
    return batch


def _take(column: np.ndarray | FrameFile | TwinPictures, frames: np.ndarray) -> Tensor:
    if isinstance(column, FrameFile | TwinPictures):
        return torch.from_numpy(column.windows(frames))
    # `take` of the base class: a memmap would wrap its result in a memmap, and cost more.
    return torch.from_numpy(np.asarray(column).take(frames, axis=0))
