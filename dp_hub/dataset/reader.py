"""Open a dataset, from a folder or the Hub, and read its columns as arrays.

Any LeRobot v3.0 dataset will do, whether dp_hub wrote it or not. What training needs is checked at
the door: a dataset that opens has its frames in the order its episode index says.
"""

import logging
import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.config import read_json
from dp_hub.dataset.columns import DataFile, Feature, read_column
from dp_hub.dataset.content import content_fingerprint, trusted_fingerprint
from dp_hub.dataset.episode_index import EpisodeIndex, read_episode_index
from dp_hub.dataset.frame_cache import CachedFrames
from dp_hub.dataset.frame_source import image_source, video_paths, video_source
from dp_hub.dataset.layout import check_frames, data_files, parse_features, read_info
from dp_hub.dataset.tasks import tasks_of_frames
from dp_hub.errors import ConfigError, DataError
from dp_hub.files import cache_root

__all__ = ["Dataset", "EpisodeIndex", "Feature", "open_dataset"]
log = logging.getLogger(__name__)


class Dataset:
    """A dataset that was opened with :func:`open_dataset`.

    Attributes:
        root: its folder.
        repo_id: its name on the Hub; None for a folder.
        revision: the commit it was pulled at, 40 hex digits; None for a folder.
        info: meta/info.json.
        fps: frames per second.
        features: by name.
        episodes: start, stop, task and metadata of each episode.
        provenance: meta/dp_hub.json; {} if dp_hub did not write the dataset.
    """

    def __init__(
        self,
        root: Path,
        *,
        info: dict[str, Any],
        episodes: EpisodeIndex,
        files: list[DataFile],
        provenance: dict[str, Any],
        repo_id: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.root, self.repo_id, self.revision = root, repo_id, revision
        self.info, self.episodes, self.provenance = info, episodes, provenance
        self.fps = float(info["fps"])
        self.features = parse_features(info["features"])
        self._files = files
        self._columns: dict[str, np.ndarray] = {}

    def __repr__(self) -> str:
        name = f"{self.repo_id}@{self.revision}" if self.repo_id else self.root
        return f"<Dataset {name}: {self.n_episodes} episodes, {self.n_frames} frames>"

    @property
    def n_frames(self) -> int:
        """N, the frames of all episodes."""
        return int(self.episodes.stops[-1])

    @property
    def n_episodes(self) -> int:
        """E, the episodes."""
        return len(self.episodes)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the content, hex.

        As written by dp_hub, if it still fits the episodes; of a dataset that is still being
        written, that of the episodes so far. Else computed from the files with the frames, which
        is remembered until one of them changes.
        """
        trusted = trusted_fingerprint(
            self.provenance, self.features.values(), self.fps, self.episodes.sha256
        )
        if trusted is not None:
            return trusted
        if self.provenance.get("fingerprint") is not None:
            log.warning(
                "%s was changed by another program: its stored fingerprint does not fit", self.root
            )
        return content_fingerprint(self.root, self.info, self._frame_files())

    def _frame_files(self) -> list[Path]:
        videos = [feature.name for feature in self.features.values() if feature.dtype == "video"]
        return [file.path for file in self._files] + [
            path
            for name in videos
            for path in set(video_paths(self.root, self.info, self.episodes, name))
        ]

    def column(self, name: str) -> np.ndarray:
        """A whole feature, read-only.

        Numbers: contiguous, (N, n), or (N,) for a feature of shape [1]; in memory, read once.
        Pictures: uint8 (N, H, W, C), a memory map of the frame cache, which the first call builds
        (see :mod:`dp_hub.dataset.frame_cache`).

        Raises:
            DataError: no such feature, or its files are missing or damaged.
        """
        if name not in self._columns:
            feature = self._feature(name)
            if feature.is_visual:
                self._columns[name] = self.cached_frames(name).open()
            else:
                self._columns[name] = read_column(self._files, feature)
        return self._columns[name]

    def cached_frames(self, name: str) -> CachedFrames:
        """The cache of a picture feature, to verify or rebuild it."""
        feature = self._feature(name)
        if feature.dtype == "video":
            source = video_source(self.root, self.info, self.episodes, feature)
        elif feature.dtype == "image":
            source = image_source(self.root, self._files, feature)
        else:
            raise DataError(f"{name} holds {feature.dtype} numbers, not pictures")
        # The origin too: the same pictures in another encoding lie in other files.
        file = f"{name}.{source.origin[:12]}.npy"
        return CachedFrames(cache_root() / "frames" / self.fingerprint / file, source)

    def _feature(self, name: str) -> Feature:
        if name not in self.features:
            raise DataError(
                f"{self.root} has no feature {name!r}",
                hint=f"it has: {', '.join(self.features)}",
            )
        return self.features[name]


def open_dataset(path_or_repo: str | Path, *, revision: str | None = None) -> Dataset:
    """Open a LeRobot v3.0 dataset.

    Args:
        path_or_repo: a folder; if there is none of that name, ``user/name`` or ``user/name@rev``
            on the Hub.
        revision: tag, branch or commit of the Hub name.
    Raises:
        DataError: neither a folder nor a Hub name, not a dataset, or one whose files are missing,
            damaged, out of order or contradict each other.
        HubError: the Hub has no such dataset or revision.
    """
    root, repo_id, commit = _locate(path_or_repo, revision)
    if not (root / "meta" / "info.json").is_file():
        raise DataError(
            f"{root} is not a dataset: it has no meta/info.json",
            hint="give the folder that holds meta/ and data/; `dp-hub convert` makes one",
        )
    info = read_info(root)
    features = parse_features(info["features"])
    videos = [name for name, feature in features.items() if feature.dtype == "video"]
    episodes = read_episode_index(root, videos, info["total_episodes"])
    check_totals(root, info, episodes)
    files = data_files(root, info, episodes)
    check_frames(files, episodes, [name for name in features if name not in videos])
    if not episodes.tasks:
        episodes = replace(episodes, tasks=tasks_of_frames(root, files, episodes.starts))
    return Dataset(
        root,
        info=info,
        episodes=episodes,
        files=files,
        provenance=read_provenance(root),
        repo_id=repo_id,
        revision=commit,
    )


def _locate(path_or_repo: str | Path, revision: str | None) -> tuple[Path, str | None, str | None]:
    """Folder, Hub name and commit."""
    path = Path(path_or_repo).expanduser()
    if path.is_dir():
        if revision is not None:
            raise DataError(
                f"{path} is a folder, which has no revision {revision!r}",
                hint="revisions belong to names on the Hub",
            )
        return path, None, None
    from dp_hub.hub import is_hub_name, pull
    from dp_hub.hub.client import no_folder

    if isinstance(path_or_repo, Path) or not is_hub_name(path_or_repo):
        raise DataError(
            f"there is no folder {path_or_repo}, and it is not a name on the Hub",
            hint="a name on the Hub looks like user/name or user/name@revision",
        )
    with no_folder(path_or_repo):
        pulled = pull(path_or_repo, revision=revision, kind="dataset")
    return pulled.path, pulled.repo_id, pulled.sha


def read_provenance(root: Path) -> dict[str, Any]:
    """meta/dp_hub.json; {} if there is none. Raises DataError if it is damaged."""
    path = root / "meta" / "dp_hub.json"
    if not path.exists():
        return {}
    try:
        provenance = read_json(path)
    except ConfigError as error:
        raise DataError(error.message) from None
    fingerprint = provenance.get("fingerprint")
    if fingerprint is None and provenance.get("state") == "open":
        return provenance  # still being written
    # It names a folder of the cache, so nothing but a hash may pass.
    if not isinstance(fingerprint, str) or not re.fullmatch("[0-9a-f]{64}", fingerprint):
        raise DataError(f"{path} has the fingerprint {fingerprint!r}, not a sha256")
    return provenance


def check_totals(root: Path, info: dict[str, Any], episodes: EpisodeIndex) -> None:
    """Refuse a meta/info.json that counts other episodes or frames than meta/episodes has."""
    for key, found in (
        ("total_episodes", len(episodes)),
        ("total_frames", int(episodes.stops[-1])),
    ):
        if info[key] != found:
            raise DataError(
                f"{root}/meta/info.json says {key} is {info[key]}, meta/episodes has {found}",
                hint="the dataset is not complete; copy or pull it again",
            )
