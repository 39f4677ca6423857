"""A writer of known episodes, to be killed: it takes a line for every trial on stdin.

A line is ``FOLDER N_EPISODES KIND``. For each a child is forked that writes (or goes on writing)
the dataset there and prints the number of every episode once `add_episode` has returned, then
``finished``. Forking saves the imports, so that hundreds of trials take seconds.
"""

import os
import sys
from pathlib import Path

import numpy as np

from dp_hub.dataset import video  # noqa: F401  # imported once, before the forks
from dp_hub.dataset.features import plan_columns
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.replay.episode import Episode


def episode(number: int, kind: str) -> Episode:
    """Episode ``number``, the same every time."""
    rng = np.random.default_rng(number)
    length = int(rng.integers(3, 12))
    data = {
        "action": rng.normal(size=(length, 2)).astype(np.float32),
        "state": rng.normal(size=(length, 3)),
    }
    if kind != "low-dim":
        shades = rng.integers(0, 256, (length, 1, 1, 3)).astype(np.uint8)
        data["img"] = np.tile(shades, (1, 16, 16, 1))
    return Episode(data, task=f"task {number % 3}", metadata={"number": number})


def write(folder: Path, n_episodes: int, kind: str) -> None:
    if folder.exists():
        writer = DatasetWriter.resume(folder, threads=1)
    else:
        images = "video" if kind == "video" else "webp"
        columns = plan_columns(episode(0, kind).data, images=images)
        writer = DatasetWriter(folder, columns, fps=10, threads=1)
    with writer:
        for number in range(writer.n_episodes, n_episodes):
            writer.add_episode(episode(number, kind))
            os.write(1, f"{number}\n".encode())  # whole, whenever the process is killed
        writer.finish()
    os.write(1, b"finished\n")


def main() -> None:
    os.fsync = lambda _: None  # what was written outlives a killed process; it only costs time
    for line in sys.stdin:
        folder, n_episodes, kind = line.split()
        child = os.fork()
        if child == 0:
            os.write(1, f"pid {os.getpid()}\n".encode())
            write(Path(folder), int(n_episodes), kind)
            os._exit(0)
        os.waitpid(child, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main()
