"""Where the rows and frames of LeRobot's episodes really are: meta/ looked up, and verified.

Rows carry the number of their episode and videos have an index. Known writers got meta/ wrong, and
readers that trust it train on other episodes' frames without a word.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from dp_hub_converters.lerobot_folders.meta import InVideo, Listed, Meta, read_meta
from dp_hub_converters.lerobot_folders.pictures import PictureFolder, PictureReader, Pictures
from dp_hub_converters.lerobot_folders.rows import AGAIN, Rows, find_episodes, open_parquet

from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoFacts, look_at_video

_OFF_S = 1e-3  # timestamps may be so far from the grid without being mentioned
_OPEN_FILES = 64


@dataclass
class Found:
    """What was found of a dataset, beside its metadata.

    Args:
        rows: by episode.
        missing: by episode, why its rows cannot be had.
        videos: what each video file holds, by path.
        unusable: by feature and episode, why its frames cannot be had.
        shapes: (H, W, C) of pictures that are not in videos.
        columns: of the data files, by name: in how many files each is.
        notes: for the user.
    """

    meta: Meta
    rows: dict[int, Rows] = field(default_factory=dict)
    missing: dict[int, DataError] = field(default_factory=dict)
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


def look(root: Path, *, skip: bool) -> Found:
    """What the dataset at ``root`` holds.

    Args:
        skip: episodes whose files are missing are left out.
    Raises:
        DataError: it does not hold together. What is wrong with rows of single episodes is kept in
            ``missing``, with videos and pictures in ``unusable``, as that matters only to those who
            want them.
    """
    found = Found(read_meta(root))
    found.notes += found.meta.notes
    _find_rows(found, skip=skip)
    _find_videos(found, skip=skip)
    _find_depth(found)
    _find_pictures(found)
    _note_columns(found)
    return found


def _find_rows(found: Found, *, skip: bool) -> None:
    """Find the rows of every episode."""
    files: dict[Path, dict[int, Rows]] = {}
    failed: dict[Path, DataError] = {}
    missing, elsewhere = [], list[Rows]()
    for listed in found.meta.episodes:
        try:
            _scan(found, files, listed.data)
        except DataError as error:
            files[listed.data], failed[listed.data] = {}, error
    for listed in found.meta.episodes:
        try:
            rows = _rows_of(found, files, listed, elsewhere)
        except DataError as error:
            found.missing[listed.number] = error
            continue
        if rows is not None:
            found.rows[listed.number] = rows
        elif listed.data in failed:
            found.missing[listed.number] = failed[listed.data]
        else:
            missing.append(listed)
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
            f"timestamps are up to {off_s:.4g} s off the {found.meta.fps:g} Hz grid; frames are "
            f"taken as 1/{found.meta.fps:g} s apart"
        )
    if found.several_tasks:
        n = sum(len(rows.tasks) > 1 for rows in found.rows.values())
        found.notes.append(
            f"the task changes within {n} episodes: their texts are joined, and the key task_index "
            "keeps which one it is in every frame"
        )


def _rows_of(
    found: Found, files: Mapping[Path, dict[int, Rows]], listed: Listed, elsewhere: list[Rows]
) -> Rows | None:
    """The rows of an episode, None if there are none; those of another file are in ``elsewhere``.

    Raises:
        DataError: they are in several files, or are not as many as they should be.
    """
    meta, rows = found.meta, files[listed.data].get(listed.number)
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
    if rows is not None and listed.length not in (None, rows.count):
        raise DataError(
            f"{rows.path} has {rows.count} rows of episode {listed.number}; meta/ says it has "
            f"{listed.length} frames",
            hint=AGAIN,
        )
    return rows


def _scan(found: Found, files: dict[Path, dict[int, Rows]], path: Path) -> None:
    if path in files:
        return
    if not path.exists():
        files[path] = {}
        return
    files[path] = find_episodes(path, found.meta.fps)
    found.columns.update(open_parquet(path).schema_arrow.names)


def _tell_missing(
    found: Found, files: Mapping[Path, Any], missing: Sequence[Listed], *, skip: bool
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
        others = (
            f", or convert the {there} others with --option missing_episodes=skip" if there else ""
        )
        error = DataError(
            f"{what}{more}", hint=f"copy or pull the dataset again, it is not complete{others}"
        )
        found.missing |= {listed.number: error for listed in missing}
        return
    left_out = _listed([e.number for e in missing])
    found.notes.append(f"left out, as their data files are not there: {left_out}")


def _listed(numbers: Sequence[int]) -> str:
    some = ", ".join(map(str, numbers[:6]))
    name = "episode" if len(numbers) == 1 else "episodes"
    return f"{name} {some}" + (f" and {len(numbers) - 6} more" if len(numbers) > 6 else "")


def _find_videos(found: Found, *, skip: bool) -> None:
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
        _note_longer(found, key)
    if audio:
        found.notes.append(f"sound is left out: {', '.join(sorted(audio))}")


def _note_longer(found: Found, key: str) -> None:
    """Tell of videos of one episode each that have more frames than it has rows."""
    longer = [
        listed.number
        for listed in found.meta.episodes
        if found.meta.major == 2
        and listed.number in found.rows
        and (facts := found.videos.get(listed.videos[key].path)) is not None
        and len(facts.times_s)
        and facts.times_s[-1] > found.rows[listed.number].count / found.meta.fps - 1e-3
    ]
    if longer:
        found.notes.append(
            f"{key} is longer than the rows of {_listed(longer)}: further frames are left out"
        )


def _video_facts(found: Found, path: Path, failed: dict[Path, DataError]) -> VideoFacts:
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
    found: Found, listed: Listed, key: str, place: InVideo, facts: VideoFacts
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
    last_s = facts.times_s[-1] if len(facts.times_s) else -math.inf
    if last_s < (round(first) + count - 1.5) / fps:
        raise DataError(
            f"{place.path} ends at {last_s:.3f} s, before the last of the {count} frames of "
            f"episode {listed.number}"
        )


def _with_hint(
    found: Found, key: str, problems: Mapping[int, DataError], *, skip: bool
) -> dict[int, DataError]:
    """The same problems with what to do about them; when skipping, a note of what is left out."""
    some = len(problems) < len(found.rows)
    if skip and some:
        left_out = _listed(sorted(problems))
        found.notes.append(f"left out, as {key} has no usable video of them: {left_out}")
    hint = f"copy or pull the videos again, or leave them out with --drop {key}"
    if some:
        hint += f", or convert the {len(found.rows) - len(problems)} other episodes with "
        hint += "--option missing_episodes=skip"
    more = f"; so it is with {len(problems) - 1} more episodes" if len(problems) > 1 else ""
    return {
        number: DataError(error.message + more, hint=hint) for number, error in problems.items()
    }


def _find_depth(found: Found) -> None:
    for key, feature in found.meta.features.items():
        if feature.depth and feature.dtype == "video":
            error = DataError(
                f"{key} is a video of distances; only 8 bits of them could be kept",
                hint=f"leave it out with --drop {key}",
            )
            found.unusable[key] = {e.number: error for e in found.meta.episodes}


def _find_pictures(found: Found) -> None:
    """What pictures that are not in videos look like, from the first one."""
    first = next((e for e in found.meta.episodes if e.number in found.rows), None)
    for key, feature in found.meta.features.items():
        if feature.dtype != "image" or first is None:
            continue
        try:
            pictures = pictures_of(found, first, found.rows[first.number], key, {})
        except DataError as error:
            found.unusable[key] = dict.fromkeys(found.rows, error)
            continue
        found.shapes[key] = pictures.shape[1:]
        if pictures.format == "JPEG":
            found.notes.append(
                f"{key} holds JPEG pictures: as webp or png, which lose nothing more, they take "
                "several times the room; --images video is smaller"
            )


def _note_columns(found: Found) -> None:
    known = {*found.meta.features, "timestamp", "frame_index", "episode_index", "index"}
    extra = sorted(name for name in found.columns if name not in {*known, "task_index"})
    if extra:
        found.notes.append(f"left out, as meta/info.json does not list them: {', '.join(extra)}")


def why_recode(found: Found) -> dict[str, str]:
    """By key, why videos cannot be copied packet by packet."""
    reasons = {}
    for key, feature in found.meta.features.items():
        if feature.dtype == "video" and (reason := _why_recode(found, key)):
            reasons[key] = reason
    return reasons


def _why_recode(found: Found, key: str) -> str | None:
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


def pictures_of(
    found: Found,
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
