"""A dataset in LeRobot's layout before v3.0: what ``dp-hub export lerobot-v21`` runs.

Several programs that train policies read no other. There every episode has files of its own. Rows
and encoded pictures are taken over as they are stored, frames of videos packet by packet.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import av
import pyarrow.parquet as pq

from dp_hub.dataset.columns import damage_told
from dp_hub.dataset.episode_table import read_rows
from dp_hub.dataset.episodes_io import Frames
from dp_hub.dataset.layout import VIDEO_PATH, file_path
from dp_hub.dataset.meta import Meta, read_meta
from dp_hub.dataset.packets import NotCopyableError
from dp_hub.dataset.shards import CHUNKS_SIZE, V21_DATA_PATH, V21_VIDEO_PATH, numbered, place
from dp_hub.dataset.tasks import task_texts
from dp_hub.dataset.video import VideoShards
from dp_hub.dataset.writer import refuse_existing
from dp_hub.errors import DataError
from dp_hub.files import new_folder
from dp_hub.hub.cards import license_of
from dp_hub.replay.clip import VideoClip

_STATS = ("min", "max", "mean", "std", "count")
_OWN = {"episode_index", "tasks", "length"}  # of a line of episodes.jsonl
_CONVERT = "make it a dataset of dp_hub first: dp-hub convert lerobot {root} --to NEW"


@dataclass(frozen=True)
class ExportedV21:
    """What `export_lerobot_v21` made.

    Args:
        n_videos: mp4 files, one for every episode and camera that is stored as video.
    """

    path: Path
    n_episodes: int
    n_frames: int
    n_videos: int


def export_lerobot_v21(
    dataset: str | Path,
    to: str | Path,
    *,
    on_progress: Callable[[int, int], None] = lambda episodes, total: None,
) -> ExportedV21:
    """Write the dataset in LeRobot's format v2.1, whole or not at all.

    Nothing is decoded or encoded again: converted back, every episode has the content hash that it
    has here (pictures as the same kind, ``--images webp`` or ``png``, where they are not video).
    What meta/episodes tells of an episode beside tasks and length becomes further keys of its line
    in episodes.jsonl.

    Args:
        dataset: a dataset folder.
        to: the folder to make; refused if it exists.
        on_progress: called after every episode with their number and the total.
    Raises:
        DataError: not a dataset, a damaged one, one whose videos cannot be cut between two frames,
            or ``to`` exists.
    """
    root, to = Path(dataset), Path(to)
    meta = read_meta(root)
    refuse_existing(to)
    n_frames = 0
    with new_folder(to) as draft:
        with _Writer(meta, draft) as writer:
            for number, row in enumerate(_rows(meta), 1):
                writer.add(row)
                n_frames += row["length"]
                on_progress(number, meta.n_episodes)
        if n_frames != meta.info["total_frames"]:
            raise DataError(
                f"{root}: meta/info.json speaks of {meta.info['total_frames']} frames, its "
                f"episodes have {n_frames}",
                hint="the dataset is damaged; pull or convert it again",
            )
        _write_meta(meta, draft)
    return ExportedV21(to, meta.n_episodes, n_frames, meta.n_episodes * len(_videos(meta)))


class _Writer:
    """Writes one episode after the other into a folder; a context, which closes its files."""

    def __init__(self, meta: Meta, draft: Path) -> None:
        self._meta, self._draft = meta, draft
        columns = [name for name, one in meta.features.items() if one.dtype != "video"]
        self._frames = Frames(meta.root, meta.info, columns)
        self._videos = {
            name: VideoShards(draft, name, fps=meta.fps, template=V21_VIDEO_PATH)
            for name in _videos(meta)
        }
        self._files = contextlib.ExitStack()
        self._episodes = self._lines("episodes")
        self._stats = self._lines("episodes_stats")

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *error: object) -> None:
        for shards in self._videos.values():
            shards.abandon()
        self._files.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write the episode of a row of meta/episodes. Raises DataError."""
        number = int(row["episode_index"])
        path = numbered(self._draft, V21_DATA_PATH, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without dictionaries, which would hold whole pictures.
        pq.write_table(self._frames.read(row), path, compression="snappy", use_dictionary=False)
        for name, shards in self._videos.items():
            self._cut(name, shards, row)
        facts = _facts(row, self._meta.root)
        line = {"episode_index": number, "tasks": row["tasks"], "length": row["length"]}
        self._episodes.write(_json_line(line | facts))
        stats = {
            name: {stat: row[f"stats/{name}/{stat}"] for stat in _STATS}
            for name in self._meta.features
        }
        self._stats.write(_json_line({"episode_index": number, "stats": stats}))

    def _cut(self, name: str, shards: VideoShards, row: Mapping[str, Any]) -> None:
        """The episode's frames of a video as a file of their own."""
        chunk, file = (row[f"videos/{name}/{part}_index"] for part in ("chunk", "file"))
        template = self._meta.info.get("video_path") or VIDEO_PATH
        path = file_path(self._meta.root, template, chunk=chunk, file=file, video=name)
        first = round(row[f"videos/{name}/from_timestamp"] * shards.rate)
        clip = VideoClip(path, first, row["length"], (0, 0), shards.rate, "")  # only to be copied
        try:
            shards.append([clip])
            shards.close()
        except NotCopyableError as error:
            raise DataError(
                f"the frames of episode {row['episode_index']} cannot be cut out of {path}: "
                f"{error}",
                hint=_CONVERT.format(root=self._meta.root),
            ) from None
        except (av.error.FFmpegError, OSError) as error:
            raise DataError(
                f"{path} cannot be read as a video: {error}", hint="copy or pull the dataset again"
            ) from None

    def _lines(self, name: str) -> TextIO:
        path = self._draft / "meta" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        return self._files.enter_context(path.open("w", encoding="utf-8"))


def _videos(meta: Meta) -> list[str]:
    return [name for name, feature in meta.features.items() if feature.dtype == "video"]


def _rows(meta: Meta) -> Iterator[dict[str, Any]]:
    """The rows of meta/episodes that count, checked to be in order and to have what is needed."""
    places = ["data", *(f"videos/{name}" for name in _videos(meta))]
    needed = ["episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"]
    needed += [f"{prefix}/{part}_index" for prefix in places for part in ("chunk", "file")]
    needed += [f"{prefix}/from_timestamp" for prefix in places[1:]]
    needed += [f"stats/{name}/{stat}" for name in meta.features for stat in _STATS]
    done = 0
    with damage_told(f"{meta.root}/meta/episodes"):
        for _, table in read_rows(meta.root, meta.n_episodes, columns=[*needed, "metadata"]):
            if missing := [name for name in needed if name not in table.column_names]:
                raise DataError(
                    f"{meta.root}/meta/episodes has no column {missing[0]}",
                    hint=_CONVERT.format(root=meta.root),
                )
            for row in table.to_pylist():
                _check_row(row, done, needed, meta)
                yield row
                done += 1


def _check_row(row: Mapping[str, Any], number: int, needed: Sequence[str], meta: Meta) -> None:
    if row["episode_index"] != number:
        raise DataError(
            f"row {number} of {meta.root}/meta/episodes is of episode {row['episode_index']}",
            hint=_CONVERT.format(root=meta.root),
        )
    if empty := [name for name in needed if row[name] is None]:
        raise DataError(
            f"{meta.root}/meta/episodes has no {empty[0]} of episode {number}",
            hint=_CONVERT.format(root=meta.root),
        )


def _facts(row: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """What else is known of an episode."""
    try:
        facts = json.loads(row.get("metadata") or "{}")
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise DataError(
            f"the metadata of episode {row['episode_index']} in {root}/meta/episodes is no JSON "
            "object",
            hint="copy or pull the dataset again",
        )
    return {key: value for key, value in facts.items() if key not in _OWN}


def _write_meta(meta: Meta, draft: Path) -> None:
    """What is not of single episodes."""
    tasks = sorted(task_texts(meta.root).items())
    lines = [_json_line({"task_index": number, "task": text}) for number, text in tasks]
    (draft / "meta" / "tasks.jsonl").write_text("".join(lines), encoding="utf-8")
    for name, value in (("info", _info(meta, len(tasks))), ("dp_hub", _origin(meta))):
        text = json.dumps(value, indent=4, ensure_ascii=False)
        (draft / "meta" / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _info(meta: Meta, n_tasks: int) -> dict[str, Any]:
    n, n_videos = meta.n_episodes, len(_videos(meta))
    return {
        "codebase_version": "v2.1",
        "robot_type": meta.info.get("robot_type"),
        "total_episodes": n,
        "total_frames": meta.info["total_frames"],
        "total_tasks": n_tasks,
        "total_videos": n * n_videos,
        "total_chunks": place(max(n - 1, 0))[0] + 1,
        "chunks_size": CHUNKS_SIZE,
        "fps": meta.info["fps"],
        "splits": meta.info.get("splits") or {"train": f"0:{n}"},
        "data_path": V21_DATA_PATH,
        "video_path": V21_VIDEO_PATH if n_videos else None,
        "features": {name: _feature(entry) for name, entry in meta.info["features"].items()},
    }


def _feature(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A feature's entry, with the older name of what v3.0 calls ``is_depth_map``."""
    result = {key: value for key, value in entry.items() if key != "fps"}
    if isinstance(details := entry.get("info"), dict) and "is_depth_map" in details:
        result["info"] = {"video.is_depth_map": details["is_depth_map"]} | details
    return result


def _origin(meta: Meta) -> dict[str, Any]:
    """Where it came from and under which licence, for conversions back."""
    readme = meta.root / "README.md"
    stated = license_of(readme.read_text("utf-8", "replace")) if readme.is_file() else None
    return {
        "license": meta.provenance.get("license") or stated,
        "fingerprint": meta.provenance.get("fingerprint"),
        "exported_from": meta.root.resolve().name,
    }


def _json_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
