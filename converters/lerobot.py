"""LeRobot datasets v2.0, v2.1 and v3.0 of any tool, in any layout seen so far.

Where rows and frames are is looked up in meta/ and then verified: rows carry the number of their
episode, videos have an index. Known writers got either wrong, and readers that trust them train on
other episodes' frames without a word. Videos stay encoded, pictures are decoded when needed.
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from dp_hub_converters.lerobot_meta import AGAIN, Feature, InVideo, Listed, Meta, read_meta
from dp_hub_converters.lerobot_rows import (
    PictureFolder,
    PictureReader,
    Pictures,
    Rows,
    Tables,
    damage_told,
    find_episodes,
    numbers,
    open_parquet,
)

from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip, VideoFacts, look_at_video
from dp_hub.replay.episode import Episode
from dp_hub.replay.source import Source

_OFF_S = 1e-3  # timestamps may be so far from the grid without being mentioned
_OPEN_FILES = 64
_TEXTS = ("string", "language", "large_string")


@dataclass
class _Found:
    """What was found of a dataset, beside its metadata.

    Args:
        rows: by episode.
        videos: what each video file holds, by path.
        unusable: by feature and episode, why its frames cannot be had.
        shapes: (H, W, C) of pictures that are not in videos.
        columns: of the data files, by name: in how many files each is.
        notes: for the user.
    """

    meta: Meta
    rows: dict[int, Rows] = field(default_factory=dict)
    videos: dict[Path, VideoFacts] = field(default_factory=dict)
    unusable: dict[str, dict[int, DataError]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    columns: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.meta.fps).limit_denominator(100_000)

    @property
    def several_tasks(self) -> bool:
        """Whether the task changes within an episode."""
        return any(len(rows.tasks) > 1 for rows in self.rows.values())


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
        self._found: _Found | None = None

    def describe(self, path: Path) -> Source:
        """What the dataset holds. Raises DataError where it does not hold together."""
        found = self._look(path)
        meta = found.meta
        known = [e for e in meta.episodes if e.number in found.rows]
        # Which episodes are left out may depend on the keys that are left out.
        all_there = len(known) == len(meta.episodes) and not found.unusable
        dtypes = {
            key: "uint8" if f.dtype in ("video", "image") else f.dtype
            for key, f in meta.features.items()
        }
        if found.several_tasks:
            dtypes["task_index"] = "int64"
        attrs: dict[str, Any] = {"fps": meta.fps, "codebase_version": meta.version}
        if meta.robot_type:
            attrs["robot_type"] = meta.robot_type
        if meta.license:
            attrs["license"] = meta.license
        if found.several_tasks:
            attrs["tasks"] = {str(number): text for number, text in sorted(meta.tasks.items())}
        origin = {"name": path.name, "revision": None}
        origin |= {"fingerprint": meta.fingerprint, "license": meta.license}
        return Source(
            dtypes=dtypes,
            n_episodes=len(known) if all_there or not self._skip else None,
            n_frames=sum(found.rows[e.number].count for e in known)
            if all_there or not self._skip
            else None,
            attrs=attrs,
            notes=tuple(found.notes),
            features={key: key for key in meta.features if "/" not in key and key != "task"},
            names={key: f.names for key, f in meta.features.items() if f.names},
            recode=_recode(found),
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
        with_tasks = found.several_tasks and "task_index" not in drop
        for position, listed in enumerate(wanted[start:], start):
            rows = found.rows[listed.number]
            data, texts = _values(found, listed, rows, features, tables, readers)
            if with_tasks:
                table = tables.read(rows, ["task_index"])
                data["task_index"] = numbers(table["task_index"], "task_index", (1,), rows.path)
            task, facts = _facts(found.meta, listed, rows, position)
            yield Episode(data, task=task, metadata=facts | texts)

    def _wanted(self, found: _Found, features: Sequence[Feature]) -> list[Listed]:
        """The episodes to convert. Raises DataError if one of them cannot be."""
        kept = [f.key for f in features]
        wanted = [e for e in found.meta.episodes if e.number in found.rows]
        for key in kept:
            problems = found.unusable.get(key, {})
            if self._skip and len(problems) < len(wanted):
                wanted = [e for e in wanted if e.number not in problems]
            elif problems:
                raise next(iter(problems.values()))
        if not wanted:
            raise DataError(f"{found.meta.root} has the files of none of its episodes", hint=AGAIN)
        return wanted

    def _look(self, path: Path) -> _Found:
        if self._found is None or self._found.meta.root != path:
            found = _Found(read_meta(path))
            found.notes += found.meta.notes
            _find_rows(found, skip=self._skip)
            _find_videos(found, skip=self._skip)
            _find_depth(found)
            _find_pictures(found)
            _note_columns(found)
            self._found = found
        return self._found


def _find_rows(found: _Found, *, skip: bool) -> None:
    """Find the rows of every episode. Raises DataError if some are not there."""
    meta = found.meta
    files: dict[Path, dict[int, Rows]] = {}
    missing, elsewhere = [], []
    for listed in meta.episodes:
        _scan(found, files, listed.data)
    for listed in meta.episodes:
        rows = files[listed.data].get(listed.number)
        if rows is None and meta.major == 3:
            places = [held[listed.number] for held in files.values() if listed.number in held]
            if len(places) > 1:
                raise DataError(
                    f"episode {listed.number} is in {len(places)} data files of {meta.root}, but "
                    f"not in {listed.data}, where meta/episodes says",
                    hint=AGAIN,
                )
            rows = places[0] if places else None
            elsewhere += places
        if rows is None:
            missing.append(listed)
            continue
        if listed.length not in (None, rows.count):
            raise DataError(
                f"{rows.path} has {rows.count} rows of episode {listed.number}; meta/ says it has "
                f"{listed.length} frames",
                hint=AGAIN,
            )
        found.rows[listed.number] = rows
    if missing:
        _tell_missing(found, files, missing, skip=skip)
    if elsewhere:
        found.notes.append(
            f"meta/episodes is wrong about the data file of {len(elsewhere)} episodes; their rows "
            "were found by the numbers in them"
        )
    off_s = max((rows.off_s for rows in found.rows.values()), default=0.0)
    if off_s > _OFF_S:
        found.notes.append(
            f"timestamps are up to {off_s:.4g} s off the {meta.fps:g} Hz grid; frames are taken as "
            f"1/{meta.fps:g} s apart"
        )
    if found.several_tasks:
        n = sum(len(rows.tasks) > 1 for rows in found.rows.values())
        found.notes.append(
            f"the task changes within {n} episodes: their texts are joined, and the key task_index "
            "keeps which one it is in every frame"
        )


def _scan(found: _Found, files: dict[Path, dict[int, Rows]], path: Path) -> None:
    if path in files:
        return
    if not path.exists():
        files[path] = {}
        return
    files[path] = find_episodes(path, found.meta.fps)
    found.columns.update(open_parquet(path).schema_arrow.names)


def _tell_missing(
    found: _Found, files: Mapping[Path, Any], missing: Sequence[Listed], *, skip: bool
) -> None:
    meta, first = found.meta, missing[0]
    if first.data.exists():
        seen = sorted(files[first.data])
        held = f"it has {_listed(seen)}" if seen else "it has no rows"
        what = f"{first.data} has no rows of episode {first.number}: {held}"
    else:
        what = f"{first.data} is missing"
    if not skip:
        more = f"; so are the rows of {len(missing) - 1} more episodes" if missing[1:] else ""
        there = len(meta.episodes) - len(missing)
        others = f", or convert the {there} others with --missing-episodes skip" if there else ""
        raise DataError(
            f"{what}{more}", hint=f"copy or pull the dataset again, it is not complete{others}"
        )
    left_out = _listed([e.number for e in missing])
    found.notes.append(f"left out, as their data files are not there: {left_out}")


def _listed(numbers: Sequence[int]) -> str:
    some = ", ".join(map(str, numbers[:6]))
    name = "episode" if len(numbers) == 1 else "episodes"
    return f"{name} {some}" + (f" and {len(numbers) - 6} more" if len(numbers) > 6 else "")


def _find_videos(found: _Found, *, skip: bool) -> None:
    """Look at every video; what is wrong counts only for those who want it."""
    failed: dict[Path, DataError] = {}
    audio = set()
    for key, feature in found.meta.features.items():
        if feature.dtype != "video":
            continue
        problems = {}
        for listed in found.meta.episodes:
            if listed.number not in found.rows:
                continue
            place = listed.videos[key]
            try:
                facts = _video_facts(found, place.path, failed)
                _check_frames(found, listed, key, place, facts)
            except DataError as error:
                problems[listed.number] = error
            else:
                audio |= {key} if facts.has_audio else set()
        if problems:
            found.unusable[key] = _with_hint(found, key, problems, skip=skip)
    if audio:
        found.notes.append(f"sound is left out: {', '.join(sorted(audio))}")


def _video_facts(found: _Found, path: Path, failed: dict[Path, DataError]) -> VideoFacts:
    if path in failed:
        raise failed[path]
    if path not in found.videos:
        try:
            if not path.exists():
                raise DataError(f"{path} is missing")
            found.videos[path] = look_at_video(path)
        except DataError as error:
            failed[path] = error
            raise
    return found.videos[path]


def _check_frames(
    found: _Found, listed: Listed, key: str, place: InVideo, facts: VideoFacts
) -> None:
    """Raises DataError if a video cannot have the frames of an episode."""
    count = found.rows[listed.number].count
    first, fps = place.from_s * found.meta.fps, found.meta.fps
    if abs(first - round(first)) > 0.25:
        raise DataError(
            f"{key} of episode {listed.number} begins at {place.from_s:.4f} s of {place.path}, "
            f"between two frames at {fps:g} Hz"
        )
    if place.to_s is not None and round((place.to_s - place.from_s) * fps) != count:
        raise DataError(
            f"episode {listed.number} has {count} frames, but {key} has it from "
            f"{place.from_s:.3f} s to {place.to_s:.3f} s of {place.path}"
        )
    last_s = max(facts.times_s, default=-math.inf)
    if last_s < (round(first) + count - 1.5) / fps:
        raise DataError(
            f"{place.path} ends at {last_s:.3f} s, before the last of the {count} frames of "
            f"episode {listed.number}"
        )


def _with_hint(
    found: _Found, key: str, problems: Mapping[int, DataError], *, skip: bool
) -> dict[int, DataError]:
    """The same problems with what to do about them; when skipping, a note of what is left out."""
    some = len(problems) < len(found.rows)
    if skip and some:
        left_out = _listed(sorted(problems))
        found.notes.append(f"left out, as {key} has no usable video of them: {left_out}")
    hint = f"copy or pull the videos again, or leave them out with --drop {key}"
    if some:
        hint += f", or convert the {len(found.rows) - len(problems)} other episodes with "
        hint += "--missing-episodes skip"
    more = f"; so it is with {len(problems) - 1} more episodes" if len(problems) > 1 else ""
    return {
        number: DataError(error.message + more, hint=hint) for number, error in problems.items()
    }


def _find_depth(found: _Found) -> None:
    for key, feature in found.meta.features.items():
        if feature.depth and feature.dtype == "video":
            error = DataError(
                f"{key} is a video of distances; only 8 bits of them could be kept",
                hint=f"leave it out with --drop {key}",
            )
            found.unusable[key] = {e.number: error for e in found.meta.episodes}


def _find_pictures(found: _Found) -> None:
    """What pictures that are not in videos look like, from the first one."""
    first = next((e for e in found.meta.episodes if e.number in found.rows), None)
    for key, feature in found.meta.features.items():
        if feature.dtype != "image" or first is None:
            continue
        try:
            pictures = _pictures(found, first, found.rows[first.number], key, {})
        except DataError as error:
            found.unusable[key] = dict.fromkeys(found.rows, error)
            continue
        found.shapes[key] = pictures.shape[1:]
        if pictures.format == "JPEG":
            found.notes.append(
                f"{key} holds JPEG pictures: as webp or png, which lose nothing more, they take "
                "several times the room; --images video is smaller"
            )


def _note_columns(found: _Found) -> None:
    known = {*found.meta.features, "timestamp", "frame_index", "episode_index", "index"}
    extra = sorted(name for name in found.columns if name not in {*known, "task_index"})
    if extra:
        found.notes.append(f"left out, as meta/info.json does not list them: {', '.join(extra)}")


def _recode(found: _Found) -> dict[str, str]:
    """By key, why videos cannot be copied packet by packet."""
    reasons = {}
    for key, feature in found.meta.features.items():
        if feature.dtype == "video" and (reason := _why_recode(found, key)):
            reasons[key] = reason
    return reasons


def _why_recode(found: _Found, key: str) -> str | None:
    kinds = set()
    for listed in found.meta.episodes:
        rows, place = found.rows.get(listed.number), listed.videos[key]
        facts = found.videos.get(place.path)
        if rows is None or facts is None or listed.number in found.unusable.get(key, {}):
            continue
        first = round(place.from_s * found.meta.fps)
        if reason := facts.why_not_copied(first, rows.count, found.rate):
            return f"{place.path.relative_to(found.meta.root)}: {reason}"
        kinds.add((facts.codec, facts.pix_fmt))
    if len(kinds) > 1:
        seen = ", ".join(sorted(f"{codec} {pix_fmt}" for codec, pix_fmt in kinds))
        return f"its files are encoded in different ways: {seen}"
    return None


def _values(
    found: _Found,
    listed: Listed,
    rows: Rows,
    features: Sequence[Feature],
    tables: Tables,
    readers: dict[tuple[Path, str], PictureReader],
) -> tuple[dict[str, Any], dict[str, str]]:
    """The arrays of an episode, and its texts."""
    plain = [f.key for f in features if f.dtype not in ("video", "image")]
    table = tables.read(rows, plain) if plain else {}
    data: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for feature in features:
        key = feature.key
        if feature.dtype == "video":
            data[key] = _clip(found, listed.videos[key], rows.count)
        elif feature.dtype == "image":
            data[key] = _pictures(found, listed, rows, key, readers)
        elif feature.dtype in _TEXTS:
            texts[key] = _text(table[key], key, listed, rows)
        else:
            data[key] = numbers(table[key], key, feature.shape, rows.path)
    return data, texts


def _clip(found: _Found, place: InVideo, count: int) -> VideoClip:
    facts = found.videos[place.path]
    first = round(place.from_s * found.meta.fps)
    return VideoClip(place.path, first, count, facts.size, found.rate, facts.codec)


def _pictures(
    found: _Found,
    listed: Listed,
    rows: Rows,
    key: str,
    readers: dict[tuple[Path, str], PictureReader],
) -> Pictures:
    root, shape = found.meta.root, found.shapes.get(key)
    at = (rows.path, key)
    if at not in readers and key in open_parquet(rows.path).schema_arrow.names:
        if len(readers) > _OPEN_FILES:
            readers.clear()
        readers[at] = PictureReader(rows.path, key, root)
    if at in readers:
        return Pictures(readers[at], rows, key, shape)
    for name in (f"episode_{listed.number:06d}", f"episode-{listed.number:06d}"):
        files = sorted(p for p in (root / "images" / key / name).glob("*") if p.is_file())
        if len(files) == rows.count:
            return Pictures(PictureFolder(files, rows.start), rows, key, shape)
    raise DataError(
        f"the {rows.count} pictures {key} of episode {listed.number} are neither in {rows.path} "
        f"nor in {root}/images/{key}",
        hint=f"copy or pull the dataset again, or leave them out with --drop {key}",
    )


def _text(column: Any, key: str, listed: Listed, rows: Rows) -> str:
    """A text that does not change within the episode."""
    with damage_told(rows.path):
        values = set(map(str, column.to_pylist()))
    if len(values) == 1:
        return values.pop()
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
