"""Batches from tensors that live on the training device: no copy, no host work in the loop."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dp_hub.sampling.gather import PAD_KEY, as_stored, check_fit, observed_keys
from dp_hub.sampling.order import EpochBatches, check_position, position
from dp_hub.sampling.windows import WindowTable

Batch = dict[str, Tensor]


class DeviceSampler:
    """An endless iterator of batches, for data that fits on the device.

    It draws the batches of :func:`dp_hub.sampling.loader.make_loader` with the same arguments:
    same windows, same order, on every device. Epoch after epoch follows without a pause;
    :meth:`state_dict` is the position, from which another one continues exactly.

    Args:
        columns, table, n_obs_steps, action_key, keys: as
            :class:`dp_hub.sampling.loader.WindowDataset`; the columns are copied to the device,
            so read-only and memory-mapped ones will do.
        batch_size, seed, rank, world_size, group: as :class:`dp_hub.sampling.order.EpochBatches`.
        device: where the tensors live.
    Raises:
        DataError, ConfigError: as those two.
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        table: WindowTable,
        *,
        n_obs_steps: int,
        batch_size: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        action_key: str = "action",
        keys: Sequence[str] | None = None,
        rank: int = 0,
        world_size: int = 1,
        group: int = 1,
    ) -> None:
        stored = {
            name: as_stored(columns[name])
            for name in (*observed_keys(columns, keys, action_key), action_key)
        }
        check_fit(stored, int(table.hi.max(initial=0)), n_obs_steps, table.horizon)
        self.device = torch.device(device)
        self.n_obs_steps = n_obs_steps
        self.batches = EpochBatches(
            len(table),
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            group=group,
        )
        self._actions = self._tensor(stored.pop(action_key))
        self._observed = {name: self._tensor(column) for name, column in stored.items()}
        self._bounds = [self._tensor(part) for part in (table.starts, table.lo, table.hi)]
        self._steps = torch.arange(table.horizon, device=self.device)
        self._seek(0, 0)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.batches)

    def __next__(self) -> Batch:
        """The next batch, its tensors on the device; keys and shapes as WindowDataset's."""
        if self._batch == len(self.batches):
            self._seek(self.batches.epoch + 1, 0)
        first = self._batch * self.batches.batch_size
        self._batch += 1
        return self._gather(self._order[first : first + self.batches.batch_size])

    def state_dict(self) -> dict[str, int]:
        """The position: plain numbers, for a checkpoint's JSON."""
        return position(self.batches, self.batches.epoch, self._batch)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue where :meth:`state_dict` was taken. Raises ConfigError as `check_position`."""
        check_position(self.batches, state)
        self._seek(state["epoch"], state["batch"])

    def _seek(self, epoch: int, batch: int) -> None:
        self.batches.set_epoch(epoch, batch)
        order = self.batches.order()
        mine = [self.batches.rows(order, number) for number in range(len(self.batches))]
        self._order = torch.from_numpy(np.concatenate(mine)).to(self.device)
        self._batch = batch

    def _gather(self, rows: Tensor) -> Batch:
        starts, lo, hi = (part[rows, None] for part in self._bounds)
        steps = starts + self._steps
        frames = torch.minimum(torch.maximum(steps, lo), hi - 1)
        seen = frames[:, : self.n_obs_steps]
        batch = {name: column[seen] for name, column in self._observed.items()}
        batch["action"] = self._actions[frames]
        batch[PAD_KEY] = (steps < lo) | (steps >= hi)
        return batch

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=self.device)
