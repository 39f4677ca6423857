"""Which episodes train and which validate: the original's draws, from a seed."""

import numpy as np

from dp_hub.errors import ConfigError


def validation_mask(n_episodes: int, ratio: float, seed: int) -> np.ndarray:
    """bool (E,), True for the episodes held out. As the original's ``get_val_mask``.

    A ratio of 0 holds out none; any other at least one episode and never all of them.

    Raises:
        ConfigError: a ratio outside [0, 1), or one episode of which some should be held out.
    """
    if not 0 <= ratio < 1:
        raise ConfigError(f"the validation ratio is {ratio}", hint="it is at least 0 and below 1")
    mask = np.zeros(n_episodes, bool)
    if ratio == 0:
        return mask
    if n_episodes < 2:
        raise ConfigError(
            f"cannot hold out episodes for validation: there is {n_episodes}",
            hint="set the validation ratio to 0",
        )
    n_held_out = min(max(1, round(n_episodes * ratio)), n_episodes - 1)
    chosen = np.random.default_rng(seed).choice(n_episodes, size=n_held_out, replace=False)
    mask[chosen] = True
    return mask


def downsample_mask(mask: np.ndarray, max_n: int | None, seed: int = 0) -> np.ndarray:
    """``mask``, bool (E,), with at most ``max_n`` of its True entries kept, drawn from ``seed``."""
    if max_n is None or int(mask.sum()) <= max_n:
        return mask.copy()
    if max_n < 1:
        raise ConfigError(f"at most {max_n} episodes were asked for", hint="ask for at least 1")
    kept = np.flatnonzero(mask)
    chosen = np.random.default_rng(seed).choice(len(kept), size=max_n, replace=False)
    result = np.zeros_like(mask)
    result[kept[chosen]] = True
    return result
