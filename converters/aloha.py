"""ALOHA's and ACT's HDF5: a file for each episode, pictures as they are or as JPEG.

``observations/qpos``, ``qvel``, ``effort``, ``observations/images/<camera>``, ``action`` and, of
the mobile robot, ``base_action``. The rate is nowhere in the files.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from dp_hub_converters.hdf5.damage import damage_told
from dp_hub_converters.hdf5.files import facts_of, files_at, first_file_at, open_hdf5, plain
from dp_hub_converters.hdf5.found import Found, Shown
from dp_hub_converters.hdf5.opened import Opened, Stamp, stamp_of
from dp_hub_converters.hdf5.pictures import (
    Encoded,
    ImageEncoding,
    Rows,
    Turned,
    encoded_rows,
    is_encoded,
    is_pictures,
)
from dp_hub_converters.hdf5.walk import Arrays, Kind, Walk
from dp_hub_converters.shared.unreadable import Unreadable, check_readable, notes_of

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
    """One episode: its file as it was, steps T, what the file holds and states."""

    path: Path
    stamp: Stamp
    length: int
    arrays: Arrays
    facts: Mapping[str, Any]


@dataclass
class _All:
    """All episodes, and what they have in common."""

    episodes: list[_Recorded | Unreadable] = field(default_factory=list)
    kinds: Found = field(default_factory=Found)
    encoded: set[str] = field(default_factory=set)
    pictures: set[str] = field(default_factory=set)

    @property
    def readable(self) -> list[_Recorded]:
        """The episodes that can be read."""
        return [one for one in self.episodes if isinstance(one, _Recorded)]


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
        self._strict = False

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
        """What the files hold; with ``skip_bad`` in spite of files that cannot be read.

        Raises:
            DataError: the files do not hold together.
        """
        found = self._look(path)
        check_readable(found.episodes, skip_bad=skip_bad)
        self._strict = not skip_bad
        kinds = found.kinds
        arms = [key for key, shape in kinds.shapes.items() if shape == (len(_NAMES),)]
        attrs: dict[str, Any] = {"action_shift": self._shift} if self._shift else {}
        if self._encoding:
            attrs["image_encoding"] = self._encoding
        if (fps := _fps(found.readable)) is not None:
            attrs["fps"] = fps
        return Source(
            dtypes=dict(kinds.dtypes),
            n_episodes=len(found.episodes),
            n_frames=sum(episode.length for episode in found.readable),
            attrs=attrs,
            notes=(*self._notes(found), *kinds.notes(), *notes_of(found.episodes)),
            features={key: name for key in kinds.dtypes if (name := _feature(key, found))},
            names=dict.fromkeys(arms, _NAMES),
            fps_hint=None if "fps" in attrs else _FPS_HINT,
        )

    def episodes(
        self, path: Path, *, drop: Collection[str] = (), start: int = 0
    ) -> Iterator[Episode]:
        """Its episodes from number ``start`` on."""
        found = self._look(path)
        if self._strict:  # at once, and not hours later when the turn of the bad one comes
            found.kinds.check(drop)
        compressed = sorted(found.encoded - set(drop))
        if compressed and self._encoding is None:
            raise DataError(
                f"the pictures of {', '.join(compressed)} are compressed, and {path} does not say "
                "in which order their colours are",
                hint=_COLOUR_HINT,
            )
        for recorded in found.episodes[start:]:
            if isinstance(recorded, Unreadable):
                raise recorded.told()
            found.kinds.check(drop, str(recorded.path))
            file = Opened(recorded.path, recorded.stamp)
            with damage_told(recorded.path):
                data = {
                    kind.key: self._values(file, kind, offset)
                    for kind, offset in recorded.arrays
                    if kind.key not in drop and _has_rows(kind)
                }
            task = next((t for n in _TASKS if (t := recorded.facts.get(n))), None)
            facts = {key: value for key, value in recorded.facts.items() if key not in _TASKS}
            yield Episode(data, task=task if isinstance(task, str) else None, metadata=facts)

    def _values(self, file: Opened, kind: Kind, offset: int) -> Any:
        key = kind.key
        if is_encoded(key, kind):
            rows = Rows(file, "", kind, offset)
            where = f"{file.path}: {key}"
            return Encoded(encoded_rows(rows), len(rows), where, swap=self._encoding == "bgr")
        if is_pictures(kind):
            rows = Rows(file, "", kind, offset)
            return Turned(rows, swap=True) if self._encoding == "bgr" else rows
        values = file.numbers("", kind, offset)
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
        real = [one for one in found.readable if one.facts.get("sim") is False]
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
            with closing(Opened(file, stamp_of(file))) as opened, damage_told(file):
                _take(found, opened, name)
        except DataError as error:
            found.episodes.append(Unreadable(name, error))
    return found


def _take(found: _All, opened: Opened, name: str) -> None:
    """Take a file in. Raises DataError if it is none."""
    path, stamp = opened.path, stamp_of(opened.path)
    arrays = Walk().arrays(opened.file, f"{path}: ")
    if not any(kind.key.startswith("observations/") for kind in arrays.kinds):
        raise DataError(f"{path} has no observations/...: it is not of ALOHA or ACT")
    kinds = {kind.key: (kind, offset) for kind, offset in arrays if _has_rows(kind)}
    encoded = {key for key, (kind, _) in kinds.items() if is_encoded(key, kind)}
    shown = {key: _shown(opened, kind, offset) for key, (kind, offset) in kinds.items()}
    length = _length(shown, path)
    facts, _ = facts_of(opened.file)
    for kind in arrays.kinds:  # single values, such as an instruction, that are no attributes
        if not kind.shape and (value := plain(opened.file[kind.key][()])) is not None:
            facts[kind.key] = value
    found.encoded |= encoded
    found.pictures |= encoded | {key for key, (kind, _) in kinds.items() if is_pictures(kind)}
    found.kinds.add(str(path), shown, dict.fromkeys(shown, (length,)))
    found.episodes.append(_Recorded(path, stamp, length, arrays, facts | {"source": name}))


def _files(path: Path) -> list[Path]:
    """Episodes are ``episode_N``; other files beside them are not looked at."""
    if path.is_dir() and first_file_at(path, pattern="episode*") is not None:
        return files_at(path, pattern="episode*")
    return files_at(path)


def _has_rows(kind: Kind) -> bool:
    """Whether there may be a row for each step; not the lengths of compressed pictures."""
    return bool(kind.shape) and kind.key != "compress_len"


def _shown(opened: Opened, kind: Kind, offset: int) -> Shown:
    if not is_encoded(kind.key, kind) or not kind.shape[0]:
        return Shown.of(kind)
    rows = Rows(opened, "", kind, offset)
    return Shown.of(Encoded(encoded_rows(rows), len(rows), f"{opened.path}: {kind.key}"))


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
    stated = {one.facts.get("fps") for one in episodes}
    if len(stated) > 1:
        raise DataError(f"the files state different frames per second: {sorted(map(str, stated))}")
    fps = stated.pop()
    good = isinstance(fps, int | float) and not isinstance(fps, bool) and 0 < fps < 1e6
    return fps if good else None
