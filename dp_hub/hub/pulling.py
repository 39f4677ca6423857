"""Pulling datasets and policies: a revision becomes a commit id first, then files, then checked."""

import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dp_hub.errors import HubError
from dp_hub.hub.client import connect, endpoint, explained, quiet_in_logs
from dp_hub.hub.contents import PROVENANCE, is_readable
from dp_hub.hub.digests import Known, damaged
from dp_hub.hub.fetching import into_cache, into_folder, listed, some_into_folder
from dp_hub.hub.kinds import REPO_TYPE, Kind
from dp_hub.hub.lookup import Found, Only, look_up, wanted_kinds
from dp_hub.hub.names import check_revision, parse_name
from dp_hub.hub.origin import HOME, PATH, Origin, in_cache, read_origin, write_origin
from dp_hub.hub.remote import DATA_TAG

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)
SET_ASIDE = f"{HOME}/replaced"


@dataclass(frozen=True)
class Pulled:
    """A dataset or policy on this machine. ``sha`` is the commit it is, whatever was asked for."""

    path: Path
    repo_id: str
    sha: str
    kind: Kind


def pull(
    name: str,
    *,
    revision: str | None = None,
    to: Path | str | None = None,
    kind: Kind | None = None,
    only: Only | None = None,
) -> Pulled:
    """Fetch a dataset or policy and check every byte of it against the Hub's checksums.

    What is there already is not fetched again. Without a connection the newest cached copy of the
    revision is taken, with a warning.

    Args:
        name: ``user/name`` or ``user/name@revision``.
        revision: tag, branch or commit id; instead of ``@revision``. Default: ``main``.
        to: a new folder to put the files in, which then remembers the commit and its checksums
            (`verify_folder`); without it they stay in the Hugging Face cache, where they must not
            be changed. A folder that is a pull of this commit already is checked, and what is
            damaged or missing in it is fetched again.
        kind: "dataset" or "policy"; needed only where the Hub has both under one name.
        only: "meta" fetches README.md and the files under meta/ of a dataset, into the cache.
    Raises:
        HubError: no such name or revision, the Hub is away and nothing is cached, the files are
            damaged or of neither kind, or ``to`` is something else already.
    """
    repo_id, revision = one_revision(name, revision)
    if only is not None and (to is not None or kind == "policy"):
        raise HubError("a part is fetched of datasets only, and into the cache only")
    kinds = wanted_kinds("dataset" if only is not None else kind)
    target = None if to is None else Path(to).absolute()
    known = None if target is None else _known(target, repo_id)
    api = connect()
    with quiet_in_logs():
        found = look_up(api, repo_id, revision or "main", kinds, only=only, at_hand=known)
        if target is None:
            return Pulled(into_cache(api, found), repo_id, found.sha, found.kind)
        with explained(repo_id):  # also what the disk says
            _pull_to(api, found, target)
    return Pulled(target, found.repo_id, found.sha, found.kind)


def one_revision(name: str, revision: str | None) -> tuple[str, str | None]:
    """The repository and the revision, which may be in the name or beside it, but not both."""
    repo_id, inside = parse_name(name)
    if inside is not None and revision not in (None, inside):
        raise HubError(f"two revisions of {repo_id}: {inside} and {revision}")
    return repo_id, inside if revision is None else check_revision(revision)


def _known(target: Path, repo_id: str) -> Origin | None:
    """What the target remembers. Raises HubError if it holds anything but a pull of ``repo_id``."""
    if not target.is_dir():
        if target.exists() or target.is_symlink():
            raise _taken(target)
        return None
    if not any(target.iterdir()):
        return None
    if in_cache(target) or not (target / PATH).exists():
        raise _taken(target)
    try:
        origin = read_origin(target)
    except HubError as damage:
        log.warning("%s", damage.message)
        return None
    if origin is not None and origin.repo_id != repo_id:
        raise _other(target, origin)
    return origin


def _taken(target: Path) -> HubError:
    return HubError(
        f"{target} exists already", hint="give --to a folder that is new, empty, or such a pull"
    )


def _other(target: Path, origin: Origin) -> HubError:
    at = origin.tag or f"commit {origin.sha[:10]}"
    return HubError(
        f"{target} exists already: it is {origin.repo_id} at {at}",
        hint="give --to a folder that is new or empty",
    )


def _pull_to(api: "HfApi", found: Found, target: Path) -> None:
    """Into a folder beside ``target`` that becomes it when all is right.

    A pull that was cut off leaves that folder, and the next one goes on from there.
    """
    from huggingface_hub.utils import WeakFileLock

    partial = target.with_name(f".{target.name}.{found.sha[:12]}.partial")
    with WeakFileLock(_lock_of(target)):
        known = _known(target, found.repo_id)  # another pull may have been faster
        if known is not None and known.sha != found.sha:
            raise _other(target, known)
        partial.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and any(target.iterdir()):
            _mend(api, found, target, partial, known)
            return
        into_folder(api, found, partial)
        write_origin(partial, _origin(api, found, None))
        partial.rename(target)


def _mend(api: "HfApi", found: Found, target: Path, partial: Path, known: Origin | None) -> None:
    """Fetch what is damaged or missing in ``target``, a pull of this commit, and say so.

    What is replaced is kept, for it may have been changed on purpose.
    """
    bad = damaged(target, found.files)
    if bad and known is None:
        shutil.rmtree(partial, ignore_errors=True)
        raise HubError(
            f"{target / PATH} is damaged, and {listed(bad)} are not those of {found.repo_id}@"
            f"{found.sha[:10]}: it can't be known what this folder is",
            hint="pull into a new folder",
        )
    if _edited(target, bad):
        shutil.rmtree(partial, ignore_errors=True)
        raise HubError(
            f"{target} has been changed since it was pulled: {listed(bad)}",
            hint="push it, or pull into a new folder",
        )
    if bad:
        log.warning("damaged or missing in %s: %s; fetching again", target, listed(bad))
        some_into_folder(api, found, partial, bad)
        _replace(partial, target, bad)
    else:
        log.info("%s is whole already: %d files checked", target, len(found.files))
    shutil.rmtree(partial, ignore_errors=True)
    write_origin(target, _origin(api, found, known))


def _edited(target: Path, bad: Sequence[Known]) -> bool:
    """Whether files differ because somebody went on with the dataset, and not by damage.

    Then its provenance and other descriptions differ together, and can be read.
    """
    changed = {file.path for file in bad if (target / file.path).is_file()}
    described = {path for path in changed if path.startswith("meta/")}
    return PROVENANCE in described and len(described) > 1 and is_readable(target / PROVENANCE)


def _replace(partial: Path, target: Path, files: Sequence[Known]) -> None:
    aside = target / SET_ASIDE / secrets.token_hex(4)
    for file in files:
        old = target / file.path
        if old.exists() or old.is_symlink():
            kept = aside / file.path
            kept.parent.mkdir(parents=True, exist_ok=True)
            os.replace(old, kept)
        old.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial / file.path, old)
    if aside.exists():
        log.warning("what was there before is kept in %s", aside)


def _origin(api: "HfApi", found: Found, known: Origin | None) -> Origin:
    files = {file.path: file for file in found.files}
    tag = known.tag if known is not None else None
    if DATA_TAG.fullmatch(found.revision):
        tag = found.revision
    elif found.online and found.kind == "dataset":
        tag = _tag_at(api, found)
    return Origin(endpoint(), found.repo_id, found.kind, found.sha, tag, files)


def _tag_at(api: "HfApi", found: Found) -> str | None:
    """The newest version that the commit is."""
    with explained(found.repo_id):
        refs = api.list_repo_refs(found.repo_id, repo_type=REPO_TYPE[found.kind])
    matches = [DATA_TAG.fullmatch(ref.name) for ref in refs.tags if ref.target_commit == found.sha]
    numbers = [int(match[1]) for match in matches if match]
    return f"data-v{max(numbers)}" if numbers else None


def _lock_of(target: Path) -> Path:
    """Where the library keeps its own locks, which stay; beside the target it would be litter."""
    from huggingface_hub import constants

    locks = Path(constants.HF_HUB_CACHE) / ".locks" / "dp_hub"
    locks.mkdir(parents=True, exist_ok=True)
    return locks / f"{hashlib.sha256(str(target).encode()).hexdigest()[:32]}.lock"
