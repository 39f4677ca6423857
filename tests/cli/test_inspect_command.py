"""``dp-hub inspect`` as a person types it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dp_hub.replay.mapping.config import load_mapping

HELPER = Path(__file__).parents[1] / "dataset" / "made_format.py"


def dp_hub(*words, path=""):
    code = "from dp_hub.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    env = os.environ | {"PYTHONPATH": str(path)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("made_format_for_cli", HELPER)
    made_format = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made_format)
    folder = tmp_path_factory.mktemp("third")
    return folder, made_format.install(folder)


def test_streams_are_a_table_and_the_mapping_is_written_once(arms, tmp_path):
    folder, source = arms
    out = tmp_path / "m.yaml"
    done = dp_hub("inspect", source, "--mapping", out, path=folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.split()}
    assert lines["/joints.position"][1:6] == ["state", "float64", "3", "800", "100"]
    assert lines["/episode/active"][1:4] == ["event", "bool", "1"]
    assert "20 ms" in done.stdout and "2 recordings" in done.stdout
    assert 'not asked: lacks; pip install "third_party[special]"' in done.stdout
    assert f"--mapping {out} --to DIR" in done.stdout
    before = out.read_text()
    assert load_mapping(out).fps == 15
    again = dp_hub("inspect", source, "--mapping", out, path=folder)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith(f"error: {out} already exists\n\nhint: ")
    assert out.read_text() == before


def test_json_holds_everything(arms):
    folder, source = arms
    done = dp_hub("inspect", source, "--json", path=folder)
    found = json.loads(done.stdout)
    assert found["format_name"] == "arms" and len(found["streams"]) == 10
    assert found["streams"][0]["rate_hz"] == pytest.approx(100, rel=0.01)
    assert found["mapping"].startswith("# Proposed by dp-hub inspect")


WRONG = [
    (["none"], "there is nothing at none"),
    ([__file__], "format recognises"),
    ([__file__, "--format", "zar"], "there is no converter for 'zar'"),
    ([__file__, "--mapping", "/no/such/folder/m.yaml"], "there is no folder /no/such/folder"),
    ([__file__, "--option", "x"], "--option 'x' is not NAME=VALUE"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_what_is_wrong_is_a_sentence_without_traceback(words, message):
    done = dp_hub("inspect", *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_comes_next_has_the_same_options(arms):
    folder, source = arms
    done = dp_hub("inspect", source, "--format", "arms", "--drop", "/imu.values", path=folder)
    assert done.returncode == 0 and "/imu.values" not in done.stdout.partition("next:")[0]
    assert f"{source} --format arms --drop /imu.values --mapping mapping.yaml" in done.stdout
    wrong = dp_hub("inspect", source, "--format", "arms", "--drop", "/imu.value", path=folder)
    assert wrong.returncode == 1 and "did you mean `/imu.values`" in wrong.stderr


def test_an_empty_file_is_said_to_be_empty(tmp_path):
    (tmp_path / "a.mcap").write_bytes(b"")
    done = dp_hub("inspect", tmp_path / "a.mcap")
    assert done.returncode == 1 and "a.mcap is empty (0 bytes)" in done.stderr
