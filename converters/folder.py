"""Plain folders, one an episode: tables (npz, npy, csv, Parquet) beside videos or pictures."""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dp_hub_converters.folders.found import find_episodes, folders_in, is_episode, look_into
from dp_hub_converters.folders.streams import Options, Parts, parts_of, plain, streams_of

from dp_hub.errors import DataError
from dp_hub.replay.recording import Recording, Stream
from dp_hub.replay.source import Source

_OTHERS = (
    *("meta/info.json", "features.json", "replay_buffer.zarr", ".zgroup", "zarr.json"),
    *("metadata.yaml", "dataset_info.json"),
)
_FACTS = "metadata.json"
_MOST_LOOKED_AT = 50


class EpisodeFolders:
    """Reads a folder of episodes, or one episode's.

    Every stream has times: of a column of its own (``action_time``), else of its table's (``time``,
    ``timestamp``), else rows come at a fixed rate. Pictures that are as many as the rows of a table
    belong to its rows; other videos keep their own times, from the episode's beginning on.

    Args:
        fps: rows per second of tables without times; default: what metadata.json or a video with a
            frame for each row says.
        time_column: what the columns of times are called, if not as usual.
        time_unit: of times whose name does not end with it; default: seconds.
        video_offset_s: when the first frame of videos with times of their own was taken, counted
            from the beginning of the episode.
    """

    name = "folder"
    summary = "a folder for each episode: npz, npy, csv or Parquet, with videos or pictures"

    def __init__(
        self,
        *,
        fps: float | None = None,
        time_column: str | None = None,
        time_unit: Literal["s", "ms", "us", "ns"] | None = None,
        video_offset_s: float = 0.0,
    ) -> None:
        if fps is not None and not 0 < fps < math.inf:
            raise DataError(f"fps is {fps}, not a number of rows per second")
        self._options = Options(fps, time_column, time_unit, video_offset_s)
        self._found: tuple[Path, list[Path]] | None = None

    def recognises(self, path: Path) -> bool:
        """Whether tables or videos lie in it, or in the first folders below, and nothing says that
        it is another format."""
        try:
            if not path.is_dir() or any((path / name).exists() for name in _OTHERS):
                return False
            below = folders_in(path)[:_MOST_LOOKED_AT]
            return is_episode(path) or any(map(is_episode, below))
        except (OSError, ValueError):
            return False

    def describe(self, path: Path, *, skip_bad: bool = False) -> Source:
        """What the folders hold; with ``skip_bad`` in spite of episodes that cannot be read.

        Raises:
            DataError: an episode cannot be read, or has other streams than the first.
        """
        first: tuple[str, dict[str, _Kind]] | None = None
        names: dict[str, tuple[str, ...]] = {}
        notes: list[str] = []
        folders = self._look(path)
        for folder in folders:
            try:
                recording = self._recording(folder, path, None)
                kinds = {name: _kind_of(stream) for name, stream in recording.streams.items()}
                if first is None:
                    first = recording.name, kinds
                    names = {n: s.names for n, s in recording.streams.items() if s.names}
                _check_same(first, (recording.name, kinds))
            except DataError as error:
                if not skip_bad:
                    raise
                notes.append(error.message)
        if first is None:
            raise DataError(f"none of the {len(folders)} episodes in {path} can be read")
        return Source(
            dtypes={name: kind.dtype for name, kind in first[1].items()},
            n_episodes=len(folders),
            attrs=_facts_in(path),
            notes=tuple(notes),
            names=names,
        )

    def recordings(
        self, path: Path, *, only: Collection[str] | None = None, start: int = 0
    ) -> Iterator[Recording]:
        """Its episodes in natural order, from number ``start`` on.

        Raises:
            DataError: something in an episode's folder cannot be read, or has no times.
        """
        for folder in self._look(path)[start:]:
            yield self._recording(folder, path, only)

    def _recording(self, folder: Path, path: Path, only: Collection[str] | None) -> Recording:
        found = look_into(folder, path)
        shared = _facts_in(path) if folder != path else {}
        facts = {**shared, **_facts_in(folder)}
        parts: Parts = parts_of(found, facts, self._options)
        streams, constant = streams_of(parts, self._options, only)
        if not streams and only is None:
            raise DataError(f"{folder} holds nothing that changes with time")
        known = {**parts.facts, **constant}
        told = {key: plain(value) for key, value in known.items() if key not in ("task", "fps")}
        place = {"source": folder.name if found.name == "." else found.name}
        return Recording(found.name, streams, parts.task, {**place, **told})

    def _look(self, path: Path) -> list[Path]:
        if self._found is None or self._found[0] != path:
            self._found = path, find_episodes(path)
        return self._found[1]


@dataclass(frozen=True)
class _Kind:
    """What has to be the same in every episode."""

    dtype: str
    shape: tuple[int, ...]


def _kind_of(stream: Stream) -> _Kind:
    dtype = stream.values.dtype
    return _Kind("string" if dtype.kind == "O" else dtype.name, tuple(stream.values.shape[1:]))


def _check_same(
    first: tuple[str, Mapping[str, _Kind]], other: tuple[str, Mapping[str, _Kind]]
) -> None:
    for name in {**first[1], **other[1]}:
        one, two = first[1].get(name), other[1].get(name)
        if one != two:
            raise DataError(
                f"{other[0]} differs from {first[0]} in {name}: {_told(two)} and {_told(one)}",
                hint="convert them apart, or leave such episodes out with --skip-bad",
            )


def _told(kind: _Kind | None) -> str:
    return "absent" if kind is None else f"{kind.dtype} {list(kind.shape)}"


def _facts_in(folder: Path) -> dict[str, Any]:
    """What metadata.json says. Raises DataError if it is none."""
    path = folder / _FACTS
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="mend it, or remove it") from None
    if not isinstance(facts, dict):
        raise DataError(f"{path} is no list of names and values", hint="mend it, or remove it")
    return facts
