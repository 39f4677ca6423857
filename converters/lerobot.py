"""LeRobot datasets v2.0, v2.1 and v3.0 of any tool, in any layout seen so far.

Videos stay encoded, pictures are decoded when they are looked at, numbers keep their types.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from dp_hub_converters.lerobot_folders.found import Found, look, pictures_of, why_recode
from dp_hub_converters.lerobot_folders.meta import Feature, InVideo, Listed, Meta
from dp_hub_converters.lerobot_folders.pictures import PictureReader
from dp_hub_converters.lerobot_folders.rows import AGAIN, Rows, Tables, damage_told, numbers

from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip
from dp_hub.replay.episode import Episode
from dp_hub.replay.source import Source

_MOST_OF_INFO = 1_000_000  # bytes of meta/info.json, which is far smaller
_TEXTS = ("string", "language", "large_string")


class LeRobotSource:
    """Reads a folder, or a dataset on the Hub.

    Args:
        missing_episodes: ``"skip"`` leaves out episodes whose files are not there.
    """

    name = "lerobot"
    summary = "a LeRobot dataset of version 2.0, 2.1 or 3.x, a folder or user/name on the Hub"
    on_hub = True

    def __init__(self, *, missing_episodes: Literal["error", "skip"] = "error") -> None:
        self._skip = missing_episodes == "skip"
        self._found: Found | None = None
        self._strict = False

    def recognises(self, path: Path) -> bool:
        """Whether meta/info.json is that of a LeRobot dataset."""
        try:
            with (path / "meta" / "info.json").open("rb") as file:
                return b'"codebase_version"' in file.read(_MOST_OF_INFO)
        except (OSError, ValueError):
            return False

    def describe(self, path: Path, *, skip_bad: bool = False) -> Source:
        """What the dataset holds; with ``skip_bad`` in spite of episodes without rows or frames.

        Raises:
            DataError: it does not hold together.
        """
        found = self._look(path)
        meta = found.meta
        if found.missing and (not skip_bad or not found.rows):
            raise next(iter(found.missing.values()))
        self._strict = not skip_bad
        known = [e for e in meta.episodes if e.number in found.rows]
        # Which episodes are left out may depend on the keys that are left out.
        all_there = len(known) == len(meta.episodes) and not found.unusable
        dtypes = {
            key: "uint8" if f.dtype in ("video", "image") else f.dtype
            for key, f in meta.features.items()
        }
        if found.several_tasks:
            dtypes["task_index"] = "int64"
        origin = {"name": path.name, "revision": None}
        origin |= {"fingerprint": meta.fingerprint, "license": meta.license}
        return Source(
            dtypes=dtypes,
            n_episodes=len(known) + len(found.missing) if all_there or not self._skip else None,
            n_frames=sum(found.rows[e.number].count for e in known)
            if all_there or not self._skip
            else None,
            attrs=_attrs(found),
            notes=(*found.notes, *_missing(found)),
            features={key: key for key in meta.features if "/" not in key and key != "task"},
            names={key: f.names for key, f in meta.features.items() if f.names},
            recode=why_recode(found),
            sources=(origin,),
        )

    def episodes(
        self, path: Path, *, drop: Collection[str] = (), start: int = 0
    ) -> Iterator[Episode]:
        """Its episodes from number ``start`` on, in the order of their numbers.

        Raises:
            DataError: frames are missing, or values that no feature can hold.
        """
        found = self._look(path)
        features = [f for key, f in found.meta.features.items() if key not in drop]
        wanted = self._wanted(found, features)
        tables, readers = Tables(), dict[tuple[Path, str], PictureReader]()
        recode = why_recode(found)
        with_tasks = found.several_tasks and "task_index" not in drop
        for position, (listed, error) in enumerate(wanted[start:], start):
            if error is not None:
                raise DataError(error.message, hint=error.hint)
            rows = found.rows[listed.number]
            data, texts = _values(found, listed, rows, features, tables, readers, recode)
            if with_tasks:
                table = tables.read(rows, ["task_index"])
                data["task_index"] = numbers(table["task_index"], "task_index", (1,), rows.path)
            task, facts = _facts(found.meta, listed, rows, position)
            yield Episode(data, task=task, metadata=facts | texts)

    def _wanted(
        self, found: Found, features: Sequence[Feature]
    ) -> list[tuple[Listed, DataError | None]]:
        """The episodes to convert, with what keeps some from it. Raises DataError."""
        numbers = {*found.rows, *found.missing}
        wanted, bad = [e for e in found.meta.episodes if e.number in numbers], dict(found.missing)
        for feature in features:
            problems = found.unusable.get(feature.key, {})
            if self._skip and len(problems) < len(wanted):
                wanted = [e for e in wanted if e.number not in problems]
            elif problems and (self._strict or len(problems) == len(found.rows)):
                raise next(iter(problems.values()))
            else:
                bad = problems | bad
        if not wanted:
            raise DataError(f"{found.meta.root} has the files of none of its episodes", hint=AGAIN)
        return [(listed, bad.get(listed.number)) for listed in wanted]

    def _look(self, path: Path) -> Found:
        if self._found is None or self._found.meta.root != path:
            self._found = look(path, skip=self._skip)
        return self._found


def _missing(found: Found) -> Iterator[str]:
    for number, error in found.missing.items():
        yield f"episode {number} cannot be converted: {error.message}"


def _attrs(found: Found) -> dict[str, Any]:
    """What the dataset states of itself."""
    meta = found.meta
    attrs: dict[str, Any] = {"fps": meta.fps, "codebase_version": meta.version}
    attrs |= {"robot_type": meta.robot_type} if meta.robot_type else {}
    attrs |= {"license": meta.license} if meta.license else {}
    if found.several_tasks:
        attrs["tasks"] = {str(number): text for number, text in sorted(meta.tasks.items())}
    return attrs


def _values(
    found: Found,
    listed: Listed,
    rows: Rows,
    features: Sequence[Feature],
    tables: Tables,
    readers: dict[tuple[Path, str], PictureReader],
    recode: Collection[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of an episode, and its texts."""
    plain = [f.key for f in features if f.dtype not in ("video", "image")]
    table = tables.read(rows, plain) if plain else {}
    data: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    for feature in features:
        key = feature.key
        if feature.dtype == "video":
            data[key] = _clip(found, listed.videos[key], rows.count, copied=key not in recode)
        elif feature.dtype == "image":
            data[key] = pictures_of(found, listed, rows, key, readers)
        elif feature.dtype in _TEXTS:
            texts[key] = _text(table[key], key, listed, rows)
        else:
            data[key] = numbers(table[key], key, feature.shape, rows.path)
    return data, texts


def _clip(found: Found, place: InVideo, count: int, *, copied: bool) -> VideoClip:
    facts = found.videos[place.path]
    first = round(place.from_s * found.meta.fps)
    # Without a codec no clip of a feature is copied: a feature's videos are all of one kind.
    codec = facts.codec if copied else ""
    return VideoClip(place.path, first, count, facts.size, found.rate, codec)


def _text(column: Any, key: str, listed: Listed, rows: Rows) -> Any:
    """A text, or whatever language features hold, that does not change within the episode."""
    with damage_told(rows.path):
        first, *others = map(_plain, column.to_pylist())
    if first != {} and all(value == first for value in others):
        return first
    raise DataError(
        f"{key} is text that changes within episode {listed.number} ({rows.path}); a dataset "
        "stores numbers and pictures by frame, and texts by episode",
        hint=f"leave it out with --drop {key}",
    )


def _facts(
    meta: Meta, listed: Listed, rows: Rows, position: int
) -> tuple[str | None, dict[str, Any]]:
    """The task of an episode in words, and what else is known of it."""
    texts = [meta.tasks[number] for number in rows.tasks if number in meta.tasks]
    if not texts:
        texts = [t if isinstance(t, str) else meta.tasks.get(t, "") for t in listed.tasks]
    texts = [text for text in dict.fromkeys(texts) if text]
    facts = {key: plain for key, value in listed.facts.items() if (plain := _plain(value)) != {}}
    if len(texts) > 1:
        facts["tasks"] = texts
    if listed.number != position:
        facts["source_episode"] = listed.number
    return "; ".join(texts) or None, facts


def _plain(value: Any) -> Any:
    """A value as JSON can hold it; {} if it cannot."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return None if isinstance(value, float) else {}
