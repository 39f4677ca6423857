"""``dp-hub record --robot``, ``rollout`` and ``replay`` as a person calls them, in simulation."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from dp_hub.cli.main import app
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DpHubError
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.config import DiffusionConfig, FlowObjective, MlpConfig
from dp_hub.policies.diffusion import make_policy
from dp_hub.policies.saving import save_policy
from dp_hub.robot.config import find_robot

pytestmark = pytest.mark.alone  # against the wall clock

PROGRAM = [sys.executable, "-c", "from dp_hub.cli.main import main; main()"]
RAW = ["--raw", "none"]


def saved_policy(folder: Path, observes: str, width: int, action: int) -> Path:
    """An untrained policy of numbers between 50 and 450."""
    torch.manual_seed(0)
    config = DiffusionConfig(
        observations=[observes],
        denoiser=MlpConfig(width=16, depth=1, step_embed_dim=8),
        objective=FlowObjective(num_inference_steps=2),
    )
    rows = np.random.default_rng(0).uniform(50, 450, (40, max(width, action))).astype(np.float32)
    normalizer = Normalizer.fit({observes: rows[:, :width], "action": rows[:, :action]})
    policy = make_policy(config, {observes: width, "action": action}, normalizer=normalizer)
    return save_policy(policy, folder)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(saved_policy(tmp_path_factory.mktemp("p") / "state", "observation.state", 5, 2))


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> str:
    """PushT seen by its state, no camera to draw and no picture to encode; and patient."""
    values = yaml.safe_load(find_robot("pusht").read_text())
    values |= {"cameras": {}, "observations": {"observation.state": "arm.state"}, "episode_s": 2}
    values["hold_after_s"] = 10
    values["arms"]["arm"] |= {"max_age_s": 10, "options": {"silent_s": 10}}
    file = tmp_path_factory.mktemp("r") / "no_camera.yaml"
    file.write_text(yaml.safe_dump(values))
    return str(file)


@pytest.fixture(scope="module")
def recorded(robot: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of the demonstrator, without pictures."""
    to = tmp_path_factory.mktemp("d") / "D"
    called("record", "--robot", robot, "--to", str(to), "--by-itself", "--episodes", "1",
           "--seed", "4", "--episode-s", "4", *RAW)  # fmt: skip
    return to


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=180)


def called(*words: str) -> subprocess.CompletedProcess[str]:
    """What ends well."""
    ended = run(*words)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended


def refused(*words: str) -> str:
    """The sentence and the hint with which it is refused; checked to be one of ours."""
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, DpHubError), (result.output, result.exception)
    return str(result.exception)


def test_record_by_itself_makes_a_dataset_that_passes_the_doctor(tmp_path: Path) -> None:
    to = tmp_path / "D"
    ended = called("record", "--robot", "pusht", "--by-itself", "--episodes", "1", "--to", str(to),
                   "--episode-s", "5", "--no-view")  # fmt: skip
    assert f"{to}: 1 episode," in ended.stdout
    said = re.search(r"episode 0 \(seed 0\): time after ([0-9.]+) s", ended.stderr)
    assert said is not None and float(said[1]) >= 5
    dataset = open_dataset(to)
    assert dataset.fps == 10 and 10 <= dataset.n_frames <= math.ceil(10 * (float(said[1]) + 0.05))
    assert {"observation.image", "observation.state", "action", "stage"} <= set(dataset.features)
    facts = dict(dataset.episodes.metadata[0])
    assert facts["source"] == "teleoperation" and facts["seed"] == 0 and len(facts["robot"]) == 16
    assert "Push the T onto the goal." in str(dataset.episodes.tasks)
    checked = run("check", str(to))
    assert checked.returncode == 0, checked.stdout
    assert (tmp_path / "D.raw").is_dir()


def test_a_policy_rolls_out_and_tells_what_it_came_to(
    policy: str, robot: str, tmp_path: Path
) -> None:
    to, file = tmp_path / "R", tmp_path / "rollout.json"
    ended = called("rollout", policy, "--robot", robot, "--device", "cpu", "--episodes", "2",
                   "--record", str(to), "--json", str(file), *RAW)  # fmt: skip
    assert "pusht, 2 episodes" in ended.stdout and "mean max reward" in ended.stdout
    assert "answers" in ended.stderr and "c policy goes on" in ended.stderr
    values = json.loads(file.read_text())
    assert [one["seed"] for one in values["episodes"]] == [100000, 100001]
    assert {one["ended"] for one in values["episodes"]} == {"time"}
    assert values["policy"] == policy and values["counts"]["arm"]["plans"] >= 4
    assert values["driven"]["asked"] >= 4 and values["inference"]["late"] == "extend"
    facts = [dict(one) for one in open_dataset(to).episodes.metadata]
    assert [one["seed"] for one in facts] == [100000, 100001]
    assert all(one["policy"] == policy and one["ended"] == "time" for one in facts)
    assert not (tmp_path / "R.raw").exists()


def test_replay_carries_an_episode_out(recorded: Path, robot: str) -> None:
    ended = called("replay", str(recorded), "--robot", robot)
    assert f"episode 0 of {recorded}: carried out" in ended.stdout
    assert "reward" in ended.stdout and "esc emergency stop" in ended.stderr


def test_replay_can_be_stopped_by_a_key(recorded: Path, robot: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("0.3 esc  # at once\n")
    ended = run("replay", str(recorded), "--robot", robot, "--keys", str(keys))
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    assert "stopped on the way" in ended.stdout
    assert "every arm was stopped" in ended.stderr


def test_after_an_emergency_stop_all_is_saved_and_the_status_says_so(
    policy: str, robot: str, tmp_path: Path
) -> None:
    to, keys, file = tmp_path / "R", tmp_path / "keys", tmp_path / "rollout.json"
    keys.write_text("1.0 esc\n")
    words = ("--robot", robot, "--keys", str(keys), *RAW)
    shown = tmp_path / "D"
    ended = run("record", "--to", str(shown), "--by-itself", *words)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    assert "every arm was stopped" in ended.stderr and f"{shown}: 1 episode" in ended.stdout
    assert open_dataset(shown).n_episodes == 1
    ended = run("rollout", policy, *words, "--record", str(to), "--json", str(file))
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    assert f"{to}: 1 episode" in ended.stdout and f"wrote {file}" in ended.stderr
    assert [one["ended"] for one in json.loads(file.read_text())["episodes"]] == ["stopped"]


def test_ctrl_c_ends_a_rollout_quietly_and_keeps_what_was_recorded(
    policy: str, robot: str, tmp_path: Path
) -> None:
    to = tmp_path / "R"
    process = subprocess.Popen(
        [*PROGRAM, "rollout", policy, "--robot", robot, "--device", "cpu", "--episodes", "9",
         "--episode-s", "1.5", "--record", str(to), *RAW],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if "frames saved" in line:
            break
    time.sleep(0.5)  # within the next episode
    os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    text = "".join(told) + rest
    assert process.returncode == 130, text
    assert "Traceback" not in text and text.rstrip().endswith("interrupted")
    assert "episodes that were saved are kept" in text
    assert open_dataset(to).n_episodes >= 1
    assert run("finish", str(to)).returncode == 0
    checked = run("check", str(to))
    assert checked.returncode == 0, checked.stdout


def test_what_is_wrong_is_said_before_the_robot_is_on(
    policy: str, recorded: Path, tmp_path: Path
) -> None:
    rollout = ("rollout", policy, "--device", "cpu", "--robot")
    text = refused(*rollout, "pushed")
    assert "there is no robot 'pushed'" in text and "did you mean `pusht`?" in text
    assert "no policy is named" in refused("rollout", "--robot", "pusht")
    assert "two policies are named" in refused(*rollout, "pusht", "--server", "ws://127.0.0.1:1")
    assert "nowhere" in refused("rollout", str(tmp_path / "nowhere"), "--robot", "pusht")
    text = refused(*rollout, "pusht", "--late", "maybe")
    assert "`late`" in text and "extend" in text
    text = refused(*rollout, "pusht", "--overlay", str(recorded), "--no-view")
    assert "--overlay needs the live view" in text and "--view" in text
    text = refused(*rollout, "pusht", "--overlay", str(recorded), "--view")
    assert "no pictures" in text
    text = refused(*rollout, "pusht", "--json", "scores.txt")
    assert "does not end in .json" in text
    keys = tmp_path / "keys"
    assert "cannot be read as keys" in refused(*rollout, "pusht", "--keys", str(keys))
    keys.write_text("c at once\n")
    text = refused(*rollout, "pusht", "--keys", str(keys))
    assert "line 1 of" in text and "such as: 2.5 c" in text
    record = ("record", "--to", str(tmp_path / "D"), "--robot")
    assert "--by-itself is for simulations" in refused(*record, "ur5", "--by-itself")
    assert "standard input is no terminal" in refused(*record, "pusht", "--no-view")
    assert "has no episode 3" in refused("replay", str(recorded), "--episode", "3",
                                         "--robot", "pusht")  # fmt: skip
    assert not (tmp_path / "D").exists()


def test_a_policy_for_another_robot_is_refused(robot: str, tmp_path: Path) -> None:
    keys = saved_policy(tmp_path / "keys", "observation.environment_state", 18, 2)
    text = refused("rollout", str(keys), "--robot", robot, "--device", "cpu")
    assert "observes observation.environment_state (18 numbers)" in text
    assert "observation.state (5 numbers)" in text and "`observations`" in text
    wide = saved_policy(tmp_path / "wide", "observation.state", 5, 7)
    text = refused("rollout", str(wide), "--robot", robot, "--device", "cpu")
    assert "actions are 7 numbers; the robot takes 2: arm x, y" in text


def test_a_dataset_of_other_features_is_not_continued(recorded: Path, robot: str) -> None:
    values = yaml.safe_load(Path(robot).read_text())
    values["observations"] = {"observation.keypoints": "arm.keypoints"}
    other = Path(robot).with_name("other.yaml")
    other.write_text(yaml.safe_dump(values))
    before = open_dataset(recorded).n_episodes
    text = refused("record", "--robot", str(other), "--to", str(recorded), "--by-itself",
                   "--episodes", "1", *RAW)  # fmt: skip
    assert "observation.keypoints" in text or "observation.state" in text, text
    assert open_dataset(recorded).n_episodes == before


def test_help_is_read_by_someone_new() -> None:
    for words in (["rollout"], ["record"], ["replay"]):
        result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "100"})
        text = " ".join(result.output.split())
        assert "mujoco_arm" in text and "ur5" in text
        assert "Esc emergency stop" in text and "q quit" in text
        assert "SECONDS KEY" in text and "--dry-run" in text
