"""Pieces of shared memory that are gone when those who use them are, however these end.

`multiprocessing.shared_memory` makes, registers and removes them. It does not map them: attaching
would register a piece once more (up to Python 3.12), and its handle complains when arrays outlive
it. What is mapped here goes with the last array on it.

Three things see to it that no piece stays behind. Its creator removes it at the end, also if it
forgot to; a creator that was killed is outlived by Python's resource tracker, which removes it, and
by workers (`dp_hub.robot.worker`), which do so at once and spare people the tracker's warning; and
should everything have been killed, the next start sweeps (`sweep`). A creator holds a file lock on
its pieces, which the kernel lets go of when it dies. That, and not the process id in the name, is
what `sweep` asks, for ids come again, and are others' in containers that share /dev/shm.
"""

import _posixshmem
import fcntl
import mmap
import os
import secrets
import signal
import threading
from contextlib import suppress
from multiprocessing import resource_tracker, shared_memory, util
from pathlib import Path

import numpy as np

from dp_hub.errors import RobotError

_FOLDER = Path("/dev/shm")
_PREFIX = "dphub-"
_removing = threading.Lock()
_mine: dict[str, tuple[shared_memory.SharedMemory, int]] = {}
"""Pieces that this process made and has not removed: the handle, and the file that is locked."""


class Segment:
    """A mapped piece of shared memory, zeros at first.

    Args:
        name: of an existing one.

    Raises:
        RobotError: there is none, any more.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            file = _posixshmem.shm_open(f"/{name}", os.O_RDWR, mode=0o600)
        except FileNotFoundError:
            raise RobotError(
                f"the shared memory {name} is gone",
                hint="the process that made it has ended; start the session again",
            ) from None
        try:
            # All pages now, and not one by one in a real-time loop.
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            self._map: mmap.mmap | None = mmap.mmap(file, os.fstat(file).st_size, flags=flags)
        finally:
            os.close(file)

    @classmethod
    def create(cls, n_bytes: int) -> "Segment":
        """Make one and map it.

        Raises:
            RobotError: shared memory is full.
        """
        assert n_bytes > 0, n_bytes
        while True:
            name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
            if _make(name, n_bytes):
                return cls(name)

    def array(self, dtype: str, shape: tuple[int, ...], at: int) -> np.ndarray:
        """A view of it that begins ``at`` so many bytes."""
        assert self._map is not None, f"{self.name} is closed"
        return np.ndarray(shape, dtype, buffer=self._map, offset=at)

    def integers(self, n: int, at: int) -> "memoryview[int]":
        """A view of ``n`` int64, whose items are loaded and stored whole, quicker than numpy's."""
        return self._bytes(8 * n, at).cast("q")

    def floats(self, n: int, at: int) -> "memoryview[float]":
        """A view of ``n`` float64, as `integers`."""
        return self._bytes(8 * n, at).cast("d")

    def _bytes(self, n: int, at: int) -> memoryview:
        assert self._map is not None, f"{self.name} is closed"
        assert at % 8 == 0, at  # or 8 bytes could be two loads
        return memoryview(self._map)[at : at + n]

    def close(self) -> None:
        """Let go; the memory is unmapped with the last array on it."""
        self._map = None

    def unlink(self) -> None:
        """Remove it, if this process made it; who has mapped it goes on with it."""
        _unlink(self.name)


def sweep() -> list[str]:
    """Remove what killed processes have left behind; names of what was removed.

    Harmless at any time: what belongs to a living process stays.
    """
    return [path.name for path in _left("*") if _is_nobodys(path) and _remove(path)]


def remove_of(pid: int) -> None:
    """Remove all of a process that is dead, or will be at once, and shared our resource tracker."""
    with _removing:  # so that the end of this process, which calls this, waits for a thread
        for path in _left(f"{pid}-*"):
            if _remove(path):  # then no other has told the tracker
                resource_tracker.unregister(f"/{path.name}", "shared_memory")


def _make(name: str, n_bytes: int) -> bool:
    """Make and lock a piece; False if a sweep came in between."""
    _check_room(n_bytes)
    _start_tracker()
    made = shared_memory.SharedMemory(name, create=True, size=n_bytes)
    made.close()
    try:
        file = _posixshmem.shm_open(f"/{name}", os.O_RDWR, mode=0o600)
    except FileNotFoundError:
        resource_tracker.unregister(f"/{name}", "shared_memory")
        return False
    fcntl.flock(file, fcntl.LOCK_SH)
    _mine[name] = (made, file)
    if os.fstat(file).st_nlink == 0:
        _unlink(name)
        return False
    try:
        # Sizes are only promised until memory is there; a write to what is not would kill us.
        os.posix_fallocate(file, 0, n_bytes)
    except OSError as error:
        _unlink(name)
        raise _no_room(n_bytes, str(error)) from None
    return True


def _start_tracker() -> None:
    """It outlives its terminal, as it does Ctrl-C, to see who has died by that."""
    deaf = {signal.SIGHUP, signal.SIGQUIT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, deaf)
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_room(n_bytes: int) -> None:
    with suppress(OSError):
        room = os.statvfs(_FOLDER)
        free = room.f_bavail * room.f_frsize
        if n_bytes > free:
            raise _no_room(n_bytes, f"{free / 1e6:,.1f} MB are free")


def _no_room(n_bytes: int, why: str) -> RobotError:
    return RobotError(
        f"no room in shared memory ({_FOLDER}) for {n_bytes / 1e6:,.1f} MB: {why}",
        hint="a container gets more by `docker run --shm-size=2g` (or --ipc=host); fewer or"
        " smaller cameras need less",
    )


def _unlink(name: str) -> None:
    made, file = _mine.pop(name, (None, -1))
    if made is None:
        return
    try:
        made.unlink()
    except FileNotFoundError:
        resource_tracker.unregister(f"/{name}", "shared_memory")
    os.close(file)


def _unlink_all() -> None:
    for name in list(_mine):
        _unlink(name)


util.Finalize(None, _unlink_all, exitpriority=0)  # in processes of multiprocessing too


def _left(pattern: str) -> list[Path]:
    return sorted(_FOLDER.glob(f"{_PREFIX}{pattern}")) if _FOLDER.is_dir() else []


def _is_nobodys(path: Path) -> bool:
    if path.name in _mine:
        return False
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:  # gone, or another user's
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(file)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
