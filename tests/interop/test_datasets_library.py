"""The plain `datasets` library reads what dp_hub writes, from a folder and from a Hub at a sha."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from dp_hub.dataset.convert import convert
from dp_hub.dataset.reader import open_dataset
from dp_hub.hub import LocalHub

HERE = Path(__file__).parent
PUSH = """
import sys
from dp_hub.hub import push
for folder in sys.argv[1:]:
    print(push(folder, "me/pusht", license="mit").sha)
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def demonstrations(pusht_first5_zip):
    """The first three real demonstrations, and one more column of every kind of numbers."""
    given = zarr.open_group(zarr.storage.ZipStore(pusht_first5_zip), mode="r")
    ends = given["meta/episode_ends"][:3]
    n = int(ends[-1])
    arrays = {f"data/{key}": array[:n] for key, array in given["data"].arrays()}
    generator = np.random.default_rng(0)
    return arrays | {
        "data/next.reward": generator.random(n),
        "data/next.done": np.isin(np.arange(n) + 1, ends),
        "data/observation.counts": generator.integers(-9, 9, (n, 3)).astype(np.int16),
        "meta/episode_ends": ends,
    }


def written(arrays, folder, **options):
    group = zarr.open_group(folder.with_suffix(".zarr"), mode="w", zarr_format=2)
    for name, values in arrays.items():
        group.create_array(name, data=values)
    return convert("zarr", folder.with_suffix(".zarr"), folder, **options).written.path


def read(tmp_path, name, revision="", **env):
    """What `datasets` gives in a process with caches of its own: loaded, then streamed."""
    keep = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    words = [sys.executable, HERE / "datasets_read.py", tmp_path / "out", name, revision]
    done = subprocess.run(
        list(map(str, words)),
        env=keep | {"HF_HOME": str(tmp_path / "home")} | env,
        cwd=tmp_path,  # a folder of the dataset's name would be preferred to the Hub
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [dict(np.load(tmp_path / f"out-{kind}.npz")) for kind in ("loaded", "streamed")]


def assert_equal(found, folder):
    dataset = open_dataset(folder)
    stored = {name for name, feature in dataset.features.items() if feature.dtype != "video"}
    assert set(found) == stored and len(stored) >= 11
    for name in stored:
        column = dataset.column(name)
        assert found[name].shape == column.shape, name
        np.testing.assert_array_equal(found[name], column, err_msg=name)


@pytest.mark.parametrize("images", ["webp", "png", "video"])
def test_a_folder_is_loaded_and_streamed_with_every_value(images, demonstrations, tmp_path):
    folder = written(demonstrations, tmp_path / "pusht", images=images)
    for found in read(tmp_path, folder, HF_HUB_OFFLINE="1"):
        assert_equal(found, folder)


def test_a_revision_on_a_hub_is_loaded_and_streamed_with_every_value(demonstrations, tmp_path):
    changed = demonstrations | {"data/action": demonstrations["data/action"][::-1].copy()}
    folders = [written(demonstrations, tmp_path / "old"), written(changed, tmp_path / "new")]
    with LocalHub(tmp_path / "hub") as hub:
        pushed = subprocess.run(
            [sys.executable, "-c", PUSH, *map(str, folders)],
            env=os.environ | hub.env | {"HF_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
        )
        assert pushed.returncode == 0, pushed.stderr
        for folder, sha in zip(folders, pushed.stdout.split(), strict=True):
            for found in read(tmp_path, "me/pusht", sha, **hub.env):
                assert_equal(found, folder)
