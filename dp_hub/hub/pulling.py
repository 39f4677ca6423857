"""Pulling datasets and policies: a revision becomes a commit id first, then files, then checked."""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dp_hub.errors import HubError
from dp_hub.hub.client import Unreachable, connect, endpoint, explained, missing
from dp_hub.hub.digests import Known, damaged
from dp_hub.hub.kinds import KINDS, LOOKED_FOR, REPO_TYPE, Kind, kind_of
from dp_hub.hub.names import check_revision, parse_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)
FULL_SHA = re.compile(r"[0-9a-f]{40}")
# Housekeeping of the Hub's git, no part of what was pushed.
NOT_OURS = [".gitattributes"]


@dataclass(frozen=True)
class Pulled:
    """A dataset or policy on this machine. ``sha`` is the commit it is, whatever was asked for."""

    path: Path
    repo_id: str
    sha: str
    kind: Kind


@dataclass(frozen=True)
class Found:
    """A revision that has been resolved. ``files`` is None if the Hub wasn't asked for them."""

    repo_id: str
    kind: Kind
    revision: str
    sha: str
    files: Sequence[Known]
    online: bool


def pull(
    name: str,
    *,
    revision: str | None = None,
    to: Path | str | None = None,
    kind: Kind | None = None,
) -> Pulled:
    """Fetch a dataset or policy and check every byte of it against the Hub's checksums.

    What is there already is not fetched again. Without a connection the newest cached copy of the
    revision is taken, with a warning.

    Args:
        name: ``user/name`` or ``user/name@revision``.
        revision: tag, branch or commit id; instead of ``@revision``. Default: ``main``.
        to: a new folder to put the files in; without it they stay in the Hugging Face cache,
            where they must not be changed.
        kind: "dataset" or "policy"; needed only where the Hub has both under one name.
    Raises:
        HubError: no such name or revision, the Hub is away and nothing is cached, the files are
            damaged or of neither kind, or ``to`` exists.
    """
    repo_id, revision = _one_revision(name, revision)
    target = None if to is None else Path(to)
    if target is not None:
        _refuse_taken(target)
    api = connect()
    found = _look_up(api, repo_id, revision or "main", kind)
    if target is not None:
        return _pull_to(api, found, target)
    return Pulled(_pull_to_cache(api, found), repo_id, found.sha, found.kind)


def _one_revision(name: str, revision: str | None) -> tuple[str, str | None]:
    repo_id, inside = parse_name(name)
    if inside is not None and revision not in (None, inside):
        raise HubError(f"two revisions of {repo_id}: {inside} and {revision}")
    return repo_id, inside if revision is None else check_revision(revision)


def _look_up(api: "HfApi", repo_id: str, revision: str, kind: Kind | None) -> Found:
    kinds = KINDS if kind is None else (kind,)
    if FULL_SHA.fullmatch(revision) and (cached := _cached(repo_id, revision, kinds)):
        return cached  # a commit never changes: no need to ask
    try:
        with explained(repo_id):
            return _look_up_online(api, repo_id, revision, kinds)
    except Unreachable as away:
        cached = _cached(repo_id, revision, kinds)
        if cached is None:
            hint = f"{away.hint}; {repo_id}@{revision} is not in the cache either, or not whole"
            raise HubError(away.message, hint=hint) from away
        log.warning("%s; taking %s@%s from the cache", away.message, repo_id, cached.sha)
        return cached


def _look_up_online(api: "HfApi", repo_id: str, revision: str, kinds: Sequence[Kind]) -> Found:
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.hf_api import RepoFile

    shas: dict[Kind, str] = {}
    for kind in kinds:
        try:
            info = api.repo_info(repo_id, revision=revision, repo_type=REPO_TYPE[kind])
            shas[kind] = str(info.sha)
        except RevisionNotFoundError:
            raise _no_revision(api, repo_id, revision, kind) from None
        except RepositoryNotFoundError:
            continue
    if not shas:
        raise missing(repo_id, " or ".join(kinds))
    if len(shas) > 1:
        raise HubError(
            f"{repo_id} is a dataset and a policy at {endpoint()}", hint="say which with --kind"
        )
    [(kind, sha)] = shas.items()
    listed = api.list_repo_tree(repo_id, recursive=True, revision=sha, repo_type=REPO_TYPE[kind])
    files = _ours(Known.of(file) for file in listed if isinstance(file, RepoFile))
    _check_kind(repo_id, sha, kind, files)
    return Found(repo_id, kind, revision, sha, files, online=True)


def _ours(files: Iterable[Known]) -> list[Known]:
    kept = [file for file in files if file.path not in NOT_OURS]
    for file in kept:
        parts = Path(file.path).parts
        if ".." in parts or os.path.isabs(file.path) or "\\" in file.path:
            raise HubError(f"the Hub lists a file {file.path!r}, which would leave its folder")
    return kept


def _check_kind(repo_id: str, sha: str, kind: Kind, files: Sequence[Known]) -> None:
    paths = sorted(file.path for file in files)
    if kind_of(paths) == kind:
        return
    seen = ", ".join(paths[:5]) + (", ..." if len(paths) > 5 else "") if paths else "no files"
    raise HubError(f"{repo_id}@{sha[:10]} is no {kind}: it has {seen}", hint=LOOKED_FOR)


def _no_revision(api: "HfApi", repo_id: str, revision: str, kind: Kind) -> HubError:
    refs = api.list_repo_refs(repo_id, repo_type=REPO_TYPE[kind])
    tags = ", ".join(sorted(ref.name for ref in refs.tags)) or "none"
    branches = ", ".join(sorted(ref.name for ref in refs.branches))
    return HubError(
        f"{repo_id} has no revision {revision}", hint=f"its tags: {tags}; branches: {branches}"
    )


def _cached(repo_id: str, revision: str, kinds: Sequence[Kind]) -> Found | None:
    """The revision as the cache last knew it, if all its files are there."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    for kind in kinds:
        try:
            path = snapshot_download(
                repo_id,
                repo_type=REPO_TYPE[kind],
                revision=revision,
                local_files_only=True,
                ignore_patterns=NOT_OURS,
            )
            sha = Path(path).name
            tree = get_cached_repo_tree(repo_id, repo_type=REPO_TYPE[kind], revision=sha)
        except (LocalEntryNotFoundError, CachedRepoTreeNotFoundError):
            continue
        files = _ours(map(Known.of, tree))
        _check_kind(repo_id, sha, kind, files)
        return Found(repo_id, kind, revision, sha, files, online=False)
    return None


def _pull_to_cache(api: "HfApi", found: Found) -> Path:
    if not found.online:
        folder = _cache_folder(found)
        bad = damaged(folder, found.files)
        if not bad:
            return folder
        log.warning("%s in the cache is damaged; fetching it again", _listed(bad))
        return _mend(api, found, folder, bad)
    folder = _download(api, found, found.revision)
    if folder.name != found.sha:  # the revision has moved since it was looked up
        folder = _download(api, found, found.sha)
    bad = damaged(folder, found.files)
    return folder if not bad else _mend(api, found, folder, bad)


def _cache_folder(found: Found) -> Path:
    from huggingface_hub import snapshot_download

    path = snapshot_download(
        found.repo_id,
        repo_type=REPO_TYPE[found.kind],
        revision=found.sha,
        local_files_only=True,
        ignore_patterns=NOT_OURS,
    )
    return Path(path)


def _download(api: "HfApi", found: Found, revision: str, *, into: Path | None = None) -> Path:
    with explained(found.repo_id):
        path = api.snapshot_download(
            found.repo_id,
            repo_type=REPO_TYPE[found.kind],
            revision=revision,
            local_dir=into,
            ignore_patterns=NOT_OURS,
        )
    return Path(str(path))


def _mend(
    api: "HfApi", found: Found, folder: Path, bad: Sequence[Known], *, into: Path | None = None
) -> Path:
    """Fetch damaged files once more. Raises HubError if they are no better."""
    try:
        with explained(found.repo_id):
            for file in bad:
                api.hf_hub_download(
                    found.repo_id,
                    file.path,
                    repo_type=REPO_TYPE[found.kind],
                    revision=found.sha,
                    local_dir=into,
                    force_download=True,
                )
        still = damaged(folder, bad)
        hint = "the Hub's own copy is damaged, or something on the way changes it"
    except Unreachable as away:
        still, hint = list(bad), f"{away.message}; pull again when it is back"
    if still:
        raise HubError(
            f"{found.repo_id}@{found.sha[:10]}: the checksum of {_listed(still)} is wrong",
            hint=hint,
        )
    return folder


def _listed(files: Sequence[Known]) -> str:
    names = ", ".join(file.path for file in files[:3])
    return names if len(files) <= 3 else f"{names} and {len(files) - 3} more files"


def _pull_to(api: "HfApi", found: Found, target: Path) -> Pulled:
    """Into a folder beside ``target`` that becomes it when all is right.

    A pull that was cut off leaves that folder, and the next one goes on from there.
    """
    from huggingface_hub.utils import WeakFileLock

    target = target.absolute()
    partial = target.with_name(f".{target.name}.{found.sha[:12]}.partial")
    with WeakFileLock(_lock_of(target)):
        _refuse_taken(target)  # another pull may have been faster
        partial.mkdir(parents=True, exist_ok=True)
        if found.online:
            _download(api, found, found.sha, into=partial)
        else:
            shutil.copytree(_cache_folder(found), partial, dirs_exist_ok=True)
        bad = damaged(partial, found.files)
        if bad:
            _mend(api, found, partial, bad, into=partial)
        shutil.rmtree(partial / ".cache", ignore_errors=True)  # the library's notes
        partial.rename(target)
    return Pulled(target, found.repo_id, found.sha, found.kind)


def _lock_of(target: Path) -> Path:
    """Where the library keeps its own locks, which stay; beside the target it would be litter."""
    from huggingface_hub import constants

    locks = Path(constants.HF_HUB_CACHE) / ".locks" / "dp_hub"
    locks.mkdir(parents=True, exist_ok=True)
    return locks / f"{hashlib.sha256(str(target).encode()).hexdigest()[:32]}.lock"


def _refuse_taken(target: Path) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise HubError(f"{target} exists already", hint="give --to a folder that is new or empty")
