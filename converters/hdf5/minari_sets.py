"""Minari datasets as folders: where they are, what metadata.json says, what a space looks like."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp_hub_converters.hdf5.damage import AGAIN
from dp_hub_converters.hdf5.found import Shown
from dp_hub_converters.shared.natural import natural
from dp_hub_converters.shared.unreadable import Unreadable

from dp_hub.errors import DataError

HDF5_NAME = "main_data.hdf5"
_META = "metadata.json"
_LONG = 4_000  # letters of one fact that are kept
_COUNTS = ("total_episodes", "total_steps", "dataset_size")


@dataclass(frozen=True)
class Leaf:
    """One array of an episode.

    Args:
        shown: its type and shape as it is stored, all rows.
        read: gives the first rows of it, as many as are asked for: an array, something that is
            read when it is sliced, or texts as a list.
    """

    shown: Shown
    read: Callable[[int], Any]


@dataclass(frozen=True)
class MinariSet:
    """One dataset.

    Args:
        root: its folder ``data``.
        name: where it is within the source, for messages and metadata.
        meta: what metadata.json says.
    """

    root: Path
    name: str
    meta: Mapping[str, Any]

    @property
    def format(self) -> str:
        """How its episodes are stored: ``hdf5``, ``arrow`` or ``parquet``."""
        return str(self.meta.get("data_format", "hdf5"))

    @property
    def spaces(self) -> dict[str, Any]:
        """The spaces of observations and actions, where they are told."""
        named = {"observations": "observation_space", "actions": "action_space"}
        return {key: space for key, name in named.items() if (space := _json(self.meta.get(name)))}

    def facts(self) -> dict[str, Any]:
        """What it says of itself; texts that are JSON come parsed, long ones are left out."""
        facts = {}
        for name, value in self.meta.items():
            if name not in _COUNTS and len(json.dumps(value)) <= _LONG:
                facts[name] = _json(value) or value
        return facts


def find_sets(path: Path) -> list[MinariSet | Unreadable]:
    """The datasets at ``path`` or below, in natural order. Raises DataError if there are none."""
    if path.is_file() and path.name == HDF5_NAME:
        path = path.parent
    if not path.is_dir():
        raise DataError(f"there is no Minari dataset at {path}")
    roots = sorted({p.parent for p in path.rglob(_META) if _is_set(p)}, key=natural)
    if not roots:
        raise DataError(
            f"{path} holds no Minari dataset: a folder with {_META} and {HDF5_NAME}, or with an "
            "arrow file for each episode"
        )
    return [_set(root, root.relative_to(path).as_posix()) for root in roots]


def _set(root: Path, name: str) -> MinariSet | Unreadable:
    try:
        return MinariSet(root, name, read_json(root / _META))
    except DataError as error:
        return Unreadable(name, error)


def is_minari(path: Path) -> bool:
    """Whether there is a dataset at ``path`` or not far below; from names and one small file."""
    try:
        if path.is_file():
            return path.name == HDF5_NAME
        below = [path, path / "data", *sorted(path.glob("*/data"))[:8]]
        return any(_is_set(folder / _META) for folder in below)
    except (OSError, DataError):
        return False


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object. Raises DataError if it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=str)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint=AGAIN) from None
    if not isinstance(value, dict):
        raise DataError(f"{path} holds a {type(value).__name__}, not an object", hint=AGAIN)
    return value


def _is_set(meta: Path) -> bool:
    if (meta.parent / HDF5_NAME).is_file():
        return True
    try:
        if not meta.is_file() or not any(meta.parent.glob("*/part-0.*")):
            return False
        return "data_format" in read_json(meta)
    except DataError:
        return True  # told when it is read


def space_at(spaces: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """The space of a leaf ``observations/image``; None if it is not told."""
    first, *rest = key.split("/")
    space = spaces.get(first)
    for name in rest:
        inner = space.get("subspaces") if isinstance(space, Mapping) else None
        if isinstance(inner, Mapping):
            space = inner.get(name)
        elif isinstance(inner, list) and name.isdecimal() and int(name) < len(inner):
            space = inner[int(name)]
        else:
            return None
    return space if isinstance(space, Mapping) else None


def space_shape(space: Mapping[str, Any] | None) -> tuple[int, ...] | None:
    """The shape of one value of a space of numbers; None if it has none."""
    shape = (space or {}).get("shape")
    if isinstance(shape, list) and all(isinstance(n, int) and n > 0 for n in shape):
        return tuple(shape)
    return None


def is_image(space: Mapping[str, Any] | None) -> bool:
    """Whether values are pictures, which Minari may store as JPEG."""
    shape = space_shape(space)
    return shape is not None and len(shape) in (2, 3) and (space or {}).get("dtype") == "uint8"


def _json(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    try:
        parsed = json.loads(value, parse_constant=str) if isinstance(value, str) else {}
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
