"""Which commit a revision stands for, and its files: asked of the Hub, or of the cache."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dp_hub.errors import HubError
from dp_hub.hub.client import Unreachable, endpoint, explained, missing
from dp_hub.hub.digests import Known, leaves_folder
from dp_hub.hub.kinds import KINDS, LOOKED_FOR, REPO_TYPE, Kind, kind_of
from dp_hub.hub.origin import FULL_SHA, Origin

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)
# Housekeeping of the Hub's git, no part of what was pushed.
NOT_OURS = [".gitattributes"]
Only = Literal["meta"]
PATTERNS: dict[Only | None, list[str] | None] = {None: None, "meta": ["meta/*", "README.md"]}


@dataclass(frozen=True)
class Found:
    """A revision that has been resolved, and those of its files that are wanted."""

    repo_id: str
    kind: Kind
    revision: str
    sha: str
    files: Sequence[Known]
    online: bool
    """Whether the Hub was asked; otherwise this is what the cache or a folder knows."""
    only: Only | None = None


def look_up(
    api: "HfApi",
    repo_id: str,
    revision: str,
    kinds: Sequence[Kind],
    *,
    only: Only | None = None,
    at_hand: Origin | None = None,
) -> Found:
    """Resolve ``revision``; without a connection, as the cache or the folder at hand knows it.

    Raises:
        HubError: no such name or revision, or nobody can be asked and nothing is at hand.
    """
    here = (repo_id, revision, kinds, only, at_hand)
    if FULL_SHA.fullmatch(revision) and (cached := _at_hand(*here)):
        return cached  # a commit never changes: no need to ask
    try:
        with explained(repo_id):
            return _look_up_online(api, repo_id, revision, kinds, only)
    except Unreachable as away:
        cached = _at_hand(*here)
        if cached is None:
            hint = f"{away.hint}; {repo_id}@{revision} is not in the cache either, or not whole"
            raise HubError(away.message, hint=hint) from away
        source = "the cache" if at_hand is None else "what is here"
        log.warning("%s; taking %s@%s from %s", away.message, repo_id, cached.sha, source)
        return cached


def resolve(api: "HfApi", repo_id: str, revision: str, kinds: Sequence[Kind]) -> tuple[Kind, str]:
    """The kind and the commit id that a revision of a repository stands for.

    Raises:
        HubError: there is none, or a dataset and a policy.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

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
    return next(iter(shas.items()))


def wanted_kinds(kind: Kind | None) -> Sequence[Kind]:
    return KINDS if kind is None else (kind,)


def _look_up_online(
    api: "HfApi", repo_id: str, revision: str, kinds: Sequence[Kind], only: Only | None
) -> Found:
    from huggingface_hub.hf_api import RepoFile

    kind, sha = resolve(api, repo_id, revision, kinds)
    listed = api.list_repo_tree(repo_id, recursive=True, revision=sha, repo_type=REPO_TYPE[kind])
    files = _ours(Known.of(file) for file in listed if isinstance(file, RepoFile))
    _check_kind(repo_id, sha, kind, files)
    return Found(repo_id, kind, revision, sha, wanted_files(files, only), online=True, only=only)


def wanted_files(files: Sequence[Known], only: Only | None) -> list[Known]:
    """Those of ``files`` that belong to the part."""
    patterns = PATTERNS[only] or ["*"]
    return [file for file in files if any(fnmatch(file.path, pattern) for pattern in patterns)]


def _ours(files: Iterable[Known]) -> list[Known]:
    kept = [file for file in files if file.path not in NOT_OURS]
    for file in kept:
        if leaves_folder(file.path):
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


def _at_hand(
    repo_id: str,
    revision: str,
    kinds: Sequence[Kind],
    only: Only | None,
    origin: Origin | None,
) -> Found | None:
    return _cached(repo_id, revision, kinds, only) or _remembered(repo_id, revision, kinds, origin)


def _remembered(
    repo_id: str, revision: str, kinds: Sequence[Kind], origin: Origin | None
) -> Found | None:
    """The revision as a folder remembers it, if it may stand for that commit."""
    if origin is None or origin.repo_id != repo_id or origin.kind not in kinds:
        return None
    short = len(revision) >= 7 and origin.sha.startswith(revision)
    if not short and revision not in (origin.tag, "main"):
        return None
    files = list(origin.files.values())
    return Found(repo_id, origin.kind, revision, origin.sha, files, online=False)


def _cached(repo_id: str, revision: str, kinds: Sequence[Kind], only: Only | None) -> Found | None:
    """The revision as the cache last knew it, if all wanted files of it are there."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    for kind in kinds:
        try:
            path = snapshot_download(
                repo_id,
                repo_type=REPO_TYPE[kind],
                revision=revision,
                local_files_only=True,
                allow_patterns=PATTERNS[only],
                ignore_patterns=NOT_OURS,
            )
            sha = Path(path).name
            tree = get_cached_repo_tree(repo_id, repo_type=REPO_TYPE[kind], revision=sha)
        except (LocalEntryNotFoundError, CachedRepoTreeNotFoundError):
            continue
        files = _ours(map(Known.of, tree))
        _check_kind(repo_id, sha, kind, files)
        return Found(
            repo_id, kind, revision, sha, wanted_files(files, only), online=False, only=only
        )
    return None


def ref_in_cache(found: Found) -> bool:
    """Whether the cache knows a commit by this revision already, perhaps an older one."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=found.repo_id, repo_type=REPO_TYPE[found.kind])
    return os.path.isfile(Path(constants.HF_HUB_CACHE) / folder / "refs" / found.revision)
