"""What lies in a group of an HDF5 file: every array's type, shape and place, told in one pass.

A file may hold a hundred thousand small arrays, and what a library does to open one takes longer
than reading it. So each is opened once, by the library's lower calls; what is learned is enough to
read the bytes of a plain array later without opening it again.
"""

import math
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import h5py
import numpy as np
from dp_hub_converters.hdf5.damage import AGAIN, DAMAGE

from dp_hub.errors import DataError

MAX_PIECE_BYTES = 1 << 28  # one picture, or one chunk: the least that can be read
_MAX_DEPTH = 8


class Kind(NamedTuple):
    """What an array of an episode is.

    Args:
        key: its name in the episode's group, ``obs/image`` in a group of it.
        shape: of all of it.
        dtype: as numpy has it.
    """

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def n_bytes(self) -> int:
        """How many bytes its values take."""
        return self.dtype.itemsize * math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Arrays:
    """The arrays of an episode, sorted by name.

    Args:
        kinds: what they are; one object for all episodes that are alike.
        offsets: for each the place in the file from which its bytes are those of a numpy array;
            -1 for one that only the library can read: packed, in pieces, of other types.
    """

    kinds: tuple[Kind, ...]
    offsets: "array[int]"

    def __iter__(self) -> Iterator[tuple[Kind, int]]:
        return zip(self.kinds, self.offsets, strict=True)


class Walk:
    """Walks through groups of one file that are much alike, and remembers what is the same."""

    def __init__(self) -> None:
        self._open: dict[str, Callable[..., Any]] = {}
        self._types: dict[str, tuple[Any, np.dtype, bool]] = {}
        self._kinds: dict[tuple[Kind, ...], tuple[Kind, ...]] = {}

    def arrays(self, group: h5py.Group, where: str) -> Arrays:
        """All arrays in a group and in groups of it. Raises DataError as `below`."""
        found = [self.look(key, node) for key, node in self.below(group, where)]
        kinds = tuple(kind for kind, _ in found)
        if not any(kind.dtype.hasobject for kind in kinds):  # equal ones may differ in metadata
            kinds = self._kinds.setdefault(kinds, kinds)
        return Arrays(kinds, array("q", [offset for _, offset in found]))

    def below(self, group: h5py.Group, where: str) -> Iterator[tuple[str, Any]]:
        """Keys and open arrays (`h5py.h5d.DatasetID`), sorted by name.

        Raises:
            DataError: links that lead out of the file or to nothing, or groups within themselves.
        """
        return self._below(group.id, where, "", 0)

    def look(self, key: str, node: Any) -> tuple[Kind, int]:
        """What an open array is, and where its bytes lie or -1."""
        stored, before = node.get_type(), self._types.get(key)
        if before is None or before[0] != stored:
            dtype = node.dtype
            # Of the very type that numpy's is: the library would copy the bytes as they are.
            same = dtype.kind in "biuf" and h5py.h5t.py_create(dtype) == stored
            before = self._types[key] = (stored, dtype, same)
        kind = Kind(key, node.shape, before[1])
        offset = node.get_offset() if before[2] else None
        if offset is None or node.get_storage_size() < kind.n_bytes:
            return kind, -1
        return kind, offset if kind.n_bytes // max((1, *kind.shape[:1])) <= MAX_PIECE_BYTES else -1

    def _below(self, group: Any, where: str, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
        if depth > _MAX_DEPTH:
            raise DataError(f"{where}/{prefix}: groups more than {_MAX_DEPTH} deep in each other")
        names: list[bytes] = []
        links = group.links
        links.iterate(names.append)
        for name in sorted(names):
            key = f"{prefix}{name.decode(errors='surrogateescape')}"
            if links.get_info(name).type == h5py.h5l.TYPE_EXTERNAL:
                raise DataError(
                    f"{where}/{key} is a link to another file, which is not followed",
                    hint="copy the values into the file: h5repack does not, `h5copy -f ext` does",
                )
            node = self._opened(group, name, key)
            if isinstance(node, h5py.h5d.DatasetID):
                yield key, node
            elif isinstance(node, h5py.h5g.GroupID):
                yield from self._below(node, where, f"{key}/", depth + 1)
            else:
                raise DataError(f"{where}/{key} leads to nothing", hint=AGAIN)

    def _opened(self, group: Any, name: bytes, key: str) -> Any:
        """What a name leads to, opened as what it was in the group before, which is quicker."""
        if key in self._open:
            try:
                return self._open[key](group, name)
            except DAMAGE:
                pass  # it is something else here, or cannot be opened
        try:
            node = h5py.h5o.open(group, name)
        except KeyError:
            return None
        kinds = ((h5py.h5d.DatasetID, h5py.h5d.open), (h5py.h5g.GroupID, h5py.h5g.open))
        for kind, opening in kinds:
            if isinstance(node, kind):
                self._open[key] = opening
        return node
