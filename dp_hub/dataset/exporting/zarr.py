"""A dataset back to the original's replay buffer: what ``dp-hub export`` runs."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.dataset.episodes_io import Folder, episode_rows, open_folder, read_episodes
from dp_hub.errors import DataError
from dp_hub.replay.writer import write_replay


@dataclass(frozen=True)
class Exported:
    """What `export_zarr` made.

    Args:
        keys: shape of one step and type, by key.
        lossy: keys that come from video, so are not bit for bit the recorded ones.
    """

    path: Path
    n_episodes: int
    n_frames: int
    keys: dict[str, tuple[tuple[int, ...], str]]
    lossy: tuple[str, ...]


def export_zarr(
    dataset: str | Path,
    to: str | Path,
    *,
    on_progress: Callable[[int, int], None] = lambda episodes, total: None,
) -> Exported:
    """Write the dataset's arrays under their original keys, shapes and types (zarr v2).

    Args:
        dataset: a dataset folder.
        to: a ``.zarr`` folder or ``.zarr.zip`` to make; refused if it exists.
        on_progress: called after every episode with their number and the total.
    Raises:
        DataError: not a dataset, a damaged one, or ``to`` exists.
    """
    folder = open_folder(dataset)
    if not folder.columns:
        raise DataError(f"{dataset} has no features to export")
    counted = [0, 0]

    def episodes() -> Iterator[dict[str, np.ndarray]]:
        total = folder.info["total_episodes"]
        for row, arrays in read_episodes(folder, folder.columns):
            yield arrays
            counted[0] += 1
            counted[1] += row["length"]
            on_progress(counted[0], total)
        if counted != [total, folder.info["total_frames"]]:
            raise DataError(
                f"{dataset}: meta/info.json speaks of {total} episodes and "
                f"{folder.info['total_frames']} frames, the files hold {counted[0]} and "
                f"{counted[1]}"
            )

    path = write_replay(to, episodes(), _attrs(folder))
    return Exported(
        path=path,
        n_episodes=counted[0],
        n_frames=counted[1],
        keys={c.key: (c.source_shape, c.source_dtype) for c in folder.columns},
        lossy=tuple(c.key for c in folder.columns if c.dtype == "video"),
    )


def _attrs(folder: Folder) -> dict[str, Any]:
    """Root attributes: the source's own, and what a replay buffer has no other place for."""
    attrs = dict(folder.provenance.get("source", {}).get("attrs", {}))
    attrs["fps"] = folder.info["fps"]
    if folder.info.get("robot_type"):
        attrs["robot_type"] = folder.info["robot_type"]
    if folder.provenance.get("fingerprint"):
        attrs["dp_hub_fingerprint"] = folder.provenance["fingerprint"]
    facts = [_facts(row) for row in episode_rows(folder)]
    if any(facts):
        attrs["episodes"] = facts
    return attrs


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    facts = dict(json.loads(row.get("metadata") or "{}"))
    tasks = row.get("tasks") or []
    return facts | ({"task": tasks[0]} if tasks and tasks[0] else {})
