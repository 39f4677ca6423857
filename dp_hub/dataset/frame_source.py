"""Pictures of a dataset, decoded part by part: from an Image column, or from videos."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from dp_hub.dataset.columns import DataFile, Feature, batches, open_parquet
from dp_hub.dataset.episode_index import EpisodeIndex
from dp_hub.dataset.layout import VIDEO_PATH, file_path
from dp_hub.errors import DataError
from dp_hub.replay.clip import frames_at, video_stream

_PART_BYTES = 4_000_000  # of decoded pictures; see dp_hub.dataset.frame_cache


@dataclass(frozen=True)
class Part:
    """Some consecutive frames.

    Attributes:
        start: number of the first one.
        count: how many there are.
        frames: decodes them, one uint8 (H, W, C) after the other. Called in any thread.
    """

    start: int
    count: int
    frames: Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class FrameSource:
    """All pictures of one feature.

    Attributes:
        name: of the feature.
        shape: (N, H, W, C).
        origin: sha256 of the names and sizes of the files they are in: a cheap sign of change.
        parts: lists the parts, in order and without gaps; lazily, so take them one by one.
    """

    name: str
    shape: tuple[int, int, int, int]
    origin: str
    parts: Callable[[], Iterable[Part]]


def image_source(root: Path, files: list[DataFile], feature: Feature) -> FrameSource:
    """The pictures of a column of encoded images (PNG, WebP, JPEG...)."""
    shape, _ = picture_shape(feature)
    return FrameSource(
        name=feature.name,
        shape=(files[-1].stop, *shape),
        origin=_origin(root, [file.path for file in files]),
        parts=partial(_image_parts, files, feature.name, shape),
    )


def video_source(
    root: Path, info: Mapping[str, Any], episodes: EpisodeIndex, feature: Feature
) -> FrameSource:
    """The pictures of a video feature; every episode is one part.

    Raises:
        DataError: a video is missing, or an episode's times do not give its number of frames.
    """
    shape, _ = picture_shape(feature)
    paths = video_paths(root, info, episodes, feature.name)
    from_s, to_s = episodes.places[feature.name].from_s, episodes.places[feature.name].to_s
    fps = float(info["fps"])
    n_frames = np.rint((to_s - from_s) * fps).astype(np.int64)
    wrong = np.flatnonzero(n_frames != episodes.lengths)
    if len(wrong):
        i = wrong[0]
        raise DataError(
            f"episode {i} has {episodes.lengths[i]} frames, but {feature.name} has it from "
            f"{from_s[i]:.3f} s to {to_s[i]:.3f} s: {n_frames[i]} frames at {fps:g} Hz",
            hint="meta/episodes and the videos do not belong together",
        )
    parts = [
        Part(int(start), int(count), partial(video_frames, path, float(at), int(count), fps, shape))
        for start, count, path, at in zip(
            episodes.starts, episodes.lengths, paths, from_s, strict=True
        )
    ]
    return FrameSource(
        name=feature.name,
        shape=(int(episodes.stops[-1]), *shape),
        origin=_origin(root, sorted(set(paths))),
        parts=lambda: parts,
    )


def picture_shape(feature: Feature) -> tuple[tuple[int, int, int], list[str]]:
    """(H, W, C) of a feature, which some recorders give as (C, H, W), and its names."""
    if len(feature.shape) != 3:
        raise DataError(f"{feature.name} has the shape {list(feature.shape)}, not that of pictures")
    names = [str(name).lower() for name in feature.names] if isinstance(feature.names, list) else []
    a, b, c = feature.shape
    first = bool(names) and (names[0] == "c" or names[0].startswith("channel"))
    # Some tools give names that do not belong to the sizes, or none; the sizes seldom leave doubt.
    if first != (a in (1, 3)) and (a in (1, 3)) != (c in (1, 3)):
        first = a in (1, 3)
    shape = (b, c, a) if first else (a, b, c)
    if shape[2] not in (1, 3):
        raise DataError(
            f"{feature.name} has {shape[2]} channels; pictures of 1 or 3 channels can be read",
            hint=f"its shape is {list(feature.shape)}, its names are {names or 'not given'}",
        )
    return shape, names


def _origin(root: Path, paths: list[Path]) -> str:
    listing = []
    for path in paths:
        try:
            listing.append([path.relative_to(root).as_posix(), path.stat().st_size])
        except FileNotFoundError:
            raise DataError(
                f"{path} is missing", hint="copy or pull the dataset again, it is not complete"
            ) from None
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def _image_parts(files: list[DataFile], name: str, shape: tuple[int, int, int]) -> Iterator[Part]:
    at_once = max(1, _PART_BYTES // prod(shape))
    for file in files:
        start = file.start
        with open_parquet(file.path) as parquet:
            for batch in batches(parquet, file.path, [name], at_once):
                column = batch.column(name)
                if not hasattr(column, "field"):
                    raise DataError(f"{name} in {file.path} is {column.type}, not encoded pictures")
                encoded = column.field("bytes").to_pylist()
                yield Part(
                    start, len(encoded), partial(decode_pictures, encoded, shape, name, start)
                )
                start += len(encoded)


def decode_pictures(
    encoded: list[bytes | None], shape: tuple[int, int, int], name: str, start: int
) -> Iterator[np.ndarray]:
    """Encoded pictures of the frames from ``start`` on, as uint8 (H, W, C) each."""
    for number, data in enumerate(encoded, start):
        if data is None:
            raise DataError(
                f"{name} of frame {number} is not in the data file, only a path to it",
                hint="embed the pictures when writing the dataset",
            )
        try:
            yield _decode(data, shape)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{name} of frame {number} cannot be decoded: {error}") from None


def _decode(data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        if image.size != (shape[1], shape[0]):
            raise ValueError(
                f"it is {image.size[1]} x {image.size[0]}, not {shape[0]} x {shape[1]}"
            )
        if image.mode not in ("L", "RGB", "RGBA", "P", "1"):
            raise ValueError(f"pictures of mode {image.mode!r} are not of 8 bits")
        return np.asarray(image.convert("RGB" if shape[2] == 3 else "L")).reshape(shape)


def video_paths(
    root: Path, info: Mapping[str, Any], episodes: EpisodeIndex, name: str
) -> list[Path]:
    """The file that each episode's frames of a video feature are in."""
    template = info.get("video_path") or VIDEO_PATH
    places = episodes.places[name]
    return [
        file_path(root, template, chunk=int(chunk), file=int(file), video=name)
        for chunk, file in zip(places.chunk, places.file, strict=True)
    ]


def video_frames(
    path: Path, first_s: float, count: int, fps: float, shape: tuple[int, int, int]
) -> Iterator[np.ndarray]:
    """``count`` frames at ``first_s``, ``first_s + 1 / fps`` ... of a video, uint8 ``shape``.

    Raises:
        DataError: the video is missing, damaged, cut short, or of another size.
    """
    n_found = 0
    gray = shape[2] != 3
    try:
        with av.open(str(path)) as container:
            stream = video_stream(container, str(path))
            for frame in frames_at(
                container, stream, first_s=first_s, count=count, fps=fps, gray=gray
            ):
                yield _pixels(frame, shape, path)
                n_found += 1
    except (av.FFmpegError, OSError) as error:
        raise DataError(
            f"{path} cannot be decoded: {error}", hint="copy or pull the dataset again"
        ) from None
    if n_found < count:
        raise DataError(
            f"{path} has no frame at {first_s + n_found / fps:.3f} s: an episode of {count} frames "
            f"begins at {first_s:.3f} s",
            hint="the video is cut short, or does not belong to meta/episodes",
        )


def _pixels(frame: np.ndarray, shape: tuple[int, int, int], path: Path) -> np.ndarray:
    height, width = frame.shape[:2]
    if (height, width) != shape[:2]:
        raise DataError(
            f"{path} is {height} x {width}, meta/info.json says {shape[0]} x {shape[1]}"
        )
    return frame.reshape(shape)
