"""Videos: are the frames that meta/episodes counts on there, at their times, and visible.

All packets are counted, which needs no decoding; only some frames are decoded.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from dp_hub.dataset.checks import thresholds as th
from dp_hub.dataset.checks.bounds import Bounds, told_lengths
from dp_hub.dataset.checks.finding import Finding, found, some
from dp_hub.dataset.checks.pictures import check_picture_stats, emptiness, sampled
from dp_hub.dataset.checks.view import JsonFile, View, picture_size, short, template_path
from dp_hub.dataset.columns import Feature

_ERRORS = (av.error.FFmpegError, OSError, ValueError, IndexError, MemoryError)
_NAMES = {"libdav1d": "av1", "libaom-av1": "av1", "libsvtav1": "av1", "libx264": "h264",
          "libx265": "hevc", "h265": "hevc"}  # fmt: skip
_KEPT = 50  # sampled pictures of a camera that are compared with those of the others


@dataclass(frozen=True)
class Stream:
    """What a video says without being decoded.

    Attributes:
        seconds: float64, when each frame is shown, ascending.
        key_distance: the largest distance of key frames, in frames.
    """

    seconds: np.ndarray
    height: int
    width: int
    codec: str
    pix_fmt: str
    rate: float | None
    reorders: bool
    key_distance: int


def read_stream(path: Path) -> Stream:
    """Read all packets of the first video stream. Raises one of `_ERRORS`."""
    with av.open(str(path)) as opened:
        container: Any = opened
        stream = container.streams.video[0]
        context = stream.codec_context
        base = stream.time_base
        times: list[int] = []
        keys: list[int] = []
        for packet in container.demux(stream):
            if packet.pts is not None and not getattr(packet, "is_discard", False):
                if packet.is_keyframe:
                    keys.append(len(times))
                times.append(packet.pts)
        distances = np.diff([*keys, len(times)]) if keys else np.array([len(times)])
        return Stream(
            seconds=np.sort(np.array(times, np.float64) * float(base)),
            height=context.height,
            width=context.width,
            codec=_NAMES.get(context.name, context.name),
            pix_fmt=str(context.pix_fmt),
            rate=float(stream.average_rate) if stream.average_rate else None,
            reorders=bool(context.has_b_frames) if hasattr(context, "has_b_frames") else False,
            key_distance=int(distances.max(initial=0)),
        )


class Videos:
    """Checks all videos of a dataset.

    Args:
        view: the dataset.
        bounds: its episodes.
        moves: bool (R,), in which episodes the state moves.
    """

    def __init__(self, view: View, bounds: Bounds, moves: np.ndarray) -> None:
        self._view, self._bounds, self._moves = view, bounds, moves
        self._lengths = _row_lengths(view, bounds)
        self._run_of_row = {int(row): run for run, row in enumerate(bounds.row) if row >= 0}
        self._kept: dict[str, dict[tuple[int, int], np.ndarray]] = {}
        self._elsewhere: set[tuple[str, int]] = set()
        self.n_decoded = 0
        self.unchecked: list[str] = []

    def check(self, stats: JsonFile, progress: Callable[[int], None]) -> Iterator[Finding]:
        """All findings; ``progress`` is told the number of files done."""
        done = 0
        for feature in self._view.videos:
            yield from self._check_camera(feature, stats, partial(_further, progress, done))
            done += len(self._files(feature) or {})
        yield from self._alike()

    def n_files(self) -> int:
        """How many videos there are to look at."""
        return sum(len(self._files(feature) or {}) for feature in self._view.videos)

    def _files(self, feature: Feature) -> dict[tuple[int, int], np.ndarray] | None:
        """Rows of meta/episodes by (chunk, file)."""
        rows = self._view.episodes
        chunks = rows.ints(f"videos/{feature.name}/chunk_index")
        files = rows.ints(f"videos/{feature.name}/file_index")
        if chunks is None or files is None:
            return None
        named: dict[tuple[int, int], list[int]] = {}
        for row, pair in enumerate(zip(chunks.tolist(), files.tolist(), strict=True)):
            if min(pair) >= 0:
                named.setdefault(pair, []).append(row)
        return {pair: np.array(where) for pair, where in sorted(named.items())}

    def _check_camera(
        self, feature: Feature, stats: JsonFile, progress: Callable[[int], None]
    ) -> Iterator[Finding]:
        files = self._files(feature)
        if files is None:
            self.unchecked.append(f"videos of {feature.name}: meta/episodes doesn't say where")
            return
        missing: dict[str, list[int]] = {}
        looks = _Looks(feature.name)
        for done, ((chunk, file), rows) in enumerate(files.items(), 1):
            path = template_path(self._view, "video", chunk, file, feature.name)
            if path is None:
                continue
            name = path.relative_to(self._view.root).as_posix()
            if not path.exists():
                missing[name] = rows.tolist()
                continue
            try:
                stream = read_stream(path)
            except _ERRORS as error:
                yield found("VIDEO-002", f"{name} cannot be read: {short(error)}", rows)
                continue
            yield from self._check_stream(feature, name, stream)
            yield from self._check_places(feature, name, stream, rows)
            yield from self._sample(feature, path, name, rows, looks)
            progress(done)
        if missing:
            lost = [row for rows in missing.values() for row in rows]
            what = f"{len(missing)} videos of {feature.name} are missing: {some(missing)}"
            yield found("VIDEO-001", what, lost)
            self.unchecked.append(f"the pictures of {len(lost)} episodes of {feature.name}")
        yield from looks.findings()
        if looks.n:
            yield from check_picture_stats(stats, feature.name, looks.total / looks.n, looks.n)

    def _check_stream(self, feature: Feature, name: str, stream: Stream) -> Iterator[Finding]:
        height, width, _ = picture_size(feature)
        if (stream.height, stream.width) != (height, width):
            seen = f"{stream.height}x{stream.width}, declared is {height}x{width}"
            yield found("VIDEO-005", f"{name} is {seen}")
        entry = self._view.info.values["features"][feature.name]
        said = entry.get("info") or entry.get("video_info") or {}
        said = said if isinstance(said, dict) else {}
        codec, fps = said.get("video.codec"), said.get("video.fps")
        wrong = []
        if isinstance(codec, str) and _NAMES.get(codec, codec) != stream.codec:
            wrong.append(f"codec {stream.codec}, declared {codec}")
        pix_fmt = said.get("video.pix_fmt")
        if isinstance(pix_fmt, str) and pix_fmt != stream.pix_fmt:
            wrong.append(f"pixel format {stream.pix_fmt}, declared {pix_fmt}")
        rates = [r for r in (fps, self._view.fps) if isinstance(r, int | float)]
        if stream.rate and any(abs(stream.rate - rate) > 0.01 * rate for rate in rates):
            wrong.append(f"{stream.rate:.6g} frames a second, declared {rates[0]:g}")
        if wrong:
            yield found("VIDEO-006", f"{name}: {'; '.join(wrong)}")
        if stream.key_distance > th.GOP_FRAMES:
            yield found("VIDEO-009", f"{name} has {stream.key_distance} frames to a key frame")
        if stream.codec == "hevc" and stream.reorders:
            yield found("VIDEO-010", f"{name} is HEVC with B-frames")

    def _check_places(
        self, feature: Feature, name: str, stream: Stream, rows: np.ndarray
    ) -> Iterator[Finding]:
        fps, values = self._view.fps, self._view.episodes.values
        start = values.get(f"videos/{feature.name}/from_timestamp")
        stop = values.get(f"videos/{feature.name}/to_timestamp")
        if fps is None or start is None:
            self.unchecked.append(f"the times of {name}")
            return
        lengths = self._lengths[rows]
        known = np.isfinite(start[rows]) & (lengths > 0)
        if stop is not None:
            n = np.rint(np.nan_to_num(stop[rows] - start[rows]) * fps).astype(np.int64)
            off = known & np.isfinite(stop[rows]) & (n != lengths)
            if off.any():
                i = int(np.flatnonzero(off)[0])
                what = f"{name} gives episode {rows[i]} {n[i]} frames, its rows are {lengths[i]}"
                yield found("VIDEO-003", f"{what} ({off.sum()} episodes)", rows[off])
                known &= ~off
        late = []
        for row, length, ok in zip(rows.tolist(), lengths.tolist(), known.tolist(), strict=True):
            if ok and not _covered(stream.seconds, start[row] + np.arange(length) / fps):
                late.append(row)
        self._elsewhere |= {(feature.name, row) for row in late}
        if late:
            shown = f"{len(stream.seconds)} frames up to {stream.seconds[-1]:.3f} s" if len(
                stream.seconds) else "no frames"  # fmt: skip
            what = f"{name} holds {shown}; frames of {len(late)} episodes are not where they belong"
            yield found("VIDEO-004", what, late)
        order = np.argsort(start[rows], kind="stable")
        begin, end = start[rows][order], (start[rows] + lengths / fps)[order]
        shared = np.flatnonzero(begin[1:] < end[:-1] - 0.5 / fps)
        if len(shared):
            one, other = rows[order[shared[0]]], rows[order[shared[0] + 1]]
            what = f"episodes {one} and {other} share frames of {name}"
            yield found("VIDEO-008", what, rows[order[shared + 1]])

    def _sample(
        self, feature: Feature, path: Path, name: str, rows: np.ndarray, looks: "_Looks"
    ) -> Iterator[Finding]:
        fps = self._view.fps
        start = self._view.episodes.values.get(f"videos/{feature.name}/from_timestamp")
        if fps is None or start is None:
            return
        chosen = _spread(rows, self._view.episodes.n)
        kept = self._kept.setdefault(feature.name, {})
        failed: list[int] = []
        reason = ""
        for row in chosen.tolist():
            length = int(self._lengths[row])
            if (feature.name, row) in self._elsewhere or length < 1 or not np.isfinite(start[row]):
                continue
            # Away from the ends, where coding mixes in the neighbouring episodes.
            shares = (np.arange(th.VIDEO_FRAMES_PER_EPISODE) + 0.5) / th.VIDEO_FRAMES_PER_EPISODE
            numbers = np.unique(np.floor(shares * length))
            try:
                frames = _decoded(path, start[row] + numbers / fps)
            except _ERRORS as error:
                failed.append(row)
                reason = short(error)
                continue
            self.n_decoded += len(frames)
            run = self._run_of_row.get(row)
            moves = run is not None and bool(self._moves[run]) and length / fps > th.FROZEN_S
            looks.add(row, frames, moves=moves)
            for number, frame in zip(numbers.tolist(), frames, strict=False):
                if len(kept) < _KEPT:
                    kept[(row, int(number))] = sampled(frame).copy()
        if failed:
            yield found("VIDEO-007", f"{name}: {reason or 'frames cannot be decoded'}", failed)

    def _alike(self) -> Iterator[Finding]:
        for one, other in itertools.combinations(self._kept, 2):
            both = self._kept[one].keys() & self._kept[other].keys()
            pairs = [(self._kept[one][key], self._kept[other][key]) for key in both]
            pairs = [(a, b) for a, b in pairs if a.shape == b.shape and a.mean() > th.BLACK_MEAN]
            differences = [np.abs(a.astype(np.int16) - b).mean() for a, b in pairs]
            if differences and float(np.mean(differences)) < th.SAME_CAMERA_MEAN:
                yield found("IMAGE-006", f"{one} and {other} show the same pictures")


class _Looks:
    """What sampled frames of one camera show."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._black: list[int] = []
        self._flat: list[int] = []
        self._frozen: list[int] = []
        self.total, self.n = np.zeros(3), 0

    def add(self, row: int, frames: list[np.ndarray], *, moves: bool) -> None:
        """Some frames of one episode, in order; ``moves``: whether they should differ."""
        if not frames:
            return
        samples = np.stack([sampled(f) for f in frames])
        black, flat = emptiness(samples)
        self._black += [row] * int(black.sum())
        self._flat += [row] * int(flat.sum())
        self.total = self.total + samples.mean(axis=(1, 2)).sum(axis=0) / 255
        self.n += len(samples)
        if moves and len(frames) > 1 and all(_same(a, b) for a, b in itertools.pairwise(frames)):
            self._frozen.append(row)

    def findings(self) -> Iterator[Finding]:
        """What was seen."""
        for id, rows, text in (
            ("IMAGE-003", self._black, "{} of {} sampled frames of {} are black"),
            ("IMAGE-004", self._flat, "{} of {} sampled frames of {} are of one colour"),
        ):
            if rows:
                yield found(id, text.format(len(rows), self.n, self._name), rows)
        if self._frozen:
            what = f"{self._name} shows one picture through {len(self._frozen)} episodes"
            yield found("IMAGE-005", f"{what} while the state moves", self._frozen)


def _further(progress: Callable[[int], None], before: int, done: int) -> None:
    progress(before + done)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    difference = np.abs(a.astype(np.int16) - b)
    return bool(
        difference.mean() <= th.FROZEN_VIDEO_MEAN and difference.max() <= th.FROZEN_VIDEO_MAX
    )


def _row_lengths(view: View, bounds: Bounds) -> np.ndarray:
    """Frames of each row of meta/episodes: by the rows of data/, else by itself; int64 (E,)."""
    told = told_lengths(view.episodes)
    lengths = np.zeros(view.episodes.n, np.int64) if told is None else told.copy()
    known = bounds.row >= 0
    lengths[bounds.row[known]] = bounds.lengths[known]
    return lengths


def _spread(rows: np.ndarray, n_episodes: int) -> np.ndarray:
    """The rows whose frames are decoded: all, or evenly spread ones if they are too many."""
    allowed = th.VIDEO_FRAMES // th.VIDEO_FRAMES_PER_EPISODE
    if n_episodes <= allowed:
        return rows
    step = n_episodes / allowed
    return rows[np.unique(np.floor(rows / step), return_index=True)[1]]


def _covered(seconds: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether there is a frame within the tolerance of every wanted time."""
    if not len(seconds):
        return False
    right = np.clip(np.searchsorted(seconds, wanted), 0, len(seconds) - 1)
    left = np.maximum(right - 1, 0)
    off = np.minimum(np.abs(seconds[right] - wanted), np.abs(seconds[left] - wanted))
    return bool((off <= th.TOLERANCE_S + 1e-6).all())


def _decoded(path: Path, wanted: np.ndarray) -> list[np.ndarray]:
    """Frames uint8 (H, W, 3) nearest to these ascending times. Raises one of `_ERRORS`."""
    frames = []
    with av.open(str(path)) as opened:
        container: Any = opened
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for second in wanted.tolist():
            container.seek(max(0, int(second / stream.time_base)), stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.time is not None and frame.time >= second - 1e-3:
                    frames.append(frame.to_ndarray(format="rgb24"))
                    break
    if len(frames) < len(wanted):
        raise ValueError(f"{len(wanted) - len(frames)} of {len(wanted)} frames cannot be decoded")
    return frames
