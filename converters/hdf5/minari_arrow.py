"""Episodes of Minari datasets that are stored as Arrow or Parquet: a folder for each."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dp_hub_converters.hdf5.damage import AGAIN
from dp_hub_converters.hdf5.found import Shown
from dp_hub_converters.hdf5.minari_sets import Leaf, MinariSet, read_json, space_at, space_shape
from dp_hub_converters.hdf5.pictures import Encoded
from dp_hub_converters.shared.natural import natural

from dp_hub.errors import DataError

_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError)


def episode_names(one: MinariSet) -> list[str]:
    """The episodes by their numbers."""
    return sorted((p.name for p in one.root.iterdir() if p.is_dir() and _parts(p)), key=natural)


def reader(one: MinariSet) -> Callable[[str], tuple[dict[str, Leaf], dict[str, Any]]]:
    """What gives the arrays and the facts of an episode, by its name."""
    spaces = one.spaces

    def read(name: str) -> tuple[dict[str, Leaf], dict[str, Any]]:
        folder = one.root / name
        facts = read_json(folder / "metadata.json") if (folder / "metadata.json").exists() else {}
        leaves: dict[str, Leaf] = {}
        try:
            table = _table(folder)
            for key in table.column_names:
                if key != "episode_id":
                    column = table[key].combine_chunks()
                    leaves |= _leaves(key, column, spaces, folder)
        except _DAMAGE as error:
            raise DataError(f"{folder} cannot be read: {error}", hint=AGAIN) from None
        return leaves, facts

    return read


def _parts(folder: Path) -> list[Path]:
    return sorted((*folder.glob("part-*.arrow"), *folder.glob("part-*.parquet")), key=natural)


def _table(folder: Path) -> pa.Table:
    """The rows of an episode; of Arrow files nothing is read until it is looked at."""
    tables = []
    for path in _parts(folder):
        if path.suffix == ".parquet":
            tables.append(pq.read_table(path, partitioning=None))
        else:
            tables.append(pa.ipc.open_file(pa.memory_map(str(path))).read_all())
    table = pa.concat_tables(tables)
    table.validate(full=True)
    return table


def _leaves(key: str, array: Any, spaces: Mapping[str, Any], folder: Path) -> dict[str, Leaf]:
    """Structs taken apart; everything else is one leaf."""
    if isinstance(array, pa.ChunkedArray):
        raise DataError(f"{folder}: {key} is too large for one piece")
    if pa.types.is_struct(array.type):
        leaves: dict[str, Leaf] = {}
        for i, one in enumerate(array.type):
            leaves |= _leaves(f"{key}/{one.name}", array.field(i), spaces, folder)
        return leaves
    return {key: _leaf(key, array, space_shape(space_at(spaces, key)), f"{folder}: {key}")}


def _leaf(key: str, array: Any, shape: tuple[int, ...] | None, where: str) -> Leaf:
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return Leaf(Shown("object", (len(array),)), lambda count: array[:count].to_pylist())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        if array.null_count or not len(array):
            return Leaf(Shown("object", (len(array),)), lambda count: array[:count].to_pylist())

        def encoded(start: int, stop: int) -> list[bytes]:
            return list(array[start:stop].to_pylist())

        pictures = Encoded(encoded, len(array), where)
        return Leaf(Shown.of(pictures), pictures.first)
    if pa.types.is_fixed_size_list(kind) and _is_number(kind.value_type):
        shape = shape or (kind.list_size,)
        if math.prod(shape) != kind.list_size:
            raise DataError(f"{where} has {kind.list_size} numbers a step, its space is {shape}")
        full = (len(array), *shape)
        dtype = str(np.dtype(kind.value_type.to_pandas_dtype()).name)
        return Leaf(Shown(dtype, full), lambda count: _fixed(array, full, count, where))
    if _is_number(kind):
        dtype = str(np.dtype(kind.to_pandas_dtype()).name)
        return Leaf(Shown(dtype, (len(array),)), lambda count: _flat(array[:count], where))
    return Leaf(Shown("object", (len(array),)), lambda count: array[:count].to_pylist())


def _is_number(kind: Any) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    )


def _fixed(array: Any, shape: tuple[int, ...], count: int, where: str) -> np.ndarray:
    rows = array[:count]
    if rows.null_count:
        raise DataError(f"{where} is empty in {rows.null_count} of its {count} steps")
    return _flat(rows.flatten(), where).reshape(count, *shape[1:])


def _flat(array: Any, where: str) -> np.ndarray:
    if array.null_count:
        raise DataError(f"{where} is empty in some of its steps")
    return np.asarray(array.to_numpy(zero_copy_only=False))
