"""Writes a dataset episode by episode: LeRobot v3.0 exactly, durable, in memory that does not grow.

An episode is *committed* when its files, then its row in meta/episodes, then the totals in
meta/info.json have reached the disk, in this order; info.json, replaced in one step, is what makes
it count. So at any instant the folder is a valid dataset of the episodes committed before, whatever
ends the writer. Until `finish`, committed episodes lie in files of their own; `finish` packs them
into files of the usual size beside the dataset and puts the result in its place in one step
(`dp_hub.dataset.packing`).
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset import checksums
from dp_hub.dataset import stats as st
from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.episode_table import EpisodeRow, OpenEpisodes, read_rows
from dp_hub.dataset.episodes_io import Folder, open_folder
from dp_hub.dataset.features import INDEX_DTYPES, Column, fingerprint_header
from dp_hub.dataset.hashing import Fingerprint
from dp_hub.dataset.interrupts import interrupts_wait
from dp_hub.dataset.lock import WriterLock
from dp_hub.dataset.meta_files import MetaFiles, Sealed, is_open, known_checksums, sealed_files
from dp_hub.dataset.packing import pack
from dp_hub.dataset.preparing import Preparer, StoredEpisode
from dp_hub.dataset.shards import DATA_PATH, ParquetShards, number_of
from dp_hub.dataset.tables import frame_options, frame_schema, frame_table, numbers
from dp_hub.dataset.totals import Totals
from dp_hub.errors import DataError
from dp_hub.files import (
    finish_replacing,
    remove_folder,
    replace_folder,
    sync_folder,
    sync_tree,
    write_draft,
)
from dp_hub.replay.episode import Episode

_ROWS_DURABLE = 64  # of a file of meta/episodes that is replaced at every commit
_ROWS_GROUPED = 512


class WriteError(DataError):
    """The disk is full, or a file cannot be written. What was committed before is kept."""


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
    """A new dataset at ``target``, or, with `resume`, more episodes for one that is there.

    Use as a context manager and call `finish` at the end. What was committed before the context
    is left in another way stays, a valid dataset that `resume` continues.

    Args:
        target: the folder to make; refused if it exists.
        columns: from `dp_hub.dataset.features.plan_columns`.
        fps: frames per second.
        robot_type: LeRobot's ``robot_type``.
        source: where the episodes come from, for meta/dp_hub.json.
        sources: datasets that this one is made from, for meta/dp_hub.json.
        license: identifier of the data's licence, if known.
        work: where to write until `finish` moves the whole to ``target``; default: ``target``
            itself, which then exists from the first episode on.
        commit_s: 0 commits every episode before `add_episode` returns; more lets episodes wait
            up to so many seconds to be committed together, which is faster for many small ones.
        threads: how many encode pictures; default: the cores this process may use.
        keep: False removes everything if the context is left without `finish`.
        lock: of the target, if the caller holds it already.
    Raises:
        DataError: the target exists, or another process is writing it.
    """

    def __init__(
        self,
        target: str | Path,
        columns: Sequence[Column],
        *,
        fps: float,
        robot_type: str | None = None,
        source: Mapping[str, Any] | None = None,
        sources: Sequence[Mapping[str, Any]] = (),
        license: str | None = None,
        work: Path | None = None,
        commit_s: float = 0.0,
        threads: int | None = None,
        keep: bool = True,
        lock: WriterLock | None = None,
    ) -> None:
        if not fps > 0:
            raise DataError(f"fps is {fps}; it has to be positive")
        self._name(target, work)
        self._lock, self._has_lock_lent = lock or WriterLock(self.target), lock is not None
        self._keep = keep
        try:
            finish_replacing(self.target)
            refuse_existing(Path(target))
            if not keep:
                remove_folder(self.work)
            refuse_existing(self.work)
            meta = MetaFiles(
                columns=tuple(columns),
                fps=int(fps) if float(fps).is_integer() else float(fps),
                robot_type=robot_type,
                source=dict(source or {}),
                sources=tuple(sources),
                license=license,
            )
            self._begin(meta, commit_s, threads)
        except BaseException:
            self._unlock()
            raise

    def _name(self, target: str | Path, work: Path | None) -> None:
        """Remember where to write, whatever links lead there and wherever the process goes."""
        self._given = Path(target)
        self.target = Path(os.path.realpath(target))
        self.work = self.target if work is None else Path(os.path.realpath(work))

    def _unlock(self) -> None:
        if not self._has_lock_lent:
            self._lock.release()

    @classmethod
    def resume(
        cls,
        target: str | Path,
        *,
        work: Path | None = None,
        commit_s: float = 0.0,
        threads: int | None = None,
        lock: WriterLock | None = None,
    ) -> Self:
        """A writer that adds to the dataset at ``work or target``, finished or cut off.

        Files that are there are never changed: new episodes go to new ones.

        Raises:
            DataError: there is no dataset, another program made it, or another process is
                writing it.
        """
        writer = cls.__new__(cls)
        writer._name(target, work)
        writer._lock, writer._has_lock_lent = lock or WriterLock(writer.target), lock is not None
        writer._keep = True
        try:
            finish_replacing(writer.target)
            writer._begin(MetaFiles.of(open_folder(writer.work)), commit_s, threads)
        except BaseException:
            writer._unlock()
            raise
        return writer

    def _begin(self, meta: MetaFiles, commit_s: float, threads: int | None) -> None:
        self._meta, self._commit_s = meta, commit_s
        self.columns, self.fps = list(meta.columns), meta.fps
        self._schema = frame_schema(self.columns)
        n_threads = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="encode")
        self._preparer = Preparer(self.columns, fps=self.fps, pool=self._pool, ahead=2 * n_threads)
        self._closed = False
        self.known_sums: dict[Path, checksums.FileSum] = {}
        """Checksums of files of other datasets that may be taken over, by path."""
        self._start()

    def _start(self) -> None:
        """Stand where the committed episodes end; also after a failure."""
        for leftover in (self._draft("new"), self._draft("packing")):
            shutil.rmtree(leftover, ignore_errors=True)
        self._totals = Totals(self.columns)
        self._fingerprint = Fingerprint(fingerprint_header(self.columns, self.fps))
        self._tasks: dict[str, int] = {}
        self._taken: dict[Path, tuple[int, int]] = {}
        self._taken_sums: dict[str, checksums.FileSum] = {}
        self._sealed, self._reopened = Sealed(), True
        self._folder = self.work if self.work.exists() else self._draft("new")
        start, rows = Sealed(), None
        if self.work.exists():
            start, rows = self._load(open_folder(self.work))
        self._open_files(start, rows)
        self._n_committed, self._n_tasks = self.n_episodes, len(self._tasks)
        self._last_commit_s = time.monotonic()
        self._broken = False

    def _load(self, folder: Folder) -> tuple[Sealed, pa.Table | None]:
        """Take in what is there. Numbers of the next files, and the rows that are in the next file
        of meta/episodes already."""
        n_episodes = folder.info["total_episodes"]
        table = pq.read_table(folder.root / "meta" / "tasks.parquet")
        for task in table["task"].to_pylist()[: folder.info["total_tasks"]]:
            self._tasks[task] = len(self._tasks)
        self._reopened = is_open(folder)
        next_data, next_videos = 0, {c.feature: 0 for c in self.columns if c.dtype == "video"}
        n_files, last = 0, None
        for number, rows in read_rows(folder.root, n_episodes):
            n_files, last = number + 1, rows
            self._totals.add_table(rows)
            for sha256 in rows["sha256"].to_pylist():
                self._fingerprint.add(sha256)
            next_data = max(next_data, _last_number(rows, "data") + 1)
            for feature, following in next_videos.items():
                last_used = _last_number(rows, f"videos/{feature}")
                next_videos[feature] = max(following, last_used + 1)
        if not self._reopened:
            self._sealed = Sealed(next_data, n_files, next_videos)
            return self._sealed, None
        self._sealed = sealed_files(folder)
        if n_files <= self._sealed.episodes or last is None or len(last) >= self._rows_per_file:
            return Sealed(next_data, n_files, next_videos), None
        return Sealed(next_data, n_files - 1, next_videos), last

    @property
    def _rows_per_file(self) -> int:
        return _ROWS_GROUPED if self._commit_s else _ROWS_DURABLE

    def _open_files(self, start: Sealed, rows: pa.Table | None) -> None:
        options = frame_options(self.columns)
        self._frames = ParquetShards(
            self._folder, DATA_PATH, self._schema, options, first_number=start.data
        )
        self._episodes = OpenEpisodes(
            self._folder,
            self._totals.sizes,
            first_number=start.episodes,
            rows_per_file=self._rows_per_file,
            written=rows,
        )
        self._videos: dict[str, Any] = {}
        for column in self.columns:
            if column.dtype == "video":
                from dp_hub.dataset.video import VideoShards

                self._videos[column.feature] = VideoShards(
                    self._folder,
                    column.feature,
                    fps=self.fps,
                    first_number=start.videos.get(column.feature, 0),
                )

    @property
    def n_episodes(self) -> int:
        """Episodes added so far, those that were there before included."""
        return self._totals.n_episodes

    @property
    def n_frames(self) -> int:
        """Frames of all these episodes."""
        return self._totals.n_frames

    def add_episode(self, episode: Episode) -> str:
        """Write one episode, whose data is keyed as in the source. Returns its sha256.

        Raises:
            DataError: a key is missing, of another shape or type than in the first episode, or an
                action is not finite. Nothing of it was written.
            WriteError: the disk is full or cannot be written. The episodes committed before are
                kept; with ``commit_s=0`` that is all of them, and the writer can go on: whether
                this one is among them, as it may be, `n_episodes` tells.
        """
        return self.add_stored(self.prepare(episode, self.n_episodes))

    def prepare(self, episode: Episode, number: int) -> StoredEpisode:
        """What files hold of an episode; nothing is written. ``number``: for messages.

        Raises:
            DataError: as `add_episode`.
        """
        return self._preparer.prepare(episode, number)

    def add_to_source(self, facts: Mapping[str, Any]) -> None:
        """What turned out about where the episodes come from, for meta/dp_hub.json."""
        self._meta = replace(self._meta, source={**self._meta.source, **facts})

    def add_stored(self, episode: StoredEpisode) -> str:
        """As `add_episode`, for what files hold of an episode already."""
        if self._broken:
            raise WriteError(
                f"{self._given} could not be written before, so nothing can be added",
                hint="start again: committed episodes are kept",
            )
        with interrupts_wait(), self._whole_or_not():
            self._append(episode)
            waited_s = time.monotonic() - self._last_commit_s
            if waited_s >= self._commit_s or len(self._episodes.pending) >= _ROWS_GROUPED:
                self._commit()
        return episode.sha256

    def commit(self) -> None:
        """Make every episode so far durable and part of the dataset."""
        with interrupts_wait(), self._whole_or_not():
            self._commit()

    def finish(self) -> Written:
        """Complete the dataset: whole files, exact statistics, card, checksums.

        Raises:
            DataError: there are no episodes, video frames do not come back, or the target
                appeared meanwhile.
            WriteError: the disk is full or cannot be written; committed episodes are kept.
        """
        if not self.n_episodes:
            raise DataError("there are no episodes to write")
        self.commit()
        packing = self._draft("packing")
        try:
            nonfinite = self._pack(packing)
            n_bytes = sum(p.stat().st_size for p in packing.rglob("*") if p.is_file())
            self._put_in_place(packing)
        except BaseException as error:
            shutil.rmtree(packing, ignore_errors=True)
            self._stand_again()
            if isinstance(error, OSError):
                raise self._unwritable(error) from error
            raise
        self.close()
        worst = min((video.worst_db for video in self._videos.values()), default=float("inf"))
        return Written(
            path=self._given,
            columns=tuple(self.columns),
            fps=self.fps,
            n_episodes=self.n_episodes,
            n_frames=self.n_frames,
            tasks=tuple(self._tasks),
            fingerprint=self._fingerprint.hexdigest(),
            n_bytes=n_bytes,
            nonfinite=nonfinite,
            worst_video_db=None if worst == float("inf") else worst,
        )

    def close(self) -> None:
        """Let go of the dataset as it is committed; `finish` has done so already."""
        if not self._closed:
            self._closed = True
            self._pool.shutdown(cancel_futures=True)
            self._abandon_files()
            if self._folder != self.work:
                shutil.rmtree(self._folder, ignore_errors=True)
            if not self._keep:
                remove_folder(self.work)
            self._unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._keep and not self._closed and not self._broken:
                self.commit()
        finally:
            self.close()

    @contextmanager
    def _whole_or_not(self) -> Iterator[None]:
        """Let what fails inside, or is interrupted, leave only what is committed."""
        self._broken = True
        try:
            yield
        except BaseException as error:
            self._stand_again()
            if isinstance(error, OSError):
                raise self._unwritable(error) from error
            raise
        self._broken = False

    def _stand_again(self) -> None:
        """After a failure: go on from what is committed, if only the episode at hand is lost."""
        self._abandon_files()
        self._broken = True
        if self._commit_s == 0:
            self._start()

    def _put_in_place(self, packing: Path) -> None:
        """Let the finished dataset stand at the target."""
        if self.work == self.target:
            replace_folder(packing, self.target)
            return
        if self.target.exists():
            raise WriteError(
                f"{self._given} has appeared since; what was written is kept",
                hint="remove it, or move it away, and start again",
            )
        os.rename(packing, self.target)
        sync_folder(self.target.parent)
        remove_folder(self.work)

    def _append(self, episode: StoredEpisode) -> None:
        task = self._tasks.setdefault(episode.task, len(self._tasks))
        index = self._index(episode.length, task)
        videos = self._append_videos(episode)
        chunk, file = self._append_rows(episode, index)
        row = EpisodeRow(
            facts={
                "episode_index": self.n_episodes,
                "tasks": episode.task,
                "length": episode.length,
                "data/chunk_index": chunk,
                "data/file_index": file,
                "dataset_from_index": self.n_frames,
                "dataset_to_index": self.n_frames + episode.length,
                **videos,
            },
            stats=self._totals.with_index(episode.stats, st.side_by_side(list(index.values()))),
            counts=self._totals.counts_of(episode.length, episode.n_pictures),
            histograms=episode.histograms,
            sha256=episode.sha256,
            metadata=episode.metadata,
        )
        self._episodes.pending.append(row)
        self._totals.add(row, episode.length)
        self._fingerprint.add(episode.sha256)

    def _append_videos(self, episode: StoredEpisode) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        for feature, video in self._videos.items():
            if feature in episode.video_files:
                path, *times = episode.video_files[feature]
                places = (*self._shared(video, path), *times)
            else:
                places = video.append(episode.clips[feature], episode.samples.get(feature))
            facts |= {f"videos/{feature}/{n}": p for n, p in zip(names, places, strict=True)}
        return facts

    def _append_rows(
        self, episode: StoredEpisode, index: Mapping[str, np.ndarray]
    ) -> tuple[int, int]:
        if episode.data_file is not None:
            return self._shared(self._frames, episode.data_file)
        arrays = {**episode.arrays, **{name: numbers(values) for name, values in index.items()}}
        return self._frames.write(frame_table(self._schema, arrays))

    def _shared(self, shards: Any, path: Path) -> tuple[int, int]:
        """Where a file of another dataset lies here; it is taken over when first asked for."""
        if path not in self._taken:
            shards.close()  # before asking which file is the next
            name = shards.path.relative_to(shards.root).as_posix()
            self._taken[path] = shards.share(path)
            if path in self.known_sums:
                self._taken_sums[name] = self.known_sums[path]
            # Neither it nor what was written before it is put together with anything.
            videos = {feature: v.number for feature, v in self._videos.items() if v is shards}
            self._sealed = Sealed(
                self._frames.number if shards is self._frames else self._sealed.data,
                self._sealed.episodes,
                {**self._sealed.videos, **videos},
            )
        return self._taken[path]

    def _index(self, length: int, task: int) -> dict[str, np.ndarray]:
        frame = np.arange(length, dtype=np.int64)
        index: dict[str, np.ndarray] = {
            "timestamp": (frame / self.fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(length, self.n_episodes, np.int64),
            "index": frame + self.n_frames,
            "task_index": np.full(length, task, np.int64),
        }
        assert list(index) == list(INDEX_DTYPES), list(index)
        return index

    def _commit(self) -> None:
        if not self._episodes.pending:
            return
        if not self._reopened:
            self._meta.reopen(self._folder, self._sealed)
            self._reopened = True
        self._frames.close()
        for video in self._videos.values():
            video.close()
        for part in ("data", "videos"):
            for path, _, _ in os.walk(self._folder / part):
                sync_folder(Path(path))
        if not self._n_committed:
            self._meta.write_open(self._folder, self._sealed)
        if len(self._tasks) != self._n_tasks:
            self._meta.write_tasks(self._folder, list(self._tasks))
        self._episodes.commit()
        stats, _ = self._totals.as_json()
        self._meta.write_totals(self._folder, self._totals, len(self._tasks), stats)
        if not self._n_committed:
            self._meta.write_card(self._folder)
        if self._folder != self.work:
            sync_tree(self._folder)
            os.rename(self._folder, self.work)
            sync_folder(self.work.parent)
            self._folder = self.work
            for part_of in (self._frames, self._episodes, *self._videos.values()):
                part_of.root = self.work
        self._n_committed, self._n_tasks = self.n_episodes, len(self._tasks)
        self._last_commit_s = time.monotonic()

    def _pack(self, into: Path) -> dict[str, int]:
        """Make the finished dataset at ``into``. Returns how many frames are not finite."""
        pack(
            self.work,
            into,
            columns=self.columns,
            fps=self.fps,
            sealed=self._sealed,
            n_episodes=self.n_episodes,
        )
        meta, tasks = self._meta, list(self._tasks)
        meta.write_tasks(into, tasks)
        stats, nonfinite = self._totals.as_json(into)
        meta.write_totals(into, self._totals, len(tasks), stats)
        meta.write_finished(into, self._fingerprint.hexdigest())
        meta.write_card(into)
        known = known_checksums(self.work) or checksums.read_checksums(self.work) or {}
        known = {name: s for name, s in known.items() if name.startswith(("data/", "videos/"))}
        known |= self._taken_sums
        sums = {
            name: known.get(name) or checksums.file_sum(into / name)
            for name in checksums.covered_files(into)
        }
        write_draft(into / checksums.PATH, checksums.encode_checksums(sums))
        sync_tree(into)
        return nonfinite

    def _abandon_files(self) -> None:
        self._frames.abandon()
        for video in self._videos.values():
            video.abandon()

    def _draft(self, purpose: str) -> Path:
        return self.target.with_name(f".{self.target.name}.{purpose}")

    def _unwritable(self, error: OSError) -> WriteError:
        kept = f"its {self._n_committed} committed episodes are kept"
        return WriteError(
            f"{self._given} cannot be written: {error.strerror or error}; {kept}",
            hint="make room on the disk, then go on",
        )


def refuse_existing(target: Path) -> None:
    """Raises DataError if there is something at ``target``."""
    if target.exists() or target.is_symlink():
        raise DataError(
            f"{target} already exists", hint="choose another folder, or remove it first"
        )


def _last_number(table: pa.Table, prefix: str) -> int:
    chunk, file = (vectors(table[f"{prefix}/{n}_index"])[:, 0] for n in ("chunk", "file"))
    return int(number_of(chunk, file).max())
