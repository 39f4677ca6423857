"""Which files a dataset consists of, and whether they hold what meta/ says."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dp_hub.config import read_json
from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.columns import DataFile, Feature, batches, open_parquet
from dp_hub.dataset.episode_index import EpisodeIndex
from dp_hub.errors import ConfigError, DataError

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def read_info(root: Path) -> dict[str, Any]:
    """meta/info.json, checked.

    Raises:
        DataError: there is none, it is of another version, or lacks what a reader needs.
    """
    try:
        info = read_json(root / "meta" / "info.json")
    except ConfigError as error:
        raise DataError(error.message) from None
    version = str(info.get("codebase_version") or "unknown").removeprefix("v")
    if not version.startswith("3."):
        raise DataError(
            f"{root} is a LeRobot dataset of version {version}; v3.0 is read here",
            hint=f"convert it first: dp-hub convert lerobot {root} --to NEW"
            if version.startswith("2.")
            else None,
        )
    for key, kind in (
        ("fps", (int, float)),
        ("features", dict),
        ("total_frames", int),
        ("total_episodes", int),
    ):
        if not isinstance(info.get(key), kind):
            raise DataError(f"`{key}` in {root}/meta/info.json is {info.get(key)!r}")
    if not info["fps"] > 0:
        raise DataError(f"`fps` in {root}/meta/info.json is {info['fps']}, not a rate")
    return info


def parse_features(entries: Mapping[str, Any]) -> dict[str, Feature]:
    """``features`` of meta/info.json. Raises DataError for entries that describe none."""
    features = {}
    for name, entry in entries.items():
        if "/" in name or "\\" in name or not isinstance(entry, dict):
            raise DataError(f"{name!r} in meta/info.json is not a feature")
        dtype, shape = entry.get("dtype"), entry.get("shape")
        sizes: list[Any] = shape if isinstance(shape, list) else [None]
        if not isinstance(dtype, str) or not all(isinstance(n, int) and n > 0 for n in sizes):
            raise DataError(f"feature {name} has the dtype {dtype!r} and the shape {shape!r}")
        features[name] = Feature(name, dtype, tuple(sizes), entry.get("names"))
    return features


def data_files(root: Path, info: Mapping[str, Any], episodes: EpisodeIndex) -> list[DataFile]:
    """The Parquet files with their frames, in order; nothing is read yet.

    Raises:
        DataError: the path template is not one, or leads out of the dataset.
    """
    places = episodes.places["data"]
    template = info.get("data_path") or DATA_PATH
    pairs = np.stack([places.chunk, places.file], axis=1)
    first = np.flatnonzero(np.any(np.diff(pairs, axis=0, prepend=-1) != 0, axis=1))
    last = np.append(first[1:], len(episodes)) - 1
    files = []
    for a, b in zip(first, last, strict=True):
        path = file_path(root, template, chunk=int(pairs[a, 0]), file=int(pairs[a, 1]))
        files.append(DataFile(path, int(episodes.starts[a]), int(episodes.stops[b])))
    return files


def file_path(root: Path, template: str, *, chunk: int, file: int, video: str = "") -> Path:
    """The path of a numbered file. Raises DataError if the template leaves the dataset."""
    fields = {"chunk_index": chunk, "file_index": file, "video_key": video}
    if not re.fullmatch(r"([^{}]|\{(chunk_index|file_index|video_key)(:0?\d+d?)?\})+", template):
        raise DataError(f"meta/info.json has the path template {template!r}")
    name = PurePosixPath(template.format(**fields))
    if name.is_absolute() or ".." in name.parts:
        raise DataError(f"meta/info.json leads out of the dataset: {template!r}")
    return root / name


def check_frames(files: list[DataFile], episodes: EpisodeIndex, features: list[str]) -> None:
    """Check that every row is where the episode index says, and that every column is there.

    The three index columns are decoded whole. Parquet's minimum and maximum would not do: they are
    the same for rows in another order.

    Raises:
        DataError: a file is missing, cut short or holds another number of rows than its episodes;
            rows out of order, or a feature without a column.
    """
    for file in files:
        with open_parquet(file.path) as parquet:
            check_rows(file, parquet.metadata.num_rows, episodes)
            missing = [name for name in features if name not in parquet.schema_arrow.names]
            if missing:
                raise DataError(f"{file.path} has no column for the feature {missing[0]}")
            row = file.start
            for batch in batches(parquet, file.path, ["index", "episode_index", "frame_index"]):
                _check_consecutive(batch, row, episodes, file.path)
                row += len(batch)


def _check_consecutive(batch: Any, row: int, episodes: EpisodeIndex, path: Path) -> None:
    index = np.arange(row, row + len(batch))
    first, last = np.searchsorted(episodes.stops, index[[0, -1]], side="right")
    stops = episodes.stops[first : last + 1]
    rows = np.diff(np.minimum(stops, row + len(batch)), prepend=row)
    _check_index(batch, index, np.repeat(np.arange(first, last + 1), rows), episodes, path)


def check_batch(batch: Any, index: np.ndarray, episodes: EpisodeIndex, path: Path) -> None:
    """Refuse rows of a file that are not the frames ``index``, int64 (T,), of the dataset."""
    episode = np.searchsorted(episodes.stops, index, side="right")
    _check_index(batch, index, episode, episodes, path)


def _check_index(
    batch: Any, index: np.ndarray, episode: np.ndarray, episodes: EpisodeIndex, path: Path
) -> None:
    expected = {
        "index": index,
        "episode_index": episode,
        "frame_index": index - episodes.starts[episode],
    }
    for name, values in expected.items():
        found = vectors(batch.column(name))[:, 0]
        wrong = np.flatnonzero(found != values)
        if len(wrong):
            i = wrong[0]
            raise DataError(
                f"{path} is not in order: {name} is {found[i]} in the row of frame {index[i]}, "
                f"not {values[i]}",
                hint="frames must lie in the order of meta/episodes; write the dataset again",
            )


def check_rows(file: DataFile, n_rows: int, episodes: EpisodeIndex) -> None:
    """Refuse a file with another number of rows than its episodes have frames."""
    expected = file.stop - file.start
    if n_rows != expected:
        first, last = np.searchsorted(episodes.starts, [file.start, file.stop - 1], side="right")
        raise DataError(
            f"{file.path} has {n_rows} rows, but its episodes {first - 1} to {last - 1} have "
            f"{expected} frames",
            hint="copy or pull the dataset again; if that does not help, it was written wrongly",
        )
