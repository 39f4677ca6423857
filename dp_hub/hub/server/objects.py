"""File contents of one repository, each stored once under its sha256."""

import hashlib
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from dp_hub.hub.server.disk import sync_folder
from dp_hub.hub.server.faults import Fault


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

    def put(self, data: bytes) -> str:
        """Store ``data``, return its sha256."""
        with self.receive() as incoming:
            incoming.write(data)
            return incoming.keep()

    def sweep(self) -> None:
        """Remove what an earlier process left unfinished."""
        for leftover in (self.root / "incoming").glob("*"):
            leftover.unlink()


class Incoming:
    """A content on its way in. Leaving the block without ``keep`` removes it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._digest = hashlib.sha256()
        self._path = store.root / "incoming" / secrets.token_hex(8)
        self._file: BinaryIO | None = None
        self.size = 0

    def __enter__(self) -> "Incoming":
        self._path.parent.mkdir(parents=True, exist_ok=True)
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
