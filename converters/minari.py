"""Minari datasets: offline data of Gymnasium environments, stored as HDF5, Arrow or Parquet.

An episode of T steps has T + 1 observations; the last one, which no action follows, is dropped.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from dp_hub_converters.hdf5 import minari_arrow, minari_hdf5
from dp_hub_converters.hdf5.found import Found, Shown
from dp_hub_converters.hdf5.minari_sets import Leaf, MinariSet, find_sets, is_minari
from dp_hub_converters.shared.unreadable import Unreadable, check_readable, notes_of

from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode
from dp_hub.replay.source import Source

_FEATURES = {
    "observations": "observation.state",
    "observations/observation": "observation.state",
    "actions": "action",
    "rewards": "next.reward",
    "terminations": "next.terminated",
    "truncations": "next.truncated",
}
_TASKS = ("mission", "instruction", "language", "task")
_READERS: dict[str, ModuleType] = {
    "hdf5": minari_hdf5,
    "arrow": minari_arrow,
    "parquet": minari_arrow,
}


@dataclass(frozen=True)
class _Listed:
    """An episode: its dataset, name in it, and steps T."""

    one: MinariSet
    name: str
    length: int

    @property
    def where(self) -> str:
        """Its place, for messages."""
        return f"{self.one.root}: {self.name}"


@dataclass
class _All:
    """All datasets, their episodes, and what they have in common."""

    sets: list[MinariSet] = field(default_factory=list)
    episodes: list[_Listed | Unreadable] = field(default_factory=list)
    kinds: Found = field(default_factory=Found)
    left_out: set[str] = field(default_factory=set)


class Minari:
    """Reads the folder of a dataset (with ``data`` in it), or of several as one source."""

    name = "minari"
    summary = "a Minari dataset, the folder with data/metadata.json"

    def __init__(self) -> None:
        self._found: tuple[Path, _All] | None = None
        self._strict = False

    def recognises(self, path: Path) -> bool:
        """Whether there is a folder with Minari's metadata.json."""
        return is_minari(path)

    def describe(self, path: Path, *, skip_bad: bool = False) -> Source:
        """What the datasets hold; with ``skip_bad`` in spite of episodes that cannot be read.

        Raises:
            DataError: the datasets do not hold together.
        """
        found = self._look(path)
        check_readable(found.episodes, skip_bad=skip_bad)
        self._strict = not skip_bad
        kinds, notes = found.kinds, [*found.kinds.notes(), *notes_of(found.episodes)]
        if found.left_out:
            notes.append(
                f"not numbers of every step, left out: {', '.join(sorted(found.left_out))}"
            )
        return Source(
            dtypes=dict(kinds.dtypes),
            n_episodes=len(found.episodes),
            n_frames=sum(e.length for e in found.episodes if isinstance(e, _Listed)),
            attrs=_shared(found.sets),
            notes=tuple(notes),
            features={k: f for k in kinds.dtypes if (f := _feature(k, kinds.shapes[k], kinds))},
            fps_hint="Minari does not store it; environments of Gymnasium state it as "
            "metadata['render_fps'] or dt: --fps N",
        )

    def episodes(
        self, path: Path, *, drop: Collection[str] = (), start: int = 0
    ) -> Iterator[Episode]:
        """Its episodes from number ``start`` on, without their last observation."""
        found = self._look(path)
        if self._strict:  # at once, and not hours later when the turn of the bad one comes
            found.kinds.check(drop)
        left = {*drop, *found.left_out}
        shared, one = _shared(found.sets), None
        for listed in found.episodes[start:]:
            if isinstance(listed, Unreadable):
                raise listed.told()
            found.kinds.check(left, listed.where)
            if one is not listed.one:
                one, read = listed.one, _reader(listed.one).reader(listed.one)
                own = {k: v for k, v in one.facts().items() if k not in shared}
            leaves, facts = read(listed.name)
            data, texts = _values(leaves, _length(leaves, facts, one, listed.name), left)
            task = next((t for k, t in texts.items() if k.rsplit("/", 1)[-1] in _TASKS), None)
            facts = {k: v for k, v in facts.items() if k != "total_steps"}
            about = {"source": one.name, "episode": listed.name}
            yield Episode(data, task=task, metadata=own | texts | facts | about)

    def _look(self, path: Path) -> _All:
        if self._found is None or self._found[0] != path:
            self._found = (path, _look(path))
        return self._found[1]


def _look(path: Path) -> _All:
    found = _All()
    for one in find_sets(path):
        if isinstance(one, Unreadable):
            found.episodes.append(one)
            continue
        try:
            _take_set(found, one)
        except DataError as error:
            found.episodes.append(Unreadable(one.name, error))
    if not found.episodes:
        raise DataError(f"{path} holds no episodes")
    _leave_out_infos(found)
    return found


def _take_set(found: _All, one: MinariSet) -> None:
    """Take a dataset's episodes in; those that cannot be read too. Raises DataError."""
    names = _reader(one).episode_names(one)
    told = one.meta.get("total_episodes")
    if told is not None and told != len(names):
        raise DataError(
            f"{one.root}: metadata.json speaks of {told} episodes, there are {len(names)}"
        )
    read = _reader(one).reader(one)
    found.sets.append(one)
    for name in names:
        try:
            found.episodes.append(_take_episode(found, one, name, *read(name)))
        except DataError as error:
            found.episodes.append(Unreadable(f"{one.name}: {name}", error))


def _take_episode(
    found: _All, one: MinariSet, name: str, leaves: Mapping[str, Leaf], facts: Mapping[str, Any]
) -> _Listed:
    listed = _Listed(one, name, _length(leaves, facts, one, name))
    shown, rows = {}, {}
    for key, leaf in leaves.items():
        if key.startswith("infos") and not _usable(leaf, listed.length):
            found.left_out.add(key)
            continue
        shown[key], rows[key] = leaf.shown, _rows_of(key, listed.length, one)
    found.kinds.add(listed.where, shown, rows)
    return listed


def _leave_out_infos(found: _All) -> None:
    """What environments tell beside observations is taken only if it is there in every step."""
    bad = {key for key in found.kinds.problems if key.startswith("infos")} | found.left_out
    for key in bad:
        found.left_out.add(key)
        for part in (found.kinds.dtypes, found.kinds.shapes, found.kinds.problems):
            part.pop(key, None)


def _usable(leaf: Leaf, length: int) -> bool:
    shape = leaf.shown.shape
    return leaf.shown.dtype != "object" and bool(shape) and shape[0] in (length, length + 1)


def _rows_of(key: str, length: int, one: MinariSet) -> Collection[int]:
    """How many rows a key may have for an episode of so many steps."""
    if one.format != "hdf5" or key.startswith("observations"):
        return (length + 1,)  # in tables, all columns are padded to the length of the longest
    return (length, length + 1) if key.startswith("infos") else (length,)


def _reader(one: MinariSet) -> ModuleType:
    if one.format not in _READERS:
        raise DataError(
            f"{one.root} is stored as {one.format!r}", hint=f"read are {', '.join(_READERS)}"
        )
    return _READERS[one.format]


def _length(leaves: Mapping[str, Leaf], facts: Mapping[str, Any], one: MinariSet, name: str) -> int:
    """Steps T of an episode."""
    if "rewards" not in leaves or not leaves["rewards"].shown.shape:
        raise DataError(f"{one.root}: {name} has no rewards, by which its steps are counted")
    rows = leaves["rewards"].shown.shape[0] - (one.format != "hdf5")
    told = facts.get("total_steps")
    if rows < 1 or (told is not None and told != rows):
        raise DataError(f"{one.root}: {name} has {rows} steps; {told} are announced")
    return int(rows)


def _values(
    leaves: Mapping[str, Leaf], length: int, left: Collection[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The arrays of an episode, and its texts."""
    data: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for key, leaf in leaves.items():
        if key in left:
            continue
        values = leaf.read(length)
        if not isinstance(values, list):
            data[key] = values
        elif values and isinstance(values[0], str) and set(values) == {values[0]}:
            texts[key] = values[0]
        else:
            raise DataError(
                f"{key} is text that changes within an episode, or nothing that can be stored",
                hint=f"leave it out with --drop {key}",
            )
    return data, texts


def _shared(sets: list[MinariSet]) -> dict[str, Any]:
    first, *others = [one.facts() for one in sets] or [{}]
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}


def _feature(key: str, shape: tuple[int, ...], kinds: Found) -> str | None:
    pictures = Shown(kinds.dtypes[key], (1, *shape)).are_pictures
    if key == "observations" and pictures:
        return "observation.image"
    if key in _FEATURES:
        return _FEATURES[key]
    head, _, rest = key.partition("/")
    name = rest.replace("/", ".")
    if head == "observations":
        return f"observation.images.{name}" if pictures else f"observation.{name}"
    return f"action.{name}" if head == "actions" else None
