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
from dp_hub.dataset.seen import Seen, picture_blocks, raw_blocks
from dp_hub.dataset.tables import picture_array, vector_array
from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip
from dp_hub.replay.episode import Episode
from dp_hub.replay.timeline.taken import Taken

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
        encoded_again: by feature that is copied otherwise, why this episode was not.
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
    encoded_again: Mapping[str, str] = field(default_factory=dict)


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
        histograms: dict[str, np.ndarray] = {}
        n_pictures: dict[str, int] = {}
        encoded_again: dict[str, str] = {}
        for column in digest.order:
            name, values = column.feature, episode.data[column.key]
            if not column.is_visual:
                stored = column.to_stored(np.asarray(values), episode=number)
                check_finite(column, stored, number)
                digest.add(stored)
                arrays[name] = vector_array(stored, column)
                measured[name] = stored
                continue
            seen = Seen(episode.length, number)
            if column.dtype == "image":
                encoded = self._images(column, values, number, digest, seen)
                arrays[name] = picture_array(encoded)
                histograms[name], n_pictures[name] = seen.histogram, seen.n_sampled
                continue
            video = self._video(column, values, number, seen)
            clips[name], samples[name] = video.clips, seen.samples
            histograms[name], n_pictures[name] = video.histogram, video.n_sampled
            digest.add_video(video.sha256)
            if video.why_encoded:
                encoded_again[name] = video.why_encoded
        return StoredEpisode(
            length=episode.length,
            task=task,
            metadata=json.dumps(dict(episode.metadata), sort_keys=True),
            sha256=digest.hexdigest(),
            arrays=arrays,
            clips=clips,
            samples=samples,
            stats=self._stats(measured, histograms),
            histograms=histograms,
            n_pictures=n_pictures,
            encoded_again=encoded_again,
        )

    def _images(
        self, column: Column, values: Any, number: int, digest: EpisodeHash, seen: Seen
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

    def _video(self, column: Column, values: Any, number: int, seen: Seen) -> "_Video":
        from dp_hub.dataset import video
        from dp_hub.dataset.packets import NotCopyableError, clips_sha256

        rate = video.exact_rate(self._fps)
        if column.copied:
            return self._copied(column, values, number, seen, rate)
        codec = column.encoding or "h264"
        if isinstance(values, VideoClip) and (values.codec, values.rate) == (codec, rate):
            check_clip(column, values, number)
            # Nothing is lost by a second encoding where the first will do.
            with contextlib.suppress(NotCopyableError):
                sha256 = clips_sha256([values])
                for first, frames in raw_blocks(values, BATCH):
                    seen.look_raw(first, frames)
                return _Video([values], sha256, seen.histogram, seen.n_sampled)
        clips = self._encoded(column, values, number, seen, rate)
        return _Video(clips, clips_sha256(clips), seen.histogram, seen.n_sampled)

    def _copied(
        self, column: Column, values: Any, number: int, seen: Seen, rate: Fraction
    ) -> "_Video":
        from dp_hub.dataset.copied import look_through
        from dp_hub.dataset.packets import NotCopyableError

        threads = max(1, self._ahead // 2)
        reason = why_encoded(column, values, rate)
        if reason is None:
            check_clip(column, values, number)
            try:
                found = look_through([values], threads=threads)
                usual = column.pix_fmt or "yuv420p"
                if found.pix_fmt == usual:
                    return _Video([values], found.sha256, found.histogram, found.n_sampled)
                reason = f"its pixels are {found.pix_fmt}, not {usual}"
            except NotCopyableError as error:
                reason = error.reason
        check_encoder(column, number, reason)
        clips = self._encoded(column, values, number, seen, rate)
        found = look_through(clips, threads=threads)
        return _Video(clips, found.sha256, found.histogram, found.n_sampled, reason)

    def _encoded(
        self, column: Column, values: Any, number: int, seen: Seen, rate: Fraction
    ) -> list[VideoClip]:
        from dp_hub.dataset import video

        size = video.clip_frames(column.shape)
        pix_fmt = column.pix_fmt or "yuv420p"

        def looked_at() -> Iterator[Any]:
            if isinstance(values, VideoClip | Taken) and pix_fmt == "yuv420p" and values.is_plain():
                # Never RGB but where it is looked at: half the work, and nothing is rounded.
                check_clip(column, values, number)
                for first, frames in raw_blocks(values, size):
                    seen.look_raw(first, frames, keep=True)
                    yield frames
                return
            for first, block in picture_blocks(values, size):
                stored = column.to_stored(block, episode=number, first=first)
                seen.look(first, stored)
                seen.keep(first, stored)
                yield stored

        def encode(pictures: Any) -> VideoClip:
            return video.encode_clip(
                pictures, rate=rate, codec=column.encoding or "h264", pix_fmt=pix_fmt
            )

        return list(side_by_side(self._pool, encode, looked_at(), ahead=self._ahead))

    def _stats(
        self, measured: Mapping[str, np.ndarray], histograms: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        numbers = [measured[c.feature] for c in self._columns if not c.is_visual]
        parts = [st.matrix_stats(st.side_by_side(numbers))] if numbers else []
        parts += [st.picture_stats(histograms[c.feature]) for c in self._columns if c.is_visual]
        return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class _Video:
    """An episode of a camera, encoded; `StoredEpisode` says what of it is kept."""

    clips: Sequence[VideoClip]
    sha256: str
    histogram: np.ndarray
    n_sampled: int
    why_encoded: str | None = None


def why_encoded(column: Column, values: Any, rate: Fraction) -> str | None:
    """Why an episode of a copied feature cannot be copied, as far as it is told by its headers."""
    if not isinstance(values, VideoClip):
        return "its frames do not follow one another in a video"
    if values.codec != column.encoding:
        return f"it is {values.codec}, not {column.encoding}"
    if values.rate != rate:
        return f"it has {float(values.rate):g} frames a second, the dataset {float(rate):g}"
    return None


def check_encoder(column: Column, number: int, reason: str) -> None:
    """Raises DataError if there is no encoder for what a copied feature is encoded as."""
    from dp_hub.dataset.video import can_encode

    codec, pix_fmt = column.encoding or "h264", column.pix_fmt or "yuv420p"
    if not can_encode(codec, pix_fmt):
        # Another codec than the source's is what makes it be encoded again.
        other = "av1" if codec == "h264" else "h264"
        raise DataError(
            f"{column.key} of episode {number} cannot be copied as episode 0 is: {reason}; and "
            f"{codec} of {pix_fmt} is not encoded here",
            hint=f"encode all of it again with --codec {other}, or --images webp",
        )


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


def check_clip(column: Column, clip: VideoClip | Taken, number: int) -> None:
    """Raises DataError if a clip's frames are not as in the first episode."""
    column.to_stored(np.empty((0, *clip.shape[1:]), clip.dtype), episode=number)


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
