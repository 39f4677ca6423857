"""How many training windows a second, streamed from a Hub on this machine and read otherwise.

    python benchmarks/streaming.py [--zarr pusht_cchi_v7_replay.zarr.zip] [--shard-mb 2]

Each reader is a process of its own that draws whole epochs of the full PushT demonstrations: 16
steps, two of them observed, batches of 256. The peak of its memory, its disk and the share of time
it waited for data are measured from the start of its first batch. ``datasets`` streams rows: it
knows no windows, so what is counted is rows; a window is a row with its neighbours. Prints a
Markdown table to stdout.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REAL = Path(__file__).resolve().parents[2] / "shared/data/pusht/pusht_cchi_v7_replay.zarr.zip"
HORIZON, N_OBS_STEPS, PADS = 16, 2, {"pad_before": 1, "pad_after": 7}
BATCH = 256
SECONDS = 15.0


def main() -> None:
    options = parse()
    if options.reader:
        print(json.dumps(measure(options.reader, options.name, options.store_mb, options.pool_mb)))
        return
    from dp_hub.dataset import shards
    from dp_hub.dataset.convert import convert
    from dp_hub.hub import LocalHub, push

    print("| data | reader | per s | first batch s | waited | peak RSS MB | disk MB |")
    print("|---|---|---|---|---|---|---|")
    for images, shard_mb in (("none", 0.25), ("webp", 2.0), ("video", 2.0)):
        with tempfile.TemporaryDirectory() as folder, LocalHub(Path(folder, "hub")) as hub:
            os.environ |= hub.env | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
            shards.DATA_FILE_MB = shards.VIDEO_FILE_MB = shard_mb  # type: ignore[assignment]
            data = Path(folder, "pusht")
            drop, mode = (["img"], "auto") if images == "none" else ([], images)
            convert("zarr", options.zarr, data, drop=drop, images=mode)  # type: ignore[arg-type]
            push(data, f"me/{images}", license="mit")
            size_mb = disk(data) / 1e6
            pool_mb = 1.0 if images == "none" else 100.0
            print(f"PushT, pictures: {images}: {size_mb:.1f} MB, pools of {pool_mb:g} MB, a store "
                  f"of {0.4 * size_mb:.1f} MB", file=sys.stderr)  # fmt: skip
            for reader, store_mb in READERS:
                row = run(reader, images, store_mb * size_mb, pool_mb, Path(folder))
                waited = "" if row["waited"] is None else f"{100 * row['waited']:.0f} %"
                print(
                    f"| {images} | {row['what']} | {row['rate']:,.0f} | {row['first_s']:.2f} | "
                    f"{waited} | {row['rss_mb']:,.0f} | {row['disk_mb']:.1f} |",
                    flush=True,
                )


READERS = (
    ("memory", 0.0),
    ("hub:the store holds 40 %", 0.4),
    ("hub:the store holds all", 2.0),
    ("folder", 0.0),
    ("datasets", 0.0),
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--zarr", type=Path, default=REAL)
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--store-mb", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--pool-mb", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(reader: str, name: str, store_mb: float, pool_mb: float, folder: Path) -> dict[str, Any]:
    """What `measure` says in a process of its own with empty caches."""
    home = tempfile.mkdtemp(dir=folder)
    env = os.environ | {"HF_HOME": f"{home}/hf", "DP_HUB_CACHE": f"{home}/dp_hub"}
    command = [sys.executable, __file__, "--reader", reader, "--name", name]
    command += ["--store-mb", str(store_mb), "--pool-mb", str(pool_mb)]
    if reader == "folder":
        command[command.index("--name") + 1] = str(folder / "pusht")
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result | {"disk_mb": disk(Path(home)) / 1e6}


def measure(reader: str, name: str, store_mb: float, pool_mb: float) -> dict[str, Any]:
    import datasets  # noqa: F401 - all processes load the same libraries before memory is measured

    import dp_hub.sampling.streaming  # noqa: F401

    before = resident("VmRSS")
    peak = Peak()
    began = time.perf_counter()
    batches, what, waited = make(reader, name, store_mb, pool_mb)
    n = next(batches)
    first_s = time.perf_counter() - began
    began, n, so_far = time.perf_counter(), 0, waited()
    while (spent := time.perf_counter() - began) < SECONDS:
        n += next(batches)
    share = None if so_far is None else (waited() - so_far) / spent
    return {
        "what": what,
        "rate": n / spent,
        "first_s": first_s,
        "waited": share,
        "rss_mb": (peak.stop() - before) / 1e6,
    }


def make(
    reader: str, name: str, store_mb: float, pool_mb: float
) -> tuple[Iterator[int], str, Callable[[], Any]]:
    """Endless numbers of windows (or rows) drawn, the reader in words, the seconds waited."""
    import dp_hub

    if reader == "memory":
        return in_memory(f"me/{name}"), "pulled whole, `make_loader`", lambda: None
    if reader == "datasets":
        return rows(f"me/{name}"), "`datasets` streaming, shuffled (rows)", lambda: None
    from dp_hub.sampling.streaming import StreamingSampler

    if reader == "folder":
        dataset, what = dp_hub.stream_dataset(name), "streamed from the folder"
    else:
        dataset = dp_hub.stream_dataset(f"me/{name}", store_gb=store_mb / 1e3)
        what = "streamed from the Hub, " + reader.partition(":")[2]
    batches = StreamingSampler(
        dataset,
        horizon=HORIZON,
        n_obs_steps=N_OBS_STEPS,
        **PADS,
        batch_size=BATCH,
        pool_bytes=int(pool_mb * 1e6),
    )
    return (len(batch["action"]) for batch in batches), what, lambda: batches.waited_s


def in_memory(name: str) -> Iterator[int]:
    import dp_hub
    from dp_hub.sampling import WindowDataset, make_loader, window_table

    dataset = dp_hub.open_dataset(name)
    names = [key for key in dataset.features if key.startswith("observation") or key == "action"]
    table = window_table(dataset.episodes.stops, HORIZON, **PADS)
    columns = {key: dataset.column(key) for key in names}
    windows = WindowDataset(columns, table, horizon=HORIZON, n_obs_steps=N_OBS_STEPS)
    loader = make_loader(windows, batch_size=BATCH)
    while True:
        yield from (len(batch["action"]) for batch in loader)


def rows(name: str) -> Iterator[int]:
    from datasets import load_dataset

    dataset = load_dataset(name, split="train", streaming=True)
    epoch = 0
    while True:
        shuffled = dataset.shuffle(seed=epoch, buffer_size=2000)
        for row in shuffled:
            for value in row.values():
                if hasattr(value, "load"):
                    value.load()  # decode the picture
            yield 1
        epoch += 1


class Peak:
    """The most memory of this process from now on, looked at every 5 ms."""

    def __init__(self) -> None:
        self._most, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Bytes."""
        self._done.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self._most = max(self._most, resident("VmRSS"))


def resident(key: str) -> int:
    """Bytes, from /proc."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def disk(folder: Path) -> int:
    """Bytes of the files under a folder; links count once."""
    files = {path.stat().st_ino: path.stat() for path in folder.rglob("*") if path.is_file()}
    return sum(status.st_size for status in files.values())


if __name__ == "__main__":
    main()
