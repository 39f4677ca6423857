"""Writes replay buffers in the original's layout (zarr v2), one episode at a time.

The v2 format is a few JSON files and one compressed file per chunk, so it is written here
directly: zarr cannot grow an array inside a zip without leaving stale entries in it.
"""

import json
import math
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
from numcodecs import Blosc

from dp_hub.errors import DataError
from dp_hub.files import new_folder, sync_file
from dp_hub.replay.episode import Episode

_CHUNK_BYTES = 2_000_000  # the original's target
_ENDS_CHUNK = 65_536
Put = Callable[[str, bytes], None]


def write_replay_zip(
    path: str | Path, episodes: Iterable[Mapping[str, np.ndarray]], attrs: Mapping[str, Any]
) -> Path:
    """Write episodes to a ``.zarr.zip``; the file appears whole or not at all.

    Args:
        path: the archive to make; refused if it exists.
        episodes: dicts of ``(T, ...)`` arrays with the same keys, shapes and types throughout.
        attrs: JSON values for the root attributes.
    Returns:
        ``path``.
    Raises:
        DataError: the target exists, or an episode does not fit the ones before.
    """
    path = Path(path)
    _refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(handle)
    try:
        with zipfile.ZipFile(name, "w", zipfile.ZIP_STORED) as archive:
            # One fixed date, so that the same episodes make the same bytes.
            _write_all(lambda key, value: archive.writestr(_entry(key), value), episodes, attrs)
        sync_file(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def write_replay(
    path: str | Path, episodes: Iterable[Mapping[str, np.ndarray]], attrs: Mapping[str, Any]
) -> Path:
    """As `write_replay_zip`, but to a folder unless ``path`` ends in .zip."""
    path = Path(path)
    if path.suffix == ".zip":
        return write_replay_zip(path, episodes, attrs)
    _refuse_existing(path)
    with new_folder(path) as folder:
        _write_all(lambda key, value: _put_file(folder, key, value), episodes, attrs)
    return path


class ReplayWriter:
    """Appends episodes to a replay buffer folder; what `add_episode` returned from stays.

    An episode counts once its end is in ``meta/episode_ends``, which is written last and replaced
    atomically. Opening the folder again cuts off rows of an episode that was never finished, so a
    recorder resumes by looking at `n_episodes`.

    Args:
        path: the folder; made if it is not there, continued if it is.
        attrs: JSON values for the root attributes of a new folder.
    """

    def __init__(self, path: str | Path, *, attrs: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        if self.path.suffix == ".zip":
            raise DataError(
                f"{path}: episodes cannot be appended to a zip",
                hint="record into a folder, or write a whole zip with write_replay_zip",
            )
        if not (self.path / ".zgroup").exists():
            _begin_folder(self.path, attrs or {})
        self._data = zarr.open_group(self.path / "data", mode="a")
        ends = zarr.open_array(self.path / "meta" / "episode_ends", mode="r")
        self._ends: list[int] = np.asarray(ends[:]).tolist()
        self._arrays = {name: array for name, array in self._data.arrays()}
        for array in self._arrays.values():
            array.resize((self.n_steps, *array.shape[1:]))

    @property
    def n_episodes(self) -> int:
        """Finished episodes in the folder."""
        return len(self._ends)

    @property
    def n_steps(self) -> int:
        """Steps of the finished episodes."""
        return self._ends[-1] if self._ends else 0

    def add_episode(self, episode: Mapping[str, np.ndarray]) -> None:
        """Append one episode, a dict of ``(T, ...)`` arrays.

        Raises:
            DataError: keys, shapes or types differ from the episodes before.
        """
        arrays = {key: np.asarray(value) for key, value in episode.items()}
        stop = self.n_steps + Episode(arrays).length
        if not self._ends:
            self._create(arrays)
        kinds = {key: (a.shape[1:], a.dtype) for key, a in self._arrays.items()}
        _check_same(arrays, kinds, self.n_episodes)
        for key, value in arrays.items():
            self._arrays[key].resize((stop, *value.shape[1:]))
            self._arrays[key][self.n_steps : stop] = value
        _put_ends(self.path, [*self._ends, stop])
        self._ends.append(stop)

    def _create(self, arrays: Mapping[str, np.ndarray]) -> None:
        for key, value in arrays.items():
            _check_storable(key, value)
            self._arrays[key] = self._data.create_array(
                key,
                shape=(0, *value.shape[1:]),
                chunks=(_chunk_rows(value), *value.shape[1:]),
                dtype=value.dtype,
                compressors=_codec(value.dtype),
                fill_value=0,
                overwrite=True,
                config={"write_empty_chunks": True},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to close: every finished episode is on disk already."""


class _Column:
    """Collects rows of one key and writes a chunk whenever one is full."""

    def __init__(self, key: str, first: np.ndarray, put: Put) -> None:
        _check_storable(key, first)
        self.key, self.shape, self.dtype = key, first.shape[1:], first.dtype
        self._put, self._codec = put, _codec(first.dtype)
        self._chunk = np.zeros((_chunk_rows(first), *self.shape), self.dtype)
        self.n_rows = 0

    def add(self, rows: np.ndarray) -> None:
        done = 0
        while done < len(rows):
            at = self.n_rows % len(self._chunk)
            n = min(len(rows) - done, len(self._chunk) - at)
            self._chunk[at : at + n] = rows[done : done + n]
            self.n_rows += n
            done += n
            if at + n == len(self._chunk):
                self._flush()

    def finish(self) -> None:
        rest = self.n_rows % len(self._chunk)
        if rest:
            self._chunk[rest:] = 0
            self._flush()
        header = _array_header((self.n_rows, *self.shape), self._chunk, self._codec)
        self._put(f"data/{self.key}/.zarray", header)

    def _flush(self) -> None:
        number = (self.n_rows - 1) // len(self._chunk)
        name = ".".join([str(number), *("0" for _ in self.shape)])
        self._put(f"data/{self.key}/{name}", bytes(self._codec.encode(self._chunk)))


def _write_all(
    put: Put, episodes: Iterable[Mapping[str, np.ndarray]], attrs: Mapping[str, Any]
) -> None:
    columns: dict[str, _Column] = {}
    ends: list[int] = []
    for episode in episodes:
        arrays = {key: np.asarray(value) for key, value in episode.items()}
        length = Episode(arrays).length
        if not columns:
            columns = {key: _Column(key, value, put) for key, value in arrays.items()}
        kinds = {key: (column.shape, column.dtype) for key, column in columns.items()}
        _check_same(arrays, kinds, len(ends))
        for key, value in arrays.items():
            columns[key].add(value)
        ends.append((ends[-1] if ends else 0) + length)
    if not ends:
        raise DataError("there are no episodes to write")
    for column in columns.values():
        column.finish()
    for name in _groups(columns):
        put(f"{name}.zgroup", _json({"zarr_format": 2}))
    put(".zattrs", _json(dict(attrs)))
    for name, content in _ends_files(ends).items():
        put(name, content)


def _groups(keys: Iterable[str]) -> list[str]:
    nested = {key[: i + 1] for key in keys for i, letter in enumerate(key) if letter == "/"}
    return ["", "data/", "meta/", *(f"data/{name}" for name in sorted(nested))]


def _begin_folder(path: Path, attrs: Mapping[str, Any]) -> None:
    if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
        raise DataError(f"{path} exists and is not a replay buffer", hint="choose another folder")
    for name in ("data/", "meta/"):
        _put_file(path, f"{name}.zgroup", _json({"zarr_format": 2}))
    _put_file(path, ".zattrs", _json(dict(attrs)))
    _put_ends(path, [])
    _put_file(path, ".zgroup", _json({"zarr_format": 2}))


def _put_ends(path: Path, ends: list[int]) -> None:
    # The header comes last: its length is what makes an episode count.
    for key, value in _ends_files(ends).items():
        _put_file(path, key, value)


def _ends_files(ends: list[int]) -> dict[str, bytes]:
    """``meta/episode_ends`` in chunks of one fixed size: its length is the header's alone."""
    chunk = np.zeros(_ENDS_CHUNK, np.int64)
    codec = _codec(chunk.dtype)
    files = {}
    for number in range(math.ceil(len(ends) / _ENDS_CHUNK) or 1):
        part = ends[number * _ENDS_CHUNK : (number + 1) * _ENDS_CHUNK]
        chunk[: len(part)] = part
        chunk[len(part) :] = 0
        files[f"meta/episode_ends/{number}"] = bytes(codec.encode(chunk))
    files["meta/episode_ends/.zarray"] = _array_header((len(ends),), chunk, codec)
    return files


def _array_header(shape: tuple[int, ...], chunk: np.ndarray, codec: Blosc) -> bytes:
    return _json(
        {
            "zarr_format": 2,
            "shape": list(shape),
            "chunks": list(chunk.shape),
            "dtype": chunk.dtype.str,
            "fill_value": False if chunk.dtype.kind == "b" else 0,
            "order": "C",
            "filters": None,
            "compressor": codec.get_config(),
        }
    )


def _codec(dtype: np.dtype) -> Blosc:
    """The original's "disk" compressor; without the bit shuffle for bytes, where it costs 2.7x."""
    shuffle = Blosc.NOSHUFFLE if dtype.itemsize == 1 else Blosc.BITSHUFFLE
    return Blosc("zstd", clevel=5, shuffle=shuffle)


def _chunk_rows(rows: np.ndarray) -> int:
    row_bytes = max(1, rows.dtype.itemsize * math.prod(rows.shape[1:]))
    return max(1, _CHUNK_BYTES // row_bytes)


def _check_storable(key: str, rows: np.ndarray) -> None:
    if rows.dtype.kind not in "biuf" or 0 in rows.shape[1:]:
        raise DataError(
            f"{key} is {rows.dtype} {rows.shape}; a replay buffer holds numbers",
            hint="leave it out, or put it into the attributes",
        )


def _check_same(
    arrays: Mapping[str, np.ndarray],
    kinds: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    episode: int,
) -> None:
    if set(arrays) != set(kinds):
        raise DataError(
            f"episode {episode} has the keys {sorted(arrays)}, the ones before {sorted(kinds)}"
        )
    for key, value in arrays.items():
        if (value.shape[1:], value.dtype) != kinds[key]:
            shape, dtype = kinds[key]
            raise DataError(
                f"{key} of episode {episode} is {value.dtype} {value.shape[1:]} per step, "
                f"before it was {dtype} {shape}"
            )


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise DataError(f"{path} already exists", hint="choose another name, or remove it first")


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode()


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))


def _put_file(root: Path, key: str, value: bytes) -> None:
    """Write ``root/key`` so that a reader sees the old bytes or the new ones."""
    target = root / key
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(value)
    os.replace(partial, target)
