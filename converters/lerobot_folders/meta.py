"""The meta/ folder of LeRobot datasets v2.0, v2.1 and v3.0: features, episodes, tasks, places.

Nothing here is believed without need: what is read is checked for type and range, and where the
rows and frames of an episode really are is verified by `dp_hub_converters.lerobot`.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dp_hub_converters.lerobot_folders.rows import AGAIN, open_parquet, read_rows

from dp_hub.errors import DataError

INDEX = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_DATA = {
    2: "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    3: "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
_VIDEO = {
    2: "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    3: "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
_FIELDS = "episode_chunk|episode_index|chunk_index|file_index|video_key"
_LARGEST = 2**31


@dataclass(frozen=True)
class Feature:
    """One entry of ``features`` that holds data of the robot.

    Args:
        dtype: ``video``, ``image``, ``string``, ``language``, or a numpy type's name.
        shape: of one frame as stated; () if not stated.
        names: of its numbers, one after the other; () if there are none or they do not fit.
        depth: pictures of distances.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    depth: bool


@dataclass(frozen=True)
class InVideo:
    """Where the frames of an episode are, as meta/ says: a file, and seconds in it."""

    path: Path
    from_s: float
    to_s: float | None


@dataclass(frozen=True)
class Listed:
    """An episode as meta/ lists it.

    Args:
        number: its ``episode_index``.
        length: frames; None if it is not told.
        tasks: texts, or numbers of tasks.
        data: the file its rows should be in.
        videos: by feature.
        facts: everything else that is told about it.
    """

    number: int
    length: int | None
    tasks: tuple[str | int, ...]
    data: Path
    videos: Mapping[str, InVideo]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Meta:
    """The contents of meta/.

    Args:
        major: 2 or 3, the layout.
        version: as stated.
        tasks: texts by number.
        license: identifier that the card or meta/dp_hub.json gives.
        fingerprint: of a dataset that dp_hub wrote.
    """

    root: Path
    major: int
    version: str
    fps: float
    robot_type: str | None
    features: Mapping[str, Feature]
    tasks: Mapping[int, str]
    episodes: tuple[Listed, ...]
    license: str | None
    fingerprint: str | None
    notes: tuple[str, ...]


def read_meta(root: Path) -> Meta:
    """The metadata of the dataset at ``root``.

    Raises:
        DataError: there is none, it is of version 1, or it does not hold together.
    """
    info = _read_info(root)
    major, version = _version(root, info)
    features = _features(root, info)
    videos = [feature.key for feature in features.values() if feature.dtype == "video"]
    tasks = _tasks(root)
    own = _read_own(root)
    listed = (_episodes_v2 if major == 2 else _episodes_v3)(root, info, videos)
    episodes, notes = _checked(root, info, listed, own)
    robot = info.get("robot_type")
    return Meta(
        root=root,
        major=major,
        version=version,
        fps=_fps(root, info),
        robot_type=robot if isinstance(robot, str) else None,
        features=features,
        tasks=tasks,
        episodes=tuple(sorted(episodes, key=lambda episode: episode.number)),
        license=_license(root) or _text(own.get("license")),
        fingerprint=_text(own.get("fingerprint")),
        notes=tuple(notes),
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises DataError if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", hint=AGAIN) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}", hint=AGAIN) from None
    if not isinstance(value, dict):
        raise DataError(f"{path} holds a {type(value).__name__}, not an object", hint=AGAIN)
    return value


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; none if it is missing. Raises DataError as `read_json`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint=AGAIN) from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {number} of {path} is not JSON: {error}", hint=AGAIN) from None
        if not isinstance(row, dict):
            raise DataError(f"line {number} of {path} is not an object", hint=AGAIN)
        rows.append(row)
    return rows


def _read_info(root: Path) -> dict[str, Any]:
    path = root / "meta" / "info.json"
    if not path.is_file():
        raise DataError(
            f"{root} is not a LeRobot dataset: it has no meta/info.json",
            hint="give the folder that holds meta/ and data/, or user/name on the Hub",
        )
    return read_json(path)


def _version(root: Path, info: Mapping[str, Any]) -> tuple[int, str]:
    stated = str(info.get("codebase_version") or "")
    number = stated.removeprefix("v")
    if not number:  # not stated: told from the layout
        return (3, "v3.0") if (root / "meta" / "episodes").is_dir() else (2, "v2.1")
    if re.fullmatch(r"[23](\.\d+)*", number):
        return int(number[0]), stated
    raise DataError(
        f"{root} is a LeRobot dataset of version {stated[:20]!r}; v2.0, v2.1 and v3.x are read",
        hint="v1.x datasets are brought to v2.0 by the lerobot of their time"
        if number.startswith("1")
        else None,
    )


def _fps(root: Path, info: Mapping[str, Any]) -> float:
    fps = info.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < 1e6:
        raise DataError(f"`fps` in {root}/meta/info.json is {fps!r}, not a rate", hint=AGAIN)
    return fps


def _features(root: Path, info: Mapping[str, Any]) -> dict[str, Feature]:
    entries = info.get("features")
    where = f"{root}/meta/info.json"
    if not isinstance(entries, dict) or not entries:
        raise DataError(f"{where} has no `features`", hint=AGAIN)
    features = {}
    for key, entry in entries.items():
        if key in INDEX:
            continue
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        if not isinstance(dtype, str) or not key or ".." in key or key.startswith("/"):
            raise DataError(f"{where}: {key!r} is not a feature", hint=AGAIN)
        shape = entry.get("shape")
        sizes = shape if isinstance(shape, (list, tuple)) else []
        if not all(isinstance(n, int) and 0 < n < _LARGEST for n in sizes):
            raise DataError(f"{where}: {key} has the shape {shape!r}", hint=AGAIN)
        details = [entry.get(name) for name in ("info", "video_info")]
        depth = any(isinstance(d, dict) and _is_depth(d) for d in details)
        names = dimension_names(entry.get("names"), math.prod(sizes))
        features[key] = Feature(key, dtype, tuple(sizes), names, depth)
    return features


def _is_depth(details: Mapping[str, Any]) -> bool:
    return details.get("is_depth_map") is True or details.get("video.is_depth_map") is True


def dimension_names(stated: Any, size: int) -> tuple[str, ...]:
    """Names of ``size`` numbers from what tools write: lists, lists of lists, lists by group, or
    places by name. () if they are not one for each."""
    if isinstance(stated, dict) and stated and all(type(v) is int for v in stated.values()):
        stated = sorted(stated, key=stated.__getitem__)
    names = tuple(_flat_names(stated))
    return names if len(names) == size else ()


def _flat_names(stated: Any) -> Iterator[str]:
    if isinstance(stated, str):
        yield stated
    elif isinstance(stated, (list, tuple, dict)):
        for part in stated.values() if isinstance(stated, dict) else stated:
            yield from _flat_names(part)


def _tasks(root: Path) -> dict[int, str]:
    path = root / "meta" / "tasks.parquet"
    if path.exists():
        with open_parquet(path) as file:
            rows = read_rows(file, path)
    else:
        rows = read_lines(root / "meta" / "tasks.jsonl")
    tasks = {}
    for number, row in enumerate(rows):
        # LeRobot keeps the text in the pandas index, whose column has one name or another.
        texts = [row.get("task"), *(v for k, v in row.items() if k != "task_index")]
        text = next((text for text in texts if isinstance(text, str)), None)
        if text is not None:
            tasks[_whole(row.get("task_index", number), f"task_index in {root}/meta")] = text
    return tasks


def _episodes_v2(
    root: Path, info: Mapping[str, Any], videos: Sequence[str]
) -> tuple[list[Listed], list[str]]:
    rows = read_lines(root / "meta" / "episodes.jsonl")
    notes = []
    if not rows:
        total = _whole(info.get("total_episodes"), f"total_episodes in {root}/meta/info.json")
        rows = [{"episode_index": number} for number in range(min(total, 1_000_000))]
        notes.append("meta/episodes.jsonl is missing or empty: lengths are those of the data files")
    size = max(1, _whole(info.get("chunks_size", 1000), f"chunks_size in {root}/meta/info.json"))
    listed = []
    for row in rows:
        number = _whole(row.get("episode_index"), f"episode_index in {root}/meta/episodes.jsonl")
        length = row.get("length")
        fields = {"episode_chunk": number // size, "episode_index": number}
        places = {
            key: InVideo(_video_v2(root, info, fields | {"video_key": key}), 0.0, None)
            for key in videos
        }
        known = ("episode_index", "length", "tasks")
        listed.append(
            Listed(
                number=number,
                length=None
                if length is None
                else _whole(length, f"length of episode {number} in {root}/meta/episodes.jsonl"),
                tasks=_task_list(row.get("tasks")),
                data=_place(root, info.get("data_path"), _DATA[2], fields),
                videos=places,
                facts={k: v for k, v in row.items() if k not in known},
            )
        )
    return listed, notes


def _video_v2(root: Path, info: Mapping[str, Any], fields: Mapping[str, Any]) -> Path:
    """Where an episode's video is. Some recorders name the folders otherwise than they say."""
    stated = _place(root, info.get("video_path"), _VIDEO[2], fields)
    if stated.exists():
        return stated
    short = {**fields, "video_key": fields["video_key"].rsplit(".", 1)[-1]}
    chunked = "chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    plain = "{video_key}/episode_{episode_index:06d}.mp4"
    for tail in (chunked, plain):
        for top in ("videos", "video"):
            for named in (fields, short):
                path = root / top / tail.format(**named)
                if path.exists():
                    return path
    return stated


def _episodes_v3(
    root: Path, info: Mapping[str, Any], videos: Sequence[str]
) -> tuple[list[Listed], list[str]]:
    files = sorted((root / "meta" / "episodes").rglob("*.parquet"))
    files = [path for path in files if not path.name.startswith(".")]
    if not files:
        raise DataError(
            f"{root} has no episode index: meta/episodes holds no Parquet file", hint=AGAIN
        )
    listed = []
    for path in files:
        with open_parquet(path) as file:
            # Statistics may be hundreds of columns.
            tops = ("stats/", "histogram/", "meta/episodes/")
            names = [n for n in file.schema_arrow.names if not n.startswith(tops)]
            for row in read_rows(file, path, columns=names):
                listed.append(_listed_v3(root, info, videos, path, row))
    return listed, []


def _listed_v3(
    root: Path, info: Mapping[str, Any], videos: Sequence[str], path: Path, row: dict[str, Any]
) -> Listed:
    number = _whole(row.get("episode_index"), f"episode_index in {path}")
    where = f"of episode {number} in {path}"

    def fields(prefix: str) -> dict[str, Any]:
        names = ("chunk_index", "file_index")
        return {n: _whole(row.get(f"{prefix}/{n}"), f"{prefix}/{n} {where}") for n in names}

    places = {}
    for key in videos:
        prefix = f"videos/{key}"
        at = _place(root, info.get("video_path"), _VIDEO[3], fields(prefix) | {"video_key": key})
        from_s = _seconds(row, f"{prefix}/from_timestamp", where)
        to_s = None
        if row.get(f"{prefix}/to_timestamp") is not None:
            to_s = _seconds(row, f"{prefix}/to_timestamp", where)
        places[key] = InVideo(at, from_s, to_s)
    length = row.get("length")
    if length is None and "dataset_from_index" in row and "dataset_to_index" in row:
        length = _whole(row["dataset_to_index"], where) - _whole(row["dataset_from_index"], where)
    known = {"episode_index", "length", "tasks", "sha256", "metadata"}
    known |= {"dataset_from_index", "dataset_to_index"}
    facts = {
        k: v
        for k, v in row.items()
        if v is not None and k not in known and not k.startswith(("data/", "videos/"))
    }
    return Listed(
        number=number,
        length=None if length is None else _whole(length, f"length {where}"),
        tasks=_task_list(row.get("tasks")),
        data=_place(root, info.get("data_path"), _DATA[3], fields("data")),
        videos=places,
        facts=facts | _own_facts(row.get("metadata")),
    )


def _seconds(row: Mapping[str, Any], name: str, where: str) -> float:
    value = row.get(name)
    if not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise DataError(f"{name} {where} is {value!r}", hint=AGAIN)
    return float(value)


def _own_facts(text: Any) -> dict[str, Any]:
    """What dp_hub keeps of an episode: JSON in the column ``metadata``."""
    if not isinstance(text, str):
        return {}
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    return facts if isinstance(facts, dict) else {"metadata": text}


def _checked(
    root: Path,
    info: Mapping[str, Any],
    found: tuple[list[Listed], list[str]],
    own: Mapping[str, Any],
) -> tuple[list[Listed], list[str]]:
    """The episodes that count. Raises DataError if they are not those that info.json counts."""
    episodes, notes = found
    total = info.get("total_episodes")
    if own and isinstance(total, int):
        # dp_hub writes info.json last: rows beyond are what an interrupted write left.
        episodes = episodes[:total]
    numbers = [episode.number for episode in episodes]
    if len(set(numbers)) != len(numbers):
        twice = next(n for n in numbers if numbers.count(n) > 1)
        raise DataError(f"meta/ of {root} lists episode {twice} twice", hint=AGAIN)
    if total != len(episodes):
        raise DataError(
            f"{root}/meta/info.json says total_episodes is {total!r}, meta/ lists {len(episodes)}",
            hint="the dataset is not complete: copy or pull it again, or mend total_episodes",
        )
    if not episodes:
        raise DataError(f"{root} holds no episodes")
    frames, lengths = info.get("total_frames"), [episode.length or 0 for episode in episodes]
    if frames != sum(lengths) and all(lengths):
        notes = [*notes, f"meta/info.json says {frames!r} frames; its episodes have {sum(lengths)}"]
    return episodes, notes


def _read_own(root: Path) -> dict[str, Any]:
    path = root / "meta" / "dp_hub.json"
    return read_json(path) if path.exists() else {}


def _license(root: Path) -> str | None:
    """The licence in the front matter of the card."""
    try:
        text = (root / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    front = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    named = (
        re.search(r"^license:[ \t]*['\"]?([A-Za-z0-9][\w.+-]*)", front[1], re.M) if front else None
    )
    return named[1] if named else None


def _place(root: Path, template: Any, usual: str, fields: Mapping[str, Any]) -> Path:
    """The path a template of meta/info.json gives. Raises DataError if it leaves the dataset."""
    template = template or usual
    if not isinstance(template, str) or not re.fullmatch(
        rf"([^{{}}]|\{{({_FIELDS})(:0?\d{{1,2}}d?)?\}})+", template
    ):
        raise DataError(f"{root}/meta/info.json has the path template {template!r}", hint=AGAIN)
    try:
        name = PurePosixPath(template.format(**fields))
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{root}/meta/info.json has the path template {template!r}, in which {error} has no "
            "meaning",
            hint=AGAIN,
        ) from None
    if name.is_absolute() or ".." in name.parts or "\0" in str(name):
        raise DataError(
            f"{root}/meta/info.json leads out of the dataset: {template!r}",
            hint="mend the path templates; files are looked for inside the dataset only",
        )
    if any(len(part.encode(errors="replace")) > 255 for part in name.parts):
        raise DataError(f"{root}/meta/info.json has a path template for too long names", hint=AGAIN)
    return root / name


def _task_list(value: Any) -> tuple[str | int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(v for v in values if isinstance(v, str) or type(v) is int)


def _whole(value: Any, what: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise DataError(f"{what} is {value!r}, not a number of something", hint=AGAIN)
    return value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
