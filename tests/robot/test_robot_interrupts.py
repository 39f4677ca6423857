"""Ctrl-C and SIGTERM in the middle of `dp-hub rollout` and `dp-hub record`, as people run them."""

import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from faults_watch import Marked, wait_until

pytestmark = pytest.mark.slow
ENDS = {signal.SIGINT: 130, signal.SIGTERM: 128 + signal.SIGTERM}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[object]:
    """A policy that needs no torch."""
    from faults_kinds import Server

    one = Server(tmp_path_factory.mktemp("served"))
    yield one
    one.process.terminate()
    one.gone()
    one.end()


def command(*arguments: str) -> Marked:
    code = "from dp_hub.cli.main import main; main()"
    return Marked([sys.executable, "-c", code, *arguments], {"OMP_NUM_THREADS": "1"})


def interrupt(run: Marked, number: signal.Signals, *, once: str) -> str:
    """Let it move for a while, interrupt it, and see it end with nothing left."""
    try:
        wait_until(lambda: once in run.errors(), 60.0, f"it says {once}")
        time.sleep(4.0)
        assert run.process.poll() is None, run.errors()
        assert len(run.pids()) > 3
        run.process.send_signal(number)
        assert run.process.wait(30.0) == ENDS[number], run.errors()
        run.gone()
        return run.errors()
    finally:
        run.end()


@pytest.mark.parametrize("number", ENDS)
def test_an_interrupted_rollout_ends_and_leaves_nothing(number, server):
    options = ["--robot", "pusht", "--server", server.url, "--token-file", server.token_file]
    told = interrupt(command("rollout", *options, "--no-view"), number, once="policy goes on")
    assert "Traceback" not in told


@pytest.mark.parametrize("number", ENDS)
def test_an_interrupted_recording_keeps_the_episodes_before_and_leaves_nothing(number, tmp_path):
    to = tmp_path / "data"
    options = ["--robot", "pusht", "--to", str(to), "--by-itself", "--episode-s", "2.0"]
    told = interrupt(command("record", *options, "--no-view"), number, once="episode 0")
    assert "Traceback" not in told
    from dp_hub.dataset.reader import open_dataset

    assert to.is_dir(), told
    # One that had just begun to be recorded on a busy machine may be refused, and is named then.
    kept = open_dataset(to).n_episodes
    assert 1 <= kept <= len(re.findall(r"episode \d+ \(seed", told)), told
