"""Training data of a dataset that is streamed: nothing is fetched before it is needed.

The normaliser comes from the statistics that meta/episodes has of every episode; where it lacks
them, or the data is augmented, the training episodes are read once, pool by pool.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dp_hub.dataset.episode_data import frame_shape, read_episodes
from dp_hub.dataset.episode_stats import Statistics, measured, merged, stored_statistics
from dp_hub.dataset.streamed import StreamedDataset
from dp_hub.envs.pusht.symmetry import mirrored
from dp_hub.errors import DataError
from dp_hub.models.normalizer import FeatureNormalizer, Normalizer
from dp_hub.policies.kinds import PolicyConfig
from dp_hub.policies.observing import number_widths
from dp_hub.policies.selection import Shape
from dp_hub.sampling import WindowDataset, window_table
from dp_hub.sampling.streaming import StreamingSampler
from dp_hub.training.config import TrainConfig
from dp_hub.training.data import (
    TrainingData,
    dataset_record,
    policy_features,
    split_episodes,
)

log = logging.getLogger(__name__)
MB = 1_000_000
TRAIN_EPISODES = 8
"""Training episodes that the action error is taken on."""
Columns = Mapping[str, np.ndarray]
Twin = Callable[[Columns], Columns]


def streamed_training_data(
    dataset: StreamedDataset,
    config: TrainConfig,
    *,
    device: torch.device,
    rank: int,
    world_size: int,
) -> TrainingData:
    """As :func:`dp_hub.training.data.training_data`, with the same split of the episodes."""
    assert config.streaming is not None
    policy = config.policy
    names = policy_features(dataset, policy)
    train_mask, val_mask = split_episodes(len(dataset.episodes), config.split)
    twin: Twin | None = mirrored if config.augment == "pusht_mirror" else None
    pool_bytes = config.streaming.pool_mb * MB
    batches = StreamingSampler(
        dataset,
        horizon=policy.horizon,
        n_obs_steps=policy.n_trained_obs_steps,
        pad_before=policy.n_obs_steps - 1,
        pad_after=policy.pad_after,
        episode_mask=train_mask,
        batch_size=config.batch_size,
        seed=config.seed,
        device=device,
        action_key=policy.action,
        keys=[name for name in names if name != policy.action],
        rank=rank,
        world_size=world_size,
        pool_bytes=pool_bytes,
        twin=twin,
        require_finite=True,
    )
    train = evenly(np.flatnonzero(train_mask), TRAIN_EPISODES)
    val = evenly(np.flatnonzero(val_mask), config.streaming.validation_episodes)
    features = {name: _shape(dataset, name) for name in names}
    numbers = list(number_widths(features))
    return TrainingData(
        record=dataset_record(dataset),
        features=features,
        normalizer=fit(dataset, numbers, train_mask, policy, twin=twin, pool_bytes=pool_bytes),
        batches=batches,
        train=SampledWindows(dataset, train, names, policy),
        val=SampledWindows(dataset, val, names, policy) if len(val) else None,
    )


def _shape(dataset: StreamedDataset, name: str) -> Shape:
    shape = frame_shape(dataset.features[name])
    if len(shape) == 3:
        height, width, channels = shape
        return height, width, channels
    return shape[0]


def evenly(episodes: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` of some episodes, evenly spread, int64."""
    n = min(most, len(episodes))
    return episodes[np.linspace(0, max(0, len(episodes) - 1), n).round().astype(np.int64)]


class SampledWindows:
    """The windows of some episodes, read into memory when they are first looked at.

    Only the first process of a training looks at them, so the others fetch nothing for them.
    """

    def __init__(
        self,
        dataset: StreamedDataset,
        episodes: np.ndarray,
        names: Sequence[str],
        policy: PolicyConfig,
    ) -> None:
        self._dataset, self._episodes, self._names = dataset, episodes, list(names)
        self._policy = policy
        self._table = window_table(
            np.cumsum(dataset.episodes.lengths[episodes]),
            policy.horizon,
            pad_before=policy.n_obs_steps - 1,
            pad_after=policy.pad_after,
        )
        self._windows: WindowDataset | None = None

    def __len__(self) -> int:
        return len(self._table)

    def __getitems__(self, rows: np.ndarray | Sequence[int]) -> dict[str, Tensor]:
        """The batch of some windows."""
        if self._windows is None:
            self._windows = WindowDataset(
                held_and_read(self._dataset, self._episodes, self._names),
                self._table,
                horizon=self._policy.horizon,
                n_obs_steps=self._policy.n_trained_obs_steps,
                action_key=self._policy.action,
                keys=[name for name in self._names if name != self._policy.action],
            )
        return self._windows.__getitems__(rows)


def held_and_read(
    dataset: StreamedDataset, episodes: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """`read_episodes`, file by file: no more than one run of files is held at a time."""
    lengths = dataset.episodes.lengths[episodes]
    first = np.cumsum(lengths) - lengths
    columns: dict[str, np.ndarray] = {}
    groups = dataset.file_groups(names)[episodes]
    _, part = np.unique(groups, axis=0, return_inverse=True)
    for number in range(int(part.max()) + 1):
        here = np.flatnonzero(part.reshape(-1) == number)
        held = dataset.files.hold(dataset.files_of(names, episodes[here]))
        try:
            read = read_episodes(dataset, episodes[here], names)
        finally:
            held.release()
        at = 0
        for row, length in zip(first[here].tolist(), lengths[here].tolist(), strict=True):
            for name, column in read.items():
                if name not in columns:
                    columns[name] = np.empty((int(lengths.sum()), *column.shape[1:]), column.dtype)
                columns[name][row : row + length] = column[at : at + length]
            at += length
    return columns


def fit(
    dataset: StreamedDataset,
    names: Sequence[str],
    chosen: np.ndarray,
    policy: PolicyConfig,
    *,
    twin: Twin | None,
    pool_bytes: int,
) -> Normalizer:
    """The normaliser of the training episodes, bool (E,).

    Minimum and maximum, which ``limits`` takes, are those of the fit in memory, bit for bit. Mean
    and deviation are merged from episodes in float64, so their last float32 digit may differ.

    Raises:
        DataError: values that are not finite.
    """
    sizes = {name: frame_shape(dataset.features[name])[0] for name in names}
    lengths = dataset.episodes.lengths
    found = None if twin else stored_statistics(dataset.root, sizes, chosen, lengths)
    if found is None:
        log.info("reading the training episodes once, for the normaliser")
        found = _measure(dataset, names, np.flatnonzero(chosen), twin, pool_bytes)
    return Normalizer({name: _normalizer(statistics, policy) for name, statistics in found.items()})


def _normalizer(found: Statistics, policy: PolicyConfig) -> FeatureNormalizer:
    low, high, mean, std = (
        torch.from_numpy(values.astype(np.float32))
        for values in (found.min, found.max, found.mean, found.std)
    )
    return FeatureNormalizer.of_statistics(low, high, mean, std, mode=policy.normalization)


def _measure(
    dataset: StreamedDataset,
    names: Sequence[str],
    episodes: np.ndarray,
    twin: Twin | None,
    pool_bytes: int,
) -> dict[str, Statistics]:
    parts: dict[str, list[tuple[np.ndarray, int]]] = {name: [] for name in names}
    for values in _each(dataset, names, episodes, pool_bytes):
        for columns in (values, twin(values)) if twin else (values,):
            for name, column in columns.items():
                if not np.isfinite(column).all():
                    raise DataError(
                        f"cannot normalise {name}: an episode of {dataset.root} holds NaN or "
                        "infinity",
                        hint="leave such episodes out of the dataset",
                    )
                parts[name].append(measured(column))
    return {name: merged(stats) for name, stats in parts.items()}


def _each(
    dataset: StreamedDataset, names: Sequence[str], episodes: np.ndarray, pool_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    """The columns of one episode after the other, some of them in memory at a time."""
    frame_bytes = 8 * sum(frame_shape(dataset.features[name])[0] for name in names)
    lengths = dataset.episodes.lengths[episodes]
    pool = np.cumsum(lengths) * frame_bytes // pool_bytes
    for number in np.unique(pool):
        here = np.flatnonzero(pool == number)
        columns = held_and_read(dataset, episodes[here], names)
        stops = np.cumsum(lengths[here])
        for a, b in zip(stops - lengths[here], stops, strict=True):
            yield {name: column[a:b] for name, column in columns.items()}
