"""A Hub of our own for every test, and tiny datasets and policies to push to it."""

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_helpers import become_client, client_command, client_env

from dp_hub.hub import LocalHub

MakeDataset = Callable[..., Path]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A running Hub, with this process as a client of its user ``me`` with an empty cache."""
    with LocalHub(tmp_path / "server", users=["me", "you"]) as running:
        become_client(monkeypatch, running, tmp_path / "home")
        yield running


@pytest.fixture
def run_client(hub: LocalHub, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a Python program, or ``dp-hub`` with arguments, as another process with its own cache."""

    def run(*words: str, code: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            client_command(*words, code=code),
            env=client_env(hub, tmp_path / "client", **env),
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )

    return run


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """``make_dataset(name, seed=0, n_files=1, n_rows=50, license=None)``: a v3.0-like folder."""

    def make(
        name: str, *, seed: int = 0, n_files: int = 1, n_rows: int = 50, license: str | None = "mit"
    ) -> Path:
        root = tmp_path / name
        generator = np.random.default_rng(seed)
        digest = hashlib.sha256()
        for number in range(n_files):
            action = generator.random((n_rows, 2), dtype=np.float32)
            digest.update(action.tobytes())
            first = number * n_rows
            _write_rows(root / f"data/chunk-000/file-{number:03d}.parquet", action, first)
        episodes = pa.table({"episode_index": [0], "length": [n_files * n_rows]})
        _write_table(root / "meta/episodes/chunk-000/file-000.parquet", episodes)
        tasks = pa.table({"task_index": [0], "task": ["push the T"]})
        _write_table(root / "meta/tasks.parquet", tasks)
        info = {
            "codebase_version": "v3.0",
            "fps": 10,
            "total_episodes": 1,
            "total_frames": n_files * n_rows,
            "features": {"action": {"dtype": "float32", "shape": [2], "names": None}},
        }
        provenance = {"format": 1, "fingerprint": digest.hexdigest(), "license": license}
        (root / "meta/info.json").write_text(json.dumps(info))
        (root / "meta/stats.json").write_text("{}")
        (root / "meta/dp_hub.json").write_text(json.dumps(provenance))
        return root

    return make


def _write_rows(path: Path, action: np.ndarray, first: int) -> None:
    flat = pa.array(action.ravel())
    index = pa.array(range(first, first + len(action)), pa.int64())
    columns = {"action": pa.FixedSizeListArray.from_arrays(flat, 2), "index": index}
    _write_table(path, pa.table(columns))


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="none")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy folder, with a training state beside that must stay at home."""
    root = tmp_path / "policy"
    (root / "state").mkdir(parents=True)
    (root / "config.json").write_text('{"kind": "diffusion"}')
    (root / "model.safetensors").write_bytes(bytes(range(256)) * 500)
    (root / "README.md").write_text("# a policy\n")
    (root / "train_config.yaml").write_text("seed: 1\n")
    (root / "state/optimizer.bin").write_bytes(b"secret moments")
    (root / "optimizer.pt").write_bytes(b"secret moments")
    return root
