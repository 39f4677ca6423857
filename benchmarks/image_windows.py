"""How many windows of pictures a second, and how much memory, each reader in a fresh process.

    python benchmarks/image_windows.py [--zarr pusht_cchi_v7_replay.zarr.zip] [--copies 1 4 10]
                                       [--lerobot-python ENV/bin/python]

A window is two observed frames of 96x96x3 and 16 actions. Every reader runs on one core with one
thread, in this process's order, random windows of the whole dataset. The dataset is converted and
decoded into the frame cache first; larger ones are files of as many copies of its frames, behind
each other. Without ``--zarr`` it takes the real demonstrations from ../shared/data. Prints Markdown
tables to stdout. MB are megabytes resident (VmRSS, pages of mapped files included, and its peak
VmHWM) at the end, and how much of it came with the data. The ratio is that of CPU-seconds, which
mean something on a machine that does other things too.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

REAL = Path(__file__).resolve().parents[2] / "shared/data/pusht/pusht_cchi_v7_replay.zarr.zip"
HORIZON, N_OBS_STEPS, PAD_BEFORE, PAD_AFTER = 16, 2, 1, 7
IMAGE = "observation.image"
LEROBOT = """
import sys, time
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch.utils.data import DataLoader
from image_windows import report, resident
kind, folder, batch_size, seconds = sys.argv[1:5]
before = resident()[0]
deltas = {"observation.image": [-0.1, 0.0], "action": [(k - 1) / 10 for k in range(16)]}
dataset = LeRobotDataset("local/pusht", root=folder, delta_timestamps=deltas, video_backend="pyav")
report(DataLoader(dataset, batch_size=int(batch_size), shuffle=True), float(seconds), before)
"""


def main() -> None:
    options = parse()
    if options.row:
        measure_row(options)
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        n_frames, decode_s = prepare(options, folder)
        print(f"{options.zarr.name}: {n_frames:,} frames; batches of {options.batch_size}.\n")
        print(
            f"First use: decoded in {decode_s:.1f} s, {n_frames / decode_s:,.0f} frames/s, on "
            f"{len(os.sched_getaffinity(0))} cores.\n"
        )
        print(
            "| reader | GB of pictures | windows/s | windows per CPU-s | ratio "
            "| MB resident | peak | with the data |"
        )
        print("|---|---|---|---|---|---|---|---|", flush=True)
        base = None
        for name, n_bytes, command in rows(options, folder, n_frames):
            rate, cpu_rate, rss, peak, growth = run(command)
            base = base or cpu_rate
            print(
                f"| {name} | {n_bytes / 1e9:.2f} | {rate:,.0f} | {cpu_rate:,.0f} "
                f"| {cpu_rate / base:.1f} | {rss:,.0f} | {peak:,.0f} | {growth:,.0f} |",
                flush=True,
            )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zarr", type=Path, default=REAL)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seconds", type=float, default=6.0, help="for each reader")
    parser.add_argument("--scratch", type=Path, help="for everything temporary")
    parser.add_argument("--lerobot-python", help="of an environment with LeRobot 0.4.4")
    parser.add_argument("--lerobot-kinds", nargs="+", default=["webp", "video"])
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(options: argparse.Namespace, folder: Path) -> tuple[int, float]:
    """Datasets and caches; the number of frames and the seconds it took to decode them."""
    from dp_hub.dataset.convert import convert
    from dp_hub.dataset.reader import open_dataset

    os.environ["DP_HUB_CACHE"] = str(folder / "cache")
    for kind in {"webp", *(options.lerobot_kinds if options.lerobot_python else [])}:
        convert("zarr", options.zarr, folder / kind, images=kind, fps=10.0, task="push")
    dataset = open_dataset(folder / "webp")
    began = time.perf_counter()
    images = dataset.column(IMAGE)
    decode_s = time.perf_counter() - began
    np.save(folder / "action.npy", dataset.column("action"))
    np.save(folder / "ends.npy", dataset.episodes.stops)
    Path(folder / "cache.txt").write_text(f"{images.filename}\n{images.offset}\n")
    for copies in options.copies:
        if copies > 1:
            with (folder / f"frames-{copies}.bin").open("wb") as file:
                for _ in range(copies):
                    for block in np.array_split(images, 50):
                        file.write(block.data)
    return dataset.n_frames, decode_s


def rows(
    options: argparse.Namespace, folder: Path, n_frames: int
) -> Iterator[tuple[str, int, list[str]]]:
    """Name, bytes of pictures and command of every reader; the first is the one to compare with."""
    own = [sys.executable, __file__, "--data", str(folder), "--batch-size", str(options.batch_size)]
    own += ["--seconds", str(options.seconds), "--row"]
    size = n_frames * 96 * 96 * 3
    yield "the original's way: float32 in memory, whole horizon", 4 * size, [*own, "original"]
    yield "`make_loader`, uint8 in memory", size, [*own, "memory"]
    for copies in options.copies:
        name = f"`make_loader`, frame cache, {copies} x PushT"
        yield name, copies * size, [*own, f"cache-{copies}"]
    for kind in options.lerobot_kinds if options.lerobot_python else []:
        arguments = [kind, str(folder / kind), str(options.batch_size), str(options.seconds)]
        name = f"LeRobot 0.4.4, {kind}, without worker processes"
        yield name, size, [options.lerobot_python, "-c", LEROBOT, *arguments]


def run(command: list[str]) -> list[float]:
    core = max(os.sched_getaffinity(0))
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    env |= {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        command,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure_row(options: argparse.Namespace) -> None:
    """One reader, in a process of its own."""
    import torch

    from dp_hub.sampling import WindowDataset, make_loader, window_table

    torch.set_num_threads(1)
    before = resident()[0]
    kind, _, number = options.row.partition("-")
    copies = int(number or 1)
    action, ends = np.load(options.data / "action.npy"), np.load(options.data / "ends.npy")
    images = mapped(options.data, copies, len(action))
    ends = np.concatenate([ends + k * len(action) for k in range(copies)])
    columns = {IMAGE: images, "action": np.tile(action, (copies, 1))}
    table = window_table(ends, HORIZON, pad_before=PAD_BEFORE, pad_after=PAD_AFTER)
    loader: Iterable[Any]
    if kind == "original":
        columns[IMAGE] = np.asarray(images).astype(np.float32)
        loader = original_loader(columns, ends, options.batch_size)
    else:
        if kind == "memory":
            columns[IMAGE] = np.fromfile(images.filename, np.uint8, offset=images.offset)
            columns[IMAGE] = columns[IMAGE][: images.size].reshape(images.shape)
        windows = WindowDataset(columns, table, horizon=HORIZON, n_obs_steps=N_OBS_STEPS)
        loader = make_loader(windows, batch_size=options.batch_size)
    del images
    report(loader, options.seconds, before)


def mapped(folder: Path, copies: int, n_frames: int) -> np.memmap:
    """The frames of as many copies, as the frame cache gives them."""
    shape = (copies * n_frames, 96, 96, 3)
    if copies > 1:
        return np.memmap(folder / f"frames-{copies}.bin", np.uint8, "r", shape=shape)
    name, offset = (folder / "cache.txt").read_text().split("\n")[:2]
    return np.memmap(name, np.uint8, "r", offset=int(offset), shape=shape)


def original_loader(columns: dict[str, np.ndarray], ends: np.ndarray, batch_size: int) -> Any:
    """One window at a time: cut, pad, channels first and 0 to 1, as PushTImageDataset does."""
    import torch
    from torch.utils.data import DataLoader
    from windows import PerItem

    from dp_hub.sampling.windows import create_indices

    class WithImages(PerItem):
        def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
            window = super().__getitem__(row)
            image = np.moveaxis(window[IMAGE].numpy(), -1, 1) / 255
            return window | {IMAGE: torch.from_numpy(image)}

    indices = create_indices(ends, HORIZON, np.ones(len(ends), bool), PAD_BEFORE, PAD_AFTER)
    return DataLoader(
        WithImages(columns, indices), batch_size=batch_size, shuffle=True, drop_last=True
    )


def report(loader: Iterable[Any], seconds: float, before_mb: float) -> None:
    """Print windows a second, the best of three parts of the time, and memory, as JSON."""
    batches = endless(loader)
    for _ in islice(batches, 3):
        pass
    rates = [measure(lambda: len(next(batches)["action"]), seconds / 3) for _ in range(3)]
    rss, peak = resident()
    best = [max(part) for part in zip(*rates, strict=True)]
    print(json.dumps([*best, rss, peak, rss - before_mb]))


def measure(work: Callable[[], int], seconds: float) -> tuple[float, float]:
    """What is done a second, and a second of the processor, which others may be using too."""
    n_done, began, cpu = 0, time.perf_counter(), time.process_time()
    while (spent := time.perf_counter() - began) < seconds:
        n_done += work()
    return n_done / spent, n_done / (time.process_time() - cpu)


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def resident() -> list[float]:
    """VmRSS and VmHWM of this process in MB."""
    status = Path("/proc/self/status").read_text()
    found = (re.search(rf"{key}:\s+(\d+) kB", status) for key in ("VmRSS", "VmHWM"))
    return [int(match.group(1)) * 1024 / 1e6 for match in found if match]


if __name__ == "__main__":
    main()
