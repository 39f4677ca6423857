"""The bytes of an HDF5 file as the library reads them, with what would make it hang refused.

Texts and rows of differing lengths lie in heaps; one whose free space is zeroed, as in a file with
a hole, is walked forever in C, where nothing can stop it; and a text is given as much memory as
it claims to need. Here both are looked at first.
"""

import atexit
import fcntl
import gc
import io
import os
import re
import weakref
from pathlib import Path

import h5py
import numpy as np

_HEAP = b"GCOL\x01\0\0\0"  # the beginning of a global heap collection
# An attribute that is one text: its type, a single value, and how long it claims to be.
_TEXT = re.compile(rb"\x19..\0\x10\0{3}\x10\0{3}\x01\0{5}\x08\0{5}[\x01\x02]\0{7}(.{4})", re.DOTALL)
_METADATA_BYTES = 1 << 16  # reads that are longer are of arrays
_HEADER_BYTES = 16  # of a heap, and of each object in it
_MAX_HEAP_BYTES = 1 << 30
_MAX_CHECKED_BYTES = 1 << 26
_BLOCK_BYTES, _OVERLAP_BYTES = 1 << 22, 64  # more than the longest pattern has
_open: "weakref.WeakSet[FileBytes]" = weakref.WeakSet()


class FileBytes(io.RawIOBase):
    """A file for ``h5py.File`` to read from.

    Args:
        path: the file. It is locked against writers that lock too, as HDF5's own are.
    Raises:
        OSError: it cannot be opened, or is being written.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self._at = 0
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise OSError("unable to lock file, another program has it open for writing") from None
        except OSError:
            pass  # a file system without locks
        _open.add(self)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        if whence == os.SEEK_CUR:
            offset += self._at
        elif whence == os.SEEK_END:
            offset += os.fstat(self._descriptor).st_size
        self._at = offset
        return offset

    def tell(self) -> int:
        """As of any file."""
        return self._at

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """As of any file. Raises OSError where a heap cannot be walked."""
        # HDF5 is in the middle of something: no object of it may be collected now.
        collecting = gc.isenabled()
        gc.disable()
        try:
            n = os.preadv(self._descriptor, [buffer], self._at)
            data = bytes(buffer[:n])
            self.check_heaps(data, self._at)
            if n <= _METADATA_BYTES:
                self.check_texts(data)
            self._at += n
            return n
        finally:
            if collecting:
                gc.enable()

    def check_heaps(self, data: bytes, at: int) -> None:
        """Whether heaps in bytes that lie at ``at`` can be walked. Raises OSError if not."""
        found = -1
        while (found := data.find(_HEAP, found + 1)) >= 0:
            self._check_heap(at + found)

    def check_texts(self, data: bytes) -> None:
        """Whether texts are of lengths that the file can hold. Raises OSError if not."""
        for found in _TEXT.finditer(data):
            if int.from_bytes(found[1], "little") > os.fstat(self._descriptor).st_size:
                raise OSError("a text claims to be longer than the file")

    def fileno(self) -> int:
        """As of any file."""
        return self._descriptor

    def facts(self) -> os.stat_result:
        """What the system says of the file now."""
        return os.fstat(self._descriptor)

    def read_at(self, offset: int, values: np.ndarray) -> None:
        """Fill an array with the bytes from ``offset`` on. Raises OSError if there are too few."""
        left = values.reshape(-1).view(np.uint8).data  # never of a copy: it was made whole
        while len(left):
            n = os.preadv(self._descriptor, [left], offset)
            if not n:
                raise OSError("the file is truncated")
            left, offset = left[n:], offset + n

    def _check_heap(self, start: int) -> None:
        size, at = self._number(start + 8), _HEADER_BYTES
        if size > min(os.fstat(self._descriptor).st_size - start, _MAX_HEAP_BYTES):
            raise OSError(f"the heap at byte {start} is damaged: it claims {size} bytes")
        while at + _HEADER_BYTES <= size:
            index = int.from_bytes(os.pread(self._descriptor, 2, start + at), "little")
            length = self._number(start + at + 8)
            if not index and length < _HEADER_BYTES:
                raise OSError(f"the heap at byte {start} is damaged")
            at += length if not index else _HEADER_BYTES + (length + 7) // 8 * 8

    def _number(self, at: int) -> int:
        return int.from_bytes(os.pread(self._descriptor, 8, at), "little")

    def close(self) -> None:
        """As of any file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()


def is_harmless(path: Path) -> bool:
    """Whether a file has nothing in it that has to be refused, wherever it is read.

    Of a file with many small parts, reading all of it once is quicker than being asked by the
    library for each; of a large one it is not, and the answer is no.
    """
    try:
        source = FileBytes(path)
        try:
            size = source.facts().st_size
            if not 0 < size <= _MAX_CHECKED_BYTES:
                return False
            for at in range(0, size, _BLOCK_BYTES):
                data = os.pread(source.fileno(), _BLOCK_BYTES + _OVERLAP_BYTES, at)
                source.check_heaps(data, at)
                source.check_texts(data)
            return True
        finally:
            source.close()
    except OSError:
        return False


@atexit.register
def _close_all() -> None:
    """While Python can still be called from HDF5, which it does at the very end."""
    if len(_open):
        for file in h5py.h5f.get_obj_ids(types=h5py.h5f.OBJ_FILE):
            if file.get_access_plist().get_driver() == h5py.h5fd.fileobj_driver:
                file.close()
