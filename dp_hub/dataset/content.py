"""A fingerprint for datasets that dp_hub did not write: of their files, hashed once.

It covers the features, the rate and all files of data/ and videos/. The hash of a file is
remembered with its size and time of change, so that only changed files are read again.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dp_hub.dataset.frame_cache import cache_root, write_atomically

log = logging.getLogger(__name__)


def content_fingerprint(root: Path, info: Mapping[str, Any]) -> str:
    """sha256 over features, rate, and names and contents of the files in data/ and videos/, hex."""
    header = {"features": info["features"], "fps": info["fps"]}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, sha256 in sorted(_file_hashes(root).items()):
        digest.update(f"{name}\n{sha256}\n".encode())
    return digest.hexdigest()


def _file_hashes(root: Path) -> dict[str, str]:
    folder = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()
    memory = cache_root() / "hashes" / f"{folder}.json"
    known = _remembered(memory)
    entries: dict[str, Any] = {}
    for path in _content_files(root):
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        name = path.relative_to(root).as_posix()
        entry = known.get(name)
        entries[name] = entry if entry and entry[:2] == stamp else [*stamp, _sha256(path)]
    if entries != known:
        write_atomically(memory, json.dumps(entries).encode())
    return {name: entry[2] for name, entry in entries.items()}


def _content_files(root: Path) -> list[Path]:
    files = [path for part in ("data", "videos") for path in (root / part).rglob("*")]
    return sorted(path for path in files if path.is_file())


def _sha256(path: Path) -> str:
    log.info("hashing %s", path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remembered(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}  # none yet, or damaged: then all files are hashed again
    return known if isinstance(known, dict) else {}
