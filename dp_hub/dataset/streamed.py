"""A dataset opened without its frames: meta/ now, files of data/ and videos/ when needed.

For datasets on the Hub that should not be fetched whole, and for folders too big for memory. What
`open_dataset` checks of every file at the door is checked here of each file when it is first read.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dp_hub.dataset.columns import DataFile
from dp_hub.dataset.content import content_fingerprint, files_fingerprint, trusted_fingerprint
from dp_hub.dataset.episode_index import EpisodeIndex, read_episode_index
from dp_hub.dataset.layout import (
    DATA_PATH,
    VIDEO_PATH,
    data_files,
    file_path,
    parse_features,
    read_info,
)
from dp_hub.dataset.reader import check_totals, read_provenance
from dp_hub.errors import DataError
from dp_hub.files import cache_root
from dp_hub.hub.digests import Known

log = logging.getLogger(__name__)
STORE_GB = 10.0


class Held(Protocol):
    """Files that stay until released."""

    def release(self) -> None:
        """They may be deleted from now on."""
        ...


class Files(Protocol):
    """Where the files of data/ and videos/ come from."""

    @property
    def folder(self) -> Path:
        """Under which they lie while they are held."""
        ...

    @property
    def limit_bytes(self) -> int:
        """How much may be kept."""
        ...

    def size(self, name: str) -> int:
        """Bytes that a file takes of the limit."""
        ...

    def hold(self, names: Iterable[str]) -> Held:
        """Make files be there, until released."""
        ...

    def close(self) -> None:
        """Stop waiting for files."""
        ...


class LocalFiles:
    """The files of a dataset folder, which are there anyway."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.limit_bytes = 1 << 62

    def size(self, name: str) -> int:
        """Nothing: no file is fetched."""
        return 0

    def hold(self, names: Iterable[str]) -> Held:
        """Nothing to do. Raises DataError if a file is missing."""
        for name in names:
            if not (self.folder / name).is_file():
                raise DataError(
                    f"{self.folder / name} is missing",
                    hint="copy or pull the dataset again, it is not complete",
                )
        return _NothingHeld()

    def close(self) -> None:
        """Nothing to do."""


class _NothingHeld:
    def release(self) -> None:
        pass


class StreamedDataset:
    """A dataset that was opened with :func:`stream_dataset`.

    Attributes:
        root: the folder that holds its meta/.
        repo_id: its name on the Hub; None for a folder.
        revision: the commit, 40 hex digits; None for a folder.
        info, fps, features, episodes, provenance: as of :class:`dp_hub.dataset.reader.Dataset`.
        files: where its frames come from.
    """

    def __init__(
        self,
        root: Path,
        files: Files,
        *,
        listed: Sequence[Known] = (),
        repo_id: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.root, self.files = root, files
        self.repo_id, self.revision = repo_id, revision
        self.info: dict[str, Any] = read_info(root)
        self.fps = float(self.info["fps"])
        self.features = parse_features(self.info["features"])
        videos = [name for name, feature in self.features.items() if feature.dtype == "video"]
        self.episodes: EpisodeIndex = read_episode_index(root, videos, self.info["total_episodes"])
        check_totals(root, self.info, self.episodes)
        self.provenance = read_provenance(root)
        self.data_files: list[DataFile] = data_files(files.folder, self.info, self.episodes)
        self._listed = listed

    def __repr__(self) -> str:
        name = f"{self.repo_id}@{self.revision}" if self.repo_id else self.root
        return f"<StreamedDataset {name}: {self.n_episodes} episodes, {self.n_frames} frames>"

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
        """sha256 of the content, hex; the same as of the dataset opened whole.

        Except where dp_hub did not write the dataset and the Hub has no sha256 of one of its files.
        """
        trusted = trusted_fingerprint(
            self.provenance, self.features.values(), self.fps, self.episodes.sha256
        )
        if trusted is not None:
            return trusted
        if isinstance(self.files, LocalFiles):
            names = self.files_of(self.features, np.arange(self.n_episodes))
            return content_fingerprint(self.root, self.info, [self.root / n for n in names])
        contents = {
            file.path: file.sha256 or file.git_id
            for file in self._listed
            if file.path.startswith(("data/", "videos/"))
        }
        return files_fingerprint(contents, self.info)

    def files_of(self, features: Iterable[str], episodes: np.ndarray) -> list[str]:
        """Names of the files that hold these features of these episodes, int (P,)."""
        names: dict[str, None] = {}
        kinds = {self._place_of(feature) for feature in features}
        for kind in sorted(kinds):
            places = self.episodes.places[kind]
            pairs = np.stack([places.chunk[episodes], places.file[episodes]], axis=1)
            for chunk, file in np.unique(pairs, axis=0).tolist():
                names[self._name(kind, chunk, file)] = None
        return list(names)

    def file_groups(self, features: Iterable[str]) -> np.ndarray:
        """Which files each episode lies in, int64 (E, G): one column of numbers per kind of file.

        Kinds with few, large files come first.
        """
        columns = []
        for kind in sorted({self._place_of(feature) for feature in features}):
            places = self.episodes.places[kind]
            pairs = np.stack([places.chunk, places.file], axis=1)
            columns.append(np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1))
        columns.sort(key=lambda numbers: int(numbers.max()))
        return np.stack(columns, axis=1).astype(np.int64)

    def _place_of(self, feature: str) -> str:
        if feature not in self.features:
            raise DataError(
                f"{self.root} has no feature {feature!r}",
                hint=f"it has: {', '.join(self.features)}",
            )
        return feature if self.features[feature].dtype == "video" else "data"

    def _name(self, kind: str, chunk: int, file: int) -> str:
        key, default = ("data_path", DATA_PATH) if kind == "data" else ("video_path", VIDEO_PATH)
        template = self.info.get(key) or default
        return file_path(Path(), template, chunk=chunk, file=file, video=kind).as_posix()


def stream_dataset(
    path_or_repo: str | Path,
    *,
    revision: str | None = None,
    store: str | Path | None = None,
    store_gb: float = STORE_GB,
    patience_s: float = 300.0,
) -> StreamedDataset:
    """Open a dataset without fetching it whole, or reading it into memory.

    Args:
        path_or_repo: a folder; if there is none of that name, ``user/name`` or ``user/name@rev``
            on the Hub.
        revision: tag, branch or commit of the Hub name.
        store: where fetched files are kept while they are needed, shared by all processes of this
            machine; ``stream`` in dp_hub's cache by default.
        store_gb: how much may be kept there, of all datasets.
        patience_s: how long to wait for a Hub that is away, for each file.
    Raises:
        DataError: neither a folder nor a Hub name, or its meta/ is not a dataset's or damaged.
        HubError: the Hub has no such dataset or revision, or is away.
    """
    path = Path(path_or_repo).expanduser()
    if path.is_dir():
        if revision is not None:
            raise DataError(
                f"{path} is a folder, which has no revision {revision!r}",
                hint="revisions belong to names on the Hub",
            )
        if not (path / "meta" / "info.json").is_file():
            raise DataError(
                f"{path} is not a dataset: it has no meta/info.json",
                hint="give the folder that holds meta/ and data/; `dp-hub convert` makes one",
            )
        return StreamedDataset(path, LocalFiles(path))
    from dp_hub.hub import is_hub_name
    from dp_hub.hub.client import no_folder
    from dp_hub.hub.filestore import FileStore
    from dp_hub.hub.partial import pull_meta

    if isinstance(path_or_repo, Path) or not is_hub_name(path_or_repo):
        raise DataError(
            f"there is no folder {path_or_repo}, and it is not a name on the Hub",
            hint="a name on the Hub looks like user/name or user/name@revision",
        )
    with no_folder(path_or_repo):
        found, meta = pull_meta(path_or_repo, revision=revision)
    root = Path(store).expanduser() if store is not None else cache_root() / "stream"
    files = FileStore(root, found, limit_bytes=round(store_gb * 1e9), patience_s=patience_s)
    return StreamedDataset(
        meta, files, listed=found.files, repo_id=found.repo_id, revision=found.sha
    )
