"""One HDF5 file that is read from: by the library, and where that gives the same without it."""

import math
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from dp_hub_converters.hdf5.bytes import FileBytes
from dp_hub_converters.hdf5.damage import AGAIN, damage_told
from dp_hub_converters.hdf5.files import MAX_ARRAY_BYTES, open_hdf5, read_numbers
from dp_hub_converters.hdf5.walk import Kind

from dp_hub.errors import DataError

Stamp = tuple[int, int, int]  # what changes when a file is written: inode, size, time


def stamp_of(path: Path) -> Stamp:
    """That of a file now. Raises DataError if it is not there."""
    with damage_told(path):
        facts = os.stat(path)
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


class Opened:
    """A file, opened as far as it is needed; closed when nothing of it is used any more.

    Args:
        path: of it.
        stamp: as it was looked at; a file that is another one by now is refused.
    """

    def __init__(self, path: Path, stamp: Stamp | None = None) -> None:
        self.path, self._stamp = path, stamp

    @cached_property
    def source(self) -> FileBytes:
        """Its bytes. Raises DataError if it has changed, or cannot be opened."""
        self.check_unchanged()
        with damage_told(self.path):
            return FileBytes(self.path)

    def check_unchanged(self) -> None:
        """Raises DataError if it is another file than it was."""
        if self._stamp not in (None, stamp_of(self.path)):
            raise DataError(f"{self.path} has changed since it was looked at", hint="start again")

    @cached_property
    def file(self) -> h5py.File:
        """It, for the library's calls. Raises DataError as `open_hdf5`."""
        self.check_unchanged()
        return open_hdf5(self.path)

    def close(self) -> None:
        """Nothing is to be read any more."""
        if "file" in self.__dict__:
            self.__dict__.pop("file").close()
        self.__dict__.pop("source", None)

    def numbers(
        self, group: str, kind: Kind, offset: int = -1, *, key: str = "", array: Any = None
    ) -> np.ndarray:
        """All of an array.

        Args:
            group: which one it is in.
            kind: of it.
            offset: where its bytes are, as `dp_hub_converters.hdf5.walk.Arrays` has it.
            key: what an episode calls it, if not by its name.
            array: it (`h5py.h5d.DatasetID`), if it is open.
        Raises:
            DataError: as `read_numbers`.
        """
        if offset >= 0 and kind.n_bytes <= MAX_ARRAY_BYTES:
            return self.bytes_at(group, kind, offset)
        name = f"{group}/{kind.key}" if group else kind.key
        with damage_told(f"{self.path}: {name}"):
            found = self.file[name] if array is None else h5py.Dataset(array)
            return read_numbers(found, f"{self.path}: {name}", key or kind.key)

    def bytes_at(
        self, group: str, kind: Kind, offset: int, start: int = 0, stop: int | None = None
    ) -> np.ndarray:
        """Rows of an array whose bytes lie from ``offset`` on. Raises DataError."""
        shape = kind.shape
        if kind.shape:
            stop = kind.shape[0] if stop is None else stop
            shape = (max(0, stop - start), *kind.shape[1:])
            offset += start * kind.dtype.itemsize * math.prod(kind.shape[1:])
        with damage_told(f"{self.path}: {group}/{kind.key}"):
            # Before any memory is taken: what is announced must be there.
            if offset + kind.dtype.itemsize * math.prod(shape) > self.source.facts().st_size:
                raise DataError(
                    f"{self.path}: {group}/{kind.key} is cut short: it ends behind the end of the "
                    "file",
                    hint=AGAIN,
                )
            values = np.empty(shape, kind.dtype)
            self.source.read_at(offset, values)
        return values


class LastOpened:
    """The file that was asked for last stays open, and only that."""

    def __init__(self) -> None:
        self._opened: Opened | None = None

    def at(self, path: Path, stamp: Stamp) -> Opened:
        """A file as it was looked at."""
        if self._opened is None or self._opened.path != path:
            self._opened = Opened(path, stamp)
        return self._opened
