"""Which windows of frames a policy learns from: the original's sampling rule, vectorised.

A window is ``horizon`` consecutive frames of one episode. It may reach past the episode's edges
by the pads; there the edge frame repeats. The rule is ``create_indices`` of Diffusion Policy
(Chi et al., 2023), of which :func:`create_indices` here gives the table bit for bit.
"""

from dataclasses import dataclass

import numpy as np

from dp_hub.errors import ConfigError, DataError


@dataclass(frozen=True)
class WindowTable:
    """Windows in the order of episodes, then of time.

    Attributes:
        starts: int64 (W,), the frame at which each window begins; before ``lo`` when padded.
        lo: int64 (W,), the first frame of the window's episode.
        hi: int64 (W,), one past the last frame of the window's episode.
        horizon: frames in a window.
    """

    starts: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    horizon: int

    def __len__(self) -> int:
        return len(self.starts)

    def frames(self, rows: np.ndarray) -> np.ndarray:
        """Frame numbers of some windows, int64 (B, horizon). Past an edge, the edge repeats."""
        lo, last = self.lo[rows][:, None], self.hi[rows][:, None] - 1
        return np.minimum(np.maximum(self._steps(rows), lo), last)

    def is_pad(self, rows: np.ndarray) -> np.ndarray:
        """bool (B, horizon), True where :meth:`frames` repeats an edge frame."""
        steps = self._steps(rows)
        return (steps < self.lo[rows][:, None]) | (steps >= self.hi[rows][:, None])

    def _steps(self, rows: np.ndarray) -> np.ndarray:
        return self.starts[rows][:, None] + np.arange(self.horizon)


def window_table(
    episode_ends: np.ndarray,
    horizon: int,
    *,
    pad_before: int,
    pad_after: int,
    episode_mask: np.ndarray | None = None,
) -> WindowTable:
    """All windows of the chosen episodes.

    An episode of n frames has ``max(0, n - horizon + pad_before + pad_after + 1)`` windows,
    beginning ``pad_before`` frames before it up to ``pad_after`` past its last whole window.

    Args:
        episode_ends: int (E,), strictly increasing, exclusive ends; the first episode begins at 0.
        horizon: frames in a window (the paper's Tp).
        pad_before: 0 to horizon-1; usually n_obs_steps - 1.
        pad_after: 0 to horizon-1; usually n_action_steps - 1.
        episode_mask: bool (E,), True for the episodes to use; all when None.
    Raises:
        ConfigError: a horizon below 1, or a pad that is negative or not below the horizon.
        DataError: ends that do not increase, or a mask of another length.
    """
    _check_sizes(horizon, pad_before, pad_after)
    ends, mask = _checked_episodes(episode_ends, episode_mask)
    begins, counts = _counts(ends, horizon, mask, pad_before, pad_after)
    return WindowTable(
        starts=_window_starts(begins, counts, pad_before),
        lo=np.repeat(begins, counts),
        hi=np.repeat(ends, counts),
        horizon=horizon,
    )


def create_indices(
    episode_ends: np.ndarray,
    sequence_length: int,
    episode_mask: np.ndarray,
    pad_before: int = 0,
    pad_after: int = 0,
) -> np.ndarray:
    """The original's table, int64 (W, 4): buffer start and end, sample start and end.

    A window is read from the frames ``buffer_start:buffer_end`` and lies at
    ``sample_start:sample_end`` of its ``sequence_length`` steps; the rest repeats the edges.
    """
    # LEGACY: pads outside [0, sequence_length - 1] are clamped without a word.
    pad_before, pad_after = np.clip([pad_before, pad_after], 0, sequence_length - 1).tolist()
    ends = np.asarray(episode_ends, np.int64)
    mask = np.asarray(episode_mask, bool)
    begins, counts = _counts(ends, sequence_length, mask, pad_before, pad_after)
    starts = _window_starts(begins, counts, pad_before)
    buffer_start = np.maximum(starts, np.repeat(begins, counts))
    buffer_end = np.minimum(starts + sequence_length, np.repeat(ends, counts))
    return np.stack([buffer_start, buffer_end, buffer_start - starts, buffer_end - starts], axis=1)


def _counts(
    ends: np.ndarray, horizon: int, mask: np.ndarray, pad_before: int, pad_after: int
) -> tuple[np.ndarray, np.ndarray]:
    begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
    counts = np.maximum(0, ends - begins - horizon + pad_before + pad_after + 1)
    return begins, np.where(mask, counts, 0)


def _window_starts(begins: np.ndarray, counts: np.ndarray, pad_before: int) -> np.ndarray:
    rows_before = np.cumsum(counts) - counts  # windows of the episodes before each
    starts = np.repeat(begins - pad_before - rows_before, counts)
    starts += np.arange(len(starts))
    return starts


def _check_sizes(horizon: int, pad_before: int, pad_after: int) -> None:
    if horizon < 1:
        raise ConfigError(f"horizon is {horizon}", hint="a window has at least one frame")
    for name, pad in (("pad_before", pad_before), ("pad_after", pad_after)):
        if not 0 <= pad < horizon:
            raise ConfigError(
                f"{name} is {pad} with a horizon of {horizon}",
                hint=f"a window keeps at least one real frame: {name} is 0 to {horizon - 1}",
            )


def _checked_episodes(
    episode_ends: np.ndarray, episode_mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    ends = np.asarray(episode_ends, np.int64)
    if ends.ndim != 1 or (np.diff(ends, prepend=0) <= 0).any():
        raise DataError(
            f"episode ends of shape {ends.shape} do not increase from 0: {ends.ravel()[:8]}...",
            hint="each is the frame after an episode's last one",
        )
    mask = np.ones(len(ends), bool) if episode_mask is None else np.asarray(episode_mask)
    if mask.shape != ends.shape or mask.dtype != np.bool_:
        raise DataError(
            f"the episode mask is {mask.dtype} {mask.shape}, but there are {len(ends)} episodes",
            hint="one bool per episode",
        )
    return ends, mask
