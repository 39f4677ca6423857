"""How long a large dataset takes to open, and how much memory, each reader in fresh processes.

    python benchmarks/opening.py [--folder data/big] [--episodes 10000] [--frames 500] [--peers]
                                 [--lerobot-python ENV/bin/python]

The dataset is made once, if it is not in the folder yet: actions of 7 and states of 14 float32, in
the layout that dp_hub writes, without pictures. Prints a Markdown table to stdout. Peak memory is
VmHWM of the whole process, imports included; the files have been read before, so they are in the
page cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.columns import Feature
from dp_hub.dataset.content import episodes_fingerprint

SIZES = {"action": 7, "observation.state": 14}
INDEX = ("timestamp", "frame_index", "episode_index", "index", "task_index")
STATS = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")
FPS = 10
EPISODES_PER_FILE, EPISODES_PER_ROW_GROUP = 500, 512
MEASURE = """
import json, re, sys, time
def hwm():
    text = open("/proc/self/status").read()
    return int(re.search(r"VmHWM:\\s+(\\d+)", text).group(1)) / 1e3
began, results = time.perf_counter(), []
def done():
    global began
    results.append([time.perf_counter() - began, hwm()])
    began = time.perf_counter()
folder = sys.argv[1]
"""
DP_HUB = """
from dp_hub.dataset.reader import open_dataset
done()
dataset = open_dataset(folder)
done()
column = dataset.column("action")
done()
"""
LOAD_DATASET = """
import datasets
datasets.disable_progress_bars()
done()
dataset = datasets.load_dataset(folder, split="train")
done()
column = dataset.with_format("numpy")["action"][:]
done()
"""
LEROBOT = """
import datasets
datasets.disable_progress_bars()
from lerobot.datasets.lerobot_dataset import LeRobotDataset
done()
dataset = LeRobotDataset("local/big", root=folder)
done()
column = dataset.hf_dataset.with_format("numpy")["action"][:]
done()
"""
REPORT = "\nprint(json.dumps([results, list(column.shape), float(column.sum(dtype='float64'))]))"


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = options.folder or Path(scratch) / "big"
        if not (folder / "meta" / "info.json").exists():
            make_dataset(folder, options.episodes, options.frames)
        info = json.loads((folder / "meta" / "info.json").read_text())
        print(f"{info['total_episodes']:,} episodes, {info['total_frames']:,} frames\n")
        print("| reader | import s | open s | column s | peak open MB | peak column MB |")
        print("|---|---|---|---|---|---|", flush=True)
        env = os.environ | {"HF_HOME": f"{scratch}/hf", "HF_HUB_OFFLINE": "1"}
        env |= {"DP_HUB_CACHE": f"{scratch}/cache"}
        seen = {row(name, *how, folder, env) for name, *how in readers(options)}
        assert len(seen) == 1, f"the readers do not agree: {seen}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="of the dataset; kept if given")
    parser.add_argument("--scratch", type=Path, help="for everything temporary")
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=500, help="in an episode")
    parser.add_argument("--repeats", type=int, default=3, help="of dp_hub's; all are shown")
    parser.add_argument("--peers", action="store_true", help="also datasets.load_dataset")
    parser.add_argument("--lerobot-python", help="of an environment with LeRobot")
    return parser.parse_args()


def readers(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Name, python and script of every reader."""
    found = [("dp_hub.open_dataset", sys.executable, DP_HUB)] * options.repeats
    if options.peers:
        found.append(("datasets.load_dataset, first time", sys.executable, LOAD_DATASET))
        found.append(("datasets.load_dataset, again", sys.executable, LOAD_DATASET))
    if options.lerobot_python:
        found.append(("LeRobotDataset, first time", options.lerobot_python, LEROBOT))
        found.append(("LeRobotDataset, again", options.lerobot_python, LEROBOT))
    return found


def row(name: str, python: str, script: str, folder: Path, env: dict[str, str]) -> Any:
    """Print what one reader takes; returns shape and sum of what it read."""
    done = subprocess.run(
        [python, "-c", MEASURE + script + REPORT, str(folder)],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    results, shape, total = json.loads(done.stdout.splitlines()[-1])
    seconds = " | ".join(f"{spent:.2f}" for spent, _ in results)
    print(f"| {name} | {seconds} | {results[1][1]:,.0f} | {results[2][1]:,.0f} |", flush=True)
    return tuple(shape), total


def make_dataset(root: Path, n_episodes: int, n_frames: int) -> None:
    """Write the dataset as dp_hub does: an episode a row group, 500 of them a file."""
    generator = np.random.default_rng(0)
    for part in ("data", "meta/episodes"):
        (root / part / "chunk-000").mkdir(parents=True, exist_ok=True)
    for file, first in enumerate(range(0, n_episodes, EPISODES_PER_FILE)):
        numbers = range(first, min(first + EPISODES_PER_FILE, n_episodes))
        path = root / f"data/chunk-000/file-{file:03d}.parquet"
        write_frames(path, numbers, n_frames, generator)
    hashes = [generator.bytes(32).hex() for _ in range(n_episodes)]
    pq.write_table(
        episode_table(hashes, n_frames, generator),
        root / "meta/episodes/chunk-000/file-000.parquet",
        row_group_size=EPISODES_PER_ROW_GROUP,
    )
    tasks = pa.table({"task_index": [0], "task": ["push"]}).to_pandas().set_index("task")
    tasks.to_parquet(root / "meta/tasks.parquet")
    features = {name: ("float32", [size]) for name, size in SIZES.items()}
    features |= {name: ("float32" if name == "timestamp" else "int64", [1]) for name in INDEX}
    write_json(
        root / "meta/dp_hub.json",
        {
            "format": 1,
            "state": "finished",
            "fingerprint": episodes_fingerprint(
                [Feature(name, dtype, tuple(shape)) for name, (dtype, shape) in features.items()],
                FPS,
                hashes,
            ),
        },
    )
    info = {"codebase_version": "v3.0", "fps": FPS, "total_tasks": 1, "video_path": None}
    info |= {"total_episodes": n_episodes, "total_frames": n_episodes * n_frames}
    info["features"] = {
        name: {"dtype": dtype, "shape": shape, "names": None}
        for name, (dtype, shape) in features.items()
    }
    front = "---\nconfigs: [{config_name: default, data_files: data/*/*.parquet}]\n---\n"
    (root / "README.md").write_text(front)
    write_json(root / "meta/info.json", info)


def write_frames(path: Path, numbers: range, n_frames: int, generator: np.random.Generator) -> None:
    options: Any = {
        "compression": "SNAPPY",
        "column_encoding": {
            **{name: "DELTA_BINARY_PACKED" for name in INDEX if name != "timestamp"},
            "timestamp": "BYTE_STREAM_SPLIT",
            **{f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in SIZES},
        },
        "use_dictionary": False,
        "write_page_index": True,
        "write_statistics": list(INDEX),
        "use_content_defined_chunking": True,
    }
    # float32 noise of 12 bits: it neither costs the disk much nor compresses to nothing.
    fields = [(name, pa.list_(pa.float32(), size)) for name, size in SIZES.items()]
    fields += [(name, pa.float32() if name == "timestamp" else pa.int64()) for name in INDEX]
    frame = np.arange(n_frames)
    with pq.ParquetWriter(path, pa.schema(fields), **options) as writer:
        for number in numbers:
            arrays = []
            for size in SIZES.values():
                noise = generator.integers(0, 4096, n_frames * size, np.int16).astype(np.float32)
                arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(noise), size))
            arrays.append(pa.array((frame / FPS).astype(np.float32)))
            of_episode = np.full(n_frames, number)
            for values in (frame, of_episode, frame + number * n_frames, 0 * frame):
                arrays.append(pa.array(values))
            writer.write_table(pa.Table.from_arrays(arrays, schema=writer.schema))


def episode_table(hashes: list[str], n_frames: int, generator: np.random.Generator) -> pa.Table:
    """meta/episodes with all the statistics that a reader has to pass by."""
    numbers = np.arange(len(hashes))
    zeros = 0 * numbers
    columns: dict[str, Any] = {
        "episode_index": numbers,
        "tasks": [["push"]] * len(hashes),
        "length": zeros + n_frames,
        "data/chunk_index": zeros,
        "data/file_index": numbers // EPISODES_PER_FILE,
        "dataset_from_index": numbers * n_frames,
        "dataset_to_index": (numbers + 1) * n_frames,
    }
    for name, size in (SIZES | dict.fromkeys(INDEX, 1)).items():
        for stat in STATS:
            n = 1 if stat == "count" else size
            values = pa.array(generator.random(len(hashes) * n))
            offsets = pa.array(np.arange(len(hashes) + 1, dtype=np.int32) * n)
            columns[f"stats/{name}/{stat}"] = pa.ListArray.from_arrays(offsets, values)
    columns |= {"meta/episodes/chunk_index": zeros, "meta/episodes/file_index": zeros}
    columns |= {"sha256": hashes, "metadata": [f'{{"seed": {n}}}' for n in numbers]}
    return pa.table(columns)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
