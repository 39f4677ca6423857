"""``dp-hub latency`` as it is typed."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from dp_hub.cli.latency import _tell
from dp_hub.robot.config import find_robot, load_robot
from dp_hub.robot.latency.measuring import Planned
from dp_hub.robot.latency.paths import Reach, steps, sweep

pytestmark = pytest.mark.alone  # against the wall clock


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from dp_hub.cli.main import main; main()", "latency", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)


def test_measured_latencies_go_into_the_file_and_its_comments_stay(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    # A busy machine may let nobody beat for a while.
    file.write_text(find_robot("pusht").read_text() + "hold_after_s: 5  # patient\n")
    before = file.read_text()
    words = ("--moves", "4", "--sweep-s", "4", "--amplitude", "40", "--write", "--json")
    result = run("--robot", "mine.yaml", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["robot"] == "pusht" and told["dead_time"]["moves"] == 4
    assert "arm moves along x between" in result.stderr and "mine.yaml.bak" in result.stderr
    kept = [line for line in before.splitlines() if "camera" not in line and "top: {" not in line]
    assert set(kept) <= set(file.read_text().splitlines())
    written = load_robot(file)
    measured = {one["key"]: one["measured"] for one in told["latencies"]}
    assert written.arms["arm"].action_latency_s == measured["arms.arm.action_latency_s"]
    assert (tmp_path / "mine.yaml.bak").read_text() == before


def test_bundled_robot_is_not_changed_but_copied(tmp_path: Path) -> None:
    refused = run("--robot", "pusht", "--write", cwd=tmp_path)
    assert refused.returncode == 1
    assert "comes with dp_hub" in refused.stderr and "--to my_pusht.yaml" in refused.stderr
    (tmp_path / "there.yaml").write_text("mine")
    there = run("--robot", "pusht", "--to", "there.yaml", cwd=tmp_path)
    assert there.returncode == 1 and "already exists" in there.stderr
    both = run("--robot", "pusht", "--write", "--to", "a.yaml", cwd=tmp_path)
    assert both.returncode == 1 and "choose one" in both.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]


def test_nothing_moves_with_still_and_tables_go_to_stdout(tmp_path: Path) -> None:
    result = run("--robot", "pusht", "--still", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "how streams come" in result.stdout and "moves along" not in result.stderr
    assert "configuration should say" not in result.stdout


def planned() -> Planned:
    how = Reach(0, 0.006)
    return Planned("arm", how, "x", "m", 0.4, 0.406, 20.0, steps(how, 4), sweep(how))


def test_real_robot_asks_before_it_moves(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    config = load_robot("ur5")
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO())
        with pytest.raises(typer.Abort):
            _tell(config, planned(), yes=False)
    _tell(config, planned(), yes=True)
    _tell(load_robot("pusht"), planned(), yes=False)
    told = capsys.readouterr()
    assert told.err.count("arm moves along x between 0.4 and 0.406 m for 20 s") == 3
    assert told.err.count("Is the way free") == 1 and told.out.strip() == ""
