"""robomimic's HDF5 and its relatives: raw robosuite demonstrations, LIBERO, MimicGen, RoboCasa.

``data/demo_N`` holds ``actions``, ``states``, ``obs/<key>`` ...; ``mask/<name>`` lists demos;
attributes of ``data`` describe the simulator.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from dp_hub_converters.hdf5.damage import damage_told
from dp_hub_converters.hdf5.files import first_file_at, open_hdf5, plain
from dp_hub_converters.hdf5.opened import LastOpened, Opened
from dp_hub_converters.hdf5.pictures import Flip, Rows, Turned, is_pictures
from dp_hub_converters.hdf5.robomimic_found import ActionKind, Demo, Found, demo_groups, look
from dp_hub_converters.shared.unreadable import Unreadable, check_readable, notes_of

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
        self._strict = False

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
        """What the files hold; with ``skip_bad`` in spite of demos that cannot be read.

        Raises:
            DataError: the files do not hold together.
        """
        found = self._look(path)
        check_readable(found.demos, skip_bad=skip_bad)
        self._strict = not skip_bad
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
            n_frames=sum(demo.length for demo in found.readable),
            attrs=attrs,
            notes=(*found.notes, *kinds.notes(), *notes_of(found.demos)),
            features=named,
            names=found.names | self._action_names(shapes.get("actions")),
            fps_hint=None if "fps" in attrs else "robosuite steps at 20 Hz by default: --fps 20",
        )

    def episodes(
        self, path: Path, *, drop: Collection[str] = (), start: int = 0
    ) -> Iterator[Episode]:
        """Its demos from number ``start`` on, in the order of files and numbers."""
        found = self._look(path)
        if self._strict:  # at once, and not hours later when the turn of the bad one comes
            found.kinds.check(drop)
        last = LastOpened()
        for demo in found.demos[start:]:
            if isinstance(demo, Unreadable):
                raise demo.told()
            found.kinds.check(drop, demo.where)
            file = last.at(demo.path, found.stamps[demo.path])
            with damage_told(demo.where):
                data, scalars = self._values(file, demo, drop)
            yield Episode(data, task=demo.task, metadata={**demo.facts, **scalars})

    def _values(
        self, file: Opened, demo: Demo, drop: Collection[str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        data: dict[str, Any] = {}
        scalars: dict[str, Any] = {}
        for kind, offset in demo.arrays:
            key = kind.key
            if key in drop or (key.startswith("next_obs/") and not self._next_obs):
                continue
            if not kind.shape:
                scalars[key] = plain(file.file[f"{demo.group}/{key}"][()])
            elif is_pictures(kind):
                rows = Rows(file, demo.group, kind, offset)
                data[key] = rows if self._flip == "none" else Turned(rows, flip=self._flip)
            else:
                data[key] = file.numbers(demo.group, kind, offset)
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
