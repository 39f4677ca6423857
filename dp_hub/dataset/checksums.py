"""meta/checksums.json: sha256 and length of every file of a dataset, so that a flipped byte shows.

The file is written last, in one spelling only, so that a change of any byte of its own shows too.
README.md, LICENSE and media/ are words and pictures that people may change, and are not in it.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dp_hub.errors import DataError

PATH = "meta/checksums.json"
_COVERED = ("data", "meta", "videos")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class FileSum:
    """What a file should be: its length and the sha256 of its bytes, hex."""

    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Damage:
    """A file that is not what meta/checksums.json says, and in what way."""

    path: str
    reason: str


def covered_files(root: Path) -> list[str]:
    """Names of the files that checksums are kept of, sorted; hidden ones are not part of it."""
    files = []
    for part in _COVERED:
        for folder, subfolders, names in os.walk(root / part):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            inside = Path(folder).relative_to(root)
            files += [(inside / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(set(files) - {PATH})


def file_sum(path: Path) -> FileSum:
    """Length and sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileSum(file.tell(), digest.hexdigest())


def encode_checksums(sums: Mapping[str, FileSum]) -> bytes:
    """The bytes of meta/checksums.json, in the only spelling that `read_checksums` takes."""
    files = {name: {"bytes": s.n_bytes, "sha256": s.sha256} for name, s in sums.items()}
    return (json.dumps({"files": files}, indent=1, sort_keys=True) + "\n").encode()


def read_checksums(root: Path, *, name: str = PATH) -> dict[str, FileSum] | None:
    """What meta/checksums.json (or another file of its form) says, by file; None if there is none.

    Raises:
        DataError: the file is damaged.
    """
    try:
        data = (root / name).read_bytes()
    except FileNotFoundError:
        return None
    try:
        files = json.loads(data)["files"]
        sums = {name: FileSum(int(e["bytes"]), str(e["sha256"])) for name, e in files.items()}
        whole = all(_SHA256.fullmatch(s.sha256) for s in sums.values())
    except (ValueError, TypeError, KeyError, AttributeError):
        sums, whole = {}, False
    if not whole or encode_checksums(sums) != data:
        raise DataError(
            f"{root / name} is damaged: it is not as it was written",
            hint="pull or copy the dataset again",
        )
    return sums


def verify(
    root: Path, sums: Mapping[str, FileSum], *, only: Iterable[str] | None = None
) -> list[Damage]:
    """Files that are missing, changed or not listed, each with the reason. Reads every byte.

    Args:
        root: the dataset's folder.
        sums: from `read_checksums`.
        only: the files to look at; all when None.
    """
    here = set(covered_files(root))
    names = sorted(here | set(sums)) if only is None else sorted(only)
    found = []
    for name in names:
        if name not in sums:
            found.append(Damage(name, "it is not in meta/checksums.json"))
        elif name not in here:
            found.append(Damage(name, "it is missing"))
        elif reason := _difference(root / name, sums[name]):
            found.append(Damage(name, reason))
    return found


def _difference(path: Path, expected: FileSum) -> str | None:
    size = path.stat().st_size
    if size != expected.n_bytes:
        return f"it has {size:,} bytes instead of {expected.n_bytes:,}"
    if file_sum(path).sha256 != expected.sha256:
        return "its bytes are not those that were written (sha256 differs)"
    return None
