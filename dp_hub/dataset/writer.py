"""Writes a dataset episode by episode: LeRobot v3.0 exactly, in memory that does not grow.

Everything goes to a hidden folder beside the target, which is renamed when all is there, so that
nothing half-written ever stands at the target. Per episode the frames are hashed, measured, encoded
and written as one row group; statistics are merged on the way.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub import __version__
from dp_hub.dataset import stats as st
from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.card import plain_card
from dp_hub.dataset.features import INDEX_DTYPES, Column, fingerprint_header, info_features
from dp_hub.dataset.hashing import Fingerprint, episode_sha256
from dp_hub.dataset.images import encode_images
from dp_hub.dataset.shards import (
    CHUNKS_SIZE,
    DATA_FILE_MB,
    DATA_PATH,
    EPISODES_PATH,
    VIDEO_FILE_MB,
    VIDEO_PATH,
    ParquetShards,
)
from dp_hub.dataset.tables import (
    frame_options,
    frame_schema,
    frame_table,
    lists_of_one,
    numbers,
    stats_columns,
    tasks_table,
    texts,
)
from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode

_ROWS_PER_FLUSH = 512  # episodes
_ROWS_PER_BLOCK = 50_000  # frames
_SMALL = 16_000_000  # bytes of low-dimensional values that may be in memory at once


@dataclass(frozen=True)
class Written:
    """What `DatasetWriter.finish` made.

    Args:
        nonfinite: by feature, how many frames hold NaN or infinity (never an action).
        worst_video_db: the worst sampled video frame read back, in dB; None without video.
    """

    path: Path
    columns: tuple[Column, ...]
    fps: float
    n_episodes: int
    n_frames: int
    tasks: tuple[str, ...]
    fingerprint: str
    n_bytes: int
    nonfinite: Mapping[str, int] = field(default_factory=dict)
    worst_video_db: float | None = None


class DatasetWriter:
    """A new dataset at ``target``; use as a context manager and call `finish` at the end.

    Leaving the context without `finish` removes everything written.

    Args:
        target: the folder to make; refused if it exists.
        columns: from `dp_hub.dataset.features.plan_columns`.
        fps: frames per second.
        robot_type: LeRobot's ``robot_type``.
        source: where the episodes come from, for meta/dp_hub.json.
        threads: how many encode pictures; default: the cores this process may use.
    Raises:
        DataError: the target exists.
    """

    def __init__(
        self,
        target: str | Path,
        columns: Sequence[Column],
        *,
        fps: float,
        robot_type: str | None = None,
        source: Mapping[str, Any] | None = None,
        threads: int | None = None,
    ) -> None:
        self.target = Path(target)
        refuse_existing(self.target)
        if not fps > 0:
            raise DataError(f"fps is {fps}; it has to be positive")
        self.columns = list(columns)
        self.fps = int(fps) if float(fps).is_integer() else float(fps)
        self._robot_type, self._source = robot_type, dict(source or {})
        self._vectors = [c for c in self.columns if not c.is_visual]
        self._visuals = [c for c in self.columns if c.is_visual]
        self._schema = frame_schema(self.columns)
        self._pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)))
        self._fingerprint = Fingerprint(fingerprint_header(self.columns, self.fps))
        self._tasks: dict[str, int] = {}
        self._n_episodes = self._n_frames = 0
        self._nonfinite: dict[str, int] = {}
        self._sizes = {c.feature: (c.shape[0], False) for c in self._vectors}
        self._sizes |= {name: (1, False) for name in INDEX_DTYPES}
        self._n_low = sum(size for size, _ in self._sizes.values())
        self._sizes |= {c.feature: (c.shape[2], True) for c in self._visuals}
        self._running = st.Running(self._n_low)
        self._counts = {c.feature: np.zeros((c.shape[2], 256), np.int64) for c in self._visuals}
        self._n_pictures = dict.fromkeys(self._counts, 0)
        self._open_folder()

    def _open_folder(self) -> None:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        name = f".{self.target.name}.{uuid.uuid4().hex[:8]}.partial"
        self._folder = self.target.parent / name
        self._folder.mkdir()
        options = frame_options(self.columns)
        self._frames = ParquetShards(self._folder, DATA_PATH, self._schema, options)
        self._episodes = _EpisodeTable(self._folder, self._sizes)
        self._videos: dict[str, Any] = {}
        for column in self._visuals:
            if column.dtype == "video":
                from dp_hub.dataset.video import VideoShards

                self._videos[column.feature] = VideoShards(
                    self._folder, column.feature, fps=self.fps, codec=column.encoding or "h264"
                )

    def add_episode(self, episode: Episode) -> str:
        """Write one episode, whose data is keyed as in the source. Returns its sha256.

        Raises:
            DataError: a key is missing, of another shape or type than in the first episode, or an
                action is not finite.
        """
        number = self._n_episodes
        stored = self._stored(episode, number)
        encoded = {
            c.feature: encode_images(stored[c.feature], c.encoding or "webp", self._pool)
            for c in self._visuals
            if c.dtype == "image"
        }
        task = episode.task or ""
        sha256 = episode_sha256(self.columns, stored, task, video=self._video_description())
        index = self._index(episode.length, self._tasks.setdefault(task, len(self._tasks)))
        measured, counts = self._measure(stored, index)
        row = self._write_videos(stored)
        pictures = {feature: list(data) for feature, data in encoded.items()}
        table = frame_table(self._schema, self.columns, stored, pictures, index)
        chunk, file = self._frames.write(table)
        first = self._n_frames
        self._n_frames += episode.length
        self._episodes.add(
            {
                "episode_index": number,
                "tasks": task,
                "length": episode.length,
                "data/chunk_index": chunk,
                "data/file_index": file,
                "dataset_from_index": first,
                "dataset_to_index": self._n_frames,
                **row,
            },
            measured,
            counts,
            {"sha256": sha256, "metadata": json.dumps(dict(episode.metadata), sort_keys=True)},
        )
        self._n_episodes += 1
        self._fingerprint.add(sha256)
        return sha256

    def finish(self) -> Written:
        """Complete the dataset and put it at the target.

        Raises:
            DataError: there are no episodes, video frames do not come back, or the target
                appeared meanwhile.
        """
        if not self._n_episodes:
            raise DataError("there are no episodes to write")
        self._frames.close()
        self._episodes.close()
        for video in self._videos.values():
            video.close()
        self._pool.shutdown()
        self._write_meta()
        n_bytes = sum(p.stat().st_size for p in self._folder.rglob("*") if p.is_file())
        refuse_existing(self.target)
        os.rename(self._folder, self.target)
        worst = min((video.worst_db for video in self._videos.values()), default=None)
        return Written(
            path=self.target,
            columns=tuple(self.columns),
            fps=self.fps,
            n_episodes=self._n_episodes,
            n_frames=self._n_frames,
            tasks=tuple(self._tasks),
            fingerprint=self._fingerprint.hexdigest(),
            n_bytes=n_bytes,
            nonfinite=self._nonfinite,
            worst_video_db=worst,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._folder.exists():
            for video in self._videos.values():
                video.abandon()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _stored(self, episode: Episode, number: int) -> dict[str, np.ndarray]:
        wanted = {column.key for column in self.columns}
        if missing := wanted - set(episode.data):
            raise DataError(f"episode {number} has no {', '.join(sorted(missing))}")
        stored = {}
        for column in self.columns:
            values = column.to_stored(np.asarray(episode.data[column.key]), episode=number)
            if values.dtype.kind == "f":
                self._check_finite(column, values, number)
            stored[column.feature] = values
        return stored

    def _check_finite(self, column: Column, values: np.ndarray, number: int) -> None:
        # A sum is finite only if all terms are; overflow is looked at again.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(values.sum()):
                return
        bad = ~np.isfinite(values).all(axis=1)
        if not bad.any():
            return
        if column.feature.startswith("action"):
            step = int(np.argmax(bad))
            raise DataError(
                f"{column.key} of episode {number} is {values[step].tolist()} at step {step}; "
                f"{int(bad.sum())} of its {len(bad)} steps are not finite",
                hint="a policy cannot learn from that: mend or leave out the episode in the source",
            )
        self._nonfinite[column.feature] = self._nonfinite.get(column.feature, 0) + int(bad.sum())

    def _index(self, length: int, task: int) -> dict[str, np.ndarray]:
        frame = np.arange(length, dtype=np.int64)
        return {
            "timestamp": (frame / self.fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(length, self._n_episodes, np.int64),
            "index": frame + self._n_frames,
            "task_index": np.full(length, task, np.int64),
        }

    def _measure(
        self, stored: Mapping[str, np.ndarray], index: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, list[int]]:
        """Statistics (9, D) of one episode and the count behind each feature's."""
        vectors = [stored[c.feature] for c in self._vectors]
        matrix = st.side_by_side([*vectors, *index.values()])
        parts = [st.matrix_stats(matrix)]
        self._running.add(parts[0], len(matrix))
        counts = [len(matrix)] * (len(self._vectors) + len(INDEX_DTYPES))
        for column in self._visuals:
            levels, n_pictures = st.picture_counts(stored[column.feature])
            parts.append(st.picture_stats(levels))
            counts.append(n_pictures)
            self._counts[column.feature] += levels
            self._n_pictures[column.feature] += n_pictures
        return np.concatenate(parts, axis=1), counts

    def _write_videos(self, stored: Mapping[str, np.ndarray]) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for feature, video in self._videos.items():
            names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
            places = video.write(stored[feature])
            row |= {f"videos/{feature}/{n}": p for n, p in zip(names, places, strict=True)}
        return row

    def _video_description(self) -> str:
        if not self._videos:
            return ""
        from dp_hub.dataset.video import describe_encoding

        codec = next(c.encoding for c in self._visuals if c.dtype == "video")
        return describe_encoding(codec or "h264")

    def _write_meta(self) -> None:
        info = self._info()
        _write_json(self._folder / "meta" / "info.json", info)
        _write_json(self._folder / "meta" / "stats.json", self._stats())
        _write_json(
            self._folder / "meta" / "dp_hub.json",
            {
                "format": 1,
                "fingerprint": self._fingerprint.hexdigest(),
                "created_by": f"dp_hub {__version__}",
                "source": self._source,
                "keys": {column.key: column.provenance() for column in self.columns},
                "license": None,
            },
        )
        pq.write_table(tasks_table(list(self._tasks)), self._folder / "meta" / "tasks.parquet")
        (self._folder / "README.md").write_text(plain_card(self._folder), encoding="utf-8")

    def _info(self) -> dict[str, Any]:
        features = info_features(self.columns)
        for column in self._visuals:
            if column.dtype == "video":
                from dp_hub.dataset.video import video_info

                features[column.feature]["info"] = video_info(
                    column.shape, self.fps, column.encoding or "h264"
                )
        return {
            "codebase_version": "v3.0",
            "robot_type": self._robot_type,
            "total_episodes": self._n_episodes,
            "total_frames": self._n_frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNKS_SIZE,
            "data_files_size_in_mb": DATA_FILE_MB,
            "video_files_size_in_mb": VIDEO_FILE_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{self._n_episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._videos else None,
            "features": features,
        }

    def _stats(self) -> dict[str, Any]:
        run = self._running
        whole = np.stack([run.min, run.max, run.mean, run.std])
        sizes = {name: size for name, (size, picture) in self._sizes.items() if not picture}
        files = sorted((self._folder / "data").rglob("*.parquet"))
        blocks = _column_blocks(files, list(sizes), small=8 * self._n_low * self._n_frames < _SMALL)
        result = {}
        for feature, part in st.split(whole, sizes):
            n_bytes = 8 * part.shape[1] * self._n_frames
            quantiles = st.column_quantiles(blocks(feature), part[0], part[1], n_bytes)
            exact = np.concatenate([part, quantiles])
            result[feature] = st.as_json(exact, run.count, picture=False)
        for feature, counts in self._counts.items():
            measured = st.picture_stats(counts)
            result[feature] = st.as_json(measured, self._n_pictures[feature], picture=True)
        return result


class _EpisodeTable:
    """meta/episodes: rows are collected and written some hundreds at a time."""

    def __init__(self, folder: Path, sizes: Mapping[str, tuple[int, bool]]) -> None:
        self._folder, self._sizes = folder, sizes
        self._rows: list[dict[str, Any]] = []
        self._stats: list[np.ndarray] = []
        self._counts: list[list[int]] = []
        self._extras: list[dict[str, str]] = []
        self._shards: ParquetShards | None = None

    def add(
        self, row: dict[str, Any], stats: np.ndarray, counts: list[int], extras: dict[str, str]
    ) -> None:
        self._rows.append(row)
        self._stats.append(stats)
        self._counts.append(counts)
        self._extras.append(extras)
        if len(self._rows) == _ROWS_PER_FLUSH:
            self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        if self._shards is not None:
            self._shards.close()

    def _flush(self) -> None:
        columns: dict[str, Any] = {}
        for name, value in self._rows[0].items():
            dtype = np.float64 if isinstance(value, float) else np.int64
            columns[name] = (
                lists_of_one(texts([row[name] for row in self._rows]))
                if isinstance(value, str)
                else numbers(np.array([row[name] for row in self._rows], dtype))
            )
        columns |= stats_columns(self._sizes, np.stack(self._stats), np.array(self._counts))
        place = self._shards.next_place() if self._shards is not None else (0, 0)
        for name, value in zip(("chunk_index", "file_index"), place, strict=True):
            columns[f"meta/episodes/{name}"] = numbers(np.full(len(self._rows), value, np.int64))
        for name in self._extras[0]:
            columns[name] = texts([extra[name] for extra in self._extras])
        table = pa.table(columns)
        if self._shards is None:
            options = {"compression": "snappy"}
            self._shards = ParquetShards(self._folder, EPISODES_PATH, table.schema, options)
        self._shards.write(table)
        self._rows, self._stats, self._counts, self._extras = [], [], [], []


def refuse_existing(target: Path) -> None:
    """Raises DataError if there is something at ``target``."""
    if target.exists() or target.is_symlink():
        raise DataError(
            f"{target} already exists", hint="choose another folder, or remove it first"
        )


def _column_blocks(
    files: Sequence[Path], features: list[str], *, small: bool
) -> Callable[[str], Callable[[], Iterable[np.ndarray]]]:
    """Gives the rows of a feature, ``(T, n)`` at a time. Small tables are read once for all."""
    if not small:
        return lambda feature: lambda: _blocks(files, feature)
    table = pa.concat_tables([pq.ParquetFile(path).read(columns=features) for path in files])
    return lambda feature: lambda: [vectors(table[feature])]


def _blocks(files: Iterable[Path], feature: str) -> Iterator[np.ndarray]:
    for path in files:
        file = pq.ParquetFile(path)
        groups: list[int] = []
        n_rows = 0
        for group in range(file.num_row_groups):
            groups.append(group)
            n_rows += file.metadata.row_group(group).num_rows
            if n_rows >= _ROWS_PER_BLOCK or group == file.num_row_groups - 1:
                yield vectors(file.read_row_groups(groups, columns=[feature]).column(0))
                groups, n_rows = [], 0


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
