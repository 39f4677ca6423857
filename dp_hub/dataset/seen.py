"""What is remembered of pictures as they pass, and how they pass: some frames at a time."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dp_hub.dataset import stats as st
from dp_hub.replay.clip import VideoClip, rgb_of, rgb_rows_of
from dp_hub.replay.timeline.taken import Taken


class Seen:
    """A histogram of the sampled pictures of an episode, and a few to compare with.

    Args:
        length: frames of the episode.
        seed: draws one of the frames to compare with.
    """

    def __init__(self, length: int, seed: int) -> None:
        self._sampled = st.sampled_frames(length)
        self._kept = {0, length - 1, int(np.random.default_rng(seed).integers(length))}
        self.n_sampled = len(self._sampled)
        self._histogram: np.ndarray | None = None
        self.samples: dict[int, np.ndarray] = {}

    @property
    def histogram(self) -> np.ndarray:
        """int64 ``(C, 256)``."""
        assert self._histogram is not None
        return self._histogram

    def count(self, counts: np.ndarray) -> None:
        """Add to the histogram."""
        self._histogram = counts if self._histogram is None else self._histogram + counts

    def look(self, first: int, pictures: np.ndarray) -> None:
        """Count those frames of uint8 ``(t, H, W, C)``, from ``first`` on, that are sampled."""
        low, high = np.searchsorted(self._sampled, [first, first + len(pictures)])
        if low < high:
            self.count(st.picture_counts(pictures, self._sampled[low:high] - first))

    def look_raw(self, first: int, frames: Sequence[Any], *, keep: bool = False) -> None:
        """As `look`, and `keep` if wanted, at raw frames of a clip."""
        from av.video.reformatter import VideoReformatter

        low, high = np.searchsorted(self._sampled, [first, first + len(frames)])
        if low < high:
            reformatter = VideoReformatter()
            step = st.row_step(frames[0].height, frames[0].width)
            wanted = (frames[n - first] for n in self._sampled[low:high].tolist())
            rows = [rgb_rows_of(frame, reformatter, step) for frame in wanted]
            self.count(st.row_counts(np.stack(rows)))
        if keep:
            reformatter = VideoReformatter()
            for number in self._kept:
                if first <= number < first + len(frames):
                    self.samples[number] = rgb_of(frames[number - first], reformatter).copy()

    def keep(self, first: int, pictures: np.ndarray) -> None:
        """Keep those frames that will be read back: both ends and one between."""
        for number in self._kept:
            if first <= number < first + len(pictures):
                self.samples[number] = pictures[number - first].copy()


def raw_blocks(clip: VideoClip | Taken, size: int) -> Iterator[tuple[int, list[Any]]]:
    """Raw frames some at a time, each block with the number of its first."""
    block: list[Any] = []
    first = 0
    for frame in clip.raw_frames():
        block.append(frame)
        if len(block) == size:
            yield first, block
            first, block = first + size, []
    if block:
        yield first, block


def picture_blocks(values: Any, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Pictures ``(T, ...)`` some frames at a time, each block with the number of its first."""
    if not isinstance(values, VideoClip):
        for first in range(0, len(values), size):
            yield first, np.asarray(values[first : first + size])
        return
    block: list[np.ndarray] = []
    first = 0
    for frame in values.frames():  # decoded in one go, not block by block
        block.append(frame)
        if len(block) == size:
            yield first, np.stack(block)
            first, block = first + size, []
    if block:
        yield first, np.stack(block)
