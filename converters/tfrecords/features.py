"""What an RLDS dataset stores: read from features.json and dataset_info.json, without TensorFlow.

TensorFlow Datasets writes each leaf of the nested features under its path (``steps/action``); all
steps of an episode end to end. Numbers become int64 or float32, whatever their type is; pictures
and texts bytes; what varies in length from step to step is written with the lengths beside it.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dp_hub.errors import DataError

LeafKind = Literal["number", "text", "picture", "raw", "zlib", "unknown"]
_CONTENT = ("tensor", "text", "image", "classLabel", "featuresDict", "sequence")
_NUMBERS = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)
_DEEPEST = 32


@dataclass(frozen=True)
class Leaf:
    """One feature of an episode or of its steps.

    Args:
        path: its name in the records: ``steps/observation/state``.
        in_steps: there is one value for each step.
        kind: ``raw`` and ``zlib`` are numbers written as bytes.
        dtype: numpy's name; of texts ``string``.
        shape: of one value; -1 for dimensions that are not told; without those of ``ragged``.
        ragged: how many dimensions of one value, before ``shape``, have lengths of their own.
        why: of an ``unknown`` one, what it is.
    """

    path: str
    in_steps: bool
    kind: LeafKind
    dtype: str
    shape: tuple[int, ...] = ()
    ragged: int = 0
    why: str = ""

    @property
    def key(self) -> str:
        """Its name for users: without ``steps/``."""
        return self.path.removeprefix("steps/") if self.in_steps else self.path

    @property
    def size(self) -> int:
        """Numbers in one value, one ragged dimension aside."""
        return math.prod(self.shape)


def read_json(path: Path) -> Any:
    """The JSON in a file. Raises DataError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", hint="copy or download it again"
        ) from None


def read_features(path: Path) -> tuple[Leaf, ...]:
    """The leaves of features.json. Raises DataError if there are no steps."""
    try:
        leaves = tuple(_leaves(read_json(path), "", False, (), 0))
    except _WRONG as error:
        raise DataError(
            f"{path} is not as TensorFlow Datasets writes it: {type(error).__name__} {error}",
            hint="copy or download it again",
        ) from None
    if not any(leaf.in_steps for leaf in leaves):
        have = ", ".join(leaf.path for leaf in leaves) or "nothing"
        raise DataError(
            f"{path} lists no steps, so this is not a dataset of episodes",
            hint=f"RLDS has a sequence called steps; seen: {have[:200]}",
        )
    return leaves


def _leaves(
    node: Mapping[str, Any], path: str, in_steps: bool, lengths: tuple[int, ...], depth: int
) -> Iterator[Leaf]:
    """The leaves below ``node``.

    Args:
        node: of features.json.
        path: its name so far.
        in_steps: it is below the sequence ``steps``.
        lengths: of the sequences around it, those of ``steps`` aside; -1 where they vary.
        depth: of the nesting, which has a limit.
    """
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    content = next((name for name in _CONTENT if isinstance(node.get(name), Mapping)), "")
    if content == "featuresDict":
        for name, child in node[content]["features"].items():
            below = f"{path}/{name}" if path else str(name)
            yield from _leaves(child, below, in_steps, lengths, depth + 1)
    elif content == "sequence":
        child, length = node[content]["feature"], int(node[content].get("length", -1))
        if path == "steps" and not in_steps:
            yield from _leaves(child, path, True, lengths, depth + 1)
        else:
            yield from _leaves(child, path, in_steps, (*lengths, length), depth + 1)
    else:
        yield _leaf(node, content, path, in_steps, lengths)


def _leaf(
    node: Mapping[str, Any], content: str, path: str, in_steps: bool, lengths: tuple[int, ...]
) -> Leaf:
    about = node.get(content, {}) if content else {}
    kind, dtype, shape = "unknown", str(about.get("dtype", "")), _shape(about)
    if content == "text" or dtype in ("string", "object", "str"):
        kind, dtype = "text", "string"
    elif content == "classLabel":
        kind, dtype = "number", "int64"
    elif content == "image" and (dtype or "uint8") in ("uint8", "uint16"):
        kind, dtype = "picture", dtype or "uint8"
    elif content == "tensor" and dtype in _NUMBERS:
        # Written as numbers, or as the bytes of the array, packed or not.
        encoding = str(about.get("encoding", "none")).lower()
        kind = {"none": "number", "": "number", "bytes": "raw", "zlib": "zlib"}.get(encoding, kind)
    why = f"{str(node.get('pythonClassName', content)).rpartition('.')[2]} of {dtype or 'no type'}"
    ragged = 0
    if any(length < 0 for length in lengths):
        # One dimension that varies outside of steps is simply the length of the list.
        ragged = len(lengths)
    else:
        shape = (*lengths, *shape)
    if kind in ("picture", "text", "raw", "zlib") and lengths:
        kind, why = "unknown", f"a sequence of {why} in each step"
    elif kind == "number" and (min(shape, default=0) < 0):
        kind, why = "unknown", f"{why} of no fixed shape"
    return Leaf(path, in_steps, kind, dtype or "unknown", shape, ragged, why)  # type: ignore[arg-type]


def _shape(about: Mapping[str, Any]) -> tuple[int, ...]:
    dimensions = about.get("shape", {}).get("dimensions", ())
    return tuple(int(length) for length in dimensions)


def plain_number(value: Any) -> Any:
    """A numpy number as JSON can hold it; None for what is no number."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
