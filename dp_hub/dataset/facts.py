"""What is known about a dataset from its meta/ alone: for ``dp-hub info``, the card and diff."""

import io
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.dataset.checksums import read_checksums
from dp_hub.dataset.columns import Feature
from dp_hub.dataset.content import episodes_fingerprint
from dp_hub.dataset.features import INDEX_DTYPES
from dp_hub.dataset.located import Located
from dp_hub.dataset.meta import Meta, read_meta
from dp_hub.dataset.origins import origins
from dp_hub.errors import DataError, HubError

_PARTS = ("data", "videos", "meta")


@dataclass(frozen=True)
class FeatureFacts:
    """One feature.

    Attributes:
        names: of the dimensions; () if they have none.
        key: its name in the source; None if that is not known.
        encoding: of pictures: ``webp``, ``png``, ``jpeg``, ``h264 crf 23`` ...; None if unknown.
        lossy: whether pictures come back changed; None if unknown, and for numbers.
        index: whether it is one that every dataset has, made from the episode index.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    key: str | None = None
    encoding: str | None = None
    lossy: bool | None = None
    index: bool = False


@dataclass(frozen=True)
class Lengths:
    """Frames per episode."""

    min: int
    median: float
    max: int


@dataclass(frozen=True)
class Size:
    """Bytes of a dataset's parts. ``here``: those that lie in the folder, not just on the Hub."""

    data: int
    videos: int
    meta: int
    here: tuple[str, ...]

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return self.data + self.videos + self.meta


@dataclass(frozen=True)
class Facts:
    """A dataset.

    Attributes:
        folder: where its meta/ is.
        repo_id, tag, commit: which version on a Hub it is; None where that is not known.
        state: ``finished`` or ``open`` (still being written).
        fingerprint: of the content; None if dp_hub did not write it, or while it is open.
        fingerprint_fits: whether it still fits the episodes; None without one.
        tasks: episodes by task text.
        lengths: None without episodes.
        source: what it was converted or recorded from.
        sources: the datasets it was made from by editing or merging.
        license: identifier, from meta/dp_hub.json or README.md.
    """

    folder: Path
    repo_id: str | None
    tag: str | None
    commit: str | None
    codebase_version: str
    robot_type: str | None
    state: str
    fps: float
    n_episodes: int
    n_frames: int
    tasks: Mapping[str, int]
    lengths: Lengths | None
    features: tuple[FeatureFacts, ...]
    size: Size
    fingerprint: str | None
    fingerprint_fits: bool | None
    created_by: str | None
    source: Mapping[str, Any]
    sources: tuple[Mapping[str, Any], ...]
    license: str | None

    @property
    def duration_s(self) -> float:
        """Seconds that all frames last."""
        return self.n_frames / self.fps

    @property
    def name(self) -> str:
        """Its name on the Hub, else the folder's."""
        return self.repo_id or self.folder.resolve().name

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        values = asdict(self)
        values["folder"] = str(self.folder)
        values["duration_s"] = self.duration_s
        values["size_bytes"] = {**values.pop("size"), "total": self.size.total}
        return values


def read_facts(found: Located | Path) -> Facts:
    """The facts about a dataset, from its meta/.

    Raises:
        DataError: there is no dataset, or its meta/ is damaged.
    """
    place = found if isinstance(found, Located) else Located(found)
    meta = read_meta(place.folder)
    table = meta.episodes(["length", "dataset_from_index", "dataset_to_index", "tasks", "sha256"])
    columns = {name: table.column(name).to_pylist() for name in table.schema.names}
    provenance = meta.provenance
    fingerprint = _text(provenance.get("fingerprint"))
    return Facts(
        folder=place.folder,
        repo_id=place.repo_id,
        tag=place.tag,
        commit=place.sha,
        codebase_version=str(meta.info["codebase_version"]),
        robot_type=_robot(meta.info),
        state=_text(provenance.get("state")) or "finished",
        fps=meta.fps,
        n_episodes=meta.n_episodes,
        n_frames=int(meta.info["total_frames"]),
        tasks=_tasks(columns.get("tasks", [])),
        lengths=_lengths(episode_lengths(columns)),
        features=tuple(_feature(feature, meta) for feature in meta.features.values()),
        size=_size(meta.root),
        fingerprint=fingerprint,
        fingerprint_fits=_fits(fingerprint, meta, columns.get("sha256", [])),
        created_by=_text(provenance.get("created_by")),
        source=_mapping(provenance.get("source")),
        sources=_sources(provenance),
        license=_license(meta),
    )


def duration(seconds: float) -> str:
    """A time in words: ``4.2 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def megabytes(n_bytes: int) -> str:
    """A size in words: ``950 bytes``, ``12.3 MB``, ``4.56 GB``."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 1000)):
        if n_bytes >= factor:
            amount = n_bytes / factor
            return f"{amount:.3g} {unit}" if amount < 999 else f"{amount:,.0f} {unit}"
    return f"{n_bytes} bytes"


def episode_lengths(columns: Mapping[str, list[Any]]) -> np.ndarray:
    """Frames per episode, int64 (E,), from columns of meta/episodes.

    Raises:
        DataError: the columns do not say, or an episode has no length.
    """
    if not columns:
        return np.zeros(0, np.int64)
    bounds = (columns.get("dataset_from_index"), columns.get("dataset_to_index"))
    try:
        if "length" in columns:
            lengths = np.asarray(columns["length"], np.int64)
        else:
            lengths = np.asarray(bounds[1], np.int64) - np.asarray(bounds[0], np.int64)
        if (lengths < 1).any():
            raise ValueError
        return lengths
    except (TypeError, ValueError):
        raise DataError(
            "meta/episodes does not say how long every episode is",
            hint="a LeRobot v3.0 dataset has a column `length`; convert or record it again",
        ) from None


def task_texts(cells: list[Any]) -> list[tuple[str, ...]]:
    """The tasks of every episode: meta/episodes holds a text, or a list of texts, for each."""
    return [tuple(map(str, cell)) if isinstance(cell, list) else (str(cell or ""),)
            for cell in cells]  # fmt: skip


def _tasks(cells: list[Any]) -> dict[str, int]:
    counted = Counter(task for tasks in task_texts(cells) for task in tasks)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _lengths(lengths: np.ndarray) -> Lengths | None:
    if not len(lengths):
        return None
    return Lengths(int(lengths.min()), float(np.median(lengths)), int(lengths.max()))


def _feature(feature: Feature, meta: Meta) -> FeatureFacts:
    key, entry = _source_key(feature.name, meta.provenance)
    mapped = origins(_mapping(meta.provenance.get("source")).get("mapping"))
    encoding, lossy = _encoding(feature, meta, entry) if feature.is_visual else (None, None)
    return FeatureFacts(
        name=feature.name,
        dtype=feature.dtype,
        shape=feature.shape,
        names=dimension_names(feature.names),
        key=mapped.get(feature.name, key),
        encoding=encoding,
        lossy=lossy,
        index=feature.name in INDEX_DTYPES,
    )


def _source_key(feature: str, provenance: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    for key, entry in _mapping(provenance.get("keys")).items():
        if isinstance(entry, dict) and entry.get("feature") == feature:
            return key, entry
    return None, {}


def dimension_names(names: Any) -> tuple[str, ...]:
    """The names of a feature's dimensions, which LeRobot keeps as a list, or in groups of lists."""
    if isinstance(names, dict):
        names = [name for group in names.values() if isinstance(group, list) for name in group]
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _encoding(
    feature: Feature, meta: Meta, entry: Mapping[str, Any]
) -> tuple[str | None, bool | None]:
    if feature.dtype == "video":
        return _video_encoding(meta.info["features"][feature.name]), True
    kind = _text(entry.get("encoding")) or _sniffed(feature.name, meta)
    # A WebP may be either; dp_hub writes only the lossless kind.
    known = {"png": False, "jpeg": True, "webp": False if entry else None}
    return kind, known.get(kind or "")


def _video_encoding(entry: Mapping[str, Any]) -> str | None:
    info = _mapping(entry.get("info") or entry.get("video_info"))
    parts = [info.get("video.codec"), info.get("video.pix_fmt")]
    if info.get("video.crf") is not None:
        parts.insert(1, f"crf {info['video.crf']}")
    return " ".join(str(part) for part in parts if part) or None


def _sniffed(name: str, meta: Meta) -> str | None:
    """The format of the first picture, if the first data file is here."""
    from PIL import Image

    from dp_hub.dataset.some_frames import first_picture

    try:
        data = first_picture(meta, name)
        if data is None:
            return None
        with Image.open(io.BytesIO(data)) as image:
            return (image.format or "").lower() or None
    except (DataError, OSError):
        return None  # damaged data is not what this is about


def _size(root: Path) -> Size:
    found = {part: _bytes_below(root / part) for part in _PARTS if (root / part).is_dir()}
    missing = [part for part in _PARTS if part not in found]
    sums = (read_checksums(root) or {}) if missing else {}
    listed = {part: sum(s.n_bytes for name, s in sums.items() if name.startswith(f"{part}/"))
              for part in missing}  # fmt: skip
    return Size(**{**listed, **found}, here=tuple(found))


def _bytes_below(folder: Path) -> int:
    n_bytes = 0
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        n_bytes += sum((Path(parent) / name).stat().st_size for name in names
                       if not name.startswith("."))  # fmt: skip
    return n_bytes


def _fits(fingerprint: str | None, meta: Meta, hashes: list[Any]) -> bool | None:
    if fingerprint is None:
        return None
    texts = [value if isinstance(value, str) else "" for value in hashes]
    return episodes_fingerprint(meta.features.values(), meta.fps, texts) == fingerprint


def _license(meta: Meta) -> str | None:
    if recorded := _text(meta.provenance.get("license")):
        return recorded
    from dp_hub.hub.cards import license_of

    try:
        return license_of((meta.root / "README.md").read_text("utf-8"))
    except (OSError, ValueError, HubError):
        return None  # no README, or not one that the Hub could read


def _robot(info: Mapping[str, Any]) -> str | None:
    robot = _text(info.get("robot_type"))
    return None if robot == "unknown" else robot  # what LeRobot writes for None


def _sources(provenance: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    found = provenance.get("sources")
    return tuple(s for s in found if isinstance(s, dict)) if isinstance(found, list) else ()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
