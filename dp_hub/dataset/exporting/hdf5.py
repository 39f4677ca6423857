"""A dataset to robomimic's HDF5: what ``dp-hub export hdf5`` runs.

``data/demo_N`` holds ``actions``, ``rewards``, ``dones`` and ``obs/<key>``, as robomimic and what
grew around it read them. Every array remembers the feature it was, so that
``dp-hub convert robomimic`` makes the same dataset of it again.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.dataset.episodes_io import Folder, open_folder, read_episodes
from dp_hub.dataset.exporting.zarr import Exported
from dp_hub.dataset.features import Column
from dp_hub.errors import DataError
from dp_hub.files import sync_file, sync_folder

_NAMES = {"action": "actions", "next.reward": "rewards", "next.done": "dones"}
_GROUPS = ("obs/", "next_obs/", "datagen_info/")
_PLAIN = ("actions", "rewards", "dones", "states")
_ATTRS_LEFT = ("demo", "masks", "source")  # they are told by the place of a demo, or by mask/
_MAX_LIST = 1_000  # numbers: attributes other than texts have a limit of 64 kB
_CHUNK_BYTES = 1_000_000


@dataclass
class _Written:
    """What was written so far: the demos of every mask, and counts."""

    masks: dict[str, list[str]] = field(default_factory=dict)
    episodes: int = 0
    frames: int = 0


def export_hdf5(
    dataset: str | Path,
    to: str | Path,
    *,
    on_progress: Callable[[int, int], None] = lambda episodes, total: None,
) -> Exported:
    """Write the dataset as one robomimic file; there is a whole file at ``to`` or nothing.

    Args:
        dataset: a dataset folder.
        to: an ``.hdf5`` file to make; refused if it exists.
        on_progress: called after every episode with their number and the total.
    Raises:
        DataError: not a dataset, a damaged one, ``to`` exists, or h5py is not installed.
    """
    h5py = _h5py()
    folder, to = open_folder(dataset), Path(to)
    if not folder.columns:
        raise DataError(f"{dataset} has no features to export")
    if to.suffix not in (".hdf5", ".h5"):
        raise DataError(f"{to} is not the name of an HDF5 file", hint=f"for example {to}.hdf5")
    if to.exists():
        raise DataError(f"{to} already exists", hint="choose another name, or remove it first")
    places = _places(folder.columns)
    to.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{to.name}.", suffix=".partial", dir=to.parent)
    os.close(handle)
    try:
        with h5py.File(name, "w") as file:
            written = _write(file, folder, places, on_progress)
        sync_file(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, to)
        sync_folder(to.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Exported(
        path=to,
        n_episodes=written.episodes,
        n_frames=written.frames,
        keys={places[c.key]: (c.source_shape, c.source_dtype) for c in folder.columns},
        lossy=tuple(places[c.key] for c in folder.columns if c.dtype == "video"),
    )


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise DataError(
            "HDF5 files are written with h5py, which is not installed",
            hint="pip install 'dp_hub[hdf5]'",
        ) from None
    return h5py


def _places(columns: tuple[Column, ...]) -> dict[str, str]:
    """Where in a demo each key goes; that of a robomimic file to where it was."""
    places: dict[str, str] = {}
    for column in columns:
        place = _place(column)
        if place in places.values():
            place = f"obs/{column.feature}"
        places[column.key] = place
    return places


def _place(column: Column) -> str:
    key = column.key
    if key in _PLAIN or key.startswith(_GROUPS):
        return key
    if column.feature in _NAMES:
        return _NAMES[column.feature]
    if column.is_visual or column.feature.startswith("observation."):
        stem = column.feature.removeprefix("observation.images.").removeprefix("observation.")
        return f"obs/{stem}"
    return column.feature if "/" in key else key


def _write(
    file: Any,
    folder: Folder,
    places: Mapping[str, str],
    on_progress: Callable[[int, int], None],
) -> _Written:
    written = _Written()
    total = folder.info["total_episodes"]
    data = file.create_group("data")
    for row, arrays in read_episodes(folder, folder.columns):
        name = f"demo_{written.episodes}"
        _write_demo(data.create_group(name), folder, places, row, arrays)
        for mask in _facts(row).get("masks", ()):
            written.masks.setdefault(str(mask), []).append(name)
        written.episodes += 1
        written.frames += row["length"]
        on_progress(written.episodes, total)
    announced = (total, folder.info["total_frames"])
    if (written.episodes, written.frames) != announced:
        raise DataError(
            f"{folder.root}: meta/info.json speaks of {announced[0]} episodes and {announced[1]} "
            f"frames, the files hold {written.episodes} and {written.frames}"
        )
    data.attrs["total"] = written.frames
    for key, value in _attrs(folder):
        _put_attr(data, key, value)
    for mask, demos in written.masks.items():
        file.create_dataset(f"mask/{mask}", data=np.array(demos, "S"))
    return written


def _write_demo(
    demo: Any,
    folder: Folder,
    places: Mapping[str, str],
    row: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    demo.attrs["num_samples"] = row["length"]
    for column in folder.columns:
        values = arrays[column.key]
        rows = max(1, _CHUNK_BYTES // max(1, values.nbytes // len(values)))
        packing = {"compression": "gzip", "compression_opts": 4} if column.is_visual else {}
        array = demo.create_dataset(
            places[column.key],
            data=values,
            chunks=(1 if column.is_visual else min(rows, len(values)), *values.shape[1:]),
            **packing,
        )
        array.attrs["dp_hub_feature"] = column.feature
        if column.names:
            _put_attr(array, "dp_hub_names", list(column.names))
    tasks = row.get("tasks") or []
    if tasks and tasks[0]:
        _put_attr(demo, "task", tasks[0])
    for key, value in _facts(row).items():
        if key not in _ATTRS_LEFT:
            _put_attr(demo, key, value)


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(row.get("metadata") or "{}"))


def _attrs(folder: Folder) -> Iterator[tuple[str, Any]]:
    """Attributes of ``data``: the source's own, and what robomimic has no other place for."""
    attrs = dict(folder.provenance.get("source", {}).get("attrs", {}))
    attrs["fps"] = folder.info["fps"]
    if folder.info.get("robot_type"):
        attrs["robot_type"] = folder.info["robot_type"]
    if folder.provenance.get("fingerprint"):
        attrs["dp_hub_fingerprint"] = folder.provenance["fingerprint"]
    yield from attrs.items()


def _put_attr(node: Any, key: str, value: Any) -> None:
    """A fact as an attribute; what HDF5 has no type for as JSON."""
    if value is None:
        return
    listed = isinstance(value, list) and 0 < len(value) <= _MAX_LIST
    alike = listed and len({type(one) for one in value}) == 1
    fits = alike and all(map(_is_simple, value))
    node.attrs[key] = value if _is_simple(value) or fits else json.dumps(value)


def _is_simple(value: Any) -> bool:
    """Whether HDF5 has a type for a value: texts go without zeros and half characters."""
    if isinstance(value, str):
        return "\0" not in value and value == value.encode(errors="replace").decode()
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return isinstance(value, float)
