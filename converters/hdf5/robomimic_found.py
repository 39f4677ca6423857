"""What robomimic files hold, told from their headers: demos, masks, what the simulator was."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from dp_hub_converters.hdf5 import found as hdf5_found
from dp_hub_converters.hdf5.damage import damage_told
from dp_hub_converters.hdf5.files import (
    MAX_ARRAY_BYTES,
    arrays_below,
    attribute,
    facts_of,
    files_at,
    group_at,
    open_hdf5,
    plain,
)
from dp_hub_converters.hdf5.opened import Stamp, stamp_of
from dp_hub_converters.hdf5.pictures import is_pictures
from dp_hub_converters.hdf5.walk import Arrays, Kind, Walk
from dp_hub_converters.shared.natural import natural
from dp_hub_converters.shared.unreadable import Unreadable

from dp_hub.errors import DataError

ActionKind = Literal["absolute", "delta"]
_TASKS = ("task", "language_instruction", "lang", "language")
_COUNTS = ("total", "num_demos", "num_samples")
_LONG = 4_000  # letters of JSON that are kept with every demo
FEATURE, NAMES = "dp_hub_feature", "dp_hub_names"  # attributes that `dp-hub export hdf5` leaves


@dataclass(frozen=True)
class Demo:
    """One demonstration.

    Args:
        path: the file.
        group: its place in it, ``data/demo_3``.
        length: steps T.
        task: what was to be done, if it is told.
        facts: what else is known of it.
        arrays: what it holds, and where.
    """

    path: Path
    group: str
    length: int
    task: str | None
    facts: Mapping[str, Any]
    arrays: Arrays

    @property
    def where(self) -> str:
        """Its place, for messages."""
        return f"{self.path}: {self.group}"


@dataclass
class Found:
    """What there is in all files.

    Args:
        demos: in the order of files and numbers, with those that cannot be read.
        stamps: of the files, as they were.
        kinds: keys, and whether all demos have them.
        pictures: keys that hold pictures.
        features: names of features that a file states, by key.
        names: of the numbers of a step that a file states, by key.
        attrs: what the files state of themselves.
        notes: for people.
    """

    demos: list[Demo | Unreadable] = field(default_factory=list)
    stamps: dict[Path, Stamp] = field(default_factory=dict)
    kinds: hdf5_found.Found = field(default_factory=hdf5_found.Found)
    pictures: set[str] = field(default_factory=set)
    features: dict[str, str] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def readable(self) -> list[Demo]:
        """The demos that can be read."""
        return [demo for demo in self.demos if isinstance(demo, Demo)]


def demo_groups(file: h5py.File, path: Path) -> list[str]:
    """The names of the demos in ``data``, by their numbers."""
    data = group_at(file, "data", path)
    return sorted((name for name in data if name.startswith("demo")), key=natural)


def look(
    path: Path,
    *,
    next_obs: bool,
    keep_long: bool,
    filter_key: str | None,
    actions: ActionKind | None,
) -> Found:
    """What there is at ``path``.

    Raises:
        DataError: there is nothing, or files do not belong together.
    """
    found = Found()
    looking = _Looking(found, next_obs, keep_long)
    for file in files_at(path):
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        try:
            looking.at_file(file, name, filter_key)
        except DataError as error:
            found.demos.append(Unreadable(name, error))
    if not found.demos:
        raise DataError(f"{path} holds no demos (data/demo_0 ...)")
    if looking.next_left:
        found.notes.append("next_obs/... is left out; --option next_obs=true keeps it")
    if looking.left_out:
        names = ", ".join(sorted(looking.left_out))
        found.notes.append(f"long attributes of demos are left out ({names}): keep_long=true")
    return _settled(found, looking.headers, actions) if found.readable else found


@dataclass
class _Looking:
    """What is known after some of the files."""

    found: Found
    next_obs: bool
    keep_long: bool
    headers: dict[Path, dict[str, Any]] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    next_left: bool = False
    _good: set[tuple[tuple[Kind, ...], int]] = field(default_factory=set)

    def at_file(self, file: Path, name: str, filter_key: str | None) -> None:
        """Take a file's demos in; those that cannot be read too. Raises DataError."""
        self.found.stamps[file] = stamp_of(file)
        with open_hdf5(file, many=True) as opened, damage_told(file):
            groups, masks = demo_groups(opened, file), _masks(opened, file)
            data, walk = group_at(opened, "data", file), Walk()
            header = self.headers[file] = facts_of(data, long=True)[0]
            for group in _wanted(groups, masks, filter_key, file):
                about: dict[str, Any] = {"source": name, "demo": group}
                about |= {"masks": on} if (on := [m for m in masks if group in masks[m]]) else {}
                where = f"{file}: data/{group}"
                try:
                    with damage_told(where):
                        demo = self._demo(file, data, walk, about, _task(header))
                except DataError as error:
                    self.found.demos.append(Unreadable(f"{name}: {group}", error))
                else:
                    self.found.demos.append(demo)

    def _demo(
        self, file: Path, data: h5py.Group, walk: Walk, about: dict[str, Any], task: str | None
    ) -> Demo:
        name = about["demo"]
        where, node = f"{file}: data/{name}", group_at(data, name, file)
        arrays = walk.arrays(node, where)
        facts, out = facts_of(node, long=self.keep_long)
        shown = {kind.key: kind for kind in arrays.kinds if kind.shape}
        if not self.next_obs:
            kept = {key: kind for key, kind in shown.items() if not key.startswith("next_obs/")}
            self.next_left, shown = self.next_left or len(kept) < len(shown), kept
        length = _length(shown, facts, where)
        if (arrays.kinds, length) not in self._good:
            if not self.found.kinds.dtypes:
                _take_first(self.found, node, shown)
            each = {key: hdf5_found.Shown.of(kind) for key, kind in shown.items()}
            if self.found.kinds.add(where, each, dict.fromkeys(each, (length,))):
                self._good.add((arrays.kinds, length))
        self.left_out |= set(out)
        task = _task(facts) or task
        facts = {k: v for k, v in facts.items() if k not in (*_COUNTS, "task")}
        return Demo(file, f"data/{name}", length, task, facts | about, arrays)


def _masks(file: h5py.File, path: Path) -> dict[str, frozenset[str]]:
    """The names of the demos that each filter key lists."""
    if "mask" not in file:
        return {}
    masks = {}
    for name, array in arrays_below(group_at(file, "mask", path), f"{path}: mask").items():
        if array.dtype.kind not in "SO" or array.nbytes > MAX_ARRAY_BYTES:
            raise DataError(f"{path}: mask/{name} is {array.dtype}, not a list of names")
        listed = np.asarray(array[()]).ravel().tolist()
        masks[name] = frozenset(str(plain(one)) for one in listed)
    return masks


def _wanted(
    groups: list[str], masks: Mapping[str, frozenset[str]], filter_key: str | None, path: Path
) -> list[str]:
    if filter_key is None:
        return groups
    if filter_key not in masks:
        raise DataError(
            f"{path} has no filter key {filter_key!r}",
            hint=f"it has: {', '.join(masks) or 'none'}",
        )
    if missing := masks[filter_key] - set(groups):
        names = ", ".join(sorted(missing, key=natural)[:5])
        raise DataError(
            f"{path}: mask/{filter_key} lists {len(missing)} demos that are not in the file "
            f"({names} ...)"
        )
    return [group for group in groups if group in masks[filter_key]]


def _length(arrays: Mapping[str, Kind], facts: Mapping[str, Any], where: str) -> int:
    """Steps of a demo: rows of its actions, else of its first array."""
    if not arrays:
        raise DataError(f"{where} holds no arrays")
    key = "actions" if "actions" in arrays else next(iter(arrays))
    length, stated = int(arrays[key].shape[0]), facts.get("num_samples")
    if not length:
        raise DataError(f"{where}/{key} has no steps", hint="remove the demo, or leave it out")
    if isinstance(stated, int | float) and stated != length:
        raise DataError(f"{where} says num_samples={stated}, but {key} has {length} rows")
    return length


def _take_first(found: Found, demo: h5py.Group, kinds: Mapping[str, Kind]) -> None:
    """What the first demo says of all."""
    found.pictures |= {key for key, kind in kinds.items() if is_pictures(kind)}
    for key in kinds:
        array = demo[key]
        stated = plain(attribute(array, FEATURE))
        if isinstance(stated, str):
            found.features[key] = stated
        names = plain(attribute(array, NAMES))
        if isinstance(names, list):
            found.names[key] = tuple(map(str, names))


def _task(facts: Mapping[str, Any]) -> str | None:
    """What was to be done, wherever it is written: in words, or in RoboCasa's or LIBERO's facts."""
    for place in (facts, facts.get("ep_meta"), facts.get("problem_info")):
        if not isinstance(place, Mapping):
            continue
        for name in _TASKS:
            text = place.get(name)
            text = " ".join(text) if isinstance(text, list) and text else text
            if isinstance(text, str) and text.strip():
                return text.strip().strip('"')
    return None


def _settled(
    found: Found, headers: Mapping[Path, Mapping[str, Any]], actions: ActionKind | None
) -> Found:
    """Source attributes: what all files agree on; the rest goes to the demos."""
    used = {demo.path: headers[demo.path] for demo in found.readable}
    first = next(iter(used.values()))
    shared = {
        key: value
        for key, value in first.items()
        if key not in _COUNTS and all(header.get(key) == value for header in used.values())
    }
    found.attrs = {key: value for key, value in shared.items() if key not in _TASKS}
    for name, tell in (("fps", _fps), ("robot_type", _robots), ("action_kind", _action_kind)):
        told = {file: tell(header) for file, header in used.items()}
        if name == "action_kind" and actions:
            told = dict.fromkeys(told, actions)
        _take_one(found.attrs, name, told)
    found.demos = [
        _with_header(demo, used[demo.path], shared) if isinstance(demo, Demo) else demo
        for demo in found.demos
    ]
    if first.get("macros_image_convention") == "opengl" and found.pictures:
        found.notes.append(
            "the pictures were rendered upside down (OpenGL): --option flip_images=vertical"
        )
    return found


def _take_one(attrs: dict[str, Any], name: str, told: Mapping[Path, Any]) -> None:
    """A fact that must be the same in all files."""
    (one, value), *others = told.items()
    for file, other in others:
        if other != value:
            raise DataError(
                f"{name} differs: {value} in {one}, {other} in {file}",
                hint="convert them into datasets of their own",
            )
    if value is not None:
        attrs[name] = value


def _with_header(demo: Demo, header: Mapping[str, Any], shared: Mapping[str, Any]) -> Demo:
    """The demo, with what only its file states."""
    own = {k: v for k, v in header.items() if k not in shared and k not in (*_COUNTS, *_TASKS)}
    own = {key: value for key, value in own.items() if len(json.dumps(value)) <= _LONG}
    return replace(demo, facts=own | dict(demo.facts)) if own else demo


def _simulator(header: Mapping[str, Any]) -> Mapping[str, Any]:
    """How the simulator was made: in env_args of robomimic, env_info of robosuite."""
    env_args, env_info = header.get("env_args"), header.get("env_info")
    kwargs = env_args.get("env_kwargs") if isinstance(env_args, Mapping) else env_info
    return kwargs if isinstance(kwargs, Mapping) else {}


def _fps(header: Mapping[str, Any]) -> float | None:
    for value in (header.get("fps"), _simulator(header).get("control_freq")):
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6:
            return value
    return None


def _robots(header: Mapping[str, Any]) -> str | None:
    robots = header.get("robot_type") or _simulator(header).get("robots")
    if isinstance(robots, list):
        robots = "+".join(map(str, robots))
    return robots if isinstance(robots, str) and robots else None


def _action_kind(header: Mapping[str, Any]) -> ActionKind | None:
    """Whether actions are goals or steps towards them, from robosuite's controller settings."""
    if header.get("action_kind") in ("absolute", "delta"):
        return header["action_kind"]
    kinds = set(_kinds_in(_simulator(header).get("controller_configs")))
    return kinds.pop() if len(kinds) == 1 else None


def _kinds_in(config: Any) -> Iterator[ActionKind]:
    if isinstance(config, list):
        for part in config:
            yield from _kinds_in(part)
    if not isinstance(config, Mapping):
        return
    if isinstance(config.get("control_delta"), bool):  # robosuite 1.0 to 1.4
        yield "delta" if config["control_delta"] else "absolute"
    if config.get("input_type") in ("absolute", "delta"):  # from 1.5 on
        yield config["input_type"]
    for part in config.values():
        yield from _kinds_in(part)
