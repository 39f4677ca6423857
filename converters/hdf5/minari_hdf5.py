"""Episodes of Minari datasets that are stored as HDF5."""

from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np
from dp_hub_converters.hdf5.damage import damage_told
from dp_hub_converters.hdf5.files import check_stored, facts_of, group_at, open_hdf5
from dp_hub_converters.hdf5.found import Shown
from dp_hub_converters.hdf5.minari_sets import HDF5_NAME, Leaf, MinariSet, is_image, space_at
from dp_hub_converters.hdf5.opened import Opened
from dp_hub_converters.hdf5.pictures import Encoded, Rows, encoded_rows, is_pictures
from dp_hub_converters.hdf5.walk import Kind, Walk
from dp_hub_converters.shared.natural import natural


def episode_names(one: MinariSet) -> list[str]:
    """The episodes by their numbers."""
    path = one.root / HDF5_NAME
    with open_hdf5(path) as file, damage_told(path):
        return sorted((name for name in file if name.startswith("episode")), key=natural)


def reader(one: MinariSet) -> Callable[[str], tuple[dict[str, Leaf], dict[str, Any]]]:
    """What gives the arrays and the facts of an episode, by its name."""
    opened, spaces, walk = Opened(one.root / HDF5_NAME), one.spaces, Walk()

    def read(name: str) -> tuple[dict[str, Leaf], dict[str, Any]]:
        with damage_told(f"{opened.path}: {name}"):
            group = group_at(opened.file, name, opened.path)
            leaves = {}
            for place, node in walk.below(group, f"{opened.path}: {name}"):
                key = _plain_key(place)
                found = (*walk.look(place, node), node)
                leaves[key] = _leaf(opened, name, key, found, space_at(spaces, key))
            return leaves, facts_of(group)[0]

    return read


def _plain_key(key: str) -> str:
    """Members of tuples are ``_index_0`` here and ``0`` in arrow files."""
    return key.replace("/_index_", "/")


def _leaf(
    opened: Opened,
    name: str,
    key: str,
    found: tuple[Kind, int, Any],
    space: Mapping[str, Any] | None,
) -> Leaf:
    kind, offset, node = found
    rows = len(kind.shape) and kind.shape[0]
    if h5py.check_string_dtype(kind.dtype) and len(kind.shape) == 1:
        shown = Shown("object", kind.shape)
        return Leaf(shown, lambda count: _texts(opened, f"{name}/{kind.key}", key, count))
    if is_image(space) and len(kind.shape) == (1 if kind.dtype.kind == "O" else 2) and rows:
        some = Rows(opened, name, kind, offset, key=key)
        pictures = Encoded(encoded_rows(some), rows, f"{opened.path}: {name}/{kind.key}")
        return Leaf(Shown.of(pictures), pictures.first)

    def read(count: int) -> np.ndarray:
        return opened.numbers(name, kind, offset, key=key, array=node)[:count]

    shown = Shown.of(kind)
    if is_pictures(kind):
        return Leaf(shown, lambda count: Rows(opened, name, kind, offset, count=count, key=key))
    return Leaf(shown, read)


def _texts(opened: Opened, name: str, key: str, count: int) -> list[str]:
    where = f"{opened.path}: {name}"
    with damage_told(where):
        array = opened.file[name]
        check_stored(array, where, key)
        values = np.asarray(array[:count]).tolist()
    return [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
