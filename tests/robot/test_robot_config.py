"""A robot's file: what is refused, in which words, and before anything is switched on."""

import copy
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import yaml
from session_help import real_robot, robot_of
from typer.testing import CliRunner

from dp_hub.cli.main import app
from dp_hub.config import build
from dp_hub.errors import ConfigError
from dp_hub.robot.config import RobotConfig, bundled_robots, find_robot, load_robot
from dp_hub.robot.session.session import Session

FULL = {"low": [0, 0, 0], "high": [1, 1, 1], "speed": 0.2, "acceleration": 1.0, "step": 0.1}
FULL_TURN = {"rotation_speed": 0.5, "rotation_acceleration": 2.0}


def pusht(**changes: Any) -> dict[str, Any]:
    return yaml.safe_load(find_robot("pusht").read_text()) | changes


def written(folder: Path, values: dict[str, Any]) -> str:
    file = folder / "my_robot.yaml"
    file.write_text(yaml.safe_dump(values))
    return str(file)


def test_every_bundled_robot_loads() -> None:
    names = bundled_robots()
    assert names == ["mujoco_arm", "pusht", "ur5"]
    for name in names:
        config = load_robot(name)
        assert config.action == ["arm"] and config.teleop is not None
        assert config.is_simulated == (name != "ur5")


def test_a_robot_is_loaded_by_name_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, pusht(task="Push it."))
    assert load_robot(path).task == "Push it."
    assert load_robot(Path(path)) == load_robot(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pusht").mkdir()  # such as a folder of data
    assert load_robot("pusht") == build(RobotConfig, pusht(), where="pusht")
    with pytest.raises(ConfigError, match="there is no robot 'push'") as refused:
        load_robot("push")
    assert "did you mean `pusht`?" in str(refused.value)
    assert "mujoco_arm" in str(refused.value) and "ur5" in str(refused.value)
    with pytest.raises(ConfigError, match=r"no configuration file at gone\.yaml"):
        load_robot("gone.yaml")


@pytest.mark.parametrize(
    ("changes", "says", "hints"),
    [
        ({"fsp": 10}, "unknown key `fsp`", "did you mean `fps`"),
        ({"fps": 0}, "`fps`", "greater than 0"),
        ({"action": ["amr"]}, "action: no device of that kind is called 'amr'", "mean arm?"),
        ({"action": []}, "`action`", "at least 1"),
        ({"action": ["arm", "arm"]}, "arm stands there twice", ""),
        ({"observations": {}}, "`observations`", "at least 1"),
        ({"observations": {"action": "arm.state"}}, "'action' is the name", ""),
        ({"observations": {"observation.s": "hand.state"}}, "called 'hand'", "there is arm"),
        ({"observations": {"observation.i": {"camera": "front"}}}, "called 'front'", "top"),
        ({"teleop": {"device": "keyboard", "moves": "leg"}}, "teleop.moves", "there is arm"),
        ({"teleop": {"device": "keyboard", "gripper": "arm"}}, "teleop.gripper", "none"),
        ({"grippers": {"arm": {"device": "sim_arm"}}}, "two devices are called arm", ""),
        ({"cameras": {"world": {"device": "sim_pusht"}}}, "cannot be called world", ""),
        ({"cameras": {"arm_sent": {"device": "sim_pusht"}}}, "cannot be called arm_sent", ""),
        ({"cameras": {"top cam": {"device": "sim_pusht"}}}, "top cam", "pattern"),
        ({"inference": {"late": "never"}}, "`inference.late`", "extend"),
        ({"inference": {"lat": "hold"}}, "unknown key `inference.lat`", "late"),
        ({"arms": {"arm": {"device": "sim_pusht", "limits": {"sped": 1}}}}, "sped", "speed"),
        ({"arms": {"arm": {"device": "sim_pusht", "rate_hz": 5000}}}, "rate_hz", "1000"),
        ({"hold_after_s": float("inf")}, "hold_after_s", "finite"),
    ],
)
def test_what_does_not_fit_is_a_sentence(changes: dict[str, Any], says: str, hints: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(RobotConfig, pusht(**changes), where="my_robot.yaml")
    text = str(refused.value)
    assert says in text and hints in text and "my_robot.yaml" in text


def test_the_digest_follows_the_content_and_nothing_else(tmp_path: Path) -> None:
    config = build(RobotConfig, pusht(), where="a")
    reordered = dict(reversed(list(pusht().items())))
    assert build(RobotConfig, reordered, where="b").digest() == config.digest()
    assert load_robot(written(tmp_path, pusht())).digest() == config.digest()
    changed = copy.deepcopy(pusht())
    changed["arms"]["arm"]["limits"]["high"] = [512, 500]
    digests = {config.digest(), build(RobotConfig, changed, where="c").digest()}
    digests.add(build(RobotConfig, pusht(fps=20), where="d").digest())
    assert len(digests) == 3 and all(len(one) == 16 for one in digests)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({}, "low, high, speed, acceleration, step, rotation_speed, rotation_acceleration"),
        (FULL, "rotation_speed, rotation_acceleration"),
        ({**FULL_TURN, "speed": 0.2, "acceleration": 1, "step": 0.1}, "low, high"),
        ({**FULL, **FULL_TURN, "low": [0, 0]}, "`arms.arm.limits.low` has 2 numbers"),
        ({**FULL, **FULL_TURN, "low": [2, 0, 0]}, "is not below `arms.arm.limits.high` for x"),
        ({**FULL, **FULL_TURN, "speed": -1}, "must be more than 0"),
    ],
)
def test_a_real_robot_without_limits_is_refused_before_it_is_touched(
    limits: dict[str, Any], says: str
) -> None:
    config = build(RobotConfig, real_robot(**limits), where="ur")
    with pytest.raises(ConfigError) as refused, Session(config):
        pass
    assert says in str(refused.value) and "arms.arm" in str(refused.value)
    assert multiprocessing.active_children() == []


def test_one_of_two_arms_without_limits_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    values = real_robot(**FULL, **FULL_TURN)
    values["arms"]["other"] = {"device": "ur", "options": {"host": "127.0.0.1"}}
    config = build(RobotConfig, values, where="two")
    started: list[str] = []
    monkeypatch.setattr("dp_hub.robot.worker.Worker.start", lambda self: started.append(self.name))
    with pytest.raises(ConfigError, match=r"arms\.other has no limits"), Session(config):
        pass
    assert started == [], "the first arm was switched on"


def test_a_real_arm_does_not_hide_behind_a_simulated_world() -> None:
    values = real_robot() | {"world": {"device": "pusht"}}
    config = build(RobotConfig, values, where="mixed")
    with (
        pytest.raises(ConfigError, match=r"arms\.arm is a real device .* simulated `world`"),
        Session(config),
    ):
        pass


def test_limits_of_a_simulation_fit_its_space_too() -> None:
    arms = {"arm": {"device": "sim_pusht", "limits": {"low": [0, 0, 0], "high": [1, 1, 1]}}}
    with (
        pytest.raises(ConfigError, match=r"`arms\.arm\.limits\.low` has 3 numbers") as refused,
        Session(robot_of(arms=arms)),
    ):
        pass
    assert "it needs 2: x, y" in str(refused.value)


def test_devices_and_options_that_do_not_exist_are_named() -> None:
    for changes, says in (
        ({"arms": {"arm": {"device": "sim_push"}}}, "no arm called 'sim_push'"),
        ({"world": {"device": "push"}}, "no world called 'push'"),
        ({"world": {"device": "pusht", "options": {"image_pix": 96}}}, "image_pix"),
    ):
        with pytest.raises(ConfigError) as refused, Session(robot_of(**changes)):
            pass
        assert says in str(refused.value) and "did you mean" in str(refused.value)


def test_commands_refuse_a_real_robot_without_limits(tmp_path: Path, pusht_webp: Path) -> None:
    from inference_helpers import small_policy

    robot = written(tmp_path, real_robot() | {"observations": {"observation.state": "arm.pose"}})
    keys = tmp_path / "keys.txt"
    keys.write_text("0.1 q\n")
    policy = str(small_policy(tmp_path / "policy"))
    commands = [
        ["rollout", policy, "--device", "cpu", "--keys", str(keys)],
        ["record", "--to", str(tmp_path / "D"), "--keys", str(keys)],
        ["replay", str(pusht_webp), "--keys", str(keys)],
    ]
    if "latency" in {command.name for command in app.registered_commands}:
        commands.append(["latency"])
    for words in commands:
        result = CliRunner().invoke(app, [*words, "--robot", robot])
        assert isinstance(result.exception, ConfigError), (words, result.output, result.exception)
        assert "arms.arm has no limits for low, high" in str(result.exception)
    assert not (tmp_path / "D").exists()
