"""The values of an RLDS episode: from the flat lists of a record back to rows of each step."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from dp_hub_converters.shared.encoded_pictures import EncodedPictures
from dp_hub_converters.tfrecords.features import Leaf, plain_number
from dp_hub_converters.tfrecords.records import Feature

from dp_hub.errors import DataError

_LONGEST_FACT = 1000
_TOLD_BY = ("is_first", "is_last", "is_terminal", "reward", "discount")


@dataclass(frozen=True)
class Example:
    """One record.

    Args:
        features: by name.
        leaves: what features.json lists.
        where: which record it is, for messages.
    """

    features: Mapping[str, Feature]
    leaves: tuple[Leaf, ...]
    where: str

    @cached_property
    def n_steps(self) -> int:
        """Number of steps T. Raises DataError if there are none, or nothing tells."""
        steps = [leaf for leaf in self.leaves if leaf.in_steps and leaf.path in self.features]
        steps.sort(key=lambda leaf: leaf.key not in _TOLD_BY)
        for leaf in steps:
            size = leaf.size if leaf.kind == "number" else 1
            if leaf.kind != "unknown" and not leaf.ragged and size > 0:
                count, rest = divmod(len(self.features[leaf.path]), size)
                if count and not rest:
                    return count
        raise DataError(f"{self.where} has no steps", hint="was its episode empty?")

    def values(self, path: str, kind: str) -> Any:
        """The list stored as ``path``. Raises DataError if it is missing or of another kind."""
        feature = self.features.get(path)
        if feature is None or not len(feature):
            raise DataError(
                f"{self.where} has no {path}, which features.json lists",
                hint=f"leave it out with --drop {path.removeprefix('steps/')}",
            )
        if feature.kind != kind:
            raise DataError(f"{self.where}: {path} is stored as {feature.kind}, not {kind}")
        return feature.values


def step_values(example: Example, leaf: Leaf) -> Any:
    """The values of a leaf in all steps: an array or pictures ``(T, ...)``; texts as a list.

    Raises:
        DataError: they are missing, of another number than there are steps, or of a kind that has
            no place in a dataset.
    """
    if leaf.kind == "unknown":
        raise DataError(
            f"{leaf.key} is {leaf.why}, which has no place in a dataset",
            hint=f"leave it out with --drop {leaf.key}",
        )
    if leaf.kind == "number":
        return _ragged(example, leaf) if leaf.ragged else _numbers(example, leaf)
    stored = example.values(leaf.path, "bytes")
    if len(stored) != example.n_steps:
        raise _miscounted(example, leaf, len(stored))
    if leaf.kind == "text":
        return [text.decode("utf-8", "backslashreplace") for text in stored]
    if leaf.kind == "picture":
        return _pictures(example, leaf, stored)
    return np.stack([_unpacked(example, leaf, data) for data in stored])


def _pictures(example: Example, leaf: Leaf, stored: list[bytes]) -> EncodedPictures:
    shape = leaf.shape if len(leaf.shape) == 3 else (0, 0, 0)
    height, width, channels = (max(0, length) for length in shape)
    return EncodedPictures(
        lambda start, stop: stored[start:stop],
        len(stored),
        f"{leaf.key} in {example.where}",
        shape=(height, width, channels),
        dtype=leaf.dtype,
    )


def _numbers(example: Example, leaf: Leaf) -> np.ndarray:
    values = _list(example, leaf, leaf.path)
    if len(values) != example.n_steps * leaf.size:
        raise _miscounted(example, leaf, len(values))
    return _typed(values, leaf, example.where).reshape(example.n_steps, *leaf.shape)


def _ragged(example: Example, leaf: Leaf) -> np.ndarray:
    """Values whose steps could have had lengths of their own, if they are all of one length."""
    dims: list[int] = []
    for level in range(leaf.ragged):
        lengths = example.values(f"{leaf.path}/ragged_row_lengths_{level}", "int64")
        if lengths.min() != lengths.max():
            raise DataError(
                f"{leaf.key} has from {lengths.min()} to {lengths.max()} values in a step of "
                f"{example.where}; a feature has one shape",
                hint=f"leave it out with --drop {leaf.key}",
            )
        dims.append(int(lengths[0]))
    values = _list(example, leaf, f"{leaf.path}/ragged_flat_values")
    shape = (example.n_steps, *dims, *leaf.shape)
    if min(shape) < 0 or math.prod(shape) != len(values):
        raise _miscounted(example, leaf, len(values))
    return _typed(values, leaf, example.where).reshape(shape)


def _list(example: Example, leaf: Leaf, path: str) -> np.ndarray:
    values: np.ndarray = example.values(path, "float" if leaf.dtype[0] == "f" else "int64")
    return values


def _typed(values: np.ndarray, leaf: Leaf, where: str) -> np.ndarray:
    """Values in the type that features.json says; they were written in a wider or narrower one."""
    dtype = np.dtype(leaf.dtype)
    if dtype.kind == "u" and dtype.itemsize == 8:
        return values.view(np.uint64)
    with np.errstate(over="ignore", invalid="ignore"):
        typed = values.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(typed, values):
        raise DataError(
            f"{leaf.key} in {where} goes from {values.min()} to {values.max()}, beyond {dtype}"
        )
    return typed


def _unpacked(example: Example, leaf: Leaf, data: bytes) -> np.ndarray:
    """One value that was written as the bytes of an array."""
    dtype = np.dtype(leaf.dtype)
    expected = max(0, leaf.size) * dtype.itemsize
    try:
        if leaf.kind == "zlib":
            data = zlib.decompressobj().decompress(data, expected + 1)
    except zlib.error as error:
        raise DataError(f"{leaf.key} in {example.where} cannot be unpacked: {error}") from None
    if len(data) != expected or min(leaf.shape, default=0) < 0:
        raise DataError(
            f"a value of {leaf.key} in {example.where} has {len(data)} bytes, not {expected} for "
            f"{leaf.dtype} {list(leaf.shape)}",
            hint=f"leave it out with --drop {leaf.key}",
        )
    return np.frombuffer(data, dtype).reshape(leaf.shape)


def _miscounted(example: Example, leaf: Leaf, count: int) -> DataError:
    return DataError(
        f"{leaf.key} in {example.where} has {count} values, which is not {list(leaf.shape)} for "
        f"each of {example.n_steps} steps",
        hint=f"leave it out with --drop {leaf.key}",
    )


def facts_of(example: Example) -> dict[str, Any]:
    """What a record says of its episode as a whole, as JSON can hold it."""
    facts: dict[str, Any] = {}
    for leaf in example.leaves:
        feature = example.features.get(leaf.path)
        if leaf.in_steps or feature is None or not 0 < len(feature) <= _LONGEST_FACT:
            continue
        if leaf.kind == "text" and feature.kind == "bytes":
            values = [text.decode("utf-8", "backslashreplace") for text in feature.values]
        elif leaf.kind == "number" and feature.kind in ("float", "int64") and leaf.ragged < 2:
            values = [plain_number(value) for value in _typed(feature.values, leaf, example.where)]
        else:
            continue
        one = not leaf.shape and not leaf.ragged and len(values) == 1
        key = leaf.key.removeprefix("episode_metadata/")
        facts[leaf.key if key in ("source", "split", "record") else key] = (
            values[0] if one else values
        )
    return facts
