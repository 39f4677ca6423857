"""From a dataset and a configuration to batches, validation windows and a fitted normaliser."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch

from dp_hub.envs.pusht.symmetry import mirrored, mirrored_pictures
from dp_hub.errors import ConfigError
from dp_hub.models.normalizer import Normalizer, fit_normalizer
from dp_hub.policies.card import DatasetRecord
from dp_hub.policies.kinds import PolicyConfig, required_features
from dp_hub.policies.selection import Shape, parse_selection
from dp_hub.sampling import (
    DeviceSampler,
    HostSampler,
    WindowDataset,
    WindowTable,
    downsample_mask,
    validation_mask,
    window_table,
)
from dp_hub.sampling.loader import Column
from dp_hub.sampling.twins import TwinPictures
from dp_hub.training.config import SplitConfig, TrainConfig

if TYPE_CHECKING:
    from dp_hub.dataset.reader import Dataset
    from dp_hub.dataset.streamed import StreamedDataset


class Batches(Protocol):
    """Endless training batches at a position that can be stored: a sampler."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def __next__(self) -> dict[str, torch.Tensor]:
        """The next one."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position, for JSON."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from there."""
        ...


class Windows(Protocol):
    """Windows to measure a policy on."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitems__(self, rows: np.ndarray | Sequence[int]) -> dict[str, torch.Tensor]:
        """Some of them, as a batch."""
        ...


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from.

    Attributes:
        record: which dataset it is.
        features: shape of every feature the policy reads or predicts.
        normalizer: of the numbers among them, fitted on the training episodes.
        batches: endless training batches on the device, at a position that can be stored.
        train: the same windows, row by row; of some episodes only when streaming.
        val: the windows of the held-out episodes (when streaming, of some), or None.
    """

    record: DatasetRecord
    features: dict[str, Shape]
    normalizer: Normalizer
    batches: Batches
    train: Windows
    val: Windows | None


def training_data(
    dataset: "Dataset | StreamedDataset",
    config: TrainConfig,
    *,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
) -> TrainingData:
    """Everything a run learns from.

    Raises:
        ConfigError: the dataset lacks a feature, or is too small, or the action is a picture.
        DataError: values that cannot be learned from.
        HubError: when streaming, the Hub is away.
    """
    if config.streaming is not None:
        from dp_hub.training.streamed_data import streamed_training_data

        return streamed_training_data(
            cast("StreamedDataset", dataset),
            config,
            device=device,
            rank=rank,
            world_size=world_size,
        )
    dataset = cast("Dataset", dataset)
    columns: dict[str, Any] = _columns(dataset, config.policy)
    stops = dataset.episodes.stops
    train_mask, val_mask = split_episodes(len(stops), config.split)
    if config.augment == "pusht_mirror":
        columns, stops = _with_mirror(columns, stops)
        train_mask = np.concatenate([train_mask, train_mask])
        val_mask = np.concatenate([val_mask, np.zeros_like(val_mask)])
    train = _windows(columns, stops, train_mask, config.policy)
    numbers = {name: column for name, column in columns.items() if not _is_picture(column)}
    return TrainingData(
        record=dataset_record(dataset),
        features={name: _shape(column) for name, column in columns.items()},
        normalizer=_fit(numbers, stops, train_mask, config.policy),
        batches=_batches(train, columns, config, device=device, rank=rank, world_size=world_size),
        train=train,
        val=_windows(columns, stops, val_mask, config.policy) if val_mask.any() else None,
    )


def _batches(
    train: WindowDataset,
    columns: Mapping[str, Any],
    config: TrainConfig,
    *,
    device: torch.device,
    rank: int,
    world_size: int,
) -> Batches:
    """From the device's memory where all is numbers; pictures stay in their files."""
    order: dict[str, Any] = {
        "batch_size": config.batch_size,
        "seed": config.seed,
        "device": device,
        "rank": rank,
        "world_size": world_size,
        "group": config.grad_accumulation,
    }
    if any(_is_picture(column) for column in columns.values()):
        return HostSampler(train, **order)
    return DeviceSampler(
        columns,
        train.table,
        n_obs_steps=train.n_obs_steps,
        action_key=config.policy.action,
        keys=[name for name in columns if name != config.policy.action],
        **order,
    )


def _is_picture(column: Column) -> bool:
    return column.ndim == 4


def _shape(column: Column) -> Shape:
    """Of a feature: its width, or height, width and channels."""
    if _is_picture(column):
        height, width, channels = column.shape[1:]
        return height, width, channels
    return column.shape[1]


def split_episodes(n_episodes: int, config: SplitConfig) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation episodes, bool (E,) each; they never overlap.

    Unlike the original's, the validation episodes do not include those that
    ``max_train_episodes`` leaves unused.
    """
    val = validation_mask(n_episodes, config.val_ratio, config.seed)
    return downsample_mask(~val, config.max_train_episodes, config.seed), val


def dataset_record(dataset: "Dataset | StreamedDataset") -> DatasetRecord:
    """How a policy remembers its dataset."""
    name = dataset.repo_id or Path(dataset.root).resolve().name
    return DatasetRecord(name=name, fingerprint=dataset.fingerprint, commit=dataset.revision)


def fixed_rows(windows: Windows, most: int) -> np.ndarray:
    """At most ``most`` rows, evenly spread over the windows, int64: always the same ones."""
    n = min(most, len(windows))
    return np.linspace(0, len(windows) - 1, n).round().astype(np.int64)


def _columns(dataset: "Dataset", policy: PolicyConfig) -> dict[str, Any]:
    columns = {}
    for name in policy_features(dataset, policy):
        column = dataset.column(name)
        columns[name] = column[:, None] if column.ndim == 1 else column
    return columns


def policy_features(dataset: "Dataset | StreamedDataset", policy: PolicyConfig) -> list[str]:
    """The features a policy needs. Raises ConfigError if the dataset has them not."""
    names = required_features(policy)
    for name in names:
        if name not in dataset.features:
            raise ConfigError(
                f"the dataset {dataset.root} has no feature {name}",
                hint="say what the policy shall observe, for example "
                f"policy.observations: [observation.state], and policy.action what it predicts; "
                f"the dataset has: {', '.join(dataset.features)}",
            )
    if dataset.features[policy.action].dtype in ("image", "video"):
        raise ConfigError(
            f"{policy.action} holds images, which a policy cannot predict",
            hint="set policy.action to a feature of numbers",
        )
    return names


def what_is_used(dataset: "Dataset | StreamedDataset", policy: PolicyConfig) -> str:
    """What the policy observes and predicts, and which observations of the dataset it does not."""
    wanted = [parse_selection(text) for text in policy.observations]
    told = [
        text if one.whole else f"{text} of {dataset.features[one.name].shape[-1]} numbers"
        for text, one in zip(policy.observations, wanted, strict=True)
    ]
    names = {one.name for one in wanted}
    spare = [n for n in dataset.features if n.startswith("observation") and n not in names]
    not_used = f"; not observed: {', '.join(spare)}" if spare else ""
    return f"{policy.action} from {', '.join(told)}{not_used}"


def _with_mirror(
    columns: Mapping[str, np.ndarray], stops: np.ndarray
) -> tuple[dict[str, Column], np.ndarray]:
    twin = mirrored({name: one for name, one in columns.items() if not _is_picture(one)})
    doubled: dict[str, Column] = {
        name: TwinPictures(column, mirrored_pictures)
        if _is_picture(column)
        else np.concatenate([column, twin[name]])
        for name, column in columns.items()
    }
    return doubled, np.concatenate([stops, stops + stops[-1]])


def _windows(
    columns: Mapping[str, Column],
    stops: np.ndarray,
    mask: np.ndarray,
    policy: PolicyConfig,
) -> WindowDataset:
    table: WindowTable = window_table(
        stops,
        policy.horizon,
        pad_before=policy.n_obs_steps - 1,
        pad_after=policy.pad_after,
        episode_mask=mask,
    )
    return WindowDataset(
        columns,
        table,
        horizon=policy.horizon,
        n_obs_steps=policy.n_trained_obs_steps,
        action_key=policy.action,
        keys=[name for name in columns if name != policy.action],
    )


def _fit(
    columns: Mapping[str, np.ndarray],
    stops: np.ndarray,
    mask: np.ndarray,
    policy: PolicyConfig,
) -> Normalizer:
    frames = np.repeat(mask, np.diff(stops, prepend=0))
    modes = {name: policy.normalization for name in columns}
    return fit_normalizer(columns, columns, frame_mask=frames, modes=modes)
