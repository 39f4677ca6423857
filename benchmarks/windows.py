"""How many training windows a second, side by side in one run, on PushT state.

    python benchmarks/windows.py [--zarr pusht_cchi_v7_replay.zarr.zip] [--batch-size 256]

A window is 16 frames: 2 observed steps of 20 numbers and 16 actions of 2. Without ``--zarr`` it
takes the real demonstrations from ../shared/data if they are there, else random numbers of the
same shape. Prints a Markdown table to stdout.
"""

import argparse
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch.utils.data import DataLoader, Dataset

from dp_hub.sampling import DeviceSampler, WindowDataset, make_loader, window_table
from dp_hub.sampling.windows import WindowTable, create_indices

REAL = Path(__file__).resolve().parents[2] / "shared/data/pusht/pusht_cchi_v7_replay.zarr.zip"
HORIZON, N_OBS_STEPS, PAD_BEFORE, PAD_AFTER = 16, 2, 1, 7


class PerItem(Dataset[dict[str, torch.Tensor]]):
    """One window at a time, cut and padded as the original does, stacked by torch's collate."""

    def __init__(self, columns: dict[str, np.ndarray], indices: np.ndarray) -> None:
        self.columns, self.indices = columns, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        start, stop, first, last = self.indices[row]
        window = {}
        for name, column in self.columns.items():
            values = np.empty((HORIZON, *column.shape[1:]), column.dtype)
            values[first:last] = column[start:stop]
            values[:first], values[last:] = column[start], column[stop - 1]
            window[name] = torch.from_numpy(values)
        return window


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    columns, ends, source = load(options.zarr)
    table = window_table(ends, HORIZON, pad_before=PAD_BEFORE, pad_after=PAD_AFTER)
    print(f"{len(table)} windows of {HORIZON}, {source}, batches of {options.batch_size}\n")
    print("| reader | windows/s | ratio |\n|---|---|---|")
    base = None
    for name, batches in readers(columns, ends, table, options.batch_size):
        rate = measure(batches, options.seconds)
        base = base or rate
        print(f"| {name} | {rate:,.0f} | {rate / base:.1f} |", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zarr", type=Path, default=REAL if REAL.exists() else None)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each reader")
    return parser.parse_args()


def load(path: Path | None) -> tuple[dict[str, np.ndarray], np.ndarray, str]:
    if path is None:
        generator = np.random.default_rng(0)
        ends = np.cumsum(generator.integers(49, 200, 206))
        sizes = {"observation.environment_state": 18, "observation.state": 2, "action": 2}
        columns = {
            name: generator.random((ends[-1], size), np.float32) for name, size in sizes.items()
        }
        return columns, ends, "random numbers"
    store = zarr.storage.ZipStore(path) if path.suffix == ".zip" else path
    group: Any = zarr.open_group(store, mode="r")
    columns = {
        "observation.environment_state": group["data/keypoint"][:].reshape(-1, 18),
        "observation.state": group["data/state"][:][:, :2].copy(),
        "action": group["data/action"][:],
    }
    return columns, group["meta/episode_ends"][:], path.name


def readers(
    columns: dict[str, np.ndarray], ends: np.ndarray, table: WindowTable, batch_size: int
) -> Iterator[tuple[str, Iterable[dict[str, torch.Tensor]]]]:
    """(name, endless batches) of each way to read; the first is the one to compare with."""
    indices = create_indices(ends, HORIZON, np.ones(len(ends), bool), PAD_BEFORE, PAD_AFTER)
    per_item = DataLoader(
        PerItem(columns, indices), batch_size=batch_size, shuffle=True, drop_last=True
    )
    yield "one window at a time, whole horizon (the original's way)", endless(per_item)
    windows = WindowDataset(columns, table, horizon=HORIZON, n_obs_steps=N_OBS_STEPS)
    yield "make_loader", endless(make_loader(windows, batch_size=batch_size))
    sampler = DeviceSampler(columns, table, n_obs_steps=N_OBS_STEPS, batch_size=batch_size)
    yield "DeviceSampler on the CPU", sampler
    if torch.cuda.is_available():
        yield (
            "DeviceSampler on the GPU",
            DeviceSampler(
                columns, table, n_obs_steps=N_OBS_STEPS, batch_size=batch_size, device="cuda"
            ),
        )


def endless(loader: Iterable[dict[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    return chain.from_iterable(repeat(loader))


def measure(batches: Iterable[dict[str, torch.Tensor]], seconds: float) -> float:
    """Windows a second, after a few batches to warm up; the best of three parts of the time."""
    iterator = iter(batches)
    for _ in islice(iterator, 5):
        pass
    return max(measure_once(iterator, seconds / 3) for _ in range(3))


def measure_once(iterator: Iterator[dict[str, torch.Tensor]], seconds: float) -> float:
    n_windows, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        n_windows += len(next(iterator)["action"])
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        spent = time.perf_counter() - began
    return n_windows / spent


if __name__ == "__main__":
    main()
