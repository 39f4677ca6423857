"""Where every episode of a dataset lies: meta/episodes, read and checked.

LeRobot addresses episodes by the position of their row and frames by ``dataset_from_index``; if
either is out of order it silently trains on wrong data, so here that is an error.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.columns import batches, open_parquet
from dp_hub.errors import DataError

log = logging.getLogger(__name__)
_OPTIONAL = ("length", "tasks", "metadata", "sha256")


@dataclass(frozen=True)
class Places:
    """In which numbered file each episode lies, and, in a video, from when to when.

    Attributes:
        chunk, file: int64 (E,).
        from_s, to_s: float64 (E,), seconds inside the video; empty for data files.
    """

    chunk: np.ndarray
    file: np.ndarray
    from_s: np.ndarray
    to_s: np.ndarray


@dataclass(frozen=True)
class EpisodeIndex:
    """The episodes of a dataset, in order and end to end.

    Attributes:
        starts: int64 (E,), the first frame of each.
        stops: int64 (E,), one past the last frame of each.
        tasks: what was to be done, as text; "" if not told. Empty as long as the index itself does
            not say, see :mod:`dp_hub.dataset.tasks`.
        metadata: further facts about each, as written by the converter; {} if none.
        sha256: of the content of each, hex; "" where the dataset has none.
        places: files of ``data`` and of every video feature.
    """

    starts: np.ndarray
    stops: np.ndarray
    tasks: list[str]
    metadata: list[dict[str, Any]]
    sha256: list[str]
    places: Mapping[str, Places]

    @property
    def lengths(self) -> np.ndarray:
        """int64 (E,), frames of each."""
        return self.stops - self.starts

    def __len__(self) -> int:
        return len(self.starts)


def read_episode_index(root: Path, videos: Sequence[str], n_episodes: int) -> EpisodeIndex:
    """The index of the dataset at ``root``.

    Args:
        root: the dataset's folder.
        videos: its video features.
        n_episodes: ``total_episodes`` of meta/info.json. It is written last, so rows beyond it were
            left by a writer that was stopped, and are no part of the dataset. With fewer rows, the
            index has those there are.
    Raises:
        DataError: files or columns are missing, or the episodes are not in order, end to end.
    """
    table = _episode_table(root, videos, n_episodes)
    starts, stops = _ints(table, "dataset_from_index"), _ints(table, "dataset_to_index")
    _check_order(_ints(table, "episode_index"), starts, stops)
    if "length" in table.schema.names:
        _check_lengths(_ints(table, "length"), stops - starts)
    return EpisodeIndex(
        starts=starts,
        stops=stops,
        tasks=[_task_text(task) for task in table.column("tasks").to_pylist()]
        if "tasks" in table.schema.names
        else [],
        metadata=[_metadata(text, i) for i, text in enumerate(_optional(table, "metadata"))],
        sha256=[text or "" for text in _optional(table, "sha256")],
        places={
            "data": _places(table, "data"),
            **{name: _places(table, f"videos/{name}") for name in videos},
        },
    )


def _episode_table(root: Path, videos: Sequence[str], n_episodes: int) -> pa.Table:
    if n_episodes < 1:
        raise DataError(f"{root} has no episodes", hint="record or convert at least one")
    files = sorted((root / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
    if not files:
        raise DataError(
            f"{root} has no episode index: meta/episodes holds no Parquet file",
            hint="copy or pull the dataset again, it is not complete",
        )
    parts: list[pa.Table] = []
    n_rows = 0
    for number, path in enumerate(files):
        if n_rows >= n_episodes:
            n_rows += _count_rows(files[number:])
            break
        parts.append(_read_rows(path, videos))
        n_rows += parts[-1].num_rows
    if n_rows > n_episodes:
        log.info(
            "%s: an interrupted write left %d further rows in meta/episodes; ignored",
            root,
            n_rows - n_episodes,
        )
    return pa.concat_tables(parts, promote_options="permissive").slice(0, n_episodes)


def _read_rows(path: Path, videos: Sequence[str]) -> pa.Table:
    """The columns of a file that are needed here; there are a hundred others, of statistics."""
    with open_parquet(path) as file:
        there = set(file.schema_arrow.names)
        names = [name for name in _column_names(videos) if name in there]
        rows = list(batches(file, path, names)) if names else []
    return pa.Table.from_batches(rows or [_no_rows(path)])


def _column_names(videos: Sequence[str]) -> list[str]:
    names = ["episode_index", "dataset_from_index", "dataset_to_index", *_OPTIONAL]
    names += ["data/chunk_index", "data/file_index"]
    for video in videos:
        for fact in ("chunk_index", "file_index", "from_timestamp", "to_timestamp"):
            names.append(f"videos/{video}/{fact}")
    return names


def _count_rows(files: Sequence[Path]) -> int:
    """Rows of files that are not part of the dataset, so that may as well be cut short."""
    n_rows = 0
    for path in files:
        try:
            with open_parquet(path) as file:
                n_rows += file.metadata.num_rows
        except DataError as error:
            log.info("%s; ignored, no episode of the dataset is in it", error.message)
    return n_rows


def _no_rows(path: Path) -> pa.RecordBatch:
    raise DataError(f"{path} has no rows", hint="remove the file, or write the dataset again")


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.schema.names:
        raise DataError(
            f"meta/episodes has no column {name!r}",
            hint="a LeRobot v3.0 dataset has one; convert or record the data again",
        )
    return table.column(name)


def _ints(table: pa.Table, name: str) -> np.ndarray:
    return _numbers(table, name).astype(np.int64)


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    column = _column(table, name)
    if column.null_count:
        raise DataError(f"{name} in meta/episodes is empty for {column.null_count} episodes")
    return vectors(column)[:, 0]


def _optional(table: pa.Table, name: str) -> list[Any]:
    if name not in table.schema.names:
        return [None] * table.num_rows
    return table.column(name).to_pylist()


def _task_text(task: Any) -> str:
    if isinstance(task, list):
        return "; ".join(str(part) for part in task)
    return task or ""


def _metadata(text: str | None, episode: int) -> dict[str, Any]:
    try:
        facts = json.loads(text) if text else {}
    except ValueError as error:
        raise DataError(f"metadata of episode {episode} is not valid JSON: {error}") from None
    if not isinstance(facts, dict):
        raise DataError(f"metadata of episode {episode} is not a JSON object: {text}")
    return facts


def _places(table: pa.Table, prefix: str) -> Places:
    timed = prefix != "data"
    empty = np.zeros(0)
    return Places(
        chunk=_ints(table, f"{prefix}/chunk_index"),
        file=_ints(table, f"{prefix}/file_index"),
        from_s=_numbers(table, f"{prefix}/from_timestamp") if timed else empty,
        to_s=_numbers(table, f"{prefix}/to_timestamp") if timed else empty,
    )


def _check_order(numbers: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> None:
    wrong = np.flatnonzero(numbers != np.arange(len(numbers)))
    if len(wrong):
        raise DataError(
            f"row {wrong[0]} of meta/episodes is episode {numbers[wrong[0]]}",
            hint="the rows must be in the order of the episodes, without gaps",
        )
    expected = np.concatenate([[0], stops[:-1]])
    wrong = np.flatnonzero((starts != expected) | (stops <= starts))
    if len(wrong):
        i = wrong[0]
        raise DataError(
            f"episode {i} is frames {starts[i]} to {stops[i]}, the one before ends at "
            f"{expected[i]}",
            hint="episodes must lie end to end and hold at least one frame",
        )


def _check_lengths(said: np.ndarray, found: np.ndarray) -> None:
    wrong = np.flatnonzero(said != found)
    if len(wrong):
        i = wrong[0]
        raise DataError(
            f"episode {i} has {found[i]} frames by its bounds, but its length is {said[i]}",
            hint="meta/episodes contradicts itself; convert or record the data again",
        )
