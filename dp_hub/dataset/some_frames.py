"""A few frames of a dataset, read without the rest: only their rows, or a seek in their video."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dp_hub.dataset.columns import Feature, damage_told, open_parquet
from dp_hub.dataset.layout import DATA_PATH, VIDEO_PATH, file_path
from dp_hub.dataset.meta import Meta
from dp_hub.errors import DataError

_ROWS_AT_ONCE = 32  # pictures of a camera may have a megabyte each


@dataclass(frozen=True)
class Spot:
    """Where one episode lies in its data file.

    Attributes:
        path: the file.
        row: its first row in the file.
        length: its rows.
    """

    path: Path
    row: int
    length: int


def data_spots(meta: Meta, episodes: Sequence[int]) -> list[Spot] | None:
    """Where episodes lie in data/; None if meta/episodes does not say, or a file is not here."""
    names = ["dataset_from_index", "dataset_to_index", "data/chunk_index", "data/file_index"]
    places = _places(meta, names)
    if places is None:
        return None
    starts, stops, chunks, files = (values.astype(np.int64) for values in places)
    template = _template(meta, "data_path", DATA_PATH)
    found = []
    for e in episodes:
        same = (chunks == chunks[e]) & (files == files[e])
        path = file_path(meta.root, template, chunk=int(chunks[e]), file=int(files[e]))
        if not path.is_file():
            return None
        found.append(Spot(path, int(starts[e] - starts[same].min()), int(stops[e] - starts[e])))
    return found


def _places(meta: Meta, names: Sequence[str]) -> list[np.ndarray] | None:
    """Columns of meta/episodes as float64 (E,); None if one is not there."""
    table = meta.episodes(names)
    if set(names) - set(table.schema.names):
        return None
    found = []
    for name in names:
        try:
            values = np.asarray(table.column(name).to_pylist(), np.float64)
        except (TypeError, ValueError):
            values = np.full(table.num_rows, np.nan)
        if values.ndim != 1 or not (values >= 0).all():
            raise DataError(
                f"{name} in {meta.root}/meta/episodes does not place every episode",
                hint="copy or pull the dataset again",
            )
        found.append(values)
    return found


def _template(meta: Meta, key: str, usual: str) -> str:
    template = meta.info.get(key) or usual
    if not isinstance(template, str):
        raise DataError(f"`{key}` in {meta.root}/meta/info.json is {template!r}")
    return template


def first_picture(meta: Meta, name: str) -> bytes | None:
    """The first picture of an image feature, encoded; None if it is not here."""
    spots = data_spots(meta, [0]) if meta.n_episodes else None
    if spots is None:
        return None
    return next(iter(_encoded(spots[0], name, [0])), None)


def vectors_of(spot: Spot, feature: Feature) -> np.ndarray:
    """A feature of numbers over one episode, float64 (T, n).

    Raises:
        DataError: the file is damaged, or holds something else than the feature.
    """
    values: list[Any] = []
    for array in _rows(spot, feature.name, range(spot.length)):
        values += array.to_pylist()
    try:
        return np.asarray(values, np.float64).reshape(len(values), -1)
    except (TypeError, ValueError):
        raise DataError(f"{feature.name} in {spot.path} holds no numbers of one shape") from None


def pictures_of(spot: Spot, name: str, frames: Sequence[int]) -> list[np.ndarray]:
    """Frames of an image feature by their number in the episode, each uint8 (H, W, 3)."""
    pictures = []
    for frame, data in zip(frames, _encoded(spot, name, frames), strict=True):
        if data is None:
            raise DataError(f"{name} of row {spot.row + frame} is not in {spot.path}, only a path")
        pictures.append(_decoded(data, f"{name} in row {spot.row + frame} of {spot.path}"))
    return pictures


def _encoded(spot: Spot, name: str, frames: Sequence[int]) -> list[bytes | None]:
    data: list[bytes | None] = []
    for array in _rows(spot, name, frames):
        if not pa.types.is_struct(array.type):
            raise DataError(f"{name} in {spot.path} is {array.type}, not encoded pictures")
        data += array.field("bytes").to_pylist()
    return data


def _rows(spot: Spot, name: str, frames: Sequence[int]) -> Iterator[Any]:
    """The rows of ``frames`` (rising) of a column, in arrays; touches only their row groups."""
    wanted = np.asarray(frames, np.int64) + spot.row
    with open_parquet(spot.path) as file:
        if name not in file.schema_arrow.names:
            raise DataError(f"{spot.path} has no column for the feature {name}")
        if not len(wanted) or wanted[-1] >= file.metadata.num_rows:
            raise DataError(f"{spot.path} has {file.metadata.num_rows} rows, an episode ends after")
        start = 0
        with damage_told(spot.path):
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                if np.any((wanted >= start) & (wanted < stop)):
                    yield from _rows_of_group(file, group, name, wanted - start)
                start = stop


def _rows_of_group(file: Any, group: int, name: str, wanted: np.ndarray) -> Iterator[Any]:
    start = 0
    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[name]):
        here = wanted[(wanted >= start) & (wanted < start + len(batch))] - start
        start += len(batch)
        if len(here) == len(batch):
            yield batch.column(name)
        else:
            yield from (batch.column(name).slice(int(row), 1) for row in here)
        if start > wanted[-1]:
            return


def _decoded(data: bytes, where: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode.startswith("I"):  # depth in 16 bits: the full range becomes grey
                deep = np.asarray(image).astype(np.float64)
                return np.repeat(
                    (deep / max(deep.max(), 1) * 255).astype(np.uint8)[..., None], 3, 2
                )
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where} cannot be decoded: {error}") from None


def video_pictures(
    meta: Meta, name: str, episode: int, frames: Sequence[int]
) -> list[np.ndarray] | None:
    """Frames of a video feature by their number in the episode, each uint8 (H, W, 3).

    None if meta/episodes does not say where they are, or the video is not here.

    Raises:
        DataError: the video is damaged, or has no such frame.
    """
    names = [f"videos/{name}/{part}" for part in ("chunk_index", "file_index", "from_timestamp")]
    places = _places(meta, names)
    if places is None:
        return None
    chunk, file, from_s = (values[episode] for values in places)
    template = _template(meta, "video_path", VIDEO_PATH)
    path = file_path(meta.root, template, chunk=int(chunk), file=int(file), video=name)
    if not path.is_file():
        return None
    return [_video_picture(path, float(from_s) + frame / meta.fps, meta.fps) for frame in frames]


def _video_picture(path: Path, at_s: float, fps: float) -> np.ndarray:
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None, path
            container.seek(int(at_s / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time is not None and frame.time > at_s - 0.5 / fps:
                    return frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, OSError, IndexError) as error:
        raise DataError(
            f"{path} cannot be decoded: {error}", hint="copy or pull the dataset again"
        ) from None
    raise DataError(
        f"{path} has no frame at {at_s:.3f} s",
        hint="the video is cut short, or does not belong to meta/episodes",
    )
