"""Batches read from columns on the host, one ahead of the training that asks for them.

For columns that are too large for the device, or live in files: the pictures of a frame cache.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from dp_hub.sampling.loader import WindowDataset
from dp_hub.sampling.order import EpochBatches, check_position, position

Batch = dict[str, Tensor]


class HostSampler:
    """An endless iterator of batches, with the interface and the order of `DeviceSampler`.

    A thread reads the next batch (and puts it into pinned memory for a GPU) while the current one
    is trained on; memory stays that of two batches.

    Args:
        windows: what to draw from.
        batch_size, seed, rank, world_size, group: as :class:`dp_hub.sampling.order.EpochBatches`.
        device: where batches go.
    Raises:
        ConfigError: too few windows for a batch.
    """

    def __init__(
        self,
        windows: WindowDataset,
        *,
        batch_size: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
        group: int = 1,
    ) -> None:
        self.device = torch.device(device)
        self.batches = EpochBatches(
            len(windows),
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            group=group,
        )
        self._windows = windows
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="dp_hub-batches")
        self._step = 0
        self._next = self._begin(0)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.batches)

    def __next__(self) -> Batch:
        """The next batch, its tensors on the device; keys and shapes as WindowDataset's."""
        batch = self._next.result()
        self._step += 1
        self._next = self._begin(self._step)
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def state_dict(self) -> dict[str, int]:
        """The position: plain numbers, for a checkpoint's JSON."""
        epoch, batch = self._position(self._step)
        return position(self.batches, epoch, batch)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue where :meth:`state_dict` was taken. Raises ConfigError as `check_position`."""
        check_position(self.batches, state)
        self._next.cancel()
        self._seek(state["epoch"], state["batch"])

    def _seek(self, epoch: int, batch: int) -> None:
        self._step = epoch * len(self.batches) + batch
        self._next = self._begin(self._step)

    def _position(self, step: int) -> tuple[int, int]:
        """Epoch and batch; the end of an epoch, not the begin of the next, as DeviceSampler's."""
        if step and step % len(self.batches) == 0:
            return step // len(self.batches) - 1, len(self.batches)
        return divmod(step, len(self.batches))

    def _begin(self, step: int) -> "Future[Batch]":
        return self._reader.submit(self._read, *divmod(step, len(self.batches)))

    def _read(self, epoch: int, batch: int) -> Batch:
        if epoch != self.batches.epoch or not hasattr(self, "_order"):
            self.batches.set_epoch(epoch)
            self._order = self.batches.order()
        read = self._windows.__getitems__(self.batches.rows(self._order, batch))
        if self.device.type == "cuda":
            return {name: value.pin_memory() for name, value in read.items()}
        return read

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a HostSampler stays in its process; give others the WindowDataset")
