"""Reads a written dataset one episode at a time, as stored: for export and checks.

Training reads whole columns instead (`dp_hub.dataset.reader`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.columns import damage_told
from dp_hub.dataset.features import INDEX_DTYPES, Column
from dp_hub.dataset.images import decode_image
from dp_hub.dataset.layout import file_path
from dp_hub.dataset.shards import DATA_PATH, EPISODES_PATH, place
from dp_hub.errors import DataError


@dataclass(frozen=True)
class Folder:
    """A dataset folder's metadata.

    Args:
        info: meta/info.json.
        provenance: meta/dp_hub.json; empty for datasets others wrote.
        columns: how the features came from the source's keys; a feature without provenance is its
            own key.
    """

    root: Path
    info: dict[str, Any]
    provenance: dict[str, Any]
    columns: tuple[Column, ...]


def open_folder(root: str | Path) -> Folder:
    """The metadata of the dataset at ``root``. Raises DataError if there is none."""
    root = Path(root)
    info = _read_json(root / "meta" / "info.json", required=True)
    provenance = _read_json(root / "meta" / "dp_hub.json", required=False)
    features = {k: v for k, v in info["features"].items() if k not in INDEX_DTYPES}
    keys = provenance.get("keys") or {
        name: {
            "feature": name,
            "shape": feature["shape"],
            "dtype": "uint8" if feature["dtype"] in ("image", "video") else feature["dtype"],
            "names": _names(feature),
        }
        for name, feature in features.items()
    }
    columns = tuple(
        Column.from_provenance(key, entry, features[entry["feature"]])
        for key, entry in keys.items()
        if entry["feature"] in features
    )
    return Folder(root, info, provenance, columns)


def _names(feature: dict[str, Any]) -> list[str] | None:
    """Names of a feature's numbers that another program gave, if there is one for each."""
    names = feature.get("names")
    if not isinstance(names, list) or [len(names)] != feature["shape"]:
        return None
    return names if all(isinstance(name, str) for name in names) else None


def episode_rows(folder: Folder) -> Iterator[dict[str, Any]]:
    """The rows of meta/episodes in order, without the statistics."""
    number = 0
    while True:
        chunk, file = place(number)
        path = folder.root / EPISODES_PATH.format(chunk_index=chunk, file_index=file)
        if not path.exists():
            break
        table = pq.ParquetFile(path)
        names = [n for n in table.schema_arrow.names if not n.startswith("stats/")]
        for group in range(table.num_row_groups):
            yield from table.read_row_group(group, columns=names).to_pylist()
        number += 1
    if number == 0:
        raise DataError(f"{folder.root} has no meta/episodes files")


def read_episodes(
    folder: Folder, columns: Sequence[Column]
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Every episode's row of meta/episodes and its arrays, by source key and as in the source.

    Raises:
        DataError: the files do not hold the episodes the metadata lists.
    """
    features = [c.feature for c in columns if c.dtype != "video"]
    frames = Frames(folder.root, folder.info, features)
    with ThreadPoolExecutor() as pool:
        for row in episode_rows(folder):
            table = frames.read(row)
            arrays: dict[str, np.ndarray] = {}
            for column in columns:
                if column.dtype == "video":
                    stored = _video_frames(folder, column, row)
                elif column.dtype == "image":
                    data = table[column.feature].combine_chunks().field("bytes").to_pylist()
                    shape = [column.shape] * len(data)
                    stored = np.stack(list(pool.map(decode_image, data, shape, chunksize=32)))
                else:
                    stored = vectors(table[column.feature])
                arrays[column.key] = column.to_source(stored)
            yield row, arrays


class Frames:
    """The rows of one episode after the other; keeps one file open.

    Args:
        root: the dataset's folder.
        info: meta/info.json.
        features: the columns to read.
    """

    def __init__(self, root: Path, info: Mapping[str, Any], features: Sequence[str]) -> None:
        self._root, self._template = root, info.get("data_path") or DATA_PATH
        self._columns = list(dict.fromkeys([*features, "episode_index"]))
        self._path = Path()
        self._file: Any = None
        self._starts = np.zeros(0, np.int64)
        self._file_start = 0

    def read(self, row: Mapping[str, Any]) -> pa.Table:
        """The frames of the episode of a row of meta/episodes.

        Raises:
            DataError: they are not where it says, or cannot be read.
        """
        chunk, file = row["data/chunk_index"], row["data/file_index"]
        path = file_path(self._root, self._template, chunk=chunk, file=file)
        if path != self._path:
            self._open(path, row["dataset_from_index"])
        start = row["dataset_from_index"] - self._file_start
        stop = row["dataset_to_index"] - self._file_start
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, stop, side="left"))
        with damage_told(path):
            table = self._file.read_row_groups(list(range(first, last)), columns=self._columns)
        if missing := set(self._columns) - set(table.column_names):
            raise DataError(f"{path} has no column {min(missing)}, which meta/info.json lists")
        table = table.slice(start - int(self._starts[first]), stop - start)
        numbers = vectors(table["episode_index"])
        if len(table) != row["length"] or (numbers != row["episode_index"]).any():
            raise DataError(
                f"{path} does not hold episode {row['episode_index']} where meta/episodes says",
                hint="the dataset is damaged; pull or convert it again",
            )
        return table

    def _open(self, path: Path, first_index: int) -> None:
        try:
            self._file = pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read: {error}") from None
        rows = [self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)]
        self._starts = np.cumsum([0, *rows[:-1]])
        self._path, self._file_start = path, first_index


def _video_frames(folder: Folder, column: Column, row: dict[str, Any]) -> np.ndarray:
    """Frames of one episode, uint8 ``(T, H, W, C)``."""
    from dp_hub.dataset.frame_source import video_frames

    name = f"videos/{column.feature}"
    path = folder.root / folder.info["video_path"].format(
        video_key=column.feature,
        chunk_index=row[f"{name}/chunk_index"],
        file_index=row[f"{name}/file_index"],
    )
    height, width, channels = column.shape
    frames = np.empty((row["length"], height, width, channels), np.uint8)
    decoded = video_frames(
        path,
        float(row[f"{name}/from_timestamp"]),
        len(frames),
        float(folder.info["fps"]),
        (height, width, channels),
    )
    for number, frame in enumerate(decoded):
        frames[number] = frame
    return frames


def _read_json(path: Path, *, required: bool) -> dict[str, Any]:
    if not path.exists() and not required:
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path.parents[1]} is not a dataset: it has no meta/{path.name}",
            hint="give the folder that `dp-hub convert` or `dp-hub pull` made",
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} holds a {type(value).__name__}, not an object")
    return value
