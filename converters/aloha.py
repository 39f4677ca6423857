"""ALOHA's and ACT's HDF5: a file for each episode, pictures as they are or as JPEG.

``observations/qpos``, ``qvel``, ``effort``, ``observations/images/<camera>``, ``action`` and, of
the mobile robot, ``base_action``. The rate is nowhere in the files.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from dp_hub_converters.hdf5.files import (
    arrays_below,
    damage_told,
    facts_of,
    files_at,
    first_file_at,
    open_hdf5,
    plain,
    read_numbers,
)
from dp_hub_converters.hdf5.found import Found, Problems, Shown, raise_first
from dp_hub_converters.hdf5.pictures import (
    Encoded,
    ImageEncoding,
    Rows,
    Turned,
    encoded_rows,
    is_encoded,
    is_pictures,
)

from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode
from dp_hub.replay.source import Source

_FEATURES = {
    "observations/qpos": "observation.state",
    "observations/qvel": "observation.velocity",
    "action": "action",
    "base_action": "action.base",
}
_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
_NAMES = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in _JOINTS)
_TASKS = ("task", "language_instruction", "instruction")
_FPS_HINT = "ALOHA and ACT record at 50 Hz unless their DT was changed: --fps 50"
_COLOUR_HINT = (
    "no decoder can tell: recorders often give RGB to OpenCV, which takes it for BGR, so that red "
    "and blue are exchanged in the JPEG files (ACT++ and Mobile ALOHA do). Convert one "
    "file with --option image_encoding=bgr and look at it with dp-hub info DIR --picture P.png: if "
    "red and blue are exchanged there, it is image_encoding=rgb"
)


@dataclass(frozen=True)
class _Recorded:
    """One episode: its file, steps T, and what the file states.

    Args:
        problems: by key, why it cannot be converted.
        error: why none of it can be.
    """

    path: Path
    length: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    problems: Problems = field(default_factory=dict)
    error: DataError | None = None


@dataclass
class _All:
    """All episodes, and what they have in common."""

    episodes: list[_Recorded] = field(default_factory=list)
    kinds: Found = field(default_factory=Found)
    encoded: set[str] = field(default_factory=set)
    pictures: set[str] = field(default_factory=set)


class Aloha:
    """Reads a file, or all ``episode_N.hdf5`` below a folder in the order of their numbers.

    Args:
        image_encoding: the order of colours in which a decoder gives the compressed pictures, or
            in which uncompressed ones are stored (then ``rgb`` if it is not said).
        action_shift: how many steps later actions are taken: with 1, step t gets the action
            recorded at t - 1, as ACT's own loader does for real robots. The first one repeats.
    """

    name = "aloha"
    summary = "HDF5 of ALOHA and ACT, an episode_N.hdf5 or a folder of them"

    def __init__(
        self, *, image_encoding: ImageEncoding | None = None, action_shift: int = 0
    ) -> None:
        self._encoding, self._shift = image_encoding, action_shift
        self._found: tuple[Path, _All] | None = None
        self._all_good = False

    def recognises(self, path: Path) -> bool:
        """Whether the first HDF5 file has ``observations`` and ``action`` at its root."""
        file = first_file_at(path)
        if file is None:
            return False
        try:
            with open_hdf5(file) as opened, damage_told(file):
                kinds = [opened.get(n, getclass=True) for n in ("observations", "action")]
                return kinds == [h5py.Group, h5py.Dataset]
        except DataError:
            return False

    def describe(self, path: Path, *, skip_bad: bool = False) -> Source:
        """What the files hold; with ``skip_bad`` in spite of some that cannot be read.

        Raises:
            DataError: they do not hold together, or none can be read.
        """
        found = self._look(path)
        errors = [one.error for one in found.episodes if one.error]
        if errors and (not skip_bad or len(errors) == len(found.episodes)):
            raise errors[0]
        self._all_good = not skip_bad
        kinds = found.kinds
        arms = [key for key, shape in kinds.shapes.items() if shape == (len(_NAMES),)]
        attrs: dict[str, Any] = {"action_shift": self._shift} if self._shift else {}
        if self._encoding:
            attrs["image_encoding"] = self._encoding
        if (fps := _fps(found.episodes)) is not None:
            attrs["fps"] = fps
        return Source(
            dtypes=dict(kinds.dtypes),
            n_episodes=len(found.episodes),
            n_frames=sum(episode.length for episode in found.episodes),
            attrs=attrs,
            notes=(*self._notes(found), *kinds.notes()),
            features={key: name for key in kinds.dtypes if (name := _feature(key, found))},
            names=dict.fromkeys(arms, _NAMES),
            fps_hint=None if "fps" in attrs else _FPS_HINT,
        )

    def episodes(
        self, path: Path, *, drop: Collection[str] = (), start: int = 0
    ) -> Iterator[Episode]:
        """Its episodes from number ``start`` on."""
        found = self._look(path)
        if self._all_good:
            found.kinds.check(drop)
        compressed = sorted(found.encoded - set(drop))
        if compressed and self._encoding is None:
            raise DataError(
                f"the pictures of {', '.join(compressed)} are compressed, and {path} does not say "
                "in which order their colours are",
                hint=_COLOUR_HINT,
            )
        for recorded in found.episodes[start:]:
            if recorded.error:
                raise recorded.error
            raise_first(recorded.problems, drop)
            with damage_told(recorded.path):
                file = open_hdf5(recorded.path)
                arrays = _arrays(file, recorded.path)
                data = {
                    key: self._values(recorded.path, key, array)
                    for key, array in arrays.items()
                    if key not in drop
                }
            task = next((t for n in _TASKS if (t := recorded.facts.get(n))), None)
            facts = {key: value for key, value in recorded.facts.items() if key not in _TASKS}
            yield Episode(data, task=task if isinstance(task, str) else None, metadata=facts)

    def _values(self, path: Path, key: str, array: h5py.Dataset) -> Any:
        where = f"{path}: {key}"
        if is_encoded(key, array):
            rows = Rows(path, key, key, array)
            return Encoded(encoded_rows(rows), len(rows), where, swap=self._encoding == "bgr")
        if is_pictures(array):
            rows = Rows(path, key, key, array)
            return Turned(rows, swap=True) if self._encoding == "bgr" else rows
        values = read_numbers(array, where, key)
        if self._shift and key in ("action", "base_action"):
            last = len(values) - 1
            values = values[np.clip(np.arange(len(values)) - self._shift, 0, last)]
        return values

    def _look(self, path: Path) -> _All:
        if self._found is None or self._found[0] != path:
            self._found = (path, _look(path))
        return self._found[1]

    def _notes(self, found: _All) -> Iterator[str]:
        if found.encoded and self._encoding is None:
            yield f"the pictures are compressed: {_COLOUR_HINT}"
        elif found.pictures and self._encoding is None:
            yield "pictures are taken for RGB; --option image_encoding=bgr if they are not"
        for one in found.episodes:
            if one.error:
                yield f"{one.path.name} cannot be converted: {one.error.message}"
        real = [one for one in found.episodes if one.facts.get("sim") is False]
        if real and not self._shift:
            yield (
                "actions of real robots (sim=False) are recorded one step late; ACT's own loader "
                "makes up for it, as does --option action_shift=1"
            )


def _look(path: Path) -> _All:
    found = _All()
    for file in _files(path):
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        try:
            found.episodes.append(_recorded(file, name, found))
        except DataError as error:
            found.episodes.append(_Recorded(file, error=error))
    return found


def _recorded(file: Path, name: str, found: _All) -> _Recorded:
    """What a file holds, taken into what all hold. Raises DataError."""
    with open_hdf5(file) as opened, damage_told(file):
        arrays = _arrays(opened, file)
        encoded = {key for key, array in arrays.items() if is_encoded(key, array)}
        shown = {key: _shown(file, key, array) for key, array in arrays.items()}
        raw = {key for key, array in arrays.items() if is_pictures(array)}
        length = _length(shown, file)
        facts, _ = facts_of(opened)
        facts |= _texts(opened, file)
    found.encoded |= encoded
    found.pictures |= encoded | raw
    problems = found.kinds.add(str(file), shown, dict.fromkeys(shown, (length,)))
    return _Recorded(file, length, facts | {"source": name}, problems)


def _files(path: Path) -> list[Path]:
    """Episodes are ``episode_N``; other files beside them are not looked at."""
    if path.is_dir() and first_file_at(path, pattern="episode*") is not None:
        return files_at(path, pattern="episode*")
    return files_at(path)


def _arrays(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    """Everything with a row for each step; not the lengths of compressed pictures."""
    found = arrays_below(file, f"{path}: ")
    if not any(key.startswith("observations/") for key in found):
        raise DataError(f"{path} has no observations/...: it is not of ALOHA or ACT")
    return {key: array for key, array in found.items() if array.shape and key != "compress_len"}


def _texts(file: h5py.File, path: Path) -> dict[str, Any]:
    """Single values, such as an instruction, that are no attributes."""
    single = {k: a for k, a in arrays_below(file, f"{path}: ").items() if a.shape == ()}
    values = {key: plain(array[()]) for key, array in single.items()}
    return {key: value for key, value in values.items() if value is not None}


def _shown(path: Path, key: str, array: h5py.Dataset) -> Shown:
    if not is_encoded(key, array) or not len(array):
        return Shown.of(array)
    rows = Rows(path, key, key, array)
    return Shown.of(Encoded(encoded_rows(rows), len(rows), f"{path}: {key}"))


def _length(arrays: Mapping[str, Shown], path: Path) -> int:
    key = next(k for k in ("action", "observations/qpos", *arrays) if k in arrays)
    length = arrays[key].shape[0]
    if not length:
        raise DataError(f"{path}: {key} has no steps", hint="leave the file out")
    return length


def _feature(key: str, found: _All) -> str | None:
    if key in _FEATURES:
        return _FEATURES[key]
    if not key.startswith("observations/"):
        return None
    name = key.removeprefix("observations/").removeprefix("images/").replace("/", ".")
    return f"observation.images.{name}" if key in found.pictures else f"observation.{name}"


def _fps(episodes: list[_Recorded]) -> float | None:
    """Frames per second, in the rare files that state them."""
    stated = {one.facts.get("fps") for one in episodes if not one.error}
    if len(stated) > 1:
        raise DataError(f"the files state different frames per second: {sorted(map(str, stated))}")
    fps = stated.pop()
    good = isinstance(fps, int | float) and not isinstance(fps, bool) and 0 < fps < 1e6
    return fps if good else None
