"""What a dataset's fingerprint is worth, and another one for datasets that have none.

dp_hub stores a fingerprint of features, rate and episode hashes. Other programs that edit the
dataset leave it as it was, so it is believed only while it fits. A dataset that is still being
written has none yet, but its episodes have hashes. Without those it is computed from features, rate
and the files that hold the frames; the hash of a file is remembered with its size and time of
change, so that only changed files are read again.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dp_hub.dataset.columns import Feature
from dp_hub.dataset.features import INDEX_DTYPES, Column, fingerprint_header
from dp_hub.dataset.hashing import fingerprint
from dp_hub.files import cache_root, write_atomic

log = logging.getLogger(__name__)


def episodes_fingerprint(
    features: Iterable[Feature], fps: float, episode_hashes: Sequence[str]
) -> str | None:
    """What dp_hub gives a dataset of these features and episodes as its fingerprint, hex.

    None if an episode has no hash, or something else in its place.
    """
    columns = [
        Column(f.name, f.name, f.shape, f.dtype, f.dtype, f.shape)
        for f in features
        if f.name not in INDEX_DTYPES
    ]
    header = fingerprint_header(columns, int(fps) if float(fps).is_integer() else fps)
    if not all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in episode_hashes):
        return None
    return fingerprint(header, episode_hashes)


def trusted_fingerprint(
    provenance: Mapping[str, Any], features: Iterable[Feature], fps: float, hashes: Sequence[str]
) -> str | None:
    """The fingerprint of a dataset of dp_hub, which while it is written is that of its episodes.

    None if dp_hub did not write it, or what is stored does not fit the episodes.
    """
    if not provenance:
        return None
    found = episodes_fingerprint(features, fps, hashes)
    return found if provenance.get("fingerprint") in (None, found) else None


def content_fingerprint(root: Path, info: Mapping[str, Any], files: Iterable[Path]) -> str:
    """sha256 over features, rate, and names and contents of ``files``, hex.

    Files that are missing, as videos may be where only numbers are wanted, are left out.
    """
    return files_fingerprint(_file_hashes(root, files), info)


def files_fingerprint(hashes: Mapping[str, str], info: Mapping[str, Any]) -> str:
    """`content_fingerprint` from the sha256 of every file, by name."""
    header = {"features": info["features"], "fps": info["fps"]}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, sha256 in sorted(hashes.items()):
        digest.update(f"{name}\n{sha256}\n".encode())
    return digest.hexdigest()


def _file_hashes(root: Path, files: Iterable[Path]) -> dict[str, str]:
    folder = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()
    memory = cache_root() / "hashes" / f"{folder}.json"
    known = _remembered(memory)
    entries: dict[str, Any] = {}
    for path in sorted(path for path in set(files) if path.is_file()):
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        name = path.relative_to(root).as_posix()
        entry = known.get(name)
        entries[name] = entry if entry and entry[:2] == stamp else [*stamp, _sha256(path)]
    if entries != known:
        write_atomic(memory, json.dumps(entries).encode())
    return {name: entry[2] for name, entry in entries.items()}


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
