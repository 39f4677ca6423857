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


def test_value_of_the_wrong_type_shows_what_was_seen() -> None:
    with pytest.raises(ConfigError, match="'many'"):
        build(Outer, {"inner": {"n_action_steps": "many"}}, where="test")


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [1\n"])
def test_broken_yaml_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        read_yaml(path)


def test_key_inside_a_choice_of_kinds_is_named_as_it_was_written() -> None:
    values = {"policy": {"denoiser": {"kind": "mlp", "widht": 8}}, "steps": 1}
    with pytest.raises(ConfigError) as caught:
        build(TrainConfig, values | {"dataset": "d", "out_dir": "o"}, where="a.yaml")
    assert caught.value.message == "unknown key `policy.denoiser.widht` in a.yaml"
