"""What may be different when a run continues, and what of it has to be translated."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dp_hub.errors import ConfigError
from dp_hub.policies.card import DatasetRecord
from dp_hub.training.config import (
    MAY_CHANGE_ON_RESUME,
    OPTIMIZER_MAY_CHANGE_ON_RESUME,
    TrainConfig,
)

log = logging.getLogger(__name__)

IN_MEMORY = {"epoch", "batch", "seed", "batch_size", "world_size", "n_windows"}
"""What the position of a sampler in memory holds."""


def refuse_changes(
    state: Mapping[str, Any], config: TrainConfig, record: DatasetRecord, path: Path
) -> None:
    """Refuse to continue with other data or settings that would make it another run.

    Raises:
        ConfigError: and which setting it is.
    """
    if state["fingerprint"] != record.fingerprint:
        raise ConfigError(
            f"{path} was trained on other data: fingerprint {state['fingerprint'][:12]}, "
            f"now {record.fingerprint[:12]}",
            hint="begin a new run with another --out_dir",
        )
    before, now = _flat(state["config"]), _flat(config.model_dump(mode="json"))
    for key in [key for key in now if before.get(key) != now[key]]:
        if key in {f"optimizer.{name}" for name in OPTIMIZER_MAY_CHANGE_ON_RESUME}:
            log.warning("%s was %s before step %d", key, before.get(key), state["step"])
        else:
            raise _changed_error(key, before.get(key), now[key])


def _changed_error(key: str, before: Any, now: Any) -> ConfigError:
    while isinstance(before, dict) and isinstance(now, dict):  # not a whole section, the setting
        inner = next(name for name in {**now, **before} if before.get(name) != now.get(name))
        key, before, now = f"{key}.{inner}", before.get(inner), now.get(inner)
    return ConfigError(
        f"`{key}` changed from {before!r} to {now!r} since the newest checkpoint",
        hint="a run continues with the settings it began with; begin another with --out_dir",
    )


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that count for continuing; those of the optimiser by ``optimizer.name``."""
    values = {key: value for key, value in config.items() if key not in MAY_CHANGE_ON_RESUME}
    optimizer: Mapping[str, Any] = values.pop("optimizer", {})
    return values | {f"optimizer.{key}": value for key, value in optimizer.items()}


def regrouped(
    position: Mapping[str, Any], before: Mapping[str, Any], config: TrainConfig, world_size: int
) -> Mapping[str, Any]:
    """A position in the order of batches, for other batches of which a step has as many windows.

    Args:
        position: of a sampler in memory; that of a streaming one is given back as it is.
        before: the configuration that it was taken with.
        config: the configuration now.
        world_size: processes now.
    Raises:
        ConfigError: a step would have another number of windows, or the position falls into one
            of the new batches.
    """
    size, processes = position.get("batch_size"), position.get("world_size")
    if position.keys() != IN_MEMORY or (size, processes) == (config.batch_size, world_size):
        _same_calls(before, config)
        return position
    old, new = position["batch_size"] * position["world_size"], config.batch_size * world_size
    then, now = old * before["grad_accumulation"], new * config.grad_accumulation
    if then != now:
        raise ConfigError(
            f"an optimiser step saw {then} windows and would now see {now}: batch_size {size} x "
            f"{processes} process(es) x grad_accumulation {before['grad_accumulation']} became "
            f"{config.batch_size} x {world_size} x {config.grad_accumulation}",
            hint="let the product stay what it was, or begin another run with --out_dir",
        )
    batch, rest = divmod(position["batch"] * old, new)
    if rest:
        raise ConfigError(
            f"batches of {new} windows do not begin where batches of {old} got to",
            hint="continue with a batch_size that divides the one before",
        )
    return {
        **position,
        "batch_size": config.batch_size,
        "world_size": world_size,
        "batch": batch,
    }


def _same_calls(before: Mapping[str, Any], config: TrainConfig) -> None:
    for key in ("batch_size", "grad_accumulation"):
        if before[key] != getattr(config, key):
            raise _changed_error(key, before[key], getattr(config, key))
