"""What a dataset's fingerprint is worth, and another one for datasets that have none.

dp_hub stores a fingerprint of features, rate and episode hashes. Other programs that edit the
dataset leave it as it was, so it is believed only while it fits. Without one, it is computed from
features, rate and all files of data/ and videos/; the hash of a file is remembered with its size
and time of change, so that only changed files are read again.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dp_hub.dataset.columns import Feature
from dp_hub.dataset.features import INDEX_DTYPES, Column, fingerprint_header
from dp_hub.dataset.hashing import fingerprint

log = logging.getLogger(__name__)


def fingerprint_holds(
    stored: str, features: Iterable[Feature], fps: float, episode_hashes: Sequence[str]
) -> bool:
    """Whether ``stored`` is what dp_hub gives a dataset of these features and episodes."""
    columns = [
        Column(f.name, f.name, f.shape, f.dtype, f.dtype, f.shape)
        for f in features
        if f.name not in INDEX_DTYPES
    ]
    header = fingerprint_header(columns, int(fps) if fps.is_integer() else fps)
    try:
        return fingerprint(header, episode_hashes) == stored
    except ValueError:  # an episode without a hash, or with something else in its place
        return False


def content_fingerprint(root: Path, info: Mapping[str, Any]) -> str:
    """sha256 over features, rate, and names and contents of the files in data/ and videos/, hex."""
    header = {"features": info["features"], "fps": info["fps"]}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, sha256 in sorted(_file_hashes(root).items()):
        digest.update(f"{name}\n{sha256}\n".encode())
    return digest.hexdigest()


def _file_hashes(root: Path) -> dict[str, str]:
    # Late: it loads PyAV, which those who only check a fingerprint do not need.
    from dp_hub.dataset.frame_cache import cache_root, write_atomically

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
    """What was kept of an earlier time: size, time of change and hash by file name."""
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}  # none yet, or damaged: then all files are hashed again
    return known if isinstance(known, dict) else {}
