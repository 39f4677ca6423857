"""From an episode to what files hold of it: checked, hashed, measured and encoded.

Pictures are taken some frames at a time, so that of a long episode only a few are in memory next to
what was given, whoever gives it.
"""

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from dp_hub.dataset import stats as st
from dp_hub.dataset.features import Column
from dp_hub.dataset.hashing import EpisodeHash
from dp_hub.dataset.images import BATCH, episode_encoder
from dp_hub.dataset.tables import picture_array, vector_array
from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip, rgb_of
from dp_hub.replay.episode import Episode

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class StoredEpisode:
    """An episode as files hold it, but for its place in them.

    Args:
        length: number of frames T.
        task: what was to be done, "" if not told.
        metadata: JSON text.
        sha256: of the content, hex.
        arrays: by feature, the columns of its rows in data/, without the index columns.
        clips: by video feature, its frames, encoded.
        samples: by video feature, some frames before encoding, by number; may lack features.
        stats: float64 ``(9, D)`` over numbers, then pictures, in the order of the columns.
        histograms: by picture feature, int64 ``(C, 256)``.
        n_pictures: by picture feature, how many frames the histogram is of.
        data_file: a file whose rows are just those of this and other episodes that are added one
            after the other, index columns included; it is taken over and ``arrays`` not looked at.
        video_files: by video feature, a file that only episodes to be added lie in, and from and to
            in seconds in it; it is taken over and ``clips`` not looked at.
    """

    length: int
    task: str
    metadata: str
    sha256: str
    arrays: Mapping[str, pa.Array]
    clips: Mapping[str, Sequence[VideoClip]]
    samples: Mapping[str, Mapping[int, np.ndarray]]
    stats: np.ndarray
    histograms: Mapping[str, np.ndarray]
    n_pictures: Mapping[str, int]
    data_file: Path | None = None
    video_files: Mapping[str, tuple[Path, float, float]] = field(default_factory=dict)


class Preparer:
    """Turns episodes into what files hold of them.

    Args:
        columns: the dataset's columns.
        fps: frames per second.
        pool: where pictures are encoded.
        ahead: how many pieces of work may wait in the pool.
    """

    def __init__(
        self, columns: Sequence[Column], *, fps: float, pool: Executor, ahead: int
    ) -> None:
        self._columns = list(columns)
        self._fps, self._pool, self._ahead = fps, pool, ahead

    def prepare(self, episode: Episode, number: int) -> StoredEpisode:
        """Everything about ``episode`` that does not depend on the files before it.

        Raises:
            DataError: a key is missing, of another shape or type than in the first episode, or an
                action is not finite.
        """
        wanted = {column.key for column in self._columns}
        if missing := wanted - set(episode.data):
            raise DataError(f"episode {number} has no {', '.join(sorted(missing))}")
        task = episode.task or ""
        digest = EpisodeHash(self._columns, episode.length, task)
        arrays: dict[str, pa.Array] = {}
        clips: dict[str, Sequence[VideoClip]] = {}
        samples: dict[str, Mapping[int, np.ndarray]] = {}
        measured: dict[str, np.ndarray] = {}
        seen: dict[str, Seen] = {}
        for column in digest.order:
            name, values = column.feature, episode.data[column.key]
            if not column.is_visual:
                stored = column.to_stored(np.asarray(values), episode=number)
                check_finite(column, stored, number)
                digest.add(stored)
                arrays[name] = vector_array(stored, column)
                measured[name] = stored
                continue
            seen[name] = Seen(episode.length, number)
            if column.dtype == "image":
                encoded = self._images(column, values, number, digest, seen[name])
                arrays[name] = picture_array(encoded)
                continue
            clips[name], sha256 = self._video(column, values, number, seen[name])
            samples[name] = seen[name].samples
            digest.add_video(sha256)
        return StoredEpisode(
            length=episode.length,
            task=task,
            metadata=json.dumps(dict(episode.metadata), sort_keys=True),
            sha256=digest.hexdigest(),
            arrays=arrays,
            clips=clips,
            samples=samples,
            stats=self._stats(measured, seen),
            histograms={name: one.histogram for name, one in seen.items()},
            n_pictures={name: one.n_sampled for name, one in seen.items()},
        )

    def _images(
        self, column: Column, values: Any, number: int, digest: EpisodeHash, seen: "Seen"
    ) -> list[bytes]:
        encode = episode_encoder(column.encoding or "webp", len(values), column.shape)

        def looked_at() -> Iterator[np.ndarray]:
            for first, block in picture_blocks(values, BATCH):
                stored = column.to_stored(block, episode=number, first=first)
                digest.add(stored)
                seen.look(first, stored)
                yield stored

        parts = side_by_side(self._pool, encode, looked_at(), ahead=self._ahead)
        return [data for part in parts for data in part]

    def _video(
        self, column: Column, values: Any, number: int, seen: "Seen"
    ) -> tuple[Sequence[VideoClip], str]:
        from dp_hub.dataset import video

        rate = video.exact_rate(self._fps)
        if column.copied:
            return self._copied(column, values, number, seen, rate)
        codec = column.encoding or "h264"
        if isinstance(values, VideoClip) and (values.codec, values.rate) == (codec, rate):
            # Nothing is lost by a second encoding where the first will do.
            with contextlib.suppress(video.NotCopyableError):
                sha256 = video.clips_sha256([values])
                for first, frames in raw_blocks(values, BATCH):
                    seen.look_raw(first, frames)
                return [values], sha256

        def looked_at() -> Iterator[Any]:
            if isinstance(values, VideoClip) and values.is_plain():
                # Never RGB but where it is looked at: half the work, and nothing is rounded.
                check_clip(column, values, number)
                for first, frames in raw_blocks(values, video.clip_frames(column.shape)):
                    seen.look_raw(first, frames, keep=True)
                    yield frames
                return
            for first, block in picture_blocks(values, video.clip_frames(column.shape)):
                stored = column.to_stored(block, episode=number, first=first)
                seen.look(first, stored)
                seen.keep(first, stored)
                yield stored

        def encode(pictures: Any) -> VideoClip:
            return video.encode_clip(pictures, rate=rate, codec=codec)

        clips = list(side_by_side(self._pool, encode, looked_at(), ahead=self._ahead))
        return clips, video.clips_sha256(clips)

    def _copied(
        self, column: Column, values: Any, number: int, seen: "Seen", rate: Fraction
    ) -> tuple[Sequence[VideoClip], str]:
        from dp_hub.dataset import video

        # Another codec than the source's is what makes it be encoded again.
        other = "av1" if column.encoding == "h264" else "h264"
        again = f"encode all of it again with --codec {other}, or --images webp"
        if not isinstance(values, VideoClip) or values.codec != column.encoding:
            raise DataError(
                f"{column.key} of episode {number} is not {column.encoding} video as in episode 0",
                hint=again,
            )
        if values.rate != rate:
            raise DataError(
                f"{values.name} has {float(values.rate):g} frames a second, the dataset "
                f"{float(rate):g}",
                hint=again,
            )
        check_clip(column, values, number)
        for first, frames in raw_blocks(values, BATCH):
            seen.look_raw(first, frames)
        try:
            return [values], video.clips_sha256([values])
        except video.NotCopyableError as error:
            raise DataError(
                f"{column.key} of episode {number} cannot be copied: {error}", hint=again
            ) from None

    def _stats(self, measured: Mapping[str, np.ndarray], seen: Mapping[str, "Seen"]) -> np.ndarray:
        numbers = [measured[c.feature] for c in self._columns if not c.is_visual]
        parts = [st.matrix_stats(st.side_by_side(numbers))] if numbers else []
        parts += [st.picture_stats(seen[c.feature].histogram) for c in self._columns if c.is_visual]
        return np.concatenate(parts, axis=1)


class Seen:
    """What is remembered of pictures as they pass: a histogram, and a few to compare with."""

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

    def look(self, first: int, pictures: np.ndarray) -> None:
        """Count those frames of uint8 ``(t, H, W, C)``, from ``first`` on, that are sampled."""
        low, high = np.searchsorted(self._sampled, [first, first + len(pictures)])
        if low < high:
            counts = st.picture_counts(pictures, self._sampled[low:high] - first)
            self._histogram = counts if self._histogram is None else self._histogram + counts

    def look_raw(self, first: int, frames: Sequence[Any], *, keep: bool = False) -> None:
        """As `look`, and `keep` if wanted, at raw frames of a clip."""
        from av.video.reformatter import VideoReformatter

        reformatter = VideoReformatter()
        low, high = np.searchsorted(self._sampled, [first, first + len(frames)])
        sampled = set(self._sampled[low:high].tolist())
        kept = {n for n in self._kept if keep and first <= n < first + len(frames)}
        pictures = {n: rgb_of(frames[n - first], reformatter) for n in sorted(sampled | kept)}
        if sampled:
            counts = st.picture_counts(
                np.stack([pictures[n] for n in sorted(sampled)]), np.arange(len(sampled))
            )
            self._histogram = counts if self._histogram is None else self._histogram + counts
        self.samples |= {n: pictures[n].copy() for n in sorted(kept)}

    def keep(self, first: int, pictures: np.ndarray) -> None:
        """Keep those frames that will be read back: both ends and one between."""
        for number in self._kept:
            if first <= number < first + len(pictures):
                self.samples[number] = pictures[number - first].copy()


def check_finite(column: Column, values: np.ndarray, number: int) -> None:
    """Raises DataError if an action is not finite."""
    if not column.feature.startswith("action") or values.dtype.kind != "f":
        return
    # A sum is finite only if all terms are; overflow is looked at again.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):
            return
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        step = int(np.argmax(bad))
        raise DataError(
            f"{column.key} of episode {number} is {values[step].tolist()} at step {step}; "
            f"{int(bad.sum())} of its {len(bad)} steps are not finite",
            hint="a policy cannot learn from that: mend or leave out the episode in the source",
        )


def check_clip(column: Column, clip: VideoClip, number: int) -> None:
    """Raises DataError if a clip's frames are not as in the first episode."""
    column.to_stored(np.empty((0, *clip.shape[1:]), clip.dtype), episode=number)


def raw_blocks(clip: VideoClip, size: int) -> Iterator[tuple[int, list[Any]]]:
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


def side_by_side(
    pool: Executor, work: Callable[[T], R], items: Iterable[T], *, ahead: int
) -> Iterator[R]:
    """``work`` on every item in the pool, in order; at most ``ahead`` items wait or are at work."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
