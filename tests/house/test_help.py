"""What a user sees first: ``dp-hub --help``, quickly, and one page of help per command."""

import subprocess
import sys

import pytest

COMMANDS = ["convert", "check", "export", "record", "record pusht", "push", "pull", "serve", "eval"]
COMMANDS += ["edit", "finish", "log", "info", "diff", "compare", "runs", "score"]
COMMANDS += ["convert checkpoint", "convert policy", "inspect"]
COMMANDS += ["latency", "rollout", "replay", "serve-policy"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from dp_hub.cli.main import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_help_lists_every_command() -> None:
    result = run("--help")
    assert result.returncode == 0
    for command in COMMANDS:
        assert command.split()[0] in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage:" in result.stdout
    assert "Placeholder" not in result.stdout


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "sys.argv = ['dp-hub', '--help']\n"
        "from dp_hub.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'datasets', 'diffusers', 'zarr', 'pyarrow', 'pygame', 'pymunk'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip().endswith("LOADED []"), result.stdout + result.stderr


def test_unknown_command_is_one_sentence_and_no_traceback() -> None:
    result = run("covert")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "covert" in result.stderr
