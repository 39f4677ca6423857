"""Numbers go into a person's YAML file, and nothing else of it changes."""

import os
from pathlib import Path

import pytest
import yaml

from dp_hub.errors import ConfigError
from dp_hub.robot.config import bundled_robots, find_robot, load_robot
from dp_hub.robot.latency.writing import as_lines, edited, number, write

ACTION = ("arms", "arm", "action_latency_s")
STATE = ("arms", "arm", "state_latency_s")
INFERENCE = ("inference", "latency_s")

OWN = """\
# Mine. action_latency_s: 9 is what it was.
robot_type: ur5
fps: 10
arms:
  arm:  # the left one
    device: ur
    options: {host: 192.168.0.10}
    limits:
      low: [0.25, -0.45, 0.10]  # m
      high: [0.77, 0.40, 0.40]
    action_latency_s: 0.1   # guessed
cameras:
  front:
    device: realsense
  wrist: {device: realsense, options: {serial: "7"}}  # on the tool
observations:
  observation.state: arm.pose
action: [arm]

# The end.
"""


def test_a_number_is_put_where_it_stands_and_its_comment_stays() -> None:
    assert edited(OWN, {ACTION: 0.0834}, where="f") == OWN.replace(
        "action_latency_s: 0.1   # guessed", "action_latency_s: 0.0834   # guessed"
    )


def test_a_new_number_is_a_line_beside_its_neighbours() -> None:
    new = edited(OWN, {STATE: 0.05, ("cameras", "front", "latency_s"): 0.12}, where="f")
    assert new == OWN.replace("# guessed\n", "# guessed\n    state_latency_s: 0.05\n").replace(
        "    device: realsense\n", "    device: realsense\n    latency_s: 0.12\n"
    )


def test_a_new_number_goes_into_braces_where_a_device_is_written_so() -> None:
    new = edited(OWN, {("cameras", "wrist", "latency_s"): 0.033}, where="f")
    old = 'options: {serial: "7"}}  # on the tool'
    assert new == OWN.replace(old, 'options: {serial: "7"}, latency_s: 0.033}  # on the tool')


def test_a_section_that_is_not_there_is_made() -> None:
    new = edited(OWN, {INFERENCE: 0.1}, where="f")
    assert new == OWN.replace("action: [arm]\n", "action: [arm]\ninference: {latency_s: 0.1}\n")
    assert edited("a: 1", {INFERENCE: 0.1}, where="f") == "a: 1\ninference: {latency_s: 0.1}\n"
    empty = edited("a: 1\ninference: {}\n", {INFERENCE: 0.1}, where="f")
    assert empty == "a: 1\ninference: {latency_s: 0.1}\n"


def test_all_of_it_can_be_one_line_of_braces() -> None:
    text = "{a: {b: 1,\n # c\n}, inference: {latency_s: 1}}"
    new = edited(text, {INFERENCE: 0.1, ("a", "d"): 2.0}, where="f")
    assert new == "{a: {b: 1, d: 2.0,\n # c\n}, inference: {latency_s: 0.1}}"


@pytest.mark.parametrize(
    "text",
    [
        "a: &it {b: 1}\nc: *it\n",
        "a:\n  b: &it {d: 1}\n  c: *it\n",
        "a: 5\n",
        "a:\n  - b: 1\n",
        "a:\n  d:\n",
        "a:\n  b:\n    e: 1\n",
        "--- {a: {b: 1}}\n--- {a: {b: 1}}\n",
    ],
)
def test_a_form_that_cannot_be_changed_safely_is_refused_with_the_lines(text: str) -> None:
    with pytest.raises(ConfigError, match="not changed by itself") as error:
        edited(text, {("a", "d"): 0.25}, where="robot.yaml")
    assert error.value.hint == "put this into it:\na:\n  d: 0.25"


def test_ends_of_lines_stay_as_they_are() -> None:
    new = edited(OWN.replace("\n", "\r\n"), {STATE: 0.05, ACTION: 0.2}, where="f")
    assert new.count("\n") == new.count("\r\n") == OWN.count("\n") + 1


def test_every_bundled_robot_can_be_changed() -> None:
    names = bundled_robots()
    assert {"pusht", "ur5"} <= set(names)
    for name in names:
        text, config = find_robot(name).read_text(), load_robot(name)
        values = {("cameras", camera, "latency_s"): 0.1234 for camera in config.cameras}
        values |= {("arms", arm, "action_latency_s"): 0.2 for arm in config.arms}
        new = yaml.safe_load(edited(text, {**values, INFERENCE: 0.3}, where=name))
        assert all(new["cameras"][camera]["latency_s"] == 0.1234 for camera in config.cameras)
        assert all(new["arms"][arm]["action_latency_s"] == 0.2 for arm in config.arms)
        assert new["inference"]["latency_s"] == 0.3


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.0"), (2.0, "2.0"), (0.08341, "0.0834"), (1e-7, "0.0")]
)
def test_numbers_are_short_and_read_as_numbers(value: float, text: str) -> None:
    assert number(value) == text
    assert isinstance(yaml.safe_load(text), float)


def test_file_is_replaced_with_its_old_form_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(OWN)
    file.chmod(0o600)
    assert write(file, {ACTION: 0.2}) == (file, tmp_path / "robot.yaml.bak")
    assert write(file, {ACTION: 0.3}) == (file, tmp_path / "robot.yaml.bak2")
    assert (tmp_path / "robot.yaml.bak").read_text() == OWN
    assert "action_latency_s: 0.2 " in (tmp_path / "robot.yaml.bak2").read_text()
    assert "action_latency_s: 0.3 " in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 3


def test_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "robot.yaml", tmp_path / "robot.yaml"
    real.write_text(OWN)
    os.symlink(real, link)
    write(link, {ACTION: 0.2})
    assert link.is_symlink() and "action_latency_s: 0.2 " in real.read_text()


def test_copy_leaves_the_original_alone_and_nothing_is_overwritten(tmp_path: Path) -> None:
    file, copy = tmp_path / "robot.yaml", tmp_path / "mine.yaml"
    file.write_text(OWN)
    assert write(file, {ACTION: 0.2}, to=copy) == (copy, None)
    assert file.read_text() == OWN and "action_latency_s: 0.2 " in copy.read_text()
    with pytest.raises(ConfigError, match="already exists"):
        write(file, {ACTION: 0.3}, to=copy)


def test_refusal_leaves_the_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text("a: &it {b: 1}\nc: *it\n")
    with pytest.raises(ConfigError, match="anchors"):
        write(file, {("a", "b"): 0.2})
    assert [file] == list(tmp_path.iterdir())
    file.write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        write(file, {("a", "b"): 0.2})


def test_lines_to_add_by_hand_are_yaml() -> None:
    lines = as_lines({ACTION: 0.08, INFERENCE: 0.1})
    assert yaml.safe_load(lines) == {
        "arms": {"arm": {"action_latency_s": 0.08}}, "inference": {"latency_s": 0.1},
    }  # fmt: skip
