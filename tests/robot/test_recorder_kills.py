"""A recorder that is killed at any moment: what was saved stays, bit for bit."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dp_hub.dataset.reader import open_dataset

HERE = Path(__file__).parent
KILLS, EPISODES = 20, 12


class Recorders:
    """Recorders, one after the other, each its own process."""

    def __init__(self) -> None:
        command = [sys.executable, str(HERE / "killed_recorder.py")]
        env = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def run(self, to: Path, *, kill_after_s: float | None) -> tuple[int, bool]:
        """Returns how many episodes were said to be saved, and whether it came to its end."""
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(f"{to} {EPISODES}\n")
        self._server.stdin.flush()
        saved, ended = 0, False
        for line in self._server.stdout:
            match line.split():
                case ["pid", number]:
                    if kill_after_s is not None:
                        threading.Thread(target=_kill, args=(int(number), kill_after_s)).start()
                case ["ready" | "saved", number]:
                    saved = int(number)
                case ["end"]:
                    ended = True
                case ["gone"]:
                    return saved, ended
        raise AssertionError("the recorders' process has ended")

    def close(self) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait(30)


def _kill(pid: int, after_s: float) -> None:
    time.sleep(after_s)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def recorders() -> Iterator[Recorders]:
    made = Recorders()
    yield made
    made.close()


def contents(to: Path) -> list[str]:
    return open_dataset(to).episodes.sha256 if to.exists() else []


def test_twenty_kills_lose_no_saved_episode_and_change_none(
    recorders: Recorders, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    assert recorders.run(tmp_path / "warm", kill_after_s=None) == (EPISODES, True)
    began = time.monotonic()
    assert recorders.run(whole, kill_after_s=None) == (EPISODES, True)
    usual_s = (time.monotonic() - began) / EPISODES
    expected = contents(whole)
    assert len(set(expected)) == EPISODES
    rng = np.random.default_rng(6)
    kills = folders = before = 0
    killed = tmp_path / "killed_0"
    for _ in range(20 * KILLS):
        saved, ended = recorders.run(killed, kill_after_s=rng.uniform(0.0, 6.0) * usual_s)
        found = contents(killed)
        assert found == expected[: len(found)]
        assert max(saved, before) <= len(found) <= max(saved, before) + 2
        kills, before = kills + (not ended), len(found)
        if kills == KILLS:
            break
        if len(found) == EPISODES:
            folders, before = folders + 1, 0
            killed = tmp_path / f"killed_{folders}"
    assert kills == KILLS  # each came while it was recording
    assert recorders.run(killed, kill_after_s=None) == (EPISODES, True)
    a, b = open_dataset(whole), open_dataset(killed)
    assert a.fingerprint == b.fingerprint
    assert a.episodes.metadata == b.episodes.metadata
    for name in ("action", "observation.state", "observation.image", "timestamp"):
        assert np.array_equal(a.column(name), b.column(name))
    names = sorted(path.name for path in Path(f"{killed}.raw").glob("episode_*"))
    assert names == [f"episode_{k:06d}" for k in range(EPISODES)]
