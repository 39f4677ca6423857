"""``dp-hub convert lerobot user/name``: a dataset of another tool, straight from the Hub."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dp_hub.dataset.convert import convert
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DpHubError
from dp_hub.hub import LocalHub
from dp_hub.hub.client import connect

N = 7


@pytest.fixture
def published(hub: LocalHub, tmp_path: Path) -> str:
    """A v2.1 dataset of one episode at me/arm. The commit it is at."""
    root = tmp_path / "v21"
    for name in ("meta", "data/chunk-000"):
        (root / name).mkdir(parents=True)
    numbers = np.arange(N)
    table = pa.table(
        {
            "action": numbers.astype(np.float32),
            "frame_index": numbers,
            "episode_index": numbers * 0,
        }
    )
    pq.write_table(table, root / "data/chunk-000/episode_000000.parquet")
    info = {"codebase_version": "v2.1", "fps": 10, "total_episodes": 1, "total_frames": N}
    info["features"] = {"action": {"dtype": "float32", "shape": [1], "names": None}}
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/episodes.jsonl").write_text(
        json.dumps({"episode_index": 0, "tasks": ["wave"], "length": N})
    )
    (root / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# an arm\n")
    api = connect()
    api.create_repo("me/arm", repo_type="dataset")
    return str(api.upload_folder(repo_id="me/arm", folder_path=root, repo_type="dataset").oid)


def test_a_name_on_the_hub_is_pulled_and_its_commit_remembered(
    published: str, tmp_path: Path, run_client: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    convert("lerobot", "me/arm", tmp_path / "ds")
    dataset = open_dataset(tmp_path / "ds")
    assert dataset.column("action").tolist() == list(range(N))
    assert dataset.episodes.tasks == ["wave"]
    source = {"converter": "lerobot", "file": "me/arm", "revision": published}
    assert source.items() <= dataset.provenance["source"].items()
    origin = {"name": "me/arm", "revision": published, "fingerprint": None}
    assert dataset.provenance["sources"] == [origin | {"license": "cc-by-4.0"}]
    assert dataset.provenance["license"] == "cc-by-4.0"
    done = run_client("convert", "lerobot", f"me/arm@{published}", "--to", "again")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert open_dataset(tmp_path / "again").fingerprint == dataset.fingerprint


def test_a_name_that_is_not_there_is_told(hub: LocalHub, tmp_path: Path) -> None:
    with pytest.raises(DpHubError, match="me/nothing"):
        convert("lerobot", "me/nothing", tmp_path / "ds")
    with pytest.raises(DpHubError, match=r"is not a LeRobot dataset"):
        convert("lerobot", tmp_path / "no" / "such" / "folder", tmp_path / "ds")
    assert not (tmp_path / "ds").exists()
