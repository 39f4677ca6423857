"""Batches from a dataset that is neither whole on the disk nor in memory.

The windows are those of :class:`dp_hub.sampling.loader.WindowDataset`, bit for bit; only their
order differs from the in-memory samplers' (:mod:`dp_hub.sampling.stream_plan`). While batches are
drawn from one pool of episodes, the next is decoded in the background, and the files of the one
after that are fetched.
"""

import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dp_hub.dataset.episode_data import blank_frame, read_episodes
from dp_hub.dataset.streamed import Held, StreamedDataset
from dp_hub.errors import ConfigError, DataError, HubError
from dp_hub.hub.background import in_background
from dp_hub.sampling.gather import as_stored, observed_keys
from dp_hub.sampling.loader import WindowDataset
from dp_hub.sampling.order import EpochBatches
from dp_hub.sampling.stream_plan import Pool, episode_order, pools, window_order
from dp_hub.sampling.windows import WindowTable, window_table

log = logging.getLogger(__name__)
POOL_BYTES = 512_000_000
Batch = dict[str, Tensor]
Columns = Mapping[str, np.ndarray]


@dataclass
class _Loaded:
    """A pool in memory: the windows of its episodes, and the rows in the order to draw."""

    pool: Pool
    windows: WindowDataset
    rows: np.ndarray
    starts: np.ndarray  # int64 (P,), the first frame of each of its episodes
    stops: np.ndarray


class StreamingSampler:
    """An endless iterator of batches, with the interface of :class:`DeviceSampler`.

    Order: a function of ``seed``, the epoch, ``world_size`` and ``pool_bytes``. In every epoch each
    process draws the same number of windows, none twice; fewer than ``world_size * (batch_size +
    1)`` are left out, other ones each time. :meth:`state_dict` is the position, from which another
    sampler continues exactly, and loads no more than it needs there.

    Memory: two pools, the one that is drawn from and the one that comes, and what decoding takes.

    Args:
        dataset: opened with :func:`dp_hub.dataset.streamed.stream_dataset`.
        horizon, pad_before, pad_after, episode_mask: as
            :func:`dp_hub.sampling.windows.window_table`.
        n_obs_steps, action_key, keys: as :class:`dp_hub.sampling.loader.WindowDataset`.
        batch_size, seed, rank, world_size: as :class:`dp_hub.sampling.order.EpochBatches`.
        device: where batches go; to a GPU from pinned memory, without waiting.
        pool_bytes: of episodes in memory, of each of the two pools.
        twin: makes a second episode of each, from and to columns; draws from both.
        require_finite: refuse episodes with NaN or infinity when they are read.
        threads: decode pictures; all cores by default.
    Attributes:
        waited_s: how long ``next`` has waited for a pool, in all.
    Raises:
        ConfigError, DataError: as those.
    """

    def __init__(
        self,
        dataset: StreamedDataset,
        *,
        horizon: int,
        n_obs_steps: int,
        batch_size: int,
        pad_before: int = 0,
        pad_after: int = 0,
        episode_mask: np.ndarray | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        action_key: str = "action",
        keys: Sequence[str] | None = None,
        rank: int = 0,
        world_size: int = 1,
        pool_bytes: int = POOL_BYTES,
        twin: Callable[[Columns], Columns] | None = None,
        require_finite: bool = False,
        threads: int | None = None,
    ) -> None:
        if pool_bytes < 1:
            raise ConfigError(f"pool_bytes is {pool_bytes}", hint="a pool holds some episodes")
        if not 1 <= n_obs_steps <= horizon:
            raise ConfigError(f"n_obs_steps is {n_obs_steps} with a horizon of {horizon}")
        self.dataset, self.device = dataset, torch.device(device)
        self.pool_bytes = pool_bytes
        self.waited_s = 0.0
        self._horizon, self._n_obs_steps = horizon, n_obs_steps
        self._pad_before, self._pad_after = pad_before, pad_after
        self._blank = blank_frames(dataset, keys, action_key)
        self._names, self._action = list(self._blank), action_key
        self._twin, self._require_finite, self._threads = twin, require_finite, threads
        # Twin e of E episodes is number E + e.
        times = 2 if twin else 1
        table = self._table(dataset.episodes.stops, episode_mask)
        counts = np.bincount(
            np.searchsorted(dataset.episodes.starts, table.lo), minlength=len(dataset.episodes)
        )
        frame_bytes = sum(
            column.itemsize * math.prod(column.shape[1:]) for column in self._blank.values()
        )
        self._counts = np.tile(counts, times)
        self._costs = np.tile(dataset.episodes.lengths * frame_bytes, times)
        self._groups = np.tile(dataset.file_groups(self._names), (times, 1))
        self.batches = EpochBatches(
            int(self._counts.sum()),
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        self._layout = _digest(self._groups, self._counts, self._costs)
        self._seek(0, 0)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.batches)

    def __next__(self) -> Batch:
        """The next batch, its tensors on the device; keys and shapes as WindowDataset's.

        Raises:
            DataError: a file is damaged, or does not hold what meta/ says.
            HubError: the Hub has been away for too long, or its file is damaged.
        """
        _refuse_several_workers()
        if self._process != os.getpid():  # a fork: threads and what they were doing stayed behind
            self._seek(self.batches.epoch, self._batch)
        if self._batch == len(self.batches):
            self._seek(self.batches.epoch + 1, 0, keep=True)
        try:
            batch = self._gather(self._batch * self.batches.batch_size)
        except HubError as error:
            self._seek(self.batches.epoch, self._batch)
            stands = (
                f"the order stands at epoch {self.batches.epoch}, batch {self._batch}, and can "
                "continue from there; a training continues from its last checkpoint with --resume"
            )
            hint = f"{error.hint}; {stands}" if error.hint else stands
            raise HubError(error.message, hint=hint) from error
        self._batch += 1
        return self._on_device(batch)

    def state_dict(self) -> dict[str, Any]:
        """The position: plain numbers and texts, for a checkpoint's JSON."""
        return {"epoch": self.batches.epoch, "batch": self._batch, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises:
            ConfigError: it was taken with other settings or data, with which the same batches
                cannot follow.
        """
        for name, mine in self._identity().items():
            if name not in state:
                raise ConfigError(
                    "cannot continue the order of batches: it was not drawn by streaming",
                    hint="resume with the settings the training began with",
                )
            if state[name] != mine:
                raise ConfigError(
                    f"cannot continue the order of batches: {name} was {state[name]}, is {mine}",
                    hint="resume with the settings and the data the training began with",
                )
        self._seek(state["epoch"], state["batch"])

    def close(self) -> None:
        """Let go of pools and files. The sampler can go on, from where it is."""
        self._seek(self.batches.epoch, self._batch)

    def __getstate__(self) -> dict[str, Any]:
        # To a DataLoader's worker goes the position, without what is in memory or under way.
        state = dict(self.__dict__)
        return state | {"_current": None, "_next": None, "_coming": {}}

    def _identity(self) -> dict[str, Any]:
        """All that the order depends on."""
        return {
            "seed": self.batches.seed,
            "batch_size": self.batches.batch_size,
            "world_size": self.batches.world_size,
            "n_windows": self.batches.n_windows,
            "pool_bytes": self.pool_bytes,
            "fingerprint": self.dataset.fingerprint,
            "layout": self._layout,
        }

    def _seek(self, epoch: int, batch: int, *, keep: bool = False) -> None:
        """Go to a batch; ``keep`` what was loaded or begun, because it follows."""
        self.batches.set_epoch(epoch, batch)
        self._batch, self._process = batch, os.getpid()
        self._pools = self._plan(epoch)
        self._begins = [pool.begin for pool in self._pools]
        if not keep:
            self._current: _Loaded | None = None
            self._current_key = (-1, -1)
            self._next: tuple[tuple[int, int], Future[_Loaded]] | None = None
            self._coming: dict[tuple[int, int], Future[Held]] = {}

    def _plan(self, epoch: int) -> list[Pool]:
        return pools(
            episode_order(self._groups, seed=self.batches.seed, epoch=epoch),
            self._counts,
            self._costs,
            rank=self.batches.rank,
            world_size=self.batches.world_size,
            pool_bytes=self.pool_bytes,
        )

    def _gather(self, position: int) -> Batch:
        """The batch whose first window is this process's number ``position`` of the epoch."""
        parts, missing = [], self.batches.batch_size
        while missing:
            number = int(np.searchsorted(self._begins, position, side="right")) - 1
            here = self._load(number)
            at = position - here.pool.begin
            rows = here.rows[at : at + missing]
            parts.append(here.windows.__getitems__(rows))
            position, missing = position + len(rows), missing - len(rows)
        if len(parts) == 1:
            return parts[0]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _load(self, number: int) -> _Loaded:
        """A pool of this epoch, in memory; the one that follows is begun."""
        key = (self.batches.epoch, number)
        if self._current is None or self._current_key != key:
            if self._next is None or self._next[0] != key:
                self._next = (key, self._begin(key, self._pools[number]))
            loading = self._next[1]
            began = time.perf_counter()
            loaded = loading.result()
            self.waited_s += time.perf_counter() - began
            self._current, self._current_key = loaded, key  # the old one goes before another comes
            self._next = None
            follower, after = self._following(key)
            self._next = (follower[0], self._begin(*follower))
            self._fetch_early(follower, after)
        assert self._current is not None
        return self._current

    def _following(self, key: tuple[int, int]) -> list[tuple[tuple[int, int], Pool]]:
        """The two pools after one, across the end of the epoch. Only those that are drawn from."""
        epoch, number = key
        result: list[tuple[tuple[int, int], Pool]] = []
        plan = self._pools
        used = len(self.batches) * self.batches.batch_size
        while len(result) < 2:
            number += 1
            if number == len(plan) or plan[number].begin >= used:
                epoch, number, plan = epoch + 1, 0, self._plan(epoch + 1)
            result.append(((epoch, number), plan[number]))
        return result

    def _begin(self, key: tuple[int, int], pool: Pool) -> "Future[_Loaded]":
        """Start to load a pool in the background."""
        files = self._coming.pop(key, None)
        if files is None or (files.done() and files.exception() is not None):
            files = self._fetch(pool)
        donor = self._current
        return in_background(lambda: self._read(key, pool, files, donor))

    def _fetch(self, pool: Pool) -> "Future[Held]":
        names = self._files(pool)
        store = self.dataset.files
        return in_background(lambda: store.hold(names))

    def _fetch_early(
        self, coming: tuple[tuple[int, int], Pool], later: tuple[tuple[int, int], Pool]
    ) -> None:
        """Fetch the files of the pool after the coming one, if there is room for both."""
        store = self.dataset.files
        names = {*self._files(coming[1]), *self._files(later[1])}
        room = store.limit_bytes / self.batches.world_size
        if later[0] not in self._coming and sum(store.size(name) for name in names) <= room:
            self._coming[later[0]] = self._fetch(later[1])

    def _files(self, pool: Pool) -> list[str]:
        episodes = np.unique(pool.episodes % len(self.dataset.episodes))
        return self.dataset.files_of(self._names, episodes)

    def _read(
        self, key: tuple[int, int], pool: Pool, files: "Future[Held]", donor: _Loaded | None
    ) -> _Loaded:
        """Decode a pool's episodes; those that are in the pool before it are copied from there."""
        episodes = pool.episodes
        lengths = np.tile(self.dataset.episodes.lengths, 2)[episodes]
        stops = np.cumsum(lengths)
        starts = stops - lengths
        held = files.result()
        try:
            columns = self._columns(episodes, starts, stops, donor)
        finally:
            held.release()
        table = self._table(stops)
        windows = WindowDataset(
            columns,
            table,
            horizon=self._horizon,
            n_obs_steps=self._n_obs_steps,
            action_key=self._action,
            keys=[name for name in self._names if name != self._action],
        )
        epoch, number = key
        rows = window_order(
            pool, number, seed=self.batches.seed, epoch=epoch, rank=self.batches.rank
        )
        return _Loaded(pool, windows, rows, starts, stops)

    def _columns(
        self, episodes: np.ndarray, starts: np.ndarray, stops: np.ndarray, donor: _Loaded | None
    ) -> dict[str, np.ndarray]:
        """The columns of a pool, as batches hold them, episode after episode."""
        columns = {
            name: np.empty((int(stops[-1]), *column.shape[1:]), column.dtype)
            for name, column in self._blank.items()
        }
        known = _positions(episodes, donor.pool.episodes if donor else episodes[:0])
        if donor is not None:
            # Arrays all: a pool is in memory.
            there: dict[str, Any] = {**donor.windows.observed, self._action: donor.windows.actions}
            for at in np.flatnonzero(known >= 0):
                a, b = donor.starts[known[at]], donor.stops[known[at]]
                _put(columns, starts[at], {name: column[a:b] for name, column in there.items()})
        missing = np.flatnonzero(known < 0)
        if self._twin is None:
            read_episodes(
                self.dataset,
                episodes[missing],
                self._names,
                into=columns,
                first=starts[missing],
                threads=self._threads,
            )
        else:
            self._read_with_twins(episodes[missing], starts[missing], columns, self._twin)
        if self._require_finite:
            _check_finite(columns)
        return columns

    def _read_with_twins(
        self,
        episodes: np.ndarray,
        starts: np.ndarray,
        columns: Mapping[str, np.ndarray],
        twin: Callable[[Columns], Columns],
    ) -> None:
        n_episodes = len(self.dataset.episodes)
        originals, number = np.unique(episodes % n_episodes, return_inverse=True)
        read = read_episodes(self.dataset, originals, self._names, threads=self._threads)
        ends = np.cumsum(self.dataset.episodes.lengths[originals])
        begins = ends - self.dataset.episodes.lengths[originals]
        for episode, start, at in zip(episodes.tolist(), starts, number.reshape(-1), strict=True):
            values: Columns = {name: column[begins[at] : ends[at]] for name, column in read.items()}
            _put(columns, start, twin(values) if episode >= n_episodes else values)

    def _table(self, stops: np.ndarray, mask: np.ndarray | None = None) -> WindowTable:
        return window_table(
            stops,
            self._horizon,
            pad_before=self._pad_before,
            pad_after=self._pad_after,
            episode_mask=mask,
        )

    def _on_device(self, batch: Batch) -> Batch:
        if self.device.type == "cpu":
            return batch
        if self.device.type == "cuda":
            batch = {name: value.pin_memory() for name, value in batch.items()}
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}


def blank_frames(
    dataset: StreamedDataset, keys: Sequence[str] | None, action_key: str
) -> dict[str, np.ndarray]:
    """One frame as batches hold it: which columns there are, and of what.

    Raises:
        DataError: a feature is missing or no numbers.
    """
    names = observed_keys(dict.fromkeys(dataset.features, np.zeros(0)), keys, action_key)
    return {name: as_stored(blank_frame(dataset.features[name])) for name in (*names, action_key)}


def _put(columns: Columns, start: int, values: Columns) -> None:
    for name, column in columns.items():
        column[start : start + len(values[name])] = values[name]


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, np.int64).tobytes())
    return digest.hexdigest()[:16]


def _positions(wanted: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Where each of ``wanted`` is in ``there``, int64; -1 for nowhere."""
    if not len(there):
        return np.full(len(wanted), -1)
    order = np.argsort(there)
    at = order[np.minimum(np.searchsorted(there[order], wanted), len(there) - 1)]
    return np.where(there[at] == wanted, at, -1)


def _check_finite(columns: Columns) -> None:
    for name, column in columns.items():
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            row = int(np.argmin(np.isfinite(column).reshape(len(column), -1).all(axis=1)))
            raise DataError(
                f"{name} holds NaN or infinity, which is not to be learned from: "
                f"{column[row].tolist()}",
                hint="leave such episodes out of the dataset",
            )


def _refuse_several_workers() -> None:
    worker = get_worker_info()
    if worker is not None and worker.num_workers > 1:
        raise ConfigError(
            f"{worker.num_workers} workers would each draw all batches of the same streaming order",
            hint="use one worker, or none: the next pool is loaded in the background anyway",
        )
