"""Which columns a batch is made of, and in which form: shared by both samplers."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np

from dp_hub.errors import ConfigError, DataError

PAD_KEY = "action_is_pad"


def observed_keys(
    columns: Mapping[str, Any], keys: Sequence[str] | None, action_key: str
) -> tuple[str, ...]:
    """The columns observed: ``keys``, or all whose name begins with ``observation``.

    Raises:
        DataError: a key, or the action, is not among the columns.
    """
    if keys is None:
        keys = [name for name in columns if name.startswith("observation")]
    for name in (*keys, action_key):
        if name not in columns:
            raise DataError(f"no column {name!r}", hint=f"there are: {', '.join(columns)}")
    return tuple(name for name in keys if name != action_key)


def as_stored(column: Any) -> Any:
    """A column as batches hold it: images uint8 (N, H, W, C), numbers float32 (N, D)."""
    if column.dtype == np.uint8 and column.ndim == 4:
        return column
    if column.dtype.kind not in "fiub":
        raise DataError(f"a column of {column.dtype} cannot be a part of a batch of numbers")
    return np.ascontiguousarray(column.reshape(len(column), -1), dtype=np.float32)


def check_fit(
    columns: Mapping[str, Sized], last_frame: int, n_obs_steps: int, horizon: int
) -> None:
    """Refuse columns shorter than the windows reach, and more observed steps than a window has."""
    if not 1 <= n_obs_steps <= horizon:
        raise ConfigError(f"n_obs_steps is {n_obs_steps} with a horizon of {horizon}")
    for name, column in columns.items():
        if len(column) < last_frame:
            raise DataError(
                f"column {name!r} has {len(column)} frames, but the windows reach {last_frame}"
            )
