"""A repository on the Hub as it is at one moment: files, tags, newest version."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dp_hub.errors import HubError
from dp_hub.hub.contents import PROVENANCE, README, fingerprint
from dp_hub.hub.digests import Known
from dp_hub.hub.kinds import REPO_TYPE, Kind

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DATA_TAG = re.compile(r"data-v([1-9][0-9]*)")


@dataclass(frozen=True)
class Version:
    """The newest ``data-vN`` on the Hub."""

    number: int
    fingerprint: str | None
    files: Mapping[str, Known]


@dataclass(frozen=True)
class Remote:
    """A repository as it was when looked at."""

    head: str
    files: Mapping[str, Known]
    tags: Mapping[str, str]
    newest: Version | None
    readme: str | None
    """README.md of a dataset."""


def look_at(api: "HfApi", repo_id: str, kind: Kind, *, private: bool) -> Remote | None:
    """The repository's files and tags; None if there is none.

    Raises:
        HubError: it is public, and ``private`` was asked for.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.repo_info(repo_id, repo_type=REPO_TYPE[kind])
    except RepositoryNotFoundError:
        return None
    if private and info.private is False:
        raise HubError(
            f"{repo_id} exists and is public; --private is for new ones",
            hint="push under another name, or change it in the settings of the repository",
        )
    head = str(info.sha)
    refs = api.list_repo_refs(repo_id, repo_type=REPO_TYPE[kind])
    tags = {ref.name: ref.target_commit for ref in refs.tags}
    files = list_files(api, repo_id, kind, head)
    if kind == "policy":
        return Remote(head, files, tags, newest=None, readme=None)
    readme = _read(api, repo_id, head, README) if README in files else None
    text = None if readme is None else readme.decode("utf-8", "replace")
    return Remote(head, files, tags, _newest_version(api, repo_id, tags), text)


def list_files(api: "HfApi", repo_id: str, kind: Kind, sha: str) -> dict[str, Known]:
    """The files of a commit by path."""
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repo_id, recursive=True, revision=sha, repo_type=REPO_TYPE[kind])
    return {file.path: Known.of(file) for file in tree if isinstance(file, RepoFile)}


def _newest_version(api: "HfApi", repo_id: str, tags: Mapping[str, str]) -> Version | None:
    numbers = [int(match[1]) for tag in tags if (match := DATA_TAG.fullmatch(tag))]
    if not numbers:
        return None
    sha = tags[f"data-v{max(numbers)}"]
    files = list_files(api, repo_id, "dataset", sha)
    provenance = _read(api, repo_id, sha, PROVENANCE) if PROVENANCE in files else None
    return Version(max(numbers), fingerprint(provenance), files)


def _read(api: "HfApi", repo_id: str, sha: str, path: str) -> bytes:
    """A small file of a dataset."""
    local = api.hf_hub_download(repo_id, path, repo_type="dataset", revision=sha)
    return Path(local).read_bytes()
