"""robomimic's HDF5 and its relatives: raw robosuite demonstrations, LIBERO, MimicGen, RoboCasa.

``data/demo_N`` holds ``actions``, ``states``, ``obs/<key>`` ...; ``mask/<name>`` lists demos;
attributes of ``data`` describe the simulator.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from dp_hub_converters.hdf5.files import (
    arrays_below,
    damage_told,
    first_file_at,
    open_hdf5,
    plain,
    read_numbers,
)
from dp_hub_converters.hdf5.found import raise_first
from dp_hub_converters.hdf5.pictures import Flip, Rows, Turned, is_pictures
from dp_hub_converters.hdf5.robomimic_found import ActionKind, Demo, Found, demo_groups, look

from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode
from dp_hub.replay.source import Source

_NAMES = {
    "actions": "action",
    "rewards": "next.reward",
    "dones": "next.done",
    "obs/object": "observation.environment_state",
}
_ARM = 7  # place 3, rotation vector 3, gripper 1


class Robomimic:
    """Reads a file, or all files of a folder as one source.

    Args:
        filter_key: only the demos that ``mask/<filter_key>`` lists (``train``, ``valid``,
            ``20_percent`` ...).
        actions: ``absolute`` or ``delta``, where the file does not say it or says it wrongly.
        rotation: ``rot6d`` turns the rotation vectors of absolute actions into six numbers each,
            as Diffusion Policy does before it trains on them.
        flip_images: turns pictures that a simulator has rendered upside down: ``vertical``, or
            ``rotate180``.
        next_obs: keep ``next_obs/...`` too, which are the observations of the next step.
        keep_long: keep attributes of demos that are long texts (the simulator's model).
    """

    name = "robomimic"
    summary = "HDF5 demonstrations of robomimic, robosuite, LIBERO or MimicGen, a file or a folder"

    def __init__(
        self,
        *,
        filter_key: str | None = None,
        actions: ActionKind | None = None,
        rotation: Literal["rot6d"] | None = None,
        flip_images: Flip = "none",
        next_obs: bool = False,
        keep_long: bool = False,
    ) -> None:
        self._filter_key, self._actions, self._rotation = filter_key, actions, rotation
        self._flip, self._next_obs, self._keep_long = flip_images, next_obs, keep_long
        self._found: tuple[Path, Found] | None = None
        self._all_good = False

    def recognises(self, path: Path) -> bool:
        """Whether the first HDF5 file has demos."""
        file = first_file_at(path)
        if file is None:
            return False
        try:
            with open_hdf5(file) as opened, damage_told(file):
                return bool(demo_groups(opened, file))
        except DataError:
            return False

    def describe(self, path: Path, *, skip_bad: bool = False) -> Source:
        """What the files hold; with ``skip_bad`` in spite of some that cannot be read.

        Raises:
            DataError: they do not hold together, or none can be read.
        """
        found = self._look(path)
        errors = [demo.error for demo in found.demos if demo.error]
        if errors and not skip_bad:
            raise errors[0]
        self._all_good = not skip_bad
        kinds = found.kinds
        shapes, dtypes = dict(kinds.shapes), dict(kinds.dtypes)
        named = {
            key: name for key in dtypes if (name := found.features.get(key) or _feature(key, found))
        }
        self._check_rotation(found, shapes.get("actions"))
        attrs = dict(found.attrs)
        if self._rotation:
            attrs["action_rotation"] = self._rotation
        if self._flip != "none":
            attrs["flipped_images"] = self._flip
        return Source(
            dtypes=dtypes,
            n_episodes=len(found.demos),
            n_frames=sum(demo.length for demo in found.demos),
            attrs=attrs,
            notes=(*found.notes, *kinds.notes(), *(error.message for error in errors)),
            features=named,
            names=found.names | self._action_names(shapes.get("actions")),
            fps_hint=None if "fps" in attrs else "robosuite steps at 20 Hz by default: --fps 20",
        )

    def episodes(
        self, path: Path, *, drop: Collection[str] = (), start: int = 0
    ) -> Iterator[Episode]:
        """Its demos from number ``start`` on, in the order of files and numbers."""
        found = self._look(path)
        if self._all_good:
            found.kinds.check(drop)
        files: dict[Path, h5py.File] = {}
        for demo in found.demos[start:]:
            if demo.error:
                raise demo.error
            raise_first(demo.problems, drop)
            file = files.get(demo.path) or open_hdf5(demo.path)
            files = {demo.path: file}  # the last one only
            with damage_told(f"{demo.path}: {demo.group}"):
                data, scalars = self._values(file, demo, drop)
            yield Episode(data, task=demo.task, metadata=demo.facts | scalars)

    def _values(
        self, file: h5py.File, demo: Demo, drop: Collection[str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        where = f"{demo.path}: {demo.group}"
        data: dict[str, Any] = {}
        scalars: dict[str, Any] = {}
        for key, array in arrays_below(file[demo.group], where).items():
            if key in drop or (key.startswith("next_obs/") and not self._next_obs):
                continue
            if not array.shape:
                scalars[key] = plain(array[()])
            elif is_pictures(array):
                rows = Rows(demo.path, f"{demo.group}/{key}", key, array)
                data[key] = rows if self._flip == "none" else Turned(rows, flip=self._flip)
            else:
                data[key] = read_numbers(array, f"{where}/{key}", key)
        if self._rotation and "actions" in data:
            data["actions"] = _with_rot6d(data["actions"])
        return data, {key: value for key, value in scalars.items() if value is not None}

    def _look(self, path: Path) -> Found:
        if self._found is None or self._found[0] != path:
            found = look(
                path,
                next_obs=self._next_obs,
                keep_long=self._keep_long,
                filter_key=self._filter_key,
                actions=self._actions,
            )
            self._found = (path, found)
        return self._found[1]

    def _check_rotation(self, found: Found, shape: tuple[int, ...] | None) -> None:
        if not self._rotation:
            return
        if found.attrs.get("action_kind") != "absolute":
            says = found.attrs.get("action_kind") or "nothing about it"
            raise DataError(
                f"rotation={self._rotation} is for absolute actions; the file says {says}",
                hint="is it one of Diffusion Policy's *_abs.hdf5, which still say delta? then add "
                "--option actions=absolute",
            )
        if shape is None or len(shape) != 1 or shape[0] not in (_ARM - 1, _ARM, 2 * _ARM):
            raise DataError(
                f"rotation={self._rotation} is for actions of 6 or 7 numbers for an arm (place, "
                f"rotation vector, gripper) or 14 for two; these are {shape}",
                hint="convert them with a mapping, which says which numbers are the rotation",
            )

    def _action_names(self, shape: tuple[int, ...] | None) -> dict[str, tuple[str, ...]]:
        if not self._rotation or shape is None:
            return {}
        arms = ("robot0_", "robot1_") if shape[0] == 2 * _ARM else ("",)
        parts = ["x", "y", "z", *(f"rot6d_{i}" for i in range(6))]
        parts += ["gripper"] if shape[0] % _ARM == 0 else []
        return {"actions": tuple(f"{arm}{part}" for arm in arms for part in parts)}


def _with_rot6d(actions: np.ndarray) -> np.ndarray:
    """``(T, 7)`` to ``(T, 10)``, ``(T, 14)`` to ``(T, 20)``: rotation vectors as rot6d."""
    from dp_hub.replay.rotations import convert

    arms = actions.reshape(len(actions), -1, min(actions.shape[1], _ARM))
    turned = convert(arms[..., 3:6], "rotvec", "rot6d").astype(actions.dtype)
    parts = [arms[..., :3], turned, arms[..., 6:]]
    return np.concatenate(parts, axis=-1).reshape(len(actions), -1)


def _feature(key: str, found: Found) -> str | None:
    """The feature that a key becomes unless something else is asked for."""
    if key in _NAMES:
        return _NAMES[key]
    if key == "states" and not any(other.startswith("obs/") for other in found.kinds.dtypes):
        return "observation.environment_state"
    if not key.startswith("obs/"):
        return None
    name = key.removeprefix("obs/").replace("/", ".")
    picture = key in found.pictures
    return f"observation.images.{name}" if picture else f"observation.{name}"
