"""The mapping file: what it may say, and what is told of what it may not."""

import re
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from made_recordings import mapping

from dp_hub.errors import ConfigError
from dp_hub.replay.mapping.config import MappingConfig, load_mapping

FULL = """
    fps: 30
    source_fps: 15
    task: {stream: /task}
    robot_type: so101
    options: {image_encoding: bgr}
    episodes: {split: change, stream: "/stage[0]", ignore: [0], min_s: 0.5}
    on_gap: reject
    keep_times: true
    features:
      observation.state:
        from: ["/joints.position[0:6]", {stream: /gripper, at: "[0]", scale: 0.01, invert: true}]
        degrees: to_rad
        method: linear
        latency_s: 0.02
        max_gap_s: 0.1
      pose: {from: "/pose[3:7]", rotation: {from: quat_xyzw, to: rot6d}}
      action: {next: ["observation.state[0:6]", pose], drop_last: true}
      again: {from: /target, shift: 1, dtype: float32, names: [a, b]}
      observation.images.front:
        from: /cam
        colour: bgr
        rotate: 180
        flip: vertical
        crop: [0, 10, 240, 300]
        resize: [120, 150]
"""


def test_everything_the_file_may_say_is_read(tmp_path: Path) -> None:
    read = mapping(tmp_path, FULL)
    assert read.streams() == {"/joints.position", "/gripper", "/pose", "/target", "/cam", "/stage",
                              "/task"}  # fmt: skip
    joints, gripper = read.features["observation.state"].parts()
    assert (joints.stream, joints.at, joints.degrees) == ("/joints.position", "[0:6]", "to_rad")
    assert (gripper.scale, gripper.latency_s, gripper.max_gap_s) == (0.01, 0.02, 0.1)
    front = read.features["observation.images.front"]
    assert (front.crop, front.resize, front.rotate) == ((0, 10, 240, 300), (120, 150), 180)


def test_what_is_dumped_can_be_read_again(tmp_path: Path) -> None:
    read = mapping(tmp_path, FULL)
    assert MappingConfig.model_validate(read.model_dump(mode="json")) == read
    assert MappingConfig.model_validate(read.model_dump(exclude_unset=True)) == read
    assert "terms" not in str(read.model_dump())


def test_what_a_term_says_itself_comes_before_what_is_said_for_all(tmp_path: Path) -> None:
    text = "features: {s: {from: [{stream: /a, latency_s: 0.5}, /b], latency_s: 0.1}}"
    first, second = mapping(tmp_path, text).features["s"].parts()
    assert (first.latency_s, second.latency_s) == (0.5, 0.1)


def test_a_plain_text_or_list_is_a_feature(tmp_path: Path) -> None:
    read = mapping(tmp_path, "features: {a: /x, b: [/x, '/y[1]'], c: {from: {stream: /z}}}")
    assert [len(f.parts()) for f in read.features.values()] == [1, 2, 1]
    assert read.streams() == {"/x", "/y", "/z"}


WRONG = {
    "features: {action: {from: [/a, '/b[0:x]']}}": (
        "`features.action.from[1]` in m.yaml is '/b[0:x]': `[0:x]` is not understood", None),
    "features: {action: {from: '/b[0:'}}": (
        "`features.action.from` in m.yaml is '/b[0:': what is taken of a value is", None),
    "features: {action: {from: [{stream: /b, at: '3'}]}}": (
        "`features.action.from[0].at` in m.yaml is '3': what is taken of a value is", None),
    "features: {action: {from: {stream: '/b[3]', scale: 2}}}": (
        "`features.action.from.stream` in m.yaml is '/b[3]': beside other settings it is "
        'stream: /b, at: "[3]"', None),
    "features: {action: {fro: /a}}": ("unknown key `features.action.fro`", "did you mean `from`?"),
    "features: {s: {from: [/a, {stream: /a, scael: 2}]}}": (
        "unknown key `features.s.from[1].scael`", "did you mean `scale`?"),
    "feature: {a: /a}": ("unknown key `feature`", "did you mean `features`?"),
    "fps: 30": ("`features` is missing", None),
    "fps: fast\nfeatures: {a: /a}": ("`fps` in m.yaml is 'fast'", None),
    "fps: 0\nfeatures: {a: /a}": ("`fps` in m.yaml is 0", None),
    "fps: .inf\nfeatures: {a: /a}": ("`fps` in m.yaml is inf", None),
    "features: {}": ("`features` in m.yaml: ", None),
    "features: {a/b: /a}": ("`features` in m.yaml: 'a/b' is no feature name", None),
    "features: {a: {scale: 2}}": ("`features.a` in m.yaml: it needs either `from`", None),
    "features: {a: {from: /a, next: b}}": ("`features.a` in m.yaml: it needs either", None),
    "features: {a: /a, action: {next: aa}}": (
        "m.yaml: `features.action.next` names 'aa', which is no feature; did you mean `a`?", None),
    "features: {a: {next: b}, b: {next: a}}": ("m.yaml: `features.a.next` is 'b', which is", None),
    "features: {a: /a, b: {next: a, scale: 2}}": (
        "`features.b` in m.yaml: `next` takes values as the other feature has them: no `scale`",
        None),
    "features: {a: {from: /a, drop_last: true}}": ("`features.a` in m.yaml: `drop_last`", None),
    "features: {a: {from: /a, method: slerp}}": ("`features.a` in m.yaml: slerp turns", None),
    "features: {a: {from: /a, rotation: {from: quat, to: rot6d}}}": (
        "`features.a.rotation.from` in m.yaml is 'quat': rotations are not written as", None),
    "features: {action: {from: /a, method: linear}}": ("m.yaml: `features.action` is linear", None),
    "features: {action: {from: [{stream: /a, method: nearest}]}}": (
        "m.yaml: `features.action` is nearest: that looks at values from after", None),
    "features: {a: {from: /a, crop: [-1, 0, 5, 5]}}": ("`features.a.crop` in m.yaml is", None),
    "features: {a: {from: /a, crop: [1, 0, 5]}}": ("`features.a.crop[3]` is missing", None),
    "features: {a: {from: /a, resize: [0, 5]}}": ("`features.a.resize[0]` in m.yaml is 0", None),
    "features: {a: {from: /a, rotate: 45}}": ("`features.a.rotate` in m.yaml is 45", None),
    "features: {a: {from: /a, method: cubic}}": ("`features.a.method` in m.yaml is 'cubic'", None),
    "features: {a: {from: {at: '[0]'}}}": ("`features.a.from.stream` is missing", None),
    "episodes: {split: flag}\nfeatures: {a: /a}": (
        "`episodes` in m.yaml: split: flag needs `stream`", None),
    "episodes: {split: gap, value: 3}\nfeatures: {a: /a}": (
        "`episodes` in m.yaml: split: gap has no use for `value`", None),
    "episodes: {gap_s: 3}\nfeatures: {a: /a}": (
        "`episodes` in m.yaml: split: recording has no use for `gap_s`", None),
    "features: {a: /a}\nfeatures: {b: /b}": (
        "m.yaml is not valid YAML: `features` stands there twice in line 2", None),
    "features: {a: /a, a: /b}": ("m.yaml is not valid YAML: `a` stands there twice in line 1",
                                 None),
    "features: [1": ("m.yaml is not valid YAML: ", None),
    "when: 2001-99-99": ("m.yaml is not valid YAML: ", None),
    "[" * 1200: ("m.yaml is not valid YAML: ", None),
    "\x00": ("m.yaml is not valid YAML: ", None),
    "- 1": ("m.yaml holds a list, not a mapping of settings", None),
    "keep_times: true\nfeatures: {a: /a, times.a: /b}": (
        "m.yaml: `features.times.a` takes the place of a time", None),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_wrong_mappings_are_one_sentence_with_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_mapping("m.yaml")
    message, hint = WRONG[text]
    assert caught.value.message.startswith(message)
    assert "\n" not in caught.value.message
    if hint:
        assert caught.value.hint == hint


def test_two_hundred_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    rng, whole = np.random.default_rng(0), dedent(FULL).encode()
    read = refused = 0
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            start, size = int(rng.integers(len(data))), int(rng.integers(1, 30))
            match rng.integers(4):
                case 0:
                    data[start] = rng.integers(256)
                case 1:
                    del data[start:]
                case 2:
                    data[start : start + size] = data[:size]
                case 3:
                    del data[start : start + size]
            data = data or bytearray(b"x")
        (tmp_path / "m.yaml").write_bytes(data)
        try:
            load_mapping(tmp_path / "m.yaml").streams()
            read += 1
        except ConfigError as error:
            assert "\n" not in error.message
            refused += 1
    assert read + refused == 200 and refused > 100 and read > 5


def test_mappings_shown_in_the_documentation_can_be_read(tmp_path: Path) -> None:
    pages = (Path(__file__).resolve().parents[2] / "docs").glob("*.md")
    blocks = [b for page in pages for b in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S)]
    mappings = [block for block in blocks if "\nfeatures:" in f"\n{block}"]
    assert len(mappings) >= 1
    for text in mappings:
        assert mapping(tmp_path, text).streams()


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file at"):
        load_mapping(tmp_path / "none.yaml")
