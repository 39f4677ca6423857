"""Lets what is recorded reach the disk from time to time, in a thread that may wait for it.

A disk that is busy holds up whoever writes, for seconds at times; rings of shared memory turn
meanwhile. So whoever reads those only remembers, and this thread writes.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dp_hub.errors import RobotError
from dp_hub.robot.recording.tables import GrowingTable

STREAMS = ".streams.json"  # what tables and videos do not say of themselves
_FLUSH_S = 0.5


class Flushing:
    """Writes tables into a folder.

    Args:
        folder: to make.
        about: what `STREAMS` holds.
        tables: in it.
    """

    def __init__(self, folder: Path, about: bytes, tables: Sequence[GrowingTable]) -> None:
        self._folder, self._about, self._tables = folder, about, tables
        self._problem: OSError | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises RobotError if something cannot be written."""
        if self._problem is not None:
            raise _unwritable(self._folder, self._problem) from self._problem

    def close(self) -> None:
        """Write what is left. Raises RobotError."""
        self._end()
        self.check()
        with disk_told(self._folder):
            for table in self._tables:
                table.close()

    def abandon(self) -> None:
        """Write no more."""
        self._end()
        for table in self._tables:
            table.abandon()

    def _end(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / STREAMS).write_bytes(self._about)
            while True:
                for table in self._tables:
                    table.flush()
                if self._over.wait(_FLUSH_S):
                    return
        except OSError as error:
            self._problem = error


@contextmanager
def disk_told(folder: Path) -> Iterator[None]:
    """Turn what a full disk raises into RobotError."""
    try:
        yield
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> RobotError:
    return RobotError(
        f"{folder.parent} cannot be written: {error.strerror or error}",
        hint="make room on the disk; episodes before this one are kept",
    )
