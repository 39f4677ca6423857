"""Runs in LeRobot's environment: a dataset recorded by LeRobot itself, in two sittings.

    python lerobot_write.py FOLDER KIND ARRAYS.npz      # KIND: low-dim, image, video

ARRAYS holds ``ends`` and an array (N, ...) of every column.
"""

import sys
from typing import Any

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

SECOND_SITTING = 3  # the episode it begins with
CHANNELS_LAST = {"dtype": "", "shape": (96, 96, 3), "names": ["height", "width", "channels"]}
CHANNELS_FIRST = {"dtype": "", "shape": (3, 96, 96), "names": ["channels", "height", "width"]}


def main() -> None:
    folder, kind, path = sys.argv[1:]
    arrays = dict(np.load(path))
    ends = arrays.pop("ends")
    pictures = {} if kind == "low-dim" else {"observation.images.top": CHANNELS_LAST}
    pictures |= {} if kind == "low-dim" else {"observation.images.side": CHANNELS_FIRST}
    features = {name: entry | {"dtype": kind} for name, entry in pictures.items()}
    for name, column in arrays.items():
        if column.ndim < 4:
            text = column.dtype.kind == "U"
            shape = column.shape[1:] or (1,)
            dtype = "string" if text else column.dtype.name
            features[name] = {"dtype": dtype, "shape": shape, "names": None}
    dataset = LeRobotDataset.create("local/x", 10, features, root=folder, video_backend="pyav")
    record(dataset, arrays, ends, range(SECOND_SITTING))
    # A file is full at once, so the next sitting and each of its episodes begin new ones.
    dataset = LeRobotDataset("local/x", root=folder, video_backend="pyav")
    dataset.meta.update_chunk_settings(data_files_size_in_mb=1, video_files_size_in_mb=1)
    dataset.meta.info["video_files_size_in_mb"] = 0.001
    record(dataset, arrays, ends, range(SECOND_SITTING, len(ends)))


def record(dataset: Any, arrays: dict[str, np.ndarray], ends: np.ndarray, numbers: range) -> None:
    starts = np.concatenate([[0], ends[:-1]])
    for number in numbers:
        for row in range(starts[number], ends[number]):
            task = "reach" if number == 1 and row < starts[number] + 5 else f"push {number % 2}"
            frame: dict[str, Any] = {"task": task}
            for name in dataset.features:
                if name in arrays:
                    value = arrays[name][row]
                    scalar = arrays[name].ndim == 1
                    frame[name] = str(value) if arrays[name].dtype.kind == "U" else value
                    if scalar and arrays[name].dtype.kind != "U":
                        frame[name] = np.array([value])
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()


if __name__ == "__main__":
    main()
