"""Unitree's episodes: data.json with a list of steps, pictures in colors/ beside it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dp_hub_converters.folders.found import UNITREE

from dp_hub.errors import DataError

_NUMBERS = ("states", "actions", "tactiles")
_PICTURES = ("colors", "depths")
_WRONG = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Steps:
    """What a data.json says.

    Args:
        columns: float64 ``(T, n)`` by name: ``states/left_arm/qpos``.
        pictures: a file for each step, by ``colors/color_0``.
        fps: steps per second, None if it does not say.
        task: what was to be done.
        facts: about the episode.
    """

    columns: Mapping[str, np.ndarray]
    pictures: Mapping[str, tuple[Path, ...]]
    fps: float | None
    task: str | None
    facts: Mapping[str, Any]


def read_steps(folder: Path) -> Steps | None:
    """The steps of an episode, None if the folder has no such data.json.

    Raises:
        DataError: it is damaged, or some of its steps lack what others have.
    """
    path = folder / UNITREE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        steps = content["data"]
        values = [dict(_flattened(step)) for step in steps]
        info, text = content.get("info") or {}, content.get("text") or {}
        rate = (info.get("image") or {}).get("fps")
        fps = float(rate) if rate else None
        goal = text.get("goal") or text.get("desc")
    except (OSError, *_WRONG) as error:
        raise DataError(
            f"{path} is not as Unitree's recorder writes it: {type(error).__name__} {error}",
            hint="copy it again",
        ) from None
    if not values:
        raise DataError(f"{path} has no steps")
    columns, pictures = dict[str, np.ndarray](), dict[str, tuple[Path, ...]]()
    for name in dict.fromkeys(name for step in values for name in step):
        entries = [step.get(name) for step in values]
        missing = next((place for place, entry in enumerate(entries) if entry is None), None)
        if missing is not None:
            raise DataError(
                f"{path}: step {missing} has no {name}, which others have",
                hint="steps cannot be told apart from pictures that were lost; leave it out",
            )
        if name.startswith(_PICTURES):
            pictures[name] = tuple(_file(folder, entry, name) for entry in entries)
        else:
            columns[name] = _array(entries, f"{name} in {path}")
    facts = {key: info[key] for key in ("version", "date", "author") if key in info}
    return Steps(columns, pictures, fps, str(goal) if goal else None, facts)


def _flattened(step: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for group in (*_NUMBERS, *_PICTURES):
        for part, content in (step.get(group) or {}).items():
            if isinstance(content, Mapping):
                yield from (
                    (f"{group}/{part}/{name}", values) for name, values in content.items() if values
                )
            elif content:
                yield f"{group}/{part}", content


def _array(entries: list[Any], where: str) -> np.ndarray:
    try:
        return np.array(entries, np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{where} is not the same number of numbers in every step") from None


def _file(folder: Path, name: Any, where: str) -> Path:
    if not isinstance(name, str) or ".." in Path(name).parts or Path(name).is_absolute():
        raise DataError(f"{folder / UNITREE}: {where} names no picture of the episode: {name!r}")
    return folder / name
