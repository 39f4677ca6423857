"""Runs in LeRobot's environment: everything LeRobot gives of a dataset, into a .npz file.

    python lerobot_read.py FOLDER OUT.npz EPISODE...

By name: ``frames/<key>`` of every frame; ``windows/<key>`` and ``windows/<key>_is_pad`` at every
frame of the EPISODEs, two observed steps and 16 actions from one step before; ``subset/<key>`` of a
dataset opened with ``episodes=``; ``stats/<key>/<stat>``. Pictures come as LeRobot hands them
out, floats of 0 to 1 with channels first, and are stored as uint8 with channels last.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main() -> None:
    folder, out, *episodes = sys.argv[1:]
    chosen = [int(number) for number in episodes]
    whole = open_one(folder)
    found: dict[str, Any] = {}
    found |= stacked("frames", whole, range(len(whole)))
    fps, keys = whole.fps, list(whole.meta.features)
    observed = [key for key in keys if key.startswith("observation")]
    deltas = {key: [-1 / fps, 0.0] for key in observed}
    deltas["action"] = [(step - 1) / fps for step in range(16)]
    windows = open_one(folder, delta_timestamps=deltas)
    bounds = [
        (whole.meta.episodes[n]["dataset_from_index"], whole.meta.episodes[n]["dataset_to_index"])
        for n in chosen
    ]
    rows = [row for start, stop in bounds for row in range(start, stop)]
    found |= stacked("windows", windows, rows)
    subset = open_one(folder, episodes=chosen)
    found |= stacked("subset", subset, range(len(subset)))
    for key, stats in whole.meta.stats.items():
        found |= {f"stats/{key}/{name}": value for name, value in stats.items()}
    found["facts"] = json.dumps(
        {
            "fps": whole.fps,
            "n_episodes": whole.num_episodes,
            "n_frames": whole.num_frames,
            "tasks": list(whole.meta.tasks.index),
            "features": {key: whole.meta.features[key]["dtype"] for key in keys},
            "cameras": whole.meta.camera_keys,
        }
    )
    np.savez(out, **found)


def open_one(folder: str, **options: Any) -> LeRobotDataset:
    return LeRobotDataset("local/dataset", root=folder, video_backend="pyav", **options)


def stacked(prefix: str, dataset: LeRobotDataset, rows: Any) -> dict[str, np.ndarray]:
    """Every key of some items, one array each."""
    items = [dict(plain(dataset[row], dataset.meta.camera_keys)) for row in rows]
    return {f"{prefix}/{key}": np.stack([item[key] for item in items]) for key in items[0]}


def plain(item: dict[str, Any], cameras: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    for key, value in item.items():
        array = np.asarray(value)
        if key in cameras:
            levels = np.rint(array * 255)
            assert np.abs(array * 255 - levels).max() < 1e-3, f"{key} is not of 256 levels"
            array = np.moveaxis(levels.astype(np.uint8), -3, -1)
        yield key, array


if __name__ == "__main__":
    main()
