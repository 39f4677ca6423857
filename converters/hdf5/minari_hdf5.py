"""Episodes of Minari datasets that are stored as HDF5."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from dp_hub_converters.hdf5.files import (
    arrays_below,
    check_stored,
    damage_told,
    facts_of,
    group_at,
    natural,
    open_hdf5,
    read_numbers,
)
from dp_hub_converters.hdf5.found import Shown
from dp_hub_converters.hdf5.minari_sets import HDF5_NAME, Leaf, MinariSet, is_image, space_at
from dp_hub_converters.hdf5.pictures import Encoded, Rows, encoded_rows, is_pictures


def episode_names(one: MinariSet) -> list[str]:
    """The episodes by their numbers."""
    path = one.root / HDF5_NAME
    with open_hdf5(path) as file, damage_told(path):
        return sorted((name for name in file if name.startswith("episode")), key=natural)


def episodes(one: MinariSet, names: list[str]) -> Iterator[tuple[dict[str, Leaf], dict[str, Any]]]:
    """The arrays and the facts of some episodes."""
    path = one.root / HDF5_NAME
    file, spaces = open_hdf5(path), one.spaces
    for name in names:
        with damage_told(f"{path}: {name}"):
            group = group_at(file, name, path)
            leaves = {
                key: _leaf(path, f"{name}/{place}", key, array, space_at(spaces, key))
                for place, array in arrays_below(group, f"{path}: {name}").items()
                for key in [_plain_key(place)]
            }
            facts, _ = facts_of(group)
        yield leaves, facts


def _plain_key(key: str) -> str:
    """Members of tuples are ``_index_0`` here and ``0`` in arrow files."""
    return key.replace("/_index_", "/")


def _leaf(
    path: Path, name: str, key: str, array: h5py.Dataset, space: Mapping[str, Any] | None
) -> Leaf:
    where = f"{path}: {name}"
    if h5py.check_string_dtype(array.dtype) and array.ndim == 1:
        return Leaf(Shown("object", array.shape), lambda count: _texts(array, where, key, count))
    if is_image(space) and array.ndim == (1 if array.dtype.kind == "O" else 2) and len(array):
        pictures = Encoded(encoded_rows(Rows(path, name, key, array)), len(array), where)
        return Leaf(Shown.of(pictures), pictures.first)
    if is_pictures(array):
        return Leaf(Shown.of(array), lambda count: Rows(path, name, key, array, count))
    return Leaf(Shown.of(array), lambda count: read_numbers(array, where, key)[:count])


def _texts(array: h5py.Dataset, where: str, key: str, count: int) -> list[str]:
    with damage_told(where):
        check_stored(array, where, key)
        values = np.asarray(array[:count]).tolist()
    return [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
