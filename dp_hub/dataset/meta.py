"""What meta/ says about a dataset, read alone: no data, no videos, finished or still open."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from dp_hub.config import read_json
from dp_hub.dataset.columns import Feature, damage_told, open_parquet
from dp_hub.dataset.layout import parse_features, read_info
from dp_hub.errors import ConfigError, DataError

_EPISODES_FILE = re.compile(r"chunk-(\d+)/file-(\d+)\.parquet")


@dataclass(frozen=True)
class Meta:
    """meta/ of a dataset.

    Attributes:
        root: the dataset's folder.
        info: meta/info.json.
        features: by name.
        provenance: meta/dp_hub.json; {} if dp_hub did not write the dataset.
    """

    root: Path
    info: dict[str, Any]
    features: dict[str, Feature]
    provenance: dict[str, Any]

    @property
    def n_episodes(self) -> int:
        """E, the episodes that count: rows of meta/episodes beyond are of a broken-off write."""
        return int(self.info["total_episodes"])

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float(self.info["fps"])

    def episodes(self, columns: Sequence[str]) -> pa.Table:
        """Those of ``columns`` that meta/episodes has, one row per episode.

        Raises:
            DataError: files are missing or damaged, or hold fewer episodes than info.json says.
        """
        parts: list[pa.Table] = []
        n_rows = 0
        for path in _episode_files(self.root):
            if n_rows >= self.n_episodes:
                break
            parts.append(_read(path, columns))
            n_rows += parts[-1].num_rows
        if n_rows < self.n_episodes:
            raise DataError(
                f"{self.root}/meta/info.json says there are {self.n_episodes} episodes, "
                f"meta/episodes has {n_rows}",
                hint="the dataset is not complete; copy or pull it again",
            )
        if not parts:
            return pa.table({})
        try:
            table = pa.concat_tables(parts, promote_options="permissive")
        except pa.ArrowException as error:
            raise DataError(
                f"the files of {self.root}/meta/episodes do not agree: {error}"
            ) from None
        return table.slice(0, self.n_episodes)

    def episode_columns(self, prefix: str) -> list[str]:
        """Names of the columns of meta/episodes that begin with ``prefix``."""
        files = _episode_files(self.root)
        if not files or not self.n_episodes:
            return []
        with open_parquet(files[0]) as file:
            return [name for name in file.schema_arrow.names if name.startswith(prefix)]

    def stats(self) -> dict[str, dict[str, Any]]:
        """meta/stats.json; {} if there is none. Raises DataError if it is no JSON object."""
        path = self.root / "meta" / "stats.json"
        return _json(path) if path.exists() else {}


def read_meta(root: Path) -> Meta:
    """meta/ of the dataset at ``root``.

    Raises:
        DataError: there is no dataset, or its meta/ is damaged.
    """
    info = read_info(root)
    features = parse_features(info["features"])
    path = root / "meta" / "dp_hub.json"
    return Meta(root, info, features, _json(path) if path.exists() else {})


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except ConfigError as error:
        raise DataError(error.message, hint="copy or pull the dataset again") from None


def _episode_files(root: Path) -> list[Path]:
    folder = root / "meta" / "episodes"
    found = [(_EPISODES_FILE.fullmatch(path.relative_to(folder).as_posix()), path)
             for path in folder.glob("chunk-*/file-*.parquet")]  # fmt: skip
    return [path for *_, path in sorted((int(m[1]), int(m[2]), path) for m, path in found if m)]


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    with open_parquet(path) as file:
        names = [name for name in columns if name in file.schema_arrow.names]
        # A column that every file has, so that rows count even where none of the others is there.
        known = names or file.schema_arrow.names[:1]
        with damage_told(path):
            return file.read(columns=known, use_threads=False).select(known)
