"""Nothing is left of a program that is killed: no process, no shared memory, nothing on stderr."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dp_hub.robot.shared.segment import sweep

PROGRAM = Path(__file__).with_name("robot_parent.py")


@dataclass
class Program:
    """One that runs, its workers, its memory, and the file its controller tells of its end."""

    process: subprocess.Popen[str]
    pids: list[int]
    segments: list[str]
    told: Path

    def left(self) -> list[str]:
        """Of its processes and memory."""
        pids = [self.process.pid, *self.pids]
        memory = [p.name for pid in pids for p in Path("/dev/shm").glob(f"dphub-{pid}-*")]
        return [str(pid) for pid in pids if is_running(pid)] + memory

    def ends(self) -> None:
        """It has, all of it, and has said nothing."""
        _, said = self.process.communicate(timeout=60)
        wait_until(lambda: not self.left())
        assert said == ""


@contextmanager
def running(kind: str, folder: Path) -> Iterator[Program]:
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), kind, str(folder / "told")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        yield Program(process, **json.loads(line), told=folder / "told")
    finally:
        for pid in [process.pid, *json.loads(line or "{}").get("pids", [])]:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(done: Callable[[], object]) -> None:
    end_s = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end_s
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_of_a_killed_program_come_to_rest_and_end(
    number: signal.Signals, tmp_path: Path
) -> None:
    with running("usual", tmp_path) as program:
        assert len(program.pids) == 3 and len(program.left()) >= 6
        os.kill(program.process.pid, number)
        program.ends()
        assert program.told.read_text() == "orphaned True"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_a_terminal_that_ends_a_program_lets_its_workers_come_to_rest(
    number: signal.Signals, tmp_path: Path
) -> None:
    with running("usual", tmp_path) as program:
        os.killpg(program.process.pid, number)
        program.ends()
        assert program.told.read_text() == "orphaned True"


def test_memory_of_a_killed_program_without_workers_goes_with_it(tmp_path: Path) -> None:
    with running("alone", tmp_path) as program:
        assert len(program.left()) == 3
        program.process.kill()
        wait_until(lambda: not program.left())


def test_what_is_left_when_all_are_killed_at_once_goes_at_the_next_start(tmp_path: Path) -> None:
    with running("usual", tmp_path) as other, running("usual", tmp_path) as program:
        os.killpg(program.process.pid, signal.SIGKILL)
        program.process.wait()
        wait_until(lambda: not any(map(is_running, program.pids)))
        assert len(program.left()) >= 3
        found = subprocess.run(
            [sys.executable, str(PROGRAM), "sweep", ""], capture_output=True, text=True, check=True
        )
        assert set(program.segments) <= set(json.loads(found.stdout)) and not found.stderr
        assert program.left() == []
        # What belongs to others, or to ourselves, stays.
        assert not set(other.segments) & set(json.loads(found.stdout))
        assert all((Path("/dev/shm") / name).exists() for name in other.segments)
        other.process.kill()
        other.ends()


def test_memory_of_living_processes_is_not_swept(tmp_path: Path) -> None:
    with running("alone", tmp_path) as program:
        assert not set(program.segments) & set(sweep())
        assert len(program.left()) == 3
        program.process.terminate()
        wait_until(lambda: not program.left())


@pytest.mark.parametrize("kind", ["forgets", "fails"])
def test_a_program_that_ends_without_stopping_its_workers_ends_them(
    kind: str, tmp_path: Path
) -> None:
    with running(kind, tmp_path) as program:
        _, said = program.process.communicate(timeout=60)
        assert program.left() == []
        assert ("ValueError" in said) == (kind == "fails")
        assert "resource_tracker" not in said and "Exception ignored" not in said
        assert program.told.read_text() == "orphaned False"


def test_workers_log_to_the_program_s_stderr_as_it_does_and_do_not_import_it(
    tmp_path: Path,
) -> None:
    with running("logs", tmp_path) as program:
        _, said = program.process.communicate(timeout=60)
    lines = said.splitlines()
    assert lines[:2] == ["worker 0: some news", f"worker 0: a warning of {program.pids[0]}"]
    assert lines[2].startswith("worker 1: facts") and "'main': []" in lines[2]
    # What is defined in the program itself needs it.
    assert lines[3].startswith("worker 2: facts") and "'main': ['wave']" in lines[3]
    assert len(lines) == 4


def test_what_a_worker_needs_imports_nothing_heavy() -> None:
    code = (
        "import sys, dp_hub.robot.worker, dp_hub.robot.clock, dp_hub.robot.shared.ring,"
        " dp_hub.robot.shared.queue; print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "numpy" in loaded
    heavy = {"torch", "av", "pygame", "mujoco", "scipy", "typer", "rich", "pydantic", "yaml"}
    assert not loaded & (heavy | {"PIL", "datasets", "pyarrow", "zarr", "cv2"})
