"""A written dataset as a source of what files hold of its episodes: for edits, without decoding."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dp_hub.dataset import checksums
from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.content import episodes_fingerprint
from dp_hub.dataset.episode_table import read_rows, read_stats, unpack_histogram
from dp_hub.dataset.episodes_io import Folder, open_folder
from dp_hub.dataset.features import Column
from dp_hub.dataset.reader import Dataset, open_dataset
from dp_hub.dataset.shards import DATA_PATH, VIDEO_PATH, number_of, numbered
from dp_hub.dataset.totals import Totals
from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip


class LazyPictures:
    """Encoded pictures as an array uint8 ``(T, H, W, C)`` that decodes what is sliced."""

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, encoded: pa.Array, shape: tuple[int, ...], *, chw: bool, where: str) -> None:
        self._encoded, self._shape, self._chw, self._where = encoded, shape, chw, where
        inner = (shape[2], *shape[:2]) if chw else shape
        self.shape = (len(encoded), *inner)

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, part: slice) -> np.ndarray:
        data = self._encoded[part].field("bytes").to_pylist()
        stored = np.stack([self._decode(one) for one in data])
        return stored.transpose(0, 3, 1, 2) if self._chw else stored

    def _decode(self, data: bytes) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(data)) as image:
                picture = np.asarray(image.convert("RGB" if self._shape[2] == 3 else "L"))
            return picture.reshape(self._shape)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"a picture of {self._where} cannot be decoded: {error}",
                hint="look at the dataset with dp-hub check, or pull it again",
            ) from None


@dataclass(frozen=True)
class Measured:
    """What meta/episodes says of an episode's content.

    Args:
        stats: float64 ``(9, n)`` by feature.
        counts: by feature, how many values are behind them.
        histograms: int64 ``(C, 256)`` by picture feature.
    """

    stats: Mapping[str, np.ndarray]
    counts: Mapping[str, int]
    histograms: Mapping[str, np.ndarray]


class StoredSource:
    """One dataset that dp_hub wrote.

    Args:
        name: its folder, or its name on the Hub.
    Raises:
        DataError: no dataset, a damaged one, or one that another program made or changed.
    """

    def __init__(self, name: str | Path) -> None:
        self.dataset: Dataset = open_dataset(name)
        self.root = self.dataset.root
        self.name = str(name)
        self.folder: Folder = open_folder(self.root)
        self.columns = list(self.folder.columns)
        self._totals = Totals(self.columns)
        self._table: tuple[int, pa.Table] = (0, None)
        self._rows: Iterator[tuple[int, pa.Table]] = iter(())
        self._file: tuple[Path, Any] = (Path(), None)
        self._check_ours()

    def _check_ours(self) -> None:
        provenance, episodes = self.dataset.provenance, self.dataset.episodes
        stored = provenance.get("fingerprint")
        if "keys" in provenance and all(episodes.sha256):
            features = self.dataset.features.values()
            found = episodes_fingerprint(features, self.dataset.fps, episodes.sha256)
            if stored in (None, found):
                return
        raise DataError(
            f"{self.name} was made or changed by another program than dp_hub",
            hint=f"take it over first: dp-hub convert lerobot {self.root} --to NEW",
        )

    @property
    def lengths(self) -> list[int]:
        """Frames of every episode."""
        return [int(n) for n in self.dataset.episodes.lengths]

    @cached_property
    def sums(self) -> dict[Path, checksums.FileSum]:
        """Checksums of its files, by path."""
        known = checksums.read_checksums(self.root) or {}
        return {self.root / name: one for name, one in known.items()}

    def record(self) -> dict[str, Any]:
        """How a dataset made from this one remembers it."""
        return {
            "name": self.dataset.repo_id or self.root.resolve().name,
            "revision": self.dataset.revision,
            "fingerprint": self.dataset.fingerprint,
            "license": self.license,
        }

    @property
    def license(self) -> str | None:
        """The licence that meta/dp_hub.json or the front matter of README.md names."""
        from dp_hub.hub.cards import license_of

        readme = self.root / "README.md"
        stated = license_of(readme.read_text("utf-8")) if readme.is_file() else None
        return self.folder.provenance.get("license") or stated

    def data_number(self, episode: int) -> int:
        """Number of the data file it is in."""
        places = self.dataset.episodes.places["data"]
        return number_of(int(places.chunk[episode]), int(places.file[episode]))

    def data_path(self, episode: int) -> Path:
        """The data file it is in."""
        return numbered(self.root, DATA_PATH, self.data_number(episode))

    def video_path(self, feature: str, episode: int) -> Path:
        """The video it is in."""
        places = self.dataset.episodes.places[feature]
        number = number_of(int(places.chunk[episode]), int(places.file[episode]))
        return numbered(self.root, VIDEO_PATH, number, video=feature)

    def video_times(self, feature: str, episode: int) -> tuple[float, float]:
        """From and to in seconds in that video."""
        places = self.dataset.episodes.places[feature]
        return float(places.from_s[episode]), float(places.to_s[episode])

    def frames(self, episode: int, features: Sequence[str]) -> pa.Table:
        """Its rows in data/: as many as it has frames."""
        path = self.data_path(episode)
        if self._file[0] != path:
            self._file = (path, pq.ParquetFile(path))
        numbers = self.dataset.episodes.places["data"]
        mine = (numbers.chunk == numbers.chunk[episode]) & (numbers.file == numbers.file[episode])
        first = int(np.flatnonzero(mine)[0])
        try:
            table = self._file[1].read_row_group(
                episode - first, columns=[*features, "episode_index"]
            )
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read: {error}", hint="pull it again") from None
        own = vectors(table["episode_index"])
        if len(table) != self.lengths[episode] or (own != episode).any():
            raise DataError(
                f"{path} does not hold episode {episode} where meta/episodes says",
                hint="look at the dataset with dp-hub check",
            )
        return table.select(list(features))

    def clip(self, column: Column, episode: int) -> VideoClip:
        """Its frames in a video feature."""
        from dp_hub.dataset.video import exact_rate

        rate = exact_rate(self.dataset.fps)
        from_s, _ = self.video_times(column.feature, episode)
        height, width, _ = column.shape
        path = self.video_path(column.feature, episode)
        length = self.lengths[episode]
        codec = column.encoding or ""
        return VideoClip(path, round(from_s * rate), length, (height, width), rate, codec)

    def measured(self, episode: int) -> Measured:
        """What is known of its content. Cheap for ascending numbers."""
        first, table = self._table
        if table is None or episode < first:
            self._rows = read_rows(self.root, self.dataset.n_episodes)
            first, table = 0, next(self._rows)[1]
        while episode >= first + len(table):
            first, table = first + len(table), next(self._rows)[1]
        self._table = (first, table)
        row = table.slice(episode - first, 1).combine_chunks()
        stats, counts = read_stats(row, self._totals.sizes)
        by_feature, start = {}, 0
        for feature, (size, _) in self._totals.sizes.items():
            by_feature[feature] = stats[0][:, start : start + size]
            start += size
        histograms = {
            column.feature: unpack_histogram(row[f"histogram/{column.feature}"][0].as_py())
            for column in self.columns
            if column.is_visual
        }
        return Measured(
            by_feature, dict(zip(self._totals.sizes, counts[0].tolist(), strict=True)), histograms
        )
