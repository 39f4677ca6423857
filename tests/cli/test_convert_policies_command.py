"""``dp-hub convert checkpoint`` and ``convert policy`` as they are used."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

CHECKPOINT = Path(__file__).parents[1] / "policies" / "foreign" / "data" / "real_omegaconf.ckpt"


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from dp_hub.cli.main import main; main()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_checkpoint_becomes_a_policy_becomes_lerobots_and_comes_back(tmp_path: Path) -> None:
    made = run("convert", "checkpoint", CHECKPOINT, "--to", tmp_path / "policy")
    assert made.returncode == 0, made.stderr
    assert "observation.environment_state, observation.state[:2]" in made.stdout
    assert f"next: dp-hub eval {tmp_path / 'policy'}" in made.stdout
    there = run(
        *("convert", "policy", tmp_path / "policy", "--to", tmp_path / "theirs"),
        *("--format", "lerobot"),
    )
    assert there.returncode == 0, there.stderr
    assert "note: LeRobot has no parts of features" in there.stdout
    back = run("convert", "policy", tmp_path / "theirs", "--to", tmp_path / "back")
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "back" / "model.safetensors").is_file()


def test_a_policy_that_went_to_lerobot_and_back_scores_the_same_and_says_what_it_sees(
    tmp_path: Path,
) -> None:
    run("convert", "checkpoint", CHECKPOINT, "--to", tmp_path / "policy")
    run("convert", "policy", tmp_path / "policy", "--to", tmp_path / "lr", "--format", "lerobot")
    run("convert", "policy", tmp_path / "lr", "--to", tmp_path / "back")
    scores = {}
    for name in ("policy", "back"):
        file = tmp_path / f"{name}.json"
        words = ("--episodes", 1, "--steps", 2, "--scheduler", "ddim", "--json", file)
        done = run("eval", tmp_path / name, *words)
        assert done.returncode == 0, done.stderr
        scores[name] = json.loads(file.read_text())
        told = "observes the first 2 numbers of observation.state: the agent's position"
        assert (told in done.stderr) == (name == "back")
        assert ("first 2 numbers" in done.stdout) == (name == "back")
    assert scores["back"]["config"]["only_first"] == {"observation.state": 2}
    assert scores["back"]["episodes"] == scores["policy"]["episodes"]


def test_names_can_be_given(tmp_path: Path) -> None:
    words = ("convert", "checkpoint", CHECKPOINT, "--to", tmp_path / "policy")
    made = run(*words, "--map", "obs=observation.all")
    assert "observes  observation.all, 2 steps" in made.stdout, made.stderr


class Attack:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


def test_code_in_a_checkpoint_is_one_sentence_and_does_not_run(tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    torch.save({"cfg": Attack(sentinel)}, tmp_path / "x.ckpt")  # noqa: TID251
    result = run("convert", "checkpoint", tmp_path / "x.ckpt", "--to", tmp_path / "policy")
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("error: refused to read") and "posix.system" in result.stderr
    assert "hint: " in result.stderr and "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.ckpt"]


def test_converting_recordings_is_as_before(tmp_path: Path) -> None:
    result = run("convert", "nothing", tmp_path, "--to", tmp_path / "d")
    assert result.returncode == 1 and "nothing" in result.stderr
    result = run("convert", "checkpoint")
    assert result.returncode == 2 and "X.ckpt" in result.stderr
