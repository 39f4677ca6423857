"""Strict configurations: unknown keys, overrides, numbers as people write them."""

from pathlib import Path

import pytest

from dp_hub.config import Config, build, read_yaml, with_overrides
from dp_hub.errors import ConfigError
from dp_hub.training.config import TrainConfig


class Inner(Config):
    n_action_steps: int = 8


class Outer(Config):
    inner: Inner = Inner()
    lr: float = 1.0


def test_unknown_key_names_the_file_and_the_nearest_key() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, {"inner": {"n_action_step": 4}}, where="me/config.json")
    assert caught.value.message == "unknown key `inner.n_action_step` in me/config.json"
    assert caught.value.hint == "did you mean `n_action_steps`?"


def test_override_reaches_nested_keys_and_leaves_the_original_alone() -> None:
    values = {"inner": {"n_action_steps": 8}}
    changed = with_overrides(values, ["--inner.n_action_steps", "4", "--lr=1e-4"])
    assert build(Outer, changed, where="test") == Outer(inner=Inner(n_action_steps=4), lr=1e-4)
    assert values == {"inner": {"n_action_steps": 8}}


@pytest.mark.parametrize("arguments", [["stray"], ["--lr"]])
def test_malformed_override_is_explained(arguments: list[str]) -> None:
    with pytest.raises(ConfigError):
        with_overrides({}, arguments)


@pytest.mark.parametrize("text", ["[observation.state[:2]]", "@here", "{a: [1}"])
def test_override_that_is_not_yaml_names_the_flag_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--policy\.observations .* is not valid YAML") as caught:
        with_overrides({}, ["--policy.observations", text])
    assert "\n" not in caught.value.message
    assert "['observation.state[:2]']" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"denoiser": {"kind": "unett"}}, "`policy.denoiser.kind` in a.yaml is 'unett': "),
        ({"denoiser": {"kind": "mlp"}, "conditioning": "local"}, "`policy.denoiser` in a.yaml: "),
    ],
)
def test_a_section_that_does_not_fit_is_named_but_not_printed(policy, message) -> None:
    values = {"dataset": "d", "out_dir": "o", "steps": 1, "policy": policy}
    with pytest.raises(ConfigError) as caught:
        build(TrainConfig, values, where="a.yaml")
    assert caught.value.message.startswith(message)
    assert "{" not in caught.value.message


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"observations": ["action[:1]"]}, "cannot observe what it predicts"),
        ({"kind": "act", "observations": ["action"]}, "cannot observe what it predicts"),
        ({"n_obs_steps": 20}, "`policy.n_obs_steps` .* at most horizon = 16 can be observed"),
        ({"horizon": 4}, "`policy.n_action_steps` .* at most .* = 3 can be executed"),
    ],
)
def test_impossible_policies_are_refused_at_the_door(policy, message) -> None:
    values = {"dataset": "d", "out_dir": "o", "steps": 1, "policy": policy}
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, values, where="a.yaml")


def test_value_of_the_wrong_type_shows_what_was_seen() -> None:
    with pytest.raises(ConfigError, match="'many'"):
        build(Outer, {"inner": {"n_action_steps": "many"}}, where="test")


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [1\n"])
def test_broken_yaml_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        read_yaml(path)


def test_folder_in_place_of_a_configuration_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        read_yaml(tmp_path)


def test_key_inside_a_choice_of_kinds_is_named_as_it_was_written() -> None:
    values = {"policy": {"denoiser": {"kind": "mlp", "widht": 8}}, "steps": 1}
    with pytest.raises(ConfigError) as caught:
        build(TrainConfig, values | {"dataset": "d", "out_dir": "o"}, where="a.yaml")
    assert caught.value.message == "unknown key `policy.denoiser.widht` in a.yaml"
