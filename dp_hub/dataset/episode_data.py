"""Chosen episodes of a dataset as arrays in memory, read from no more of its files than needed."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.columns import (
    DataFile,
    Feature,
    column_values,
    damage_told,
    numpy_dtype,
    open_parquet,
)
from dp_hub.dataset.episode_index import EpisodeIndex, Places
from dp_hub.dataset.frame_source import decode_pictures, picture_shape, video_source
from dp_hub.dataset.layout import check_batch, check_rows
from dp_hub.dataset.streamed import StreamedDataset
from dp_hub.errors import DataError

_ROWS_AT_ONCE = 65_536
_PICTURES_AT_ONCE = 32
_ORDER = ["index", "episode_index", "frame_index"]
Run = Callable[[Callable[[], None]], None]


def frame_shape(feature: Feature) -> tuple[int, ...]:
    """One frame of a feature as `read_episodes` gives it: (H, W, C), or (n,)."""
    if feature.is_visual:
        return picture_shape(feature)[0]
    return (int(np.prod(feature.shape)),)


def blank_frame(feature: Feature) -> np.ndarray:
    """One frame of a feature, (1, ...), in the type and shape that `read_episodes` gives."""
    return np.full((1, *frame_shape(feature)), 0, _dtype(feature))


def read_episodes(
    dataset: StreamedDataset,
    episodes: np.ndarray,
    features: Sequence[str],
    *,
    into: dict[str, np.ndarray] | None = None,
    first: np.ndarray | None = None,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """Features of some episodes, end to end in the order given. Their files must be held.

    Args:
        dataset: opened for streaming.
        episodes: int (P,), each at most once.
        features: which.
        into: columns to write to, in any type the numbers may be cast to; new ones by default.
        first: int (P,), the row of ``into`` at which each episode begins; end to end by default.
        threads: decode pictures; all cores by default.
    Returns:
        By feature, (T, n) in the dataset's type, or uint8 (T, H, W, C) for pictures.
    Raises:
        DataError: a file is damaged, not in order, or holds other types or shapes than meta/ says.
    """
    lengths = dataset.episodes.lengths[episodes]
    if first is None:
        first = np.cumsum(lengths) - lengths
    columns = (
        into
        if into is not None
        else {
            name: np.empty((int(lengths.sum()), *frame_shape(feature)), _dtype(feature))
            for name, feature in ((name, dataset.features[name]) for name in features)
        }
    )
    if not len(episodes):
        return columns
    in_data = [dataset.features[name] for name in features if _in_data(dataset, name)]
    with _Threads(threads) as run:
        for file in dataset.data_files if in_data else ():
            here = (dataset.episodes.starts[episodes] >= file.start) & (
                dataset.episodes.stops[episodes] <= file.stop
            )
            if here.any():
                place = _places_in(file, dataset.episodes, episodes[here], first[here])
                _read_data(file, place, dataset.episodes, in_data, columns, run)
        for name in features:
            if dataset.features[name].dtype == "video":
                _read_video(dataset, episodes, first, dataset.features[name], columns[name], run)
    return columns


def _dtype(feature: Feature) -> np.dtype:
    return np.dtype(np.uint8) if feature.is_visual else numpy_dtype(feature)


def _in_data(dataset: StreamedDataset, name: str) -> bool:
    return dataset.features[name].dtype != "video"


def _places_in(
    file: DataFile, index: EpisodeIndex, episodes: np.ndarray, first: np.ndarray
) -> np.ndarray:
    """Where each row of a file goes in the result, int64; -1 for nowhere."""
    place = np.full(file.stop - file.start, -1)
    for episode, to in zip(episodes.tolist(), first.tolist(), strict=True):
        a, b = index.starts[episode] - file.start, index.stops[episode] - file.start
        place[a:b] = np.arange(to, to + b - a)
    return place


def _read_data(
    file: DataFile,
    place: np.ndarray,
    index: EpisodeIndex,
    features: Sequence[Feature],
    columns: dict[str, np.ndarray],
    run: Run,
) -> None:
    with open_parquet(file.path) as parquet:
        check_rows(file, parquet.metadata.num_rows, index)
        for name in [*(feature.name for feature in features), *_ORDER]:
            if name not in parquet.schema_arrow.names:
                raise DataError(f"{file.path} has no column for the feature {name}")
        groups, rows = _groups_with(parquet, place >= 0)
        pictures = any(feature.is_visual for feature in features)
        names = list(dict.fromkeys([*(feature.name for feature in features), *_ORDER]))
        size = _PICTURES_AT_ONCE if pictures else _ROWS_AT_ONCE
        done = 0
        with damage_told(file.path):
            for batch in parquet.iter_batches(size, row_groups=groups, columns=names):
                here = rows[done : done + len(batch)]
                done += len(batch)
                check_batch(batch, here + file.start, index, file.path)
                for feature in features:
                    _take(batch, here, place[here], feature, file, columns[feature.name], run)


def _groups_with(parquet: pq.ParquetFile, wanted: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The row groups that hold wanted rows, and the rows they hold, int64."""
    metadata = parquet.metadata
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    stops = np.cumsum(sizes)
    upto = np.concatenate([[0], np.cumsum(wanted)])
    groups = np.flatnonzero(upto[stops] > upto[stops - sizes])
    rows = [np.arange(stops[number] - sizes[number], stops[number]) for number in groups]
    return groups.tolist(), np.concatenate(rows)


def _take(
    batch: pa.RecordBatch,
    rows: np.ndarray,
    place: np.ndarray,
    feature: Feature,
    file: DataFile,
    column: np.ndarray,
    run: Run,
) -> None:
    """Put the wanted rows of a batch where they belong."""
    wanted = np.flatnonzero(place >= 0)
    if not len(wanted):
        return
    array = batch.column(feature.name)
    if not feature.is_visual:
        values = column_values(array, feature, file.path).reshape(len(batch), -1)
        column[place[wanted]] = values[wanted]
        return
    if not hasattr(array, "field"):
        raise DataError(f"{feature.name} in {file.path} is {array.type}, not encoded pictures")
    encoded = array.field("bytes").take(pa.array(wanted)).to_pylist()
    frames = (file.start + rows[wanted]).tolist()
    run(partial(_decode_into, column, place[wanted], encoded, frames, feature))


def _decode_into(
    column: np.ndarray,
    place: np.ndarray,
    encoded: list[bytes | None],
    frames: list[int],
    feature: Feature,
) -> None:
    shape, _ = picture_shape(feature)
    for to, data, frame in zip(place.tolist(), encoded, frames, strict=True):
        [column[to]] = decode_pictures([data], shape, feature.name, frame)


def _read_video(
    dataset: StreamedDataset,
    episodes: np.ndarray,
    first: np.ndarray,
    feature: Feature,
    column: np.ndarray,
    run: Run,
) -> None:
    chosen = _only(dataset.episodes, episodes, feature.name)
    source = video_source(dataset.files.folder, dataset.info, chosen, feature)

    def decode(start: int, frames: Callable[[], Iterable[np.ndarray]]) -> None:
        for number, frame in enumerate(frames(), start):
            column[number] = frame

    for start, part in zip(first.tolist(), source.parts(), strict=True):
        run(partial(decode, start, part.frames))


def _only(index: EpisodeIndex, episodes: np.ndarray, video: str) -> EpisodeIndex:
    """An index of some episodes, end to end, with their places in one video feature."""
    stops = np.cumsum(index.lengths[episodes])
    places = index.places[video]
    return EpisodeIndex(
        starts=stops - index.lengths[episodes],
        stops=stops,
        tasks=[],
        metadata=[],
        sha256=[],
        places={
            video: Places(
                places.chunk[episodes],
                places.file[episodes],
                places.from_s[episodes],
                places.to_s[episodes],
            )
        },
    )


class _Threads:
    """Runs things in threads, only a few of them waiting; leaving waits for all of them."""

    def __init__(self, threads: int | None) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
        self._n = threads or min(32, cores)
        self._pool: ThreadPoolExecutor | None = None
        self._pending: set[Future[None]] = set()

    def __enter__(self) -> Run:
        return self._run

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._pool is None:
            return
        try:
            if kind is None:
                for future in self._pending:
                    future.result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, work: Callable[[], None]) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._n, thread_name_prefix="dp_hub-stream")
        self._pending.add(self._pool.submit(work))
        if len(self._pending) >= 2 * self._n:
            done, self._pending = wait(self._pending, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
