"""Checksums of files, as the Hub keeps them: sha256 for large files, git's sha1 for small ones."""

import hashlib
import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

THREADS = 4
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Known:
    """A file as the Hub lists it.

    ``git_id`` is git's id of the content or, of a large file, of the LFS pointer to it. ``sha256``
    is there for large files, unless the listing comes from the cache, which has dropped it.
    """

    path: str
    size: int
    sha256: str | None
    git_id: str

    @classmethod
    def of(cls, file: "RepoFile") -> "Known":
        sha256 = file.lfs.sha256 if file.lfs is not None else None
        return cls(file.path, file.size, sha256, file.blob_id)

    def same(self, other: "Known") -> bool:
        """Whether two listings name one content."""
        if self.sha256 is not None and other.sha256 is not None:
            return (self.size, self.sha256) == (other.size, other.sha256)
        return (self.size, self.git_id) == (other.size, other.git_id)

    def holds(self, content: Path | bytes) -> bool:
        """Whether ``content`` (a file, or bytes) is what the Hub has here. Missing is False."""
        try:
            if _size(content) != self.size:
                return False
            with _opened(content) as file:
                if self.sha256 is not None:
                    return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
                return self.git_id in _git_ids(file, self.size)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False


def leaves_folder(path: str) -> bool:
    """Whether a listed path would end up outside the folder that it is put in."""
    return ".." in Path(path).parts or os.path.isabs(path) or "\\" in path or not path


def damaged(folder: Path, files: Iterable[Known]) -> list[Known]:
    """Those of ``files`` that are missing in ``folder`` or differ there."""
    listed = list(files)
    with ThreadPoolExecutor(THREADS) as pool:
        right = pool.map(lambda file: file.holds(folder / file.path), listed)
        return [file for file, good in zip(listed, right, strict=True) if not good]


def _git_ids(file: BinaryIO, size: int) -> tuple[str, str]:
    """The ids that git gives this content: stored as it is, and as an LFS pointer to it."""
    plain, large = _git_sha1(b"", size), hashlib.sha256()
    while piece := file.read(PIECE_BYTES):
        plain.update(piece)
        large.update(piece)
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{large.hexdigest()}\nsize {size}\n"
    ).encode()
    return plain.hexdigest(), _git_sha1(pointer, len(pointer)).hexdigest()


def _git_sha1(data: bytes, size: int) -> "hashlib._Hash":
    return hashlib.sha1(b"blob %d\0" % size + data, usedforsecurity=False)


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _opened(content: Path | bytes) -> io.BytesIO | io.BufferedReader:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
