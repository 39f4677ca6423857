"""The small files of meta/ and the card, as the writer makes them.

While a dataset is open (being written, or cut off while it was), meta/dp_hub.json says so and has
no fingerprint, there are no checksums, and how many files were there before is remembered: those
are whole and stay as they are.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dp_hub import __version__
from dp_hub.dataset import checksums
from dp_hub.dataset.card import plain_card
from dp_hub.dataset.checksums import FileSum
from dp_hub.dataset.episodes_io import Folder
from dp_hub.dataset.features import Column, info_features
from dp_hub.dataset.shards import CHUNKS_SIZE, DATA_FILE_MB, DATA_PATH, VIDEO_FILE_MB, VIDEO_PATH
from dp_hub.dataset.tables import tasks_table
from dp_hub.dataset.totals import Totals
from dp_hub.errors import DataError
from dp_hub.files import sync_folder, write_atomic, write_draft
from dp_hub.hub.cards import GENERATED

# Where the checksums of the files that were there before stay while a dataset is open again.
_OLD_CHECKSUMS = "meta/.checksums.json"


@dataclass(frozen=True)
class Sealed:
    """How many files, from number 0 on, are whole: data, meta/episodes, and by video feature."""

    data: int = 0
    episodes: int = 0
    videos: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class MetaFiles:
    """What does not change while a dataset is written.

    Args:
        columns: of the dataset.
        fps: frames per second; whole numbers as int.
        robot_type: LeRobot's.
        source: where the episodes come from.
        sources: datasets that this one is made from.
        license: identifier, None if not known.
    """

    columns: tuple[Column, ...]
    fps: float
    robot_type: str | None
    source: Mapping[str, Any]
    sources: Sequence[Mapping[str, Any]] = ()
    license: str | None = None

    @classmethod
    def of(cls, folder: Folder) -> "MetaFiles":
        """Of a dataset that dp_hub wrote. Raises DataError for one that others wrote."""
        provenance = folder.provenance
        if "keys" not in provenance:
            raise DataError(
                f"{folder.root} was made by another program, so nothing can be added to it",
                hint=f"take it over first: dp-hub convert lerobot {folder.root} --to NEW",
            )
        return cls(
            columns=folder.columns,
            fps=folder.info["fps"],
            robot_type=folder.info.get("robot_type"),
            source=provenance.get("source") or {},
            sources=tuple(provenance.get("sources") or ()),
            license=provenance.get("license"),
        )

    def write_tasks(self, root: Path, tasks: Sequence[str]) -> None:
        """meta/tasks.parquet."""
        path = root / "meta" / "tasks.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.tmp")
        with hidden.open("wb") as file:
            pq.write_table(tasks_table(tasks), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, path)
        sync_folder(path.parent)

    def write_open(self, root: Path, sealed: Sealed) -> None:
        """meta/dp_hub.json of a dataset that is being written."""
        videos = dict(sealed.videos)
        files = {"data": sealed.data, "episodes": sealed.episodes, "videos": videos}
        self._write_provenance(root, state="open", fingerprint=None, sealed=files)

    def write_finished(self, root: Path, fingerprint: str) -> None:
        """meta/dp_hub.json of a whole dataset."""
        self._write_provenance(root, state="finished", fingerprint=fingerprint)

    def reopen(self, root: Path, sealed: Sealed) -> None:
        """Turn a finished dataset into an open one, before anything is added."""
        known = root / checksums.PATH
        if known.exists():
            write_atomic(root / _OLD_CHECKSUMS, known.read_bytes())
            known.unlink()
            sync_folder(root / "meta")
        self.write_open(root, sealed)
        sync_folder(root / "meta")

    def write_totals(
        self, root: Path, totals: Totals, n_tasks: int, stats: Mapping[str, Any]
    ) -> None:
        """meta/stats.json and then meta/info.json: from here on the episodes count."""
        write_draft(root / "meta" / "stats.json", _json(stats))
        write_draft(root / "meta" / "info.json", _json(self.info(totals, n_tasks)))
        sync_folder(root / "meta")

    def write_card(self, root: Path) -> None:
        """README.md, unless there is one that people have made theirs. Call it last."""
        path = root / "README.md"
        if path.exists() and GENERATED not in path.read_text("utf-8", errors="replace"):
            return
        write_draft(path, plain_card(root).encode())

    def info(self, totals: Totals, n_tasks: int) -> dict[str, Any]:
        """The contents of meta/info.json."""
        features = info_features(self.columns)
        has_video = False
        for column in self.columns:
            if column.dtype == "video":
                from dp_hub.dataset.video import video_info

                codec = column.encoding or "h264"
                features[column.feature]["info"] = video_info(
                    column.shape,
                    self.fps,
                    codec,
                    copied=column.copied,
                    pix_fmt=column.pix_fmt,
                )
                has_video = True
        return {
            "codebase_version": "v3.0",
            "robot_type": self.robot_type,
            "total_episodes": totals.n_episodes,
            "total_frames": totals.n_frames,
            "total_tasks": n_tasks,
            "chunks_size": CHUNKS_SIZE,
            "data_files_size_in_mb": DATA_FILE_MB,
            "video_files_size_in_mb": VIDEO_FILE_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{totals.n_episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if has_video else None,
            "features": features,
        }

    def _write_provenance(
        self,
        root: Path,
        *,
        state: str,
        fingerprint: str | None,
        sealed: Mapping[str, Any] | None = None,
    ) -> None:
        values: dict[str, Any] = {
            "format": 1,
            "state": state,
            "fingerprint": fingerprint,
            "created_by": f"dp_hub {__version__}",
            "source": self.source,
            "keys": {column.key: column.provenance() for column in self.columns},
            "license": self.license,
        }
        if self.sources:
            values["sources"] = list(self.sources)
        if sealed is not None:
            values["sealed"] = sealed
        write_draft(root / "meta" / "dp_hub.json", _json(values))


def is_open(folder: Folder) -> bool:
    """Whether the dataset is being written, or was cut off while it was."""
    return folder.provenance.get("state") == "open"


def sealed_files(folder: Folder) -> Sealed:
    """Which files of an open dataset were there, whole, before it was opened."""
    stored = folder.provenance.get("sealed") or {}
    return Sealed(
        int(stored.get("data", 0)), int(stored.get("episodes", 0)), dict(stored.get("videos", {}))
    )


def known_checksums(root: Path) -> dict[str, FileSum]:
    """Checksums of the files that were there before the dataset was opened; {} if there are none.

    Taking them over, not reading the files anew, keeps damage that happened since visible.
    """
    return checksums.read_checksums(root, name=_OLD_CHECKSUMS) or {}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
