"""The original's replay buffer: ``data/<key>`` arrays and ``meta/episode_ends``, in zarr v2 or v3.

Read with every check the original leaves out (equal lengths, increasing ends, missing chunks),
and forwards without decoding a chunk twice, so that memory stays at a few chunks.
"""

import itertools
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
import zarr.storage
from zarr.errors import GroupNotFoundError, NodeTypeValidationError

from dp_hub.errors import DataError
from dp_hub.replay.archives import group_prefix, is_replay, stored_names
from dp_hub.replay.chunks import PlainChunks, missing_chunks
from dp_hub.replay.image_codecs import INSTALL, register_image_codecs
from dp_hub.replay.writer import ReplayWriter, write_replay, write_replay_zip

__all__ = [
    "MissingChunks",
    "ReplayBuffer",
    "ReplayWriter",
    "is_replay",
    "open_replay",
    "write_replay",
    "write_replay_zip",
]

MissingChunks = Literal["error", "fill"]
_BLOCK_BYTES = 4_000_000
_CACHE_BYTES = 500_000
# What codecs and stores raise on bytes that are not what they should be.
_DECODING = (
    *(ValueError, RuntimeError, TypeError, OSError, EOFError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error),
)


def open_replay(path: str | Path, *, missing: MissingChunks = "error") -> "ReplayBuffer":
    """The replay buffer at ``path``: a folder or a .zip, zarr v2 or v3, at the root or one down.

    Args:
        path: the folder or archive.
        missing: ``"fill"`` reads chunks that are not stored as the array's fill value;
            ``"error"`` refuses them.
    Raises:
        DataError: not a replay buffer, or one that does not hold together.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is nothing at {path}")
    if path.is_file() and not zipfile.is_zipfile(path):
        raise DataError(
            f"{path} is neither a folder nor a readable .zip ({path.stat().st_size} bytes)",
            hint="a replay buffer is a zarr folder or a zip of one; was the download cut short?",
        )
    register_image_codecs()
    names = stored_names(path)
    prefix = group_prefix(path, names)
    root = _open_root(path, prefix)
    return ReplayBuffer(path, root, names, missing=missing)


class ReplayBuffer:
    """Episodes end to end; made by `open_replay`."""

    def __init__(
        self, path: Path, root: zarr.Group, names: set[str], *, missing: MissingChunks
    ) -> None:
        self.path = path
        self.attrs: dict[str, Any] = dict(root.attrs)
        self._arrays = _arrays_of(root, "data", names, path)
        if not self._arrays:
            raise DataError(f"{path} holds no arrays under data/")
        self._meta = _arrays_of(root, "meta", names, path)
        if "episode_ends" not in self._meta:
            raise DataError(
                f"{path} has no meta/episode_ends",
                hint="a replay buffer lists the exclusive end of every episode there",
            )
        self.filled: dict[str, int] = {}
        for place, arrays in (("data", self._arrays), ("meta", self._meta)):
            for key, array in arrays.items():
                self._check_chunks(f"{place}/{key}", array, names, missing)
        self.episode_ends = self._checked_ends()
        self._check_lengths()

    def keys(self) -> list[str]:
        """The names under data/, sorted; nested ones as ``a/b``."""
        return list(self._arrays)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    @property
    def n_episodes(self) -> int:
        """Number of episodes E."""
        return len(self.episode_ends)

    @property
    def n_steps(self) -> int:
        """Number of steps N over all episodes."""
        return int(self.episode_ends[-1]) if self.n_episodes else 0

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of one step of ``key``."""
        return tuple(self._array(key).shape[1:])

    def dtype(self, key: str) -> np.dtype:
        """Type of the stored values of ``key``."""
        return np.dtype(self._array(key).dtype)

    def read(self, key: str, start: int, stop: int) -> np.ndarray:
        """Rows ``start:stop`` of ``key``, ``(stop - start, ...)`` as stored.

        Raises:
            DataError: unknown key, or rows that cannot be decoded.
        """
        return _decode(self._array(key), f"data/{key}", start, stop, self.path)

    def episodes(
        self,
        keys: Sequence[str] | None = None,
        *,
        compact: Collection[str] = (),
        start: int = 0,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Episodes in order, each a dict of ``(T, ...)`` arrays; every chunk decoded once.

        Args:
            keys: which keys; default: all.
            compact: float keys to give as uint8 wherever that changes no value (the published
                PushT pictures are whole numbers in float32, four times the memory).
            start: number of the first one.
        """
        chosen = self.keys() if keys is None else list(keys)
        rows = {
            key: _Forward(
                self._array(key),
                f"data/{key}",
                self.path,
                compact=key in compact,
                whole=f"data/{key}" not in self.filled,
            )
            for key in chosen
        }
        bounds = [0, *self.episode_ends.tolist()][start:]
        for first, stop in itertools.pairwise(bounds):
            yield {key: rows[key].take(first, stop) for key in chosen}

    def episode_metadata(self) -> list[dict[str, Any]]:
        """Per-episode facts: arrays of length E under meta/, and ``episodes`` of the attributes."""
        facts: list[dict[str, Any]] = [{} for _ in range(self.n_episodes)]
        for key, array in self._meta.items():
            if key == "episode_ends" or array.shape[:1] != (self.n_episodes,):
                continue
            values = _decode(array, f"meta/{key}", 0, self.n_episodes, self.path)
            for fact, value in zip(facts, values.tolist(), strict=True):
                fact[key] = value
        listed = self.attrs.get("episodes")
        if isinstance(listed, list) and len(listed) == self.n_episodes:
            for fact, value in zip(facts, listed, strict=True):
                fact.update(value if isinstance(value, Mapping) else {"note": value})
        return facts

    def unplaced_metadata(self) -> list[str]:
        """Names under meta/ that are not per-episode facts, so have no place in a dataset."""
        return [
            key
            for key, array in self._meta.items()
            if key != "episode_ends" and array.shape[:1] != (self.n_episodes,)
        ]

    def _array(self, key: str) -> zarr.Array:
        try:
            return self._arrays[key]
        except KeyError:
            raise DataError(
                f"{self.path} has no data/{key}", hint=f"it has: {', '.join(self._arrays)}"
            ) from None

    def _check_chunks(
        self, name: str, array: zarr.Array, names: set[str], missing: MissingChunks
    ) -> None:
        lost = list(missing_chunks(array, names))
        if not lost:
            return
        if missing == "fill":
            self.filled[name] = len(lost)
            return
        key, first, stop = lost[0]
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise DataError(
            f"{self.path}: {name} has no chunk {key}{more} (rows {first}..{stop - 1}); "
            "zarr would read it as zeros",
            hint="copy the data again from where it came from; only if those rows truly are all "
            f"{array.fill_value} (zarr 3 leaves such chunks out), say --option missing_chunks=fill",
        )

    def _checked_ends(self) -> np.ndarray:
        array = self._meta["episode_ends"]
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise DataError(
                f"{self.path}: meta/episode_ends is {array.dtype} {array.shape}, not a list of int"
            )
        ends = _decode(array, "meta/episode_ends", 0, array.shape[0], self.path).astype(np.int64)
        steps = np.diff(ends, prepend=0)
        if (steps <= 0).any():
            i = int(np.argmax(steps <= 0))
            raise DataError(
                f"{self.path}: meta/episode_ends does not increase at episode {i}: it ends at "
                f"{ends[i]}, the one before at {ends[i - 1] if i else 0}",
                hint="every episode needs at least one step",
            )
        if not len(ends):
            raise DataError(f"{self.path} holds no episodes (meta/episode_ends is empty)")
        return ends

    def _check_lengths(self) -> None:
        n_steps = self.n_steps
        for key, array in self._arrays.items():
            rows = array.shape[0] if array.ndim else 0
            if rows < n_steps:
                i = int(np.searchsorted(self.episode_ends, rows, side="right"))
                raise DataError(
                    f"{self.path}: data/{key} has {rows} rows but meta/episode_ends goes to "
                    f"{n_steps}; episode {i} and later are cut short"
                )
            if rows > n_steps:
                raise DataError(
                    f"{self.path}: data/{key} has {rows} rows, {rows - n_steps} more than "
                    f"meta/episode_ends accounts for ({n_steps})",
                    hint="an unfinished recording? cut the trailing rows or add their episode end",
                )


class _Forward:
    """Reads rows of one array forwards; keeps only the block it is in."""

    def __init__(
        self, array: zarr.Array, name: str, path: Path, *, compact: bool, whole: bool
    ) -> None:
        self._array, self._name, self._path, self._compact = array, name, path, compact
        self._plain = PlainChunks(path, array) if whole and PlainChunks.is_plain(array) else None
        chunk = (array.shards or array.chunks)[0]
        row_bytes = max(1, array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64)))
        self._block = chunk * max(1, _BLOCK_BYTES // (chunk * row_bytes))
        self._first = self._stop = 0
        self._rows: np.ndarray | None = None

    def take(self, start: int, stop: int) -> np.ndarray:
        parts = []
        while start < stop:
            rows = self._block_with(start)
            end = min(stop, self._stop)
            parts.append(rows[start - self._first : end - self._first])
            start = end
        # A copy either way: an episode must not keep a whole block alive.
        return np.concatenate(parts)

    def _block_with(self, row: int) -> np.ndarray:
        if self._rows is None or not self._first <= row < self._stop:
            self._rows = None  # freed before the next block is decoded
            self._first = row // self._block * self._block
            self._stop = min(self._first + self._block, self._array.shape[0])
            rows = self._read()
            self._rows = _as_bytes(rows) if self._compact else rows
        return self._rows

    def _read(self) -> np.ndarray:
        first, stop = self._first, self._stop
        if self._plain is None:
            return _decode(self._array, self._name, first, stop, self._path)
        try:
            return self._plain.read(first, stop, reuse=self._compact)
        except _DECODING as error:
            raise _damaged(self._name, first, stop, self._path, error) from error


def _as_bytes(rows: np.ndarray) -> np.ndarray:
    """``rows`` as uint8, a new array; as a copy of ``rows`` if that would change a value."""
    small = np.empty(rows.shape, np.uint8)
    step = max(1, _CACHE_BYTES * len(rows) // rows.nbytes)
    with np.errstate(invalid="ignore"):
        for i in range(0, len(rows), step):  # piece by piece, to stay in the processor's cache
            np.copyto(small[i : i + step], rows[i : i + step], casting="unsafe")
            if not np.array_equal(small[i : i + step], rows[i : i + step]):
                return rows.copy()
    return small


def _decode(array: zarr.Array, name: str, start: int, stop: int, path: Path) -> np.ndarray:
    try:
        return np.asarray(array[start:stop])
    except _DECODING as error:
        raise _damaged(name, start, stop, path, error) from error


def _damaged(name: str, start: int, stop: int, path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: rows {start}..{stop - 1} of {name} cannot be decoded: {error}",
        hint="a chunk is damaged; copy the data again from where it came from",
    )


def _open_root(path: Path, prefix: str) -> zarr.Group:
    store: Any
    try:
        if path.is_dir():
            store = zarr.storage.LocalStore(path, read_only=True)
        else:
            store = zarr.storage.ZipStore(path, mode="r")
        return zarr.open_group(store, path=prefix.rstrip("/"), mode="r", use_consolidated=False)
    except (GroupNotFoundError, NodeTypeValidationError, KeyError, *_DECODING) as error:
        raise DataError(f"{path} is not a readable zarr group: {error}") from None


def _arrays_of(root: zarr.Group, name: str, names: set[str], path: Path) -> dict[str, zarr.Array]:
    """Every array below the group ``name``, nested ones under ``a/b``."""
    top = f"{root.path}/{name}/" if root.path else f"{name}/"
    found = sorted(
        stored[len(top) :].rpartition("/")[0]
        for stored in names
        if stored.startswith(top) and stored.endswith(("/.zarray", "/zarr.json"))
    )
    arrays: dict[str, zarr.Array] = {}
    for key in filter(None, found):
        try:
            member = root[f"{name}/{key}"]
        except (KeyError, *_DECODING) as error:
            raise _unreadable(f"{name}/{key}", path, error) from None
        if isinstance(member, zarr.Array):
            arrays[key] = member
    return arrays


def _unreadable(name: str, path: Path, error: Exception) -> DataError:
    text = str(error).strip("'\"").replace("''", "")
    hint = None
    if "codec" in text.lower():
        hint = (
            f"install what provides that codec: {INSTALL} brings imagecodecs's"
            if "imagecodecs" in text
            else "that codec is not in this installation's numcodecs"
        )
    return DataError(f"{path}: {name} cannot be opened: {text}", hint=hint)
