"""Strict typed configurations from YAML or JSON and ``--key.sub value`` overrides."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from dp_hub.errors import ConfigError


class Config(BaseModel):
    """Base of all configurations: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


C = TypeVar("C", bound=Config)


def build(kind: type[C], values: Mapping[str, Any], *, where: str) -> C:
    """A ``kind`` from plain values.

    Args:
        kind: the configuration class.
        values: nested plain values, as read from YAML or JSON.
        where: the file they came from, for the messages.
    Raises:
        ConfigError: an unknown key (with the nearest known one) or a value that does not fit.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _explain(error, kind, values, where) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: it is missing, not valid, not a mapping, or a key stands in it twice.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _OnceEach)
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path} is not valid YAML: {error.problem}{place}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"{path} is not valid YAML: {first}") from None
    if values is None:
        raise ConfigError(f"{path} is empty")
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}, not a mapping of settings")
    return values


class _OnceEach(yaml.SafeLoader):
    """Refuses what YAML forbids and the library lets pass: of equal keys the last would win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key.value, str):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"`{key.value}` stands there twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ConfigError if it is missing or not an object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no file at {path}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}, not an object of settings")
    return values


def with_overrides(values: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """``values`` with ``--key.sub value`` (or ``--key.sub=value``) command-line overrides applied.

    Each value is read as YAML, so ``--policy.down_dims '[64, 128]'`` is a list of numbers.

    Raises:
        ConfigError: a stray word, a flag without its value, or a value that is not YAML.
    """
    result: dict[str, Any] = _copy(values)
    for flag, text in _flags(arguments):
        *parents, last = flag.split(".")
        node = result
        for name in parents:
            child = node.get(name)
            node[name] = child if isinstance(child, dict) else {}
            node = node[name]
        node[last] = _value(flag, text)
    return result


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    words = iter(arguments)
    for word in words:
        if not word.startswith("--"):
            raise ConfigError(
                f"stray word {word!r} on the command line",
                hint="settings are given as --key.sub value",
            )
        flag, equals, text = word[2:].partition("=")
        if not equals:
            try:
                text = next(words)
            except StopIteration:
                raise ConfigError(f"--{flag} has no value after it") from None
        yield flag, text


def _value(flag: str, text: str) -> Any:
    try:
        return _number(yaml.safe_load(text))
    except yaml.YAMLError as error:
        problem = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise ConfigError(
            f"--{flag} {text} is not valid YAML: {problem}",
            hint="text with [ ] { } : or # in it stands in quotes inside a list: "
            "\"['observation.state[:2]']\"",
        ) from None


def _number(value: Any) -> Any:
    # YAML 1.1 reads 1e-4 (without a point) as text; people mean a number.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(child) for key, child in value.items()}
    return list(value) if isinstance(value, list) else value


def _explain(
    error: ValidationError, kind: type[BaseModel], values: Mapping[str, Any], where: str
) -> ConfigError:
    first, *others = error.errors()
    if first["type"] == "missing":  # perhaps it is there, with a slip in its name
        first = next((one for one in others if one["type"] == "extra_forbidden"), first)
    key = _path(first["loc"], values)
    if first["type"] == "extra_forbidden":
        known = _known_keys(kind)
        return ConfigError(
            f"unknown key `{key}` in {where}", hint=_hint(str(first["loc"][-1]), known)
        )
    if first["type"] == "missing":
        return ConfigError(f"`{key}` is missing from {where}")
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "union_tag_invalid":
        tag, known = first["ctx"]["tag"], first["ctx"]["expected_tags"]
        return ConfigError(f"`{key}.kind` in {where} is {tag!r}: Input should be one of {known}")
    if first["input"] is None or isinstance(first["input"], dict):  # would bury the reason
        return ConfigError(f"`{key}` in {where}: {reason}" if key else f"{where}: {reason}")
    return ConfigError(f"`{key}` in {where} is {first['input']!r}: {reason}")


def _hint(name: str, known: set[str]) -> str:
    if name in known:
        return f"`{name}` belongs elsewhere, or to another `kind`"
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(sorted(known))}"


def _path(loc: Sequence[str | int], values: Any) -> str:
    """The key as the user wrote it: pydantic adds the chosen kind of a union on the way.

    Where one entry stood in the place of a list, or a text in that of a section, the place is its.
    """
    text = ""
    for number, part in enumerate(loc, 1):
        if isinstance(values, list | tuple) and isinstance(part, int):
            text += f"[{part}]"
            values = values[part] if part < len(values) else None
        elif isinstance(values, Mapping) and (part in values or number == len(loc)):
            text += f".{part}"
            values = values.get(part)
    return text.removeprefix(".")


def _known_keys(kind: type[BaseModel]) -> set[str]:
    known: set[str] = set()
    for name, field in kind.model_fields.items():
        known.add(field.alias or name)
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                known |= _known_keys(part)
    return known
