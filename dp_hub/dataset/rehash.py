"""Hash and statistics of an episode from what files hold of it: for edits and checks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dp_hub.dataset import stats as st
from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.features import Column
from dp_hub.dataset.hashing import EpisodeHash
from dp_hub.dataset.images import BATCH
from dp_hub.dataset.seen import Seen, picture_blocks
from dp_hub.dataset.stored_source import LazyPictures
from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip

if TYPE_CHECKING:
    from dp_hub.dataset.copied import Copied


@dataclass(frozen=True)
class Looked:
    """What was found.

    Args:
        sha256: of the content, hex.
        stats: float64 ``(9, D)`` over numbers, then pictures, in the order of the columns.
        histograms: by picture feature, int64 ``(C, 256)``.
        n_pictures: by picture feature, how many frames the histogram is of.
    """

    sha256: str
    stats: np.ndarray
    histograms: Mapping[str, np.ndarray]
    n_pictures: Mapping[str, int]


def look_again(
    columns: Sequence[Column],
    length: int,
    task: str,
    arrays: Mapping[str, pa.Array],
    clips: Mapping[str, Sequence[VideoClip]],
) -> Looked:
    """Hash and measure one episode.

    Args:
        columns: the dataset's columns.
        length: number of frames T.
        task: the task's text.
        arrays: by feature, its rows in data/.
        clips: by video feature, its frames.
    Raises:
        DataError: pictures or videos are damaged.
    """
    digest = EpisodeHash(columns, length, task)
    numbers: dict[str, np.ndarray] = {}
    histograms: dict[str, np.ndarray] = {}
    n_pictures: dict[str, int] = {}
    for column in digest.order:
        name = column.feature
        if not column.is_visual:
            numbers[name] = vectors(arrays[name])
            digest.add(numbers[name])
            continue
        if column.copied:
            copied = _copied(clips[name])
            histograms[name], n_pictures[name] = copied.histogram, copied.n_sampled
            digest.add_video(copied.sha256)
            continue
        seen = Seen(length, 0)
        if column.dtype == "image":
            pictures = LazyPictures(arrays[name], column.shape, chw=False, where=name)
            for first, block in picture_blocks(pictures, BATCH):
                digest.add(block)
                seen.look(first, block)
        else:
            start = 0
            for clip in clips[name]:
                for first, block in picture_blocks(clip, BATCH):
                    seen.look(start + first, block)
                start += len(clip)
            digest.add_video(_packets_sha256(clips[name]))
        histograms[name], n_pictures[name] = seen.histogram, seen.n_sampled
    low = [numbers[c.feature] for c in columns if not c.is_visual]
    parts = [st.matrix_stats(st.side_by_side(low))] if low else []
    parts += [st.picture_stats(histograms[c.feature]) for c in columns if c.is_visual]
    return Looked(
        sha256=digest.hexdigest(),
        stats=np.concatenate(parts, axis=1),
        histograms=histograms,
        n_pictures=n_pictures,
    )


def _copied(clips: Sequence[VideoClip]) -> "Copied":
    from dp_hub.dataset.copied import look_through

    with _as_written():
        return look_through(clips)


def _packets_sha256(clips: Sequence[VideoClip]) -> str:
    from dp_hub.dataset.packets import clips_sha256

    with _as_written():
        return clips_sha256(clips)


@contextmanager
def _as_written() -> Iterator[None]:
    from dp_hub.dataset.packets import NotCopyableError

    try:
        yield
    except NotCopyableError as error:
        raise DataError(f"a video is not as it was written: {error}") from None
