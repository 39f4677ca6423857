"""``dp-hub check`` as it is used: exit status, what goes where, JSON, --fix, names on the Hub."""

import json
import logging
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from dp_hub.cli.main import main

sys.path.append(str(Path(__file__).resolve().parents[1] / "dataset"))
from checks_helpers import (
    as_others_write,
    copy,
    edit_json,
    healthy_episodes,
    write_episodes,
)


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch, capsys):
    """``dp-hub check WORDS`` in this process."""

    def command(*words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["dp-hub", "check", *map(str, words)])
        capsys.readouterr()
        log, on_term = logging.getLogger("dp_hub"), signal.getsignal(signal.SIGTERM)
        level = log.level
        try:
            with pytest.raises(SystemExit) as end:
                main()
        finally:  # what `main` sets for a whole process must not outlive this call
            log.setLevel(level)
            signal.signal(signal.SIGTERM, on_term)
        written = capsys.readouterr()
        return Result(int(end.value.code or 0), written.out, written.err)

    return command


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("command") / "healthy"
    return as_others_write(write_episodes(root, healthy_episodes()))


def test_a_healthy_dataset_passes(run, healthy):
    result = run(healthy)
    assert result.returncode == 0, result.stderr
    assert "verdict: pass" in result.stdout and not result.stderr
    assert "6 episodes, 215 frames; 0 failures, 0 warnings" in result.stdout


def test_warnings_fail_only_when_strict(run, healthy, tmp_path):
    root = copy(healthy, tmp_path / "ds")
    (root / "README.md").unlink()
    assert run(root).returncode == 0
    assert run(root, "--strict").returncode == 1


def test_json_is_the_whole_of_stdout(run, healthy, tmp_path):
    root = copy(healthy, tmp_path / "ds")
    edit_json(root, "meta/info.json", lambda v: v.update(total_frames=3))
    result = run(root, "--json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["verdict"] == "fail" and report["counts"]["fail"] == 1
    [finding] = [f for f in report["findings"] if f["severity"] == "fail"]
    assert finding["id"] == "STRUCT-007" and finding["fixable"]


def test_fix_makes_a_new_dataset_and_says_what_it_did(run, healthy, tmp_path):
    root = copy(healthy, tmp_path / "ds")
    edit_json(root, "meta/stats.json", lambda v: v.pop("action"))
    (root / "README.md").unlink()
    result = run(root, "--fix", "--to", tmp_path / "new")
    assert result.returncode == 0, result.stderr
    assert f"mended into {tmp_path / 'new'}:" in result.stdout
    assert "meta/stats.json computed anew" in result.stdout
    assert "CARD-002" in result.stdout.split("not mended:")[1]
    again = run(root, "--fix", "--to", tmp_path / "new")
    assert again.returncode == 1
    assert "already exists" in again.stderr and "Traceback" not in again.stderr


def test_wrong_use_is_status_2(run, healthy, tmp_path):
    assert run(tmp_path / "nowhere").returncode == 2
    assert run(healthy, "--fix").returncode == 2
    assert run(healthy, "--to", tmp_path / "x").returncode == 2
    assert run(healthy, "--horizon", "0").returncode == 2
    assert run().returncode == 2


def test_remedies_name_the_folder_and_the_episodes(run, healthy, tmp_path):
    episodes = healthy_episodes()
    episodes[2]["img"][3] = 0
    root = as_others_write(write_episodes(tmp_path / "ds", episodes))
    result = run(root)
    assert f"dp-hub edit {root} --delete 2 --to NEW" in result.stdout
