"""Pictures of a memory-mapped column, read from its file into the batch, not through the map.

Pages of a map count as memory of the process once they are touched, so training on a map seems to
take all of the dataset. Reading copies straight from the system's page cache into the batch: memory
stays that of a batch, at half the speed of a copy from memory, and a file that was cut short is an
error, not a crash. The frames a window observes lie side by side, so it is one read.
"""

import mmap
import os
import weakref
from typing import Any, Self

import numpy as np

from dp_hub.errors import DataError


class FrameFile:
    """An array in a file, of which windows are read. Sent to another process by the file's name.

    Args:
        path: the file.
        position: where in it the array begins, bytes.
        shape: (N, ...).
        dtype: of the array, as numpy names it.
    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str, position: int, shape: tuple[int, ...], dtype: str) -> None:
        self.path, self.position, self.shape = path, position, shape
        self.dtype = np.dtype(dtype)
        self._frame_bytes = int(np.prod(shape[1:], dtype=np.int64)) * self.dtype.itemsize
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self._descriptor)

    @classmethod
    def of(cls, column: np.ndarray) -> Self | None:
        """The file behind a memory map, or behind a slice of one.

        None if there is none, if it is gone, or if the array does not lie in it in one piece.
        """
        if not isinstance(column, np.memmap) or column.filename is None or column.mode == "c":
            return None
        if not column.flags.c_contiguous or not hasattr(os, "preadv"):
            return None
        try:
            return cls(str(column.filename), _position(column), column.shape, column.dtype.str)
        except OSError:
            return None

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.position, self.shape, self.dtype.str)

    def windows(self, frames: np.ndarray) -> np.ndarray:
        """The frames of some windows, (B, n, ...).

        Args:
            frames: int (B, n); in each row consecutive numbers, of which the first and the last
                may repeat, as :meth:`dp_hub.sampling.windows.WindowTable.frames` gives them.
        Raises:
            DataError: the file is shorter than the array.
        """
        n, size = frames.shape[1], self._frame_bytes
        firsts = frames[:, 0]
        counts = frames[:, -1] - firsts + 1
        leads = (frames == firsts[:, None]).sum(axis=1) - 1
        begins = (np.arange(0, len(frames) * n, n) + leads) * size
        out = np.empty((*frames.shape, *self.shape[1:]), self.dtype)
        self._fill(out.data.cast("B"), begins, begins + counts * size, firsts * size)
        for row in np.flatnonzero(counts < n).tolist():
            lead, end = leads[row], leads[row] + counts[row]
            out[row, :lead] = out[row, lead]
            out[row, end:] = out[row, end - 1]
        return out

    def _fill(
        self, view: memoryview, begins: np.ndarray, ends: np.ndarray, sources: np.ndarray
    ) -> None:
        """Read ``view[begin:end]`` from each source, int bytes into the array."""
        descriptor, read = self._descriptor, os.preadv  # a loop of a few microseconds a turn
        places = (self.position + sources).tolist()
        for begin, end, place in zip(begins.tolist(), ends.tolist(), places, strict=True):
            part = view[begin:end]
            n_read = read(descriptor, (part,), place)
            if n_read != end - begin:
                self._read_rest(part, place, n_read)

    def _read_rest(self, part: memoryview, place: int, n_read: int) -> None:
        while n_read < len(part):
            n_more = os.preadv(self._descriptor, (part[n_read:],), place + n_read)
            if not n_more:
                raise DataError(
                    f"{self.path} ends at byte {place + n_read}; it was longer when opened",
                    hint="delete it if it is a frame cache; it will be made again",
                )
            n_read += n_more


def _position(column: np.memmap) -> int:
    """Where in its file a memory map, or a slice of one, begins: `offset` is the whole map's."""
    mapped: Any = column._mmap  # type: ignore[attr-defined]
    map_address = np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
    map_position = column.offset - column.offset % mmap.ALLOCATIONGRANULARITY
    return map_position + column.__array_interface__["data"][0] - map_address
