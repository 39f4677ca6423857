"""Several seeds of a training: side by side, stopped together, continued."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dp_hub_recipes.sweep import places

from dp_hub.dataset.convert import convert
from dp_hub.training.checkpoints import list_checkpoints

ROOT = Path(__file__).resolve().parents[2]
SWEEP = [sys.executable, str(ROOT / "recipes/sweep.py"), str(ROOT / "recipes/configs/debug.yaml")]


@pytest.fixture(scope="module")
def dataset(pusht_first5_zip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pusht"
    convert("zarr", pusht_first5_zip, folder, drop=["img"])
    return folder


def start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SWEEP, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def steps(run: Path) -> list[int]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return sorted({json.loads(line)["step"] for line in lines})


def test_seeds_train_stop_together_and_continue(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--seeds", 1, 2, "--jobs", 2, "--", "--dataset", dataset, "--out_dir", out)
    words += ("--save_every", 0, "--log_every", 1)  # the only checkpoint is the one of stopping
    running = start(*words, "--steps", 1_000_000)
    runs = [out / "seed_1", out / "seed_2"]
    deadline = time.monotonic() + 120
    while not all((run / "metrics.jsonl").exists() and steps(run) for run in runs):
        assert time.monotonic() < deadline and running.poll() is None, running.communicate()
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=120)
    assert running.returncode == 130 and stdout == "", stderr
    assert "seed 1: stopping" in stderr and "the same command continues" in stderr
    stopped = [max(steps(run)) for run in runs]
    for run, step in zip(runs, stopped, strict=True):
        assert list_checkpoints(run / "checkpoints") == [step]
        assert not (run / "policy").exists()

    running = start(*words, "--steps", max(stopped) + 3)
    stdout, stderr = running.communicate(timeout=300)
    assert running.returncode == 0, stderr
    assert stdout == f"dp-hub runs {out}\n"
    for run, before in zip(runs, stopped, strict=True):
        assert (run / "policy" / "config.json").is_file()
        assert steps(run)[-1] == max(stopped) + 3 and before in steps(run)
        assert f"continuing from {run}" in (run / "log.txt").read_text()
    seeds = [(run / "train_config.yaml").read_text() for run in runs]
    assert "\nseed: 1\n" in seeds[0] and "\nseed: 2\n" in seeds[1]


def test_a_seed_that_fails_is_reported_and_the_others_go_on(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "seed_1").mkdir(parents=True)
    (out / "seed_1" / "policy").write_text("in the way")  # the run cannot save its policy
    words = ("--seeds", 1, 2, "--", "--dataset", dataset, "--out_dir", out, "--steps", 3)
    running = start(*words)
    stdout, stderr = running.communicate(timeout=300)
    assert running.returncode == 1
    assert "seed 1: failed with status 1" in stderr and "log.txt ends with" in stderr
    assert "seed 2: done" in stderr and "1 of 2 seeds are done" in stderr
    assert (out / "seed_2" / "policy" / "config.json").is_file()
    assert stdout == f"dp-hub runs {out}\n"


def test_runs_get_a_gpu_each_or_share_the_cores() -> None:
    assert places(None, {}, gpus=2, cores=8) == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "1"},
    ]
    visible = {"CUDA_VISIBLE_DEVICES": "3, GPU-77"}
    assert places(1, visible, gpus=2, cores=8) == [{"CUDA_VISIBLE_DEVICES": "3"}]
    assert places(9, visible, gpus=2, cores=8)[1:] == [{"CUDA_VISIBLE_DEVICES": "GPU-77"}]
    assert places(3, {}, gpus=0, cores=8) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert places(4, {}, gpus=0, cores=2) == [{"OMP_NUM_THREADS": "1"}] * 4
    assert places(None, {}, gpus=0, cores=8) == [{"OMP_NUM_THREADS": "8"}]
    assert places(2, {"OMP_NUM_THREADS": "3"}, gpus=0, cores=8) == [{"OMP_NUM_THREADS": "3"}] * 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--", "--stepz", 3), "stepz"),
        (("--jobs", 0), "--jobs 0: at least one"),
    ],
)
def test_a_wrong_word_is_told_before_anything_starts(
    words: tuple[object, ...], reason: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*SWEEP, *map(str, words)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert reason in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
