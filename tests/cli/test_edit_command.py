"""``dp-hub edit`` and ``dp-hub finish`` as people type them."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from dp_hub.dataset.convert import convert
from dp_hub.dataset.features import plan_columns
from dp_hub.dataset.reader import open_dataset
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.replay.episode import Episode

COMMAND = [sys.executable, "-c", "from dp_hub.cli.main import main; main()"]


def run(*words, cwd):
    return subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=120, cwd=cwd
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pusht_first5_zip):
    root = tmp_path_factory.mktemp("edit_command")
    convert("zarr", pusht_first5_zip, root / "old", drop=["img"], task="push")
    return root


def test_edit_makes_a_new_dataset_and_says_what_it_did(folder):
    done = run("edit", "old", "--delete", "1,3", "--task", "Push it.", "--to", "new", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "new: 3 episodes, 461 frames; 0 unchanged, 3 taken over as stored" in done.stdout
    assert open_dataset(folder / "new").episodes.tasks == ["Push it."] * 3


def test_split_prints_a_line_for_every_part(folder):
    words = ("edit", "old", "--split", "val=2", "--split", "train=1.0", "--to", "parts")
    done = run(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "parts/val: 1 episodes" in done.stdout and "parts/train: 4 episodes" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("edit", "old", "--delete", "9", "--to", "n"), "there is no episode 9"),
        (("edit", "old", "--to", "old"), "old already exists"),
        (("edit", "nothing", "--to", "n"), "there is no folder nothing"),
        (("edit", "old", "--rename", "x", "--to", "n"), "is not OLD=NEW"),
        (("edit", "old", "--seed", "1", "--to", "n"), "there is no --split"),
        (("edit", "old", "--codec", "av1", "--to", "n"), "say --images video as well"),
        (
            ("edit", "no/where", "--to", "n"),
            "there is no folder no/where, and as a name on the Hub",
        ),
        (("finish", "nothing"), "is not a dataset"),
    ],
)
def test_wrong_words_are_one_sentence(folder, words, message, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody is
    done = run(*words, cwd=folder)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "n").exists() and not list(folder.glob(".*"))


def test_finish_completes_what_was_cut_off(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [Episode({"action": rng.normal(size=(9, 2))}) for _ in range(3)]
    with DatasetWriter(tmp_path / "ds", plan_columns(episodes[0].data), fps=10) as writer:
        for episode in episodes:
            writer.add_episode(episode)
    assert not (tmp_path / "ds/meta/checksums.json").exists()
    done = run("finish", "ds", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ds: 3 episodes, 27 frames" in done.stdout
    assert (tmp_path / "ds/meta/checksums.json").exists()
    again = run("finish", "ds", cwd=tmp_path)
    assert again.returncode == 0 and again.stdout == done.stdout


def test_a_killed_conversion_goes_on_with_the_same_command(tmp_path, pusht_zip):
    words = ["convert", "zarr", str(pusht_zip), "--to", "ds", "--images", "png"]
    # Committing more often than every ten seconds, so that there is something to go on from.
    hasty = "import dp_hub.dataset.conversion.run as c; c.COMMIT_S = 0.3; " + COMMAND[2]
    process = subprocess.Popen([*COMMAND[:2], hasty, *words], cwd=tmp_path)
    partial = tmp_path / ".ds.partial"
    while not partial.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    n_kept = open_dataset(partial).n_episodes
    assert 0 < n_kept < 206 and not (tmp_path / "ds").exists()
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"continuing after {n_kept} episodes" in done.stderr
    assert "206 episodes, 25,650 frames" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["ds"]
