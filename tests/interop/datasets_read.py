"""Runs as a process of its own: all rows that the `datasets` library gives, into .npz files.

    python datasets_read.py OUT NAME REVISION      # a folder and "" or a name on the Hub and a sha

Writes OUT-loaded.npz and OUT-streamed.npz with every feature, pictures as uint8 (N, H, W, C).
"""

import sys
from collections.abc import Iterable
from typing import Any

import datasets
import numpy as np


def main() -> None:
    out, name, revision = sys.argv[1:]
    datasets.disable_progress_bars()
    for kind, streaming in (("loaded", False), ("streamed", True)):
        rows = datasets.load_dataset(
            name, split="train", revision=revision or None, streaming=streaming
        )
        np.savez(f"{out}-{kind}.npz", **columns(rows))


def columns(rows: Iterable[dict[str, Any]]) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append(np.asarray(value))
    return {name: np.stack(values) for name, values in found.items()}


if __name__ == "__main__":
    main()
