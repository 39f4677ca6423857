"""The commands that README.md and the demo show exist, with the options they are given."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import click
import pytest
import typer

from dp_hub.cli.main import app
from dp_hub.config import build, read_yaml
from dp_hub.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))]


def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", ROOT / "recipes" / "demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown_commands() -> list[str]:
    blocks = re.findall(r"^```\w*\n(.*?)^```", "\n".join(PAGES), flags=re.DOTALL | re.MULTILINE)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line] + [command for _, command, _ in demo().steps()]


def check_options(words: list[str]) -> None:
    """Follow the words into the command and see that each --option is one of its own."""
    command: object = typer.main.get_command(app)
    while hasattr(command, "commands") and not words[0].startswith("--"):
        two = " ".join(words[:2])  # `convert checkpoint` stands beside `convert FORMAT`
        name = two if two in command.commands else words[0]
        assert name in command.commands, f"no command {name}"
        command, words = command.commands[name], words[len(name.split()) :]
    assert isinstance(command, click.Command) or hasattr(command, "params")
    known = {flag for param in command.params for flag in [*param.opts, *param.secondary_opts]}
    for word in words:
        if word.startswith("--") and word != "--help":
            assert word in known, f"{command.name} has no option {word}"


def test_every_dp_hub_command_shown_exists_with_its_options() -> None:
    commands = [command for command in shown_commands() if command.startswith("dp-hub ")]
    assert len(commands) >= 10
    for command in commands:
        words = shlex.split(command)[1:]
        if words != ["--help"]:
            check_options(words)


def test_every_training_command_shown_names_a_configuration_that_builds() -> None:
    commands = [command for command in shown_commands() if "recipes/train.py" in command]
    commands = [
        command for command in commands if "CONFIG.yaml" not in command and "..." not in command
    ]
    assert len(commands) >= 4
    for command in commands:
        path = re.search(r"recipes/configs/\w+\.yaml", command)
        assert path is not None, command
        build(TrainConfig, read_yaml(ROOT / path.group()), where=path.group())


def test_every_configuration_builds_and_begins_with_its_command() -> None:
    paths = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))
    assert len(paths) >= 4
    for path in paths:
        build(TrainConfig, read_yaml(path), where=path.name)
        assert f"recipes/configs/{path.name}" in path.read_text().splitlines()[0]


@pytest.mark.parametrize("target", ["demo", "test"])
def test_readme_shows_the_make_commands_that_exist(target: str) -> None:
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_files_that_readme_links_to_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(links) >= 4
    for link in links:
        assert (ROOT / link).exists(), link
