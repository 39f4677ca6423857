"""Keys: the terminal is given back however it ends, scripts press in time, tables know twice."""

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.clock import VirtualClock
from dp_hub.robot.keys.script import ScriptKeys, read_script
from dp_hub.robot.keys.source import Together, opened
from dp_hub.robot.keys.table import AGAIN_S, RECORD, REPLAY, ROLLOUT, Does, Keys, keys_line
from dp_hub.robot.keys.terminal import TerminalKeys, keys_of


class Terminal:
    """A terminal of our own: a person at one end, a program at the other."""

    def __init__(self) -> None:
        self.person, program = pty.openpty()
        self.program = os.fdopen(program, "rb", buffering=0)
        self.before = self.mode()

    def mode(self) -> list:
        return termios.tcgetattr(self.program.fileno())

    def type(self, text: str) -> None:
        os.write(self.person, text.encode())

    def close(self) -> None:
        os.close(self.person)
        self.program.close()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


def read_all(keys: TerminalKeys, count: int) -> list[str]:
    found: list[str] = []
    end_s = time.monotonic() + 5
    while len(found) < count and time.monotonic() < end_s:
        found += keys.read()
    return found


def test_typed_keys_come_at_once_without_enter(terminal: Terminal) -> None:
    with TerminalKeys(terminal.program) as keys:
        assert keys.read() == []
        terminal.type("cS \x7fq")
        assert read_all(keys, 5) == ["c", "s", "space", "backspace", "q"]


def test_escape_is_told_from_what_arrow_keys_send() -> None:
    assert keys_of("\x1b") == ["esc"]
    assert keys_of("\x1b\x1b") == ["esc", "esc"]
    assert keys_of("\x1b[A") == [] and keys_of("\x1bOP") == []
    assert keys_of("ä\x01\n") == ["ä", "enter"]
    assert keys_of("c\x1b") == ["c", "esc"]


def test_escape_counts_whatever_is_typed_in_the_same_moment() -> None:
    assert keys_of("\x1b[A\x1b") == ["esc"]
    assert keys_of("\x1b\x1b[A") == ["esc"]
    assert keys_of("\x1b[1;5C\x1bOPc\x1bq") == ["c", "esc", "q"]
    assert keys_of("\x1b[") == ["esc", "["]


def test_the_terminal_is_restored_when_it_is_closed_and_after_an_exception(
    terminal: Terminal,
) -> None:
    keys = TerminalKeys(terminal.program)
    assert terminal.mode() != terminal.before
    keys.close()
    keys.close()
    assert terminal.mode() == terminal.before and keys.read() == []
    with pytest.raises(ZeroDivisionError), TerminalKeys(terminal.program):
        raise ZeroDivisionError
    assert terminal.mode() == terminal.before


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGHUP)", -signal.SIGHUP),
        ("raise RuntimeError", 1),
        ("sys.exit(3)", 3),
    ],
)
def test_a_program_that_ends_leaves_the_terminal_as_it_was(
    terminal: Terminal, ending: str, status: int
) -> None:
    program = (
        "import os, signal, sys\n"
        "from dp_hub.robot.keys.terminal import TerminalKeys\n"
        "keys = TerminalKeys()\n"
        "print('ready', flush=True)\n"
        f"{ending}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=terminal.program,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.stdout == b"ready\n" and done.returncode == status
    assert terminal.mode() == terminal.before


def test_a_handler_that_was_there_for_sigterm_is_called_and_comes_back(terminal: Terminal) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        mine = signal.getsignal(signal.SIGTERM)
        TerminalKeys(terminal.program)
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        assert terminal.mode() == terminal.before
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_where_there_is_no_terminal_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("c")
    with (tmp_path / "file").open() as file, pytest.raises(RobotError, match="no terminal"):
        TerminalKeys(file)


def test_a_script_presses_each_key_once_at_its_time(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("# a demonstration\n0.5 c\n\n2 s  # saved\n2 space\n4.25 q\n")
    clock = VirtualClock(100.0)
    keys = ScriptKeys(read_script(path), clock.now_s)
    assert keys.read() == []
    clock.sleep_until(100.5)
    assert keys.read() == ["c"] and keys.read() == []
    clock.sleep_until(103.0)
    assert keys.read() == ["s", "space"] and not keys.is_over
    clock.sleep_until(110.0)
    assert keys.read() == ["q"] and keys.is_over


@pytest.mark.parametrize("line", ["c", "one c", "1 c d", "1 escape"])
def test_a_line_of_a_script_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(f"0.5 c\n{line}\n")
    with pytest.raises(ConfigError, match="line 2 of"):
        read_script(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_script(tmp_path / "none")


def test_sources_together_give_the_keys_of_all() -> None:
    clock = VirtualClock()
    sources = [ScriptKeys([(1.0, "c")], clock.now_s), ScriptKeys([(0.5, "q")], clock.now_s)]
    with opened(sources) as keys:
        clock.sleep_until(2.0)
        assert keys.read() == ["c", "q"]
    assert Together([]).read() == []


def test_dropping_asks_once_more_and_forgets_after_a_while() -> None:
    keys = Keys(RECORD)
    assert keys.pressed("backspace", 1.0) is None
    assert keys.question(1.0) == "drop the last? press backspace again"
    assert keys.pressed("backspace", 2.0) is Does.DROP
    assert keys.question(2.0) is None
    assert keys.pressed("backspace", 10.0) is None
    assert keys.pressed("backspace", 10.1 + AGAIN_S) is None  # too late: asked anew
    assert keys.pressed("c", 10.2 + AGAIN_S) is Does.START  # another key takes the question back
    assert keys.pressed("backspace", 10.3 + AGAIN_S) is None


def test_emergency_stop_is_one_press_wherever_a_robot_moves() -> None:
    for table in (RECORD, ROLLOUT, REPLAY):
        assert Keys(table).pressed("esc", 0.0) is Does.EMERGENCY
        assert Keys(table).pressed("q", 0.0) is Does.QUIT
        assert Keys(table).pressed("x", 0.0) is None


def test_the_table_is_told_in_one_line() -> None:
    assert keys_line(RECORD).startswith("c start | s stop, save | backspace drop the last")
