"""Checksums of files, as the Hub keeps them: sha256 for large files, git's sha1 for small ones."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

THREADS = 4


@dataclass(frozen=True)
class Known:
    """A file as the Hub lists it. ``sha256`` is None for those stored in git itself."""

    path: str
    size: int
    sha256: str | None
    git_sha1: str

    @classmethod
    def of(cls, file: "RepoFile") -> "Known":
        sha256 = file.lfs.sha256 if file.lfs is not None else None
        return cls(file.path, file.size, sha256, file.blob_id)

    def holds(self, content: Path | bytes) -> bool:
        """Whether ``content`` (a file, or bytes) is what the Hub has here. Missing is False."""
        try:
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            if size != self.size:
                return False
            if self.sha256 is not None:
                return sha256_of(content) == self.sha256
            return git_sha1_of(content) == self.git_sha1
        except FileNotFoundError:
            return False


def sha256_of(content: Path | bytes) -> str:
    """Hex sha256 of a file (read in pieces) or of bytes."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_sha1_of(content: Path | bytes) -> str:
    """Git's blob id of a small file or of bytes, as hex."""
    data = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def damaged(folder: Path, files: Iterable[Known]) -> list[Known]:
    """Those of ``files`` that are missing in ``folder`` or differ there."""
    listed = list(files)
    with ThreadPoolExecutor(THREADS) as pool:
        right = pool.map(lambda file: file.holds(folder / file.path), listed)
        return [file for file, good in zip(listed, right, strict=True) if not good]
