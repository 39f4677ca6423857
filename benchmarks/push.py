"""How much of a dataset a push sends again when 1 % was added to it, and how long things take.

    python benchmarks/push.py [--gb 1.0] [--shard-mb 50] [--dir /tmp]

Makes a dataset of random numbers in the LeRobot v3.0 layout, pushes it to a Hub of its own, adds
1 % as new files (data and meta/episodes; the small files of meta/ change), pushes again, and pulls
both. A forwarder between client and Hub counts every byte that the client sends, heads included.
Prints a Markdown table to stdout.
"""

import argparse
import hashlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FRAMES_PER_EPISODE = 500
WIDTH = 64
BYTES_PER_FRAME = 239  # as it is compressed
SHARE_ADDED = 0.01
PIECE = 1 << 20


class CountingForwarder:
    """Passes connections on to a Hub and counts what goes there."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._hub = (str(parts.hostname), int(parts.port or 0))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.n_bytes = 0
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            hub = socket.create_connection(self._hub)
            for side in (client, hub):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._carry, args=(client, hub, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(hub, client, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, count: bool) -> None:
        try:
            while piece := source.recv(PIECE):
                if count:
                    with self._lock:
                        self.n_bytes += len(piece)
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            target.close()


class Growing:
    """A dataset folder of random numbers that grows by whole files, never rewriting one."""

    def __init__(self, root: Path, shard_bytes: int) -> None:
        self.root = root
        self._shard_frames = max(FRAMES_PER_EPISODE, shard_bytes // BYTES_PER_FRAME)
        self._random = np.random.default_rng(0)
        self._n_frames = self._n_shards = self._n_tables = 0
        self._sums: dict[str, dict[str, Any]] = {}

    def add(self, n_bytes: int) -> None:
        """About so many bytes of new episodes, in new files; then the small files of meta/."""
        first, left = self._n_frames, max(FRAMES_PER_EPISODE, n_bytes // BYTES_PER_FRAME)
        while left > 0:
            length = min(left, self._shard_frames)
            self._write_shard(length)
            left -= length
        self._write_episodes(first)
        self._write_meta()

    def _write_shard(self, length: int) -> None:
        state = self._random.standard_normal((length, WIDTH), dtype=np.float32)
        index = np.arange(self._n_frames, self._n_frames + length)
        columns = {
            "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(state.ravel()), WIDTH),
            "index": pa.array(index),
            "episode_index": pa.array(index // FRAMES_PER_EPISODE),
            "frame_index": pa.array(index % FRAMES_PER_EPISODE),
            "timestamp": pa.array((index % FRAMES_PER_EPISODE / 30).astype(np.float32)),
            "task_index": pa.array(np.zeros(length, np.int64)),
        }
        self._write(f"data/chunk-000/file-{self._n_shards:03d}.parquet", pa.table(columns))
        self._n_shards += 1
        self._n_frames += length

    def _write_episodes(self, first_frame: int) -> None:
        episodes = np.arange(first_frame // FRAMES_PER_EPISODE, self._n_episodes)
        rows = {
            "episode_index": pa.array(episodes),
            "length": pa.array(np.full(len(episodes), FRAMES_PER_EPISODE)),
            "sha256": pa.array([hashlib.sha256(b"%d" % e).hexdigest() for e in episodes]),
            "stats/observation.state/mean": pa.array(
                list(self._random.standard_normal((len(episodes), WIDTH)))
            ),
        }
        name = f"meta/episodes/chunk-000/file-{self._n_tables:03d}.parquet"
        self._write(name, pa.table(rows))
        self._n_tables += 1

    @property
    def _n_episodes(self) -> int:
        return -(-self._n_frames // FRAMES_PER_EPISODE)

    def _write_meta(self) -> None:
        if "meta/tasks.parquet" not in self._sums:
            self._write("meta/tasks.parquet", pa.table({"task": ["none"], "task_index": [0]}))
        features = {"observation.state": {"dtype": "float32", "shape": [WIDTH], "names": None}}
        totals = {"total_episodes": self._n_episodes, "total_frames": self._n_frames}
        info = {"codebase_version": "v3.0", "fps": 30, **totals, "features": features}
        self._write_json("meta/info.json", info)
        stats = {key: list(self._random.standard_normal(WIDTH)) for key in ("mean", "std")}
        self._write_json("meta/stats.json", {"observation.state": stats})
        fingerprint = hashlib.sha256(json.dumps(self._sums, sort_keys=True).encode()).hexdigest()
        provenance = {"format": 1, "fingerprint": fingerprint, "license": "cc0-1.0"}
        self._write_json("meta/dp_hub.json", provenance)
        files = {name: value for name, value in self._sums.items() if "checksums" not in name}
        self._write_json("meta/checksums.json", {"files": files})

    def _write(self, name: str, table: pa.Table) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd", use_dictionary=False)
        self._sum(name)

    def _write_json(self, name: str, value: dict[str, Any]) -> None:
        (self.root / name).write_text(json.dumps(value, indent=1, sort_keys=True))
        self._sum(name)

    def _sum(self, name: str) -> None:
        with (self.root / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            self._sums[name] = {"bytes": file.tell(), "sha256": digest}


def main() -> None:
    options = parse()
    work = Path(tempfile.mkdtemp(prefix="dp_hub-push-", dir=options.dir))
    try:
        measure(work, int(options.gb * 1e9), int(options.shard_mb * 1e6))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Bytes sent by a push of 1 % more.")
    parser.add_argument("--gb", type=float, default=1.0, help="size of the dataset")
    parser.add_argument("--shard-mb", type=float, default=50.0, help="size of its data files")
    parser.add_argument("--dir", type=Path, default=None, help="where there is room for it 5 times")
    return parser.parse_args()


def measure(work: Path, n_bytes: int, shard_bytes: int) -> None:
    from dp_hub.hub import LocalHub

    dataset = Growing(work / "dataset", shard_bytes)
    dataset.add(n_bytes)
    with LocalHub(work / "hub") as hub:
        forwarder = CountingForwarder(hub.endpoint)
        os.environ.update(hub.env, HF_ENDPOINT=forwarder.endpoint, HF_HOME=str(work / "home"))
        print(f"{size_of(dataset.root) / 1e6:,.0f} MB in {n_files(dataset.root)} files\n")
        print("| what | files sent | MB sent | share of the dataset | s |\n|---|---|---|---|---|")
        row("first push", dataset.root, forwarder)
        dataset.add(int(n_bytes * SHARE_ADDED))
        share = row("push of 1 % more", dataset.root, forwarder)
        row("push of nothing new", dataset.root, forwarder)
        pull_row("pull, everything", work / "back", forwarder)
        pull_row("pull again, checking all", work / "back", forwarder)
    print(f"\nthe second push sent {share:.2%} of the dataset; the goal is under 3 %")


def row(name: str, folder: Path, forwarder: CountingForwarder) -> float:
    from dp_hub.hub import push

    before = forwarder.n_bytes
    pushed, seconds = timed(lambda: push(folder, "me/grown"))
    sent = forwarder.n_bytes - before
    share = sent / size_of(folder)
    print(
        f"| {name} | {pushed.n_sent} | {sent / 1e6:,.2f} | {share:.2%} | {seconds:.1f} |",
        flush=True,
    )
    return share


def pull_row(name: str, to: Path, forwarder: CountingForwarder) -> None:
    from dp_hub.hub import pull

    before = forwarder.n_bytes
    _, seconds = timed(lambda: pull("me/grown", to=to))
    sent = (forwarder.n_bytes - before) / 1e6
    print(f"| {name} | 0 | {sent:,.2f} | | {seconds:.1f} |", flush=True)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    return function(), time.perf_counter() - began


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def n_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


if __name__ == "__main__":
    main()
