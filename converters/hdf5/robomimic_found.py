"""What robomimic files hold, told from their headers: demos, masks, what the simulator was."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from dp_hub_converters.hdf5 import found as hdf5_found
from dp_hub_converters.hdf5.files import (
    MAX_ARRAY_BYTES,
    arrays_below,
    attribute,
    damage_told,
    facts_of,
    files_at,
    group_at,
    natural,
    open_hdf5,
    plain,
)
from dp_hub_converters.hdf5.pictures import is_pictures

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
        problems: by key, why it cannot be converted.
        error: why none of it can be; of a whole file if ``group`` is "".
    """

    path: Path
    group: str = ""
    length: int = 0
    task: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    problems: hdf5_found.Problems = field(default_factory=dict)
    error: DataError | None = None


@dataclass
class Found:
    """What there is in all files.

    Args:
        demos: in the order of files and numbers.
        kinds: keys, and whether all demos have them.
        pictures: keys that hold pictures.
        features: names of features that a file states, by key.
        names: of the numbers of a step that a file states, by key.
        attrs: what the files state of themselves.
        notes: for people.
    """

    demos: list[Demo] = field(default_factory=list)
    kinds: hdf5_found.Found = field(default_factory=hdf5_found.Found)
    pictures: set[str] = field(default_factory=set)
    features: dict[str, str] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


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
    """What there is at ``path``. Raises DataError where it does not hold together."""
    looked = _Looking(next_obs=next_obs, keep_long=keep_long, filter_key=filter_key)
    found = looked.found
    for file in files_at(path):
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        try:
            looked.file(file, name)
        except DataError as error:
            found.demos.append(Demo(file, error=error))
    good = [demo for demo in found.demos if not demo.error]
    if not good:
        raise (
            found.demos[0].error
            if found.demos and found.demos[0].error
            else DataError(f"{path} holds no demos (data/demo_0 ...)")
        )
    if looked.next_left:
        found.notes.append("next_obs/... is left out; --option next_obs=true keeps it")
    if looked.left_out:
        names = ", ".join(sorted(looked.left_out))
        found.notes.append(f"long attributes of demos are left out ({names}): keep_long=true")
    return _settled(found, looked.headers, actions)


@dataclass
class _Looking:
    """Goes through the files, and gathers what is found."""

    next_obs: bool
    keep_long: bool
    filter_key: str | None
    found: Found = field(default_factory=Found)
    headers: dict[Path, dict[str, Any]] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    next_left: bool = False

    def file(self, file: Path, name: str) -> None:
        """The demos of a file. Raises DataError if it, as a whole, does not hold together."""
        with open_hdf5(file) as opened, damage_told(file):
            groups, masks = demo_groups(opened, file), _masks(opened, file)
            wanted = _wanted(groups, masks, self.filter_key, file)
            self.headers[file] = facts_of(opened["data"], long=True)[0]
            for group in wanted:
                about: dict[str, Any] = {"source": name, "demo": group}
                about |= {"masks": on} if (on := [m for m in masks if group in masks[m]]) else {}
                try:
                    with damage_told(f"{file}: data/{group}"):
                        self._demo(opened, file, group, about)
                except DataError as error:
                    self.found.demos.append(Demo(file, f"data/{group}", error=error))

    def _demo(self, opened: h5py.File, file: Path, group: str, about: Mapping[str, Any]) -> None:
        demo = group_at(opened["data"], group, file)
        where = f"{file}: data/{group}"
        arrays = {k: v for k, v in arrays_below(demo, where).items() if v.shape}
        if not self.next_obs:
            kept = {k: v for k, v in arrays.items() if not k.startswith("next_obs/")}
            self.next_left, arrays = self.next_left or len(kept) < len(arrays), kept
        facts, out = facts_of(demo, long=self.keep_long)
        self.left_out |= set(out)
        length = _length(arrays, facts, where)
        problems = _take_kinds(self.found, arrays, length, where)
        task = _task(facts) or _task(self.headers[file])
        facts = {k: v for k, v in facts.items() if k not in (*_COUNTS, "task")}
        self.found.demos.append(
            Demo(file, f"data/{group}", length, task, facts | dict(about), problems)
        )


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


def _length(arrays: Mapping[str, h5py.Dataset], facts: Mapping[str, Any], where: str) -> int:
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


def _take_kinds(
    found: Found, arrays: Mapping[str, h5py.Dataset], length: int, where: str
) -> hdf5_found.Problems:
    if not found.kinds.dtypes:
        found.pictures |= {key for key, array in arrays.items() if is_pictures(array)}
        for key, array in arrays.items():
            stated = plain(attribute(array, FEATURE))
            if isinstance(stated, str):
                found.features[key] = stated
            names = plain(attribute(array, NAMES))
            if isinstance(names, list):
                found.names[key] = tuple(map(str, names))
    shown = {key: hdf5_found.Shown.of(array) for key, array in arrays.items()}
    return found.kinds.add(where, shown, dict.fromkeys(arrays, (length,)))


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
    used = {demo.path: headers[demo.path] for demo in found.demos if not demo.error}
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
        demo if demo.error else _with_header(demo, used[demo.path], shared) for demo in found.demos
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
