"""LeRobot 0.4.4 and dp_hub read each other's datasets, value for value.

Needs an environment of LeRobot's own, so it runs only if asked to; see lerobot_env.py beside this.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zarr
from lerobot_env import lerobot_python

from dp_hub.dataset.convert import convert
from dp_hub.dataset.editing import Edit, edit
from dp_hub.dataset.reader import open_dataset
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.replay.buffer import open_replay
from dp_hub.replay.episode import Episode
from dp_hub.sampling import WindowDataset, window_table

pytestmark = pytest.mark.skipif(
    os.environ.get("DP_HUB_TEST_LEROBOT") != "1",
    reason="set DP_HUB_TEST_LEROBOT=1 to make an environment with LeRobot 0.4.4 (8 GB, minutes; "
    "tests/interop/lerobot_env.py) and compare every value",
)
HERE = Path(__file__).parent
CHOSEN = [1, 3]
KINDS = {
    "low-dim": {"drop": ["img"]},
    "webp": {"images": "webp"},
    "png": {"images": "png"},
    "h264": {"images": "video", "codec": "h264"},
    "av1": {"images": "video", "codec": "av1"},
}


@pytest.fixture(scope="session")
def python() -> Path:
    return lerobot_python()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DP_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def source(pusht_first5_zip, tmp_path_factory) -> Path:
    """Five real demonstrations, and of every type of numbers one more column."""
    path = tmp_path_factory.mktemp("source") / "first5.zarr"
    given = zarr.open_group(zarr.storage.ZipStore(pusht_first5_zip), mode="r")
    group = zarr.open_group(path, mode="w", zarr_format=2)
    arrays = {f"data/{key}": array[:] for key, array in given["data"].arrays()}
    ends = given["meta/episode_ends"][:]
    generator = np.random.default_rng(0)
    n = int(ends[-1])
    arrays |= {
        "data/next.reward": generator.random(n),  # float64, one number
        "data/next.done": np.isin(np.arange(n) + 1, ends),
        "data/observation.counts": generator.integers(-9, 9, (n, 3)).astype(np.int64),
        "meta/episode_ends": ends,
    }
    for name, values in arrays.items():
        group.create_array(name, data=values)
    return path


def ask(python: Path, tmp_path: Path, script: str, *words: object) -> subprocess.CompletedProcess:
    """Run a script in LeRobot's environment, which must not ask the Hub for anything."""
    keep = {
        key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHON"))
    }
    env = keep | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    env |= {"HF_LEROBOT_HOME": str(tmp_path / "lerobot"), "SVT_LOG": "1"}
    done = subprocess.run(
        [python, HERE / script, *map(str, words)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def equal(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Same shape and values. LeRobot rounds float64 to float32 when it makes tensors."""
    if (found.dtype, expected.dtype) == (np.float32, np.float64):
        expected = expected.astype(np.float32)
    assert found.shape == expected.shape, f"{what}: {found.shape}, not {expected.shape}"
    np.testing.assert_array_equal(found, expected, err_msg=what)


@pytest.mark.parametrize("kind", KINDS)
def test_lerobot_reads_what_dp_hub_writes(kind, python, source, tmp_path):
    root = tmp_path / "dataset"
    convert("zarr", source, root, fps=10.0, task="Push the T onto the goal.", **KINDS[kind])
    ask(python, tmp_path, "lerobot_read.py", root, tmp_path / "out.npz", *CHOSEN)
    found = dict(np.load(tmp_path / "out.npz"))
    dataset = open_dataset(root)
    check_facts(json.loads(str(found["facts"])), dataset)
    check_frames(found, dataset)
    check_windows(found, dataset)
    check_stats(found, root)


@pytest.mark.parametrize("kind", ["webp", "h264"])
@pytest.mark.parametrize("finished", [True, False])
def test_lerobot_reads_what_was_edited_and_added_to(kind, finished, python, source, tmp_path):
    """Several files of every kind; unfinished, one of each for every episode."""
    whole, root = tmp_path / "whole", tmp_path / "dataset"
    convert("zarr", source, whole, fps=10.0, task="Push the T.", **KINDS[kind])
    edit([whole], root, Edit(keep="0,2-3", tasks=["2=Push it again."]))
    with DatasetWriter.resume(root) as writer:
        for data in list(open_replay(source).episodes())[:2]:
            writer.add_episode(Episode(data, task="Push the T."))
        if finished:
            writer.finish()
    ask(python, tmp_path, "lerobot_read.py", root, tmp_path / "out.npz", *CHOSEN)
    found = dict(np.load(tmp_path / "out.npz"))
    dataset = open_dataset(root)
    assert dataset.n_episodes == 5
    check_facts(json.loads(str(found["facts"])), dataset)
    check_frames(found, dataset)
    check_windows(found, dataset)
    if finished:
        check_stats(found, root)


def check_facts(facts, dataset):
    assert (facts["fps"], facts["n_episodes"]) == (dataset.fps, dataset.n_episodes)
    assert facts["n_frames"] == dataset.n_frames
    assert sorted(facts["tasks"]) == sorted(set(dataset.episodes.tasks))
    assert facts["features"] == {name: f.dtype for name, f in dataset.features.items()}
    assert facts["cameras"] == [name for name, f in dataset.features.items() if f.is_visual]


def check_frames(found, dataset):
    frames_of = np.concatenate(
        [np.arange(dataset.episodes.starts[n], dataset.episodes.stops[n]) for n in CHOSEN]
    )
    n_compared = 0
    for name in dataset.features:
        column = dataset.column(name)
        equal(found.pop(f"frames/{name}"), column, name)
        equal(found.pop(f"subset/{name}"), column[frames_of], f"{name} of some episodes")
        n_compared += 1
    assert n_compared == len(dataset.features) >= 11
    tasks = np.repeat(dataset.episodes.tasks, dataset.episodes.lengths)
    equal(found.pop("frames/task"), tasks, "task")
    equal(found.pop("subset/task"), tasks[frames_of], "task")
    assert not [name for name in found if name.startswith(("frames/", "subset/"))]


def check_windows(found, dataset):
    """One window at every frame t of an episode: observed t-1 and t, actions t-1 to t+14."""
    observed = [name for name in dataset.features if name.startswith("observation")]
    mask = np.isin(np.arange(dataset.n_episodes), CHOSEN)
    table = window_table(dataset.episodes.stops, 16, pad_before=1, pad_after=15, episode_mask=mask)
    rows = np.flatnonzero(table.starts < table.hi - 1)
    columns = {name: dataset.column(name) for name in (*observed, "action")}
    windows = WindowDataset(columns, table, horizon=16, n_obs_steps=2)
    batch = {name: values.numpy() for name, values in windows.__getitems__(rows).items()}
    assert len(rows) == dataset.episodes.lengths[mask].sum() and batch["action_is_pad"].any()
    for name in (*observed, "action"):
        windows_of = found[f"windows/{name}"]
        if not dataset.features[name].is_visual:  # batches hold a matrix as one row of numbers
            windows_of = windows_of.reshape(*windows_of.shape[:2], -1)
        equal(windows_of, batch[name], f"windows of {name}")
        equal(
            found[f"windows/{name}_is_pad"],
            table.is_pad(rows)[:, : 16 if name == "action" else 2],
            f"padding of {name}",
        )
    equal(found["windows/action_is_pad"], batch["action_is_pad"], "padding of batches")


def check_stats(found, root):
    stats = json.loads((root / "meta/stats.json").read_text())
    n_compared = 0
    for feature, values in stats.items():
        for name, value in values.items():
            equal(found[f"stats/{feature}/{name}"], np.array(value), f"{name} of {feature}")
            n_compared += 1
    assert n_compared == len([name for name in found if name.startswith("stats/")]) > 0


@pytest.fixture(scope="module")
def recorded(pusht_first5_zip) -> dict[str, np.ndarray]:
    """Five short episodes of real frames, with a column of every type."""
    group = zarr.open_group(zarr.storage.ZipStore(pusht_first5_zip), mode="r")
    ends = np.array([30, 47, 80, 95, 120])
    generator = np.random.default_rng(0)
    pictures = group["data/img"][:480:4]
    return {
        "ends": ends,
        "action": group["data/action"][:480:4],
        "observation.state": group["data/state"][:480:4],
        "observation.matrix": generator.random((120, 2, 3), np.float32),
        "observation.double": generator.random((120, 3)),
        "next.reward": generator.random(120, np.float32),
        "next.done": np.isin(np.arange(120) + 1, ends),
        "count": np.arange(120) % 7,
        "note": np.array([f"row {n}" for n in range(120)]),
        "observation.images.top": pictures,
        "observation.images.side": pictures[::-1].copy(),
    }


@pytest.mark.parametrize("kind", ["low-dim", "image", "video"])
def test_dp_hub_reads_what_lerobot_records(kind, python, recorded, tmp_path):
    root = tmp_path / "dataset"
    np.savez(tmp_path / "arrays.npz", **recorded)
    ask(python, tmp_path, "lerobot_write.py", root, kind, tmp_path / "arrays.npz")
    ask(python, tmp_path, "lerobot_read.py", root, tmp_path / "out.npz", *CHOSEN)
    found = dict(np.load(tmp_path / "out.npz"))
    dataset = open_dataset(root)
    np.testing.assert_array_equal(dataset.episodes.stops, recorded["ends"])
    tasks = [set(task.split("; ")) for task in dataset.episodes.tasks]
    assert tasks == [{"push 0"}, {"reach", "push 1"}, {"push 0"}, {"push 1"}, {"push 0"}]
    n_compared = 0
    for name, feature in dataset.features.items():
        equal(found[f"frames/{name}"], dataset.column(name), f"{name} by LeRobot")
        if name in recorded and feature.dtype != "video":
            equal(dataset.column(name), recorded[name], f"{name} as recorded")
        n_compared += 1
    assert n_compared == {"low-dim": 13, "image": 15, "video": 15}[kind]
    check_windows(found, dataset)
    videos = list((root / "videos").rglob("*.mp4"))
    assert len(videos) == (6 if kind == "video" else 0)
    assert len(list((root / "data").rglob("*.parquet"))) >= 2
    assert dataset.provenance == {} and len(dataset.fingerprint) == 64
