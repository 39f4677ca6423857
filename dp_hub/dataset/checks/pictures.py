"""Pictures stored in the tables: do they decode, do they show something, do they change."""

import io
import itertools
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from dp_hub.dataset.checks import thresholds as th
from dp_hub.dataset.checks.bounds import Bounds
from dp_hub.dataset.checks.finding import Finding, found
from dp_hub.dataset.checks.numbers import still_stretches
from dp_hub.dataset.checks.view import JsonFile, picture_size
from dp_hub.dataset.columns import Feature

# What Pillow raises for bytes that are no picture, depending on the format.
DECODE_ERRORS = (OSError, ValueError, SyntaxError, OverflowError, MemoryError, struct.error,
                  Image.DecompressionBombError)  # fmt: skip


_BATCH = 32  # pictures per task: enough to hide the cost of handing it over


@dataclass(frozen=True)
class Looked:
    """What is known of one picture.

    Attributes:
        sample: uint8 (h, w, C), 1/16 of the pixels; None if it can't be decoded.
        full: uint8 (H, W, C), if it was asked for.
        fault: the rule that is broken, and how.
    """

    sample: np.ndarray | None
    full: np.ndarray | None = None
    fault: tuple[str, str] | None = None


def look(entry: Any, size: tuple[int, int, int], *, full: bool) -> Looked:
    """Decode one stored picture.

    Args:
        entry: its struct of ``bytes`` and ``path``.
        size: (H, W, C) as declared.
        full: whether all pixels are wanted.
    """
    data = entry.get("bytes") if isinstance(entry, dict) else None
    if not data:
        path = str(entry.get("path") or "") if isinstance(entry, dict) else ""
        if path and (PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute()):
            return Looked(None, fault=("PORT-001", f"is in a file elsewhere: {path}"))
        return Looked(None, fault=("IMAGE-001", "has no bytes"))
    try:
        with Image.open(io.BytesIO(data)) as image:
            if (image.height, image.width) != size[:2]:
                seen = f"is {image.height}x{image.width}, not {size[0]}x{size[1]}"
                return Looked(None, fault=("IMAGE-002", seen))
            mode = {1: "L", 3: "RGB"}.get(size[2])
            pixels = np.asarray(image.convert(mode) if mode else image)
    except DECODE_ERRORS as error:
        return Looked(None, fault=("IMAGE-001", f"cannot be decoded: {str(error)[:100]}"))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if pixels.dtype != np.uint8:  # depth
        return Looked(None)
    sample = sampled(pixels)
    return Looked(sample.copy() if not full else sample, pixels if full else None)


def sampled(picture: np.ndarray) -> np.ndarray:
    """1/16 of the pixels of (H, W, C); more of a very small picture."""
    step = max(1, min(th.PIXEL_STEP, min(picture.shape[:2]) // th.PIXEL_LEAST))
    return picture[::step, ::step]


def emptiness(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of uint8 (T, h, w, C) are black, and which of the others are flat; bool (T,) each."""
    flat = samples.reshape(len(samples), -1, samples.shape[-1])
    mean = flat.mean(axis=1)  # (T, C)
    squares = np.einsum("tpc,tpc->tc", flat, flat, dtype=np.float64) / flat.shape[1]
    std = np.sqrt(np.maximum(squares - mean**2, 0)).max(axis=1)
    black = mean.mean(axis=1) < th.BLACK_MEAN
    return black, (std < th.FLAT_STD) & ~black


class Pictures:
    """Looks at all pictures of the tables, one episode at a time.

    Args:
        features: of dtype ``image``.
        bounds: the episodes.
        fps: frames per second; None if unknown.
        pool: decodes.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        bounds: Bounds,
        fps: float | None,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._features, self._bounds, self._pool = list(features), bounds, pool
        self._frozen_frames = math.inf if fps is None else th.FROZEN_S * fps
        self._faults: dict[tuple[str, str], list[Any]] = {}
        self._pairs = {pair: [0.0, 0] for pair in itertools.combinations(
            [f.name for f in features], 2)}  # fmt: skip
        self._sums = {f.name: np.zeros(picture_size(f)[2]) for f in features}
        self._counts = dict.fromkeys(self._sums, 0)
        self.n_frames = self.n_same = self.n_black = 0

    def add(
        self, at: int, columns: Mapping[str, Any], state: np.ndarray | None, *, full: bool
    ) -> dict[str, np.ndarray] | None:
        """Look at one episode.

        Args:
            columns: by feature, the structs of its pictures.
            state: float64 (T, n) in units of the range, or None.
            full: whether to return the pictures.
        Returns:
            uint8 (T, H, W, C) by feature, if asked for and all can be decoded; else None.
        """
        pictures: dict[str, np.ndarray] | None = {} if full else None
        samples: dict[str, np.ndarray] = {}
        for feature in self._features:
            entries = columns.get(feature.name)
            if entries is None:
                pictures = None
                continue
            size = picture_size(feature)
            looked = self._looked(entries, size, full=full)
            self._still(at, feature.name, entries, state)
            good = [one.sample for one in looked if one.sample is not None]
            for frame, one in enumerate(looked):
                if one.fault:
                    self._fault(one.fault[0], feature.name, at, f"frame {frame} {one.fault[1]}")
            if good:
                samples[feature.name] = np.stack(good)
                self._empty(at, feature.name, samples[feature.name])
            every = [one.full for one in looked if one.full is not None]
            if pictures is not None and len(every) == len(looked):
                pictures[feature.name] = np.stack(every)
            else:
                pictures = None
        self._alike(samples)
        return pictures

    def _looked(
        self, entries: Sequence[Any], size: tuple[int, int, int], *, full: bool
    ) -> list[Looked]:
        parts = [entries[i : i + _BATCH] for i in range(0, len(entries), _BATCH)]
        done = self._pool.map(lambda part: [look(e, size, full=full) for e in part], parts)
        return [one for part in done for one in part]

    def _fault(self, id: str, feature: str, at: int, what: str, n: int = 1) -> None:
        entry = self._faults.setdefault((id, feature), [what, set(), 0])
        entry[1].add(int(self._bounds.number[at]))
        entry[2] += n

    def _empty(self, at: int, name: str, samples: np.ndarray) -> None:
        black, flat = emptiness(samples)
        self.n_black += int(black.sum())
        for id, which in (("IMAGE-003", black), ("IMAGE-004", flat)):
            if which.any():
                self._fault(id, name, at, "", int(which.sum()))
        if samples.shape[-1] == len(self._sums[name]):
            self._sums[name] += samples.mean(axis=(0, 1, 2)) / 255 * len(samples)
            self._counts[name] += len(samples)

    def _still(self, at: int, name: str, entries: Sequence[Any], state: np.ndarray | None) -> None:
        data = [e.get("bytes") if isinstance(e, dict) else None for e in entries]
        same = np.array([a == b for a, b in itertools.pairwise(data)], bool)
        self.n_frames += len(data)
        self.n_same += int(same.sum())
        if state is None:
            return
        for a, b in still_stretches(same):
            if b - a > self._frozen_frames and (np.ptp(state[a:b], axis=0) > th.MOVING).any():
                self._fault("IMAGE-005", name, at, "", b - a)

    def _alike(self, samples: Mapping[str, np.ndarray]) -> None:
        for pair, total in self._pairs.items():
            one, other = (samples.get(name) for name in pair)
            if one is None or other is None or one.shape != other.shape:
                continue
            difference = np.abs(one.astype(np.int16) - other.astype(np.int16)).mean()
            if one.mean() >= th.BLACK_MEAN:
                total[0] += float(difference) * len(one)
                total[1] += len(one)

    def findings(self, stats: JsonFile) -> Iterator[Finding]:
        """What was seen, and whether the stored mean is that of the pictures."""
        for (id, name), (what, episodes, n) in self._faults.items():
            texts = {
                "IMAGE-001": f"{n} pictures of {name} cannot be used: {what}",
                "IMAGE-002": f"{n} pictures of {name} have another size: {what}",
                "IMAGE-003": f"{n} pictures of {name} are black",
                "IMAGE-004": f"{n} pictures of {name} are of one colour",
                "IMAGE-005": f"{name} stays the same for {n} frames while the state moves",
                "PORT-001": f"{n} pictures of {name} are not in the dataset: {what}",
            }
            yield found(id, texts[id], episodes)
        for (one, other), (difference, n) in self._pairs.items():
            if n and difference / n < th.SAME_CAMERA_MEAN:
                yield found("IMAGE-006", f"{one} and {other} show the same pictures")
        for name, n in self._counts.items():
            if n:
                yield from check_picture_stats(stats, name, self._sums[name] / n, n)


def check_picture_stats(
    stats: JsonFile, name: str, mean: np.ndarray, n_frames: int
) -> Iterator[Finding]:
    """The stored statistics of pictures against the mean (C,) of sampled ones, in 0..1."""
    entry = stats.values.get(name)
    if not isinstance(entry, dict):
        return
    try:
        stored = {k: np.asarray(entry[k], np.float64).reshape(-1) for k in ("min", "max", "mean")
                  if k in entry}  # fmt: skip
    except (TypeError, ValueError):
        return  # STATS-007
    values = np.concatenate([*stored.values(), np.zeros(0)])
    if len(values) and (values.min() < 0 or values.max() > 1):
        what = f"statistics of {name} are {values.min():g} to {values.max():g}, not in 0..1"
        yield found("STATS-009", what)
    elif "mean" in stored and len(stored["mean"]) == len(mean) and n_frames >= th.PICTURE_FRAMES:
        off = float(np.abs(stored["mean"] - mean).max())
        if off > th.PICTURE_MEAN:
            yield found("STATS-009", f"the mean of {name} is off by {off:.3f} (of 1)")
