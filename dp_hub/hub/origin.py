"""What a folder remembers of the Hub: which commit it was pulled from or pushed as, file by file.

It is kept in ``.dp_hub/remote.json`` inside the folder, which is never pushed, in one spelling only
and with a digest of itself, so that a change of any byte of it shows. A snapshot folder of the
Hugging Face cache needs no such file: its path names the commit.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp_hub.errors import HubError
from dp_hub.files import write_atomic
from dp_hub.hub.client import endpoint
from dp_hub.hub.digests import Known, damaged, leaves_folder
from dp_hub.hub.kinds import KINDS, REPO_TYPE, Kind

log = logging.getLogger(__name__)
HOME = ".dp_hub"
PATH = f"{HOME}/remote.json"
FULL_SHA = re.compile(r"[0-9a-f]{40}")
_CACHED = re.compile(r"(datasets|models)--([^/]+?)--([^/]+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Origin:
    """A commit on the Hub, and the files that a folder has of it by path."""

    endpoint: str
    repo_id: str
    kind: Kind
    sha: str
    tag: str | None
    """The version (``data-v3``) that the commit was known by, if any."""
    files: Mapping[str, Known]


def write_origin(folder: Path, origin: Origin) -> None:
    """Make ``folder`` remember ``origin``. Raises OSError where it can't be written to."""
    write_atomic(folder / PATH, encode(origin))


def try_to_write_origin(folder: Path, origin: Origin) -> None:
    """As `write_origin`, but for folders that can't be written to, and those of the cache."""
    if in_cache(folder):
        return
    try:
        write_origin(folder, origin)
    except OSError as error:
        log.debug("%s can't remember where it belongs: %s", folder, error)


def read_origin(folder: Path) -> Origin | None:
    """What ``folder`` remembers; None if that is nothing.

    Raises:
        HubError: ``.dp_hub/remote.json`` is not as it was written.
    """
    try:
        data = (folder / PATH).read_bytes()
    except FileNotFoundError:
        return None
    try:
        origin = _decode(json.loads(data))
        whole = encode(origin) == data
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise HubError(
            f"{folder / PATH} is damaged: it is not as it was written",
            hint="remove it to forget where the folder belongs, or pull into a new folder",
        )
    return origin


def origin_of(folder: Path) -> Origin | None:
    """As `read_origin`, and for a snapshot folder of the Hugging Face cache what its path says.

    Of a snapshot whose list of files is not in the cache, ``files`` is empty.
    """
    if (found := in_cache(folder)) is None:
        return read_origin(folder)
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    kind, repo_id, sha = found
    try:
        tree = get_cached_repo_tree(
            repo_id,
            repo_type=REPO_TYPE[kind],
            revision=sha,
            cache_dir=folder.absolute().parents[2],
        )
    except CachedRepoTreeNotFoundError:
        tree = []
    known = [Known.of(file) for file in tree if file.path != ".gitattributes"]
    return Origin(endpoint(), repo_id, kind, sha, None, {file.path: file for file in known})


def in_cache(folder: Path) -> tuple[Kind, str, str] | None:
    """``(kind, repo_id, sha)`` of a snapshot folder of the Hugging Face cache; None of others."""
    at = folder.absolute()
    match = _CACHED.fullmatch(at.parent.parent.name)
    if match is None or at.parent.name != "snapshots" or not FULL_SHA.fullmatch(at.name):
        return None
    kind: Kind = "dataset" if match[1] == "datasets" else "policy"
    return kind, f"{match[2]}/{match[3]}", at.name


def verify_folder(folder: Path | str) -> list[str] | None:
    """Paths of the files of a pulled folder that are missing or differ from the Hub's, sorted.

    Needs no connection. Files that were not part of the pull are not looked at. None if the folder
    was neither pulled nor pushed; of one that was pushed, its own files are checked.
    """
    folder = Path(folder)
    try:
        origin = origin_of(folder)
    except HubError:
        return [PATH]  # without it nothing can be said about the others
    if origin is None or not origin.files:
        return None
    return sorted(file.path for file in damaged(folder, origin.files.values()))


def encode(origin: Origin) -> bytes:
    """The bytes of ``.dp_hub/remote.json``, in the only spelling that is read again."""
    body: dict[str, Any] = {
        "endpoint": origin.endpoint,
        "repo_id": origin.repo_id,
        "kind": origin.kind,
        "sha": origin.sha,
        "tag": origin.tag,
        "files": {
            path: {"bytes": file.size, "git_id": file.git_id, "sha256": file.sha256}
            for path, file in origin.files.items()
        },
    }
    digest = hashlib.sha256(_dump(body)).hexdigest()
    return _dump({**body, "digest": digest})


def _decode(stored: Mapping[str, Any]) -> Origin:
    """Raises ValueError, TypeError, KeyError or AttributeError for what `encode` never made."""
    files = {
        path: Known(path, int(file["bytes"]), file["sha256"], str(file["git_id"]))
        for path, file in stored["files"].items()
    }
    if any(leaves_folder(path) for path in files) or stored["kind"] not in KINDS:
        raise ValueError("not ours")
    if not FULL_SHA.fullmatch(stored["sha"]):
        raise ValueError("not a commit id")
    if not all(file.sha256 is None or _SHA256.fullmatch(file.sha256) for file in files.values()):
        raise ValueError("not a sha256")
    return Origin(
        str(stored["endpoint"]),
        str(stored["repo_id"]),
        stored["kind"],
        stored["sha"],
        stored["tag"],
        files,
    )


def _dump(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
