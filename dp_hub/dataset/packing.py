"""The files of a dataset that was written piece by piece, put into files of the usual size.

What is whole already is shared, not copied: files that were there before, and those that were
closed because they were full. The others follow one another into new files exactly as if they had
been written in one go, so how often the writer was interrupted leaves no trace.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dp_hub.dataset.arrow_arrays import vectors
from dp_hub.dataset.episode_table import ROWS_PER_GROUP, read_rows, write_rows
from dp_hub.dataset.features import Column
from dp_hub.dataset.meta_files import Sealed
from dp_hub.dataset.shards import (
    DATA_PATH,
    EPISODES_PATH,
    VIDEO_PATH,
    ParquetShards,
    is_full_file,
    is_full_video,
    number_of,
    numbered,
    place,
)
from dp_hub.dataset.tables import frame_options, frame_schema, numbers
from dp_hub.files import share_file

_MANAGED = ("data", "videos", "meta")
_OURS = re.compile(
    r"meta/(info|stats|dp_hub|checksums)\.json|meta/tasks\.parquet"
    r"|(data|meta/episodes)/chunk-\d+/file-\d+\.parquet|videos/[^/]+/chunk-\d+/file-\d+\.mp4"
)


@dataclass(frozen=True)
class _Places:
    """Where the episodes after the whole files lie.

    Args:
        numbers: int64 (E,), of the file each is in.
        lengths: int64 (E,), frames.
        from_s, to_s: float64 (E,), in a video; None for data.
    """

    numbers: np.ndarray
    lengths: np.ndarray
    from_s: np.ndarray | None = None
    to_s: np.ndarray | None = None


def pack(
    root: Path,
    into: Path,
    *,
    columns: Sequence[Column],
    fps: float,
    sealed: Sealed,
    n_episodes: int,
) -> None:
    """Make ``into`` a folder with the data, videos and meta/episodes of ``root``, in whole files.

    Everything else that people keep in ``root`` comes along too; the other files of meta/ do not.

    Args:
        root: a dataset that is open; it is not changed.
        into: a new folder.
        columns: of the dataset.
        fps: frames per second.
        sealed: files that stay as they are. Episodes in files of meta/episodes beyond may still
            lie in such files of data and videos.
        n_episodes: how many episodes count.
    """
    into.mkdir()
    _share_rest(root, into)
    videos = [column.feature for column in columns if column.dtype == "video"]
    before = _read_places(root, n_episodes, sealed, videos)
    after = {"data": _pack_data(root, into, columns, sealed.data, before["data"])}
    for feature in videos:
        first = sealed.videos.get(feature, 0)
        after[feature] = _pack_video(root, into, feature, fps, first, before[feature])
    moved = any(after[name] is not before[name] for name in before)
    _pack_rows(root, into, sealed.episodes, n_episodes, after, moved=moved)


def _read_places(
    root: Path, n_episodes: int, sealed: Sealed, videos: Sequence[str]
) -> dict[str, _Places]:
    names = ["length", "data/chunk_index", "data/file_index"]
    for feature in videos:
        parts = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        names += [f"videos/{feature}/{part}" for part in parts]
    rows = read_rows(root, n_episodes, columns=names)
    tables = [table for number, table in rows if number >= sealed.episodes]
    if not tables:
        empty = np.zeros(0, np.int64)
        return {name: _Places(empty, empty) for name in ("data", *videos)}
    table = pa.concat_tables(tables)

    def column(name: str) -> np.ndarray:
        return vectors(table[name])[:, 0]

    lengths = column("length")
    places = {
        "data": _Places(number_of(column("data/chunk_index"), column("data/file_index")), lengths)
    }
    for feature in videos:
        prefix = f"videos/{feature}"
        places[feature] = _Places(
            number_of(column(f"{prefix}/chunk_index"), column(f"{prefix}/file_index")),
            lengths,
            column(f"{prefix}/from_timestamp"),
            column(f"{prefix}/to_timestamp"),
        )
    return places


def _share_whole(
    root: Path,
    into: Path,
    template: str,
    first: int,
    files: Sequence[int],
    is_full: Callable[[Path], bool],
    *,
    video: str = "",
) -> Sequence[int]:
    """Share the files that stay; numbers of those that must be put together, or none."""

    def share(number: int) -> None:
        share_file(*(numbered(folder, template, number, video=video) for folder in (root, into)))

    for number in range(first):
        share(number)
    rest = list(files)
    while rest and is_full(numbered(root, template, rest[0], video=video)):
        share(rest.pop(0))
    if len(rest) == 1:
        share(rest.pop())
    return rest


def _after(places: _Places, first: int) -> list[int]:
    """Numbers of the files from ``first`` on that episodes lie in."""
    files: list[int] = np.unique(places.numbers).tolist()
    return [number for number in files if number >= first]


def _pack_data(
    root: Path, into: Path, columns: Sequence[Column], first: int, places: _Places
) -> _Places:
    files = _after(places, first)
    rest = _share_whole(root, into, DATA_PATH, first, files, is_full_file)
    if not rest:
        return places
    shards = ParquetShards(
        into, DATA_PATH, frame_schema(columns), frame_options(columns), first_number=rest[0]
    )
    found = []
    for number in rest:
        with pq.ParquetFile(numbered(root, DATA_PATH, number)) as file:
            for group in range(file.num_row_groups):  # one an episode
                found.append(number_of(*shards.write(file.read_row_group(group))))
    shards.close()
    moved = places.numbers.copy()
    assert (moved >= rest[0]).sum() == len(found), (root, len(found))
    moved[moved >= rest[0]] = found
    return _Places(moved, places.lengths)


def _pack_video(
    root: Path, into: Path, feature: str, fps: float, first: int, places: _Places
) -> _Places:
    from dp_hub.dataset.video import VideoShards, packet_bytes
    from dp_hub.replay.clip import VideoClip

    def is_full(path: Path) -> bool:
        return is_full_video(packet_bytes(path))

    files = _after(places, first)
    rest = _share_whole(root, into, VIDEO_PATH, first, files, is_full, video=feature)
    if not rest:
        return places
    assert places.from_s is not None and places.to_s is not None
    shards = VideoShards(into, feature, fps=fps, first_number=rest[0])
    moved, from_s, to_s = places.numbers.copy(), places.from_s.copy(), places.to_s.copy()
    for i in np.flatnonzero(places.numbers >= rest[0]).tolist():
        path = numbered(root, VIDEO_PATH, int(places.numbers[i]), video=feature)
        start, length = round(places.from_s[i] * shards.rate), int(places.lengths[i])
        clip = VideoClip(path, start, length, (0, 0), shards.rate, "")  # only to be copied
        chunk, file, from_s[i], to_s[i] = shards.append([clip])
        moved[i] = number_of(chunk, file)
    shards.close()
    return _Places(moved, places.lengths, from_s, to_s)


def _pack_rows(
    root: Path,
    into: Path,
    first: int,
    n_episodes: int,
    after: Mapping[str, _Places],
    *,
    moved: bool,
) -> None:
    rows = read_rows(root, n_episodes, columns=["length"])
    files = sorted({number for number, _ in rows})
    n_tail = len(after["data"].numbers)
    for number in files[:first]:
        share_file(*(numbered(folder, EPISODES_PATH, number) for folder in (root, into)))
    if not n_tail:
        return
    if not moved and len(files) == first + 1 and n_tail <= ROWS_PER_GROUP:
        source = numbered(root, EPISODES_PATH, first)
        with pq.ParquetFile(source) as file:
            as_it_is = file.metadata.num_rows == n_tail
        if as_it_is:
            share_file(source, numbered(into, EPISODES_PATH, first))
            return
    write_rows(into, _moved_rows(root, first, n_episodes, after), first_number=first)


def _moved_rows(
    root: Path, first: int, n_episodes: int, after: Mapping[str, _Places]
) -> Iterator[pa.Table]:
    start = 0
    for number, table in read_rows(root, n_episodes):
        if number < first:
            continue
        part = slice(start, start + len(table))
        for name, places in after.items():
            prefix = "data" if name == "data" else f"videos/{name}"
            chunk, file = place(places.numbers[part])
            values = {f"{prefix}/chunk_index": chunk, f"{prefix}/file_index": file}
            if places.from_s is not None and places.to_s is not None:
                values[f"{prefix}/from_timestamp"] = places.from_s[part]
                values[f"{prefix}/to_timestamp"] = places.to_s[part]
            for column, new in values.items():
                at = table.schema.get_field_index(column)
                table = table.set_column(at, column, numbers(np.ascontiguousarray(new)))
        start += len(table)
        yield table


def _share_rest(root: Path, into: Path) -> None:
    """What people keep beside the dataset's own files: LICENSE, media/, notes, links, folders."""
    for folder, names, files in os.walk(root):
        inside = Path(folder).relative_to(root)
        links = [name for name in names if (Path(folder) / name).is_symlink()]
        if not names and not files and inside.parts[:1] not in [(name,) for name in _MANAGED]:
            (into / inside).mkdir(parents=True, exist_ok=True)
        for name in [*files, *links]:
            path, target = Path(folder) / name, into / inside / name
            if _is_ours((inside / name).as_posix()):
                continue
            if path.is_symlink():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(os.readlink(path))
            else:
                share_file(path, target)


def _is_ours(name: str) -> bool:
    """Whether the writer has made a file and sees to it: all hidden ones of its folders, too."""
    part, _, rest = name.partition("/")
    if part not in _MANAGED:
        return False
    hidden = any(word.startswith(".") for word in rest.split("/"))
    return hidden or _OURS.fullmatch(name) is not None
