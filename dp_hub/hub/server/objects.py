"""File contents of one repository, each stored once under its sha256."""

import hashlib
import os
import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from dp_hub.hub.disk import sync_folder
from dp_hub.hub.server.faults import Fault

FLUSHING_THREADS = 16


class ObjectStore:
    """Contents in ``root/ab/<sha256>``; unfinished ones in ``root/incoming``.

    One store per repository: whoever knows the sha256 of a private file elsewhere gets nothing,
    and deleting a repository deletes what it holds.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Where the content with this digest is, or would be."""
        return self.root / sha256[:2] / sha256

    def size(self, sha256: str) -> int | None:
        """Its size in bytes, or None when it isn't here."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def receive(self) -> "Incoming":
        """A new content, to be written piece by piece."""
        return Incoming(self)

    def stage(self, data: bytes) -> "Staged":
        """Write a small content to the disk; ``settle`` makes it one of the store's."""
        sha256 = hashlib.sha256(data).hexdigest()
        if self.size(sha256) == len(data):
            return Staged(sha256, None)
        path = self._new_path()
        path.write_bytes(data)
        return Staged(sha256, path)

    def settle(self, staged: Iterable["Staged"]) -> None:
        """Make staged contents durable and give them their names.

        All at once, since flushing thousands of small files one by one takes a minute.
        """
        waiting = {item.sha256: item.path for item in staged if item.path is not None}
        with ThreadPoolExecutor(FLUSHING_THREADS) as pool:
            list(pool.map(_flush, waiting.values()))
        folders = set()
        for sha256, path in waiting.items():
            target = self.path(sha256)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
            folders.add(target.parent)
        with ThreadPoolExecutor(FLUSHING_THREADS) as pool:
            list(pool.map(sync_folder, folders))

    def _new_path(self) -> Path:
        folder = self.root / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / secrets.token_hex(8)

    def sweep(self) -> None:
        """Remove what an earlier process left unfinished."""
        for leftover in (self.root / "incoming").glob("*"):
            leftover.unlink()


@dataclass(frozen=True)
class Staged:
    """A small content by its digest; ``path`` is None when the store had it already."""

    sha256: str
    path: Path | None

    def discard(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Incoming:
    """A content on its way in. Leaving the block without ``keep`` removes it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._digest = hashlib.sha256()
        self._path = store._new_path()
        self._file: BinaryIO | None = None
        self.size = 0

    def __enter__(self) -> "Incoming":
        self._file = self._path.open("xb")
        return self

    def write(self, data: bytes | bytearray) -> None:
        assert self._file is not None
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def keep(self, *, sha256: str | None = None, size: int | None = None) -> str:
        """Finish: durable on disk under its digest, which is returned.

        Raises:
            Fault: the content isn't the one announced.
        """
        assert self._file is not None
        found = self._digest.hexdigest()
        if size is not None and self.size != size:
            raise Fault(400, f"{self.size} bytes arrived of {size} announced")
        if sha256 is not None and found != sha256:
            raise Fault(400, f"the content's sha256 is {found}, announced was {sha256}")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        target = self._store.path(found)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._path, target)
        sync_folder(target.parent)
        return found

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
