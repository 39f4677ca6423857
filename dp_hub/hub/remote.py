"""A repository on the Hub as it is at one moment: files, tags, newest version."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from dp_hub.errors import HubError
from dp_hub.hub.contents import PROVENANCE, README, Content, fingerprint
from dp_hub.hub.digests import Known
from dp_hub.hub.kinds import REPO_TYPE, Kind, is_content

if TYPE_CHECKING:
    from huggingface_hub import HfApi

DATA_TAG = re.compile(r"data-v([1-9][0-9]*)")
SMALL_BYTES = 64 << 20


@dataclass(frozen=True)
class Version:
    """The newest ``data-vN`` on the Hub."""

    number: int
    sha: str
    fingerprint: str | None
    files: Mapping[str, Known]

    @property
    def tag(self) -> str:
        return f"data-v{self.number}"


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
    readme = read_file(api, repo_id, head, files[README]) if README in files else None
    text = None if readme is None else readme.decode("utf-8", "replace")
    return Remote(head, files, tags, _newest_version(api, repo_id, tags), text)


def list_files(api: "HfApi", repo_id: str, kind: Kind, sha: str) -> dict[str, Known]:
    """The files of a commit by path."""
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repo_id, recursive=True, revision=sha, repo_type=REPO_TYPE[kind])
    return {file.path: Known.of(file) for file in tree if isinstance(file, RepoFile)}


def read_file(api: "HfApi", repo_id: str, sha: str, file: Known) -> bytes:
    """A small file of a dataset, checked.

    Raises:
        HubError: it is not small, or not what the Hub lists.
    """
    if file.size > SMALL_BYTES:
        raise HubError(f"{repo_id}@{sha[:10]}: {file.path} has {file.size:,} bytes")
    local = api.hf_hub_download(repo_id, file.path, repo_type="dataset", revision=sha)
    if file.holds(Path(local)):
        return Path(local).read_bytes()
    # The cache's copy is damaged or was changed; another pull mends that.
    with TemporaryDirectory(prefix="dp_hub-") as folder:
        local = api.hf_hub_download(
            repo_id,
            file.path,
            repo_type="dataset",
            revision=sha,
            local_dir=folder,
            force_download=True,
        )
        if file.holds(Path(local)):
            return Path(local).read_bytes()
    raise HubError(
        f"{repo_id}@{sha[:10]}: the checksum of {file.path} is wrong",
        hint="the Hub's own copy is damaged, or something on the way changes it",
    )


def read_totals(api: "HfApi", repo_id: str, sha: str, file: Known) -> tuple[int | None, int | None]:
    """Episodes and frames that a dataset's meta/info.json states, each None if it doesn't."""
    try:
        info = json.loads(read_file(api, repo_id, sha, file))
        found = [info.get(key) for key in ("total_episodes", "total_frames")]
    except (ValueError, AttributeError, RecursionError):
        return None, None
    episodes, frames = (number if isinstance(number, int) else None for number in found)
    return episodes, frames


def version_of(contents: Mapping[str, Content], newest: Version | None) -> int:
    """The version that ``contents`` are: the newest on the Hub if they equal it, or the next."""
    if newest is None:
        return 1
    mine = fingerprint(contents.get(PROVENANCE))
    if mine is not None and newest.fingerprint is not None:
        same = mine == newest.fingerprint
    else:
        # Datasets that others made have no fingerprint: compare the files.
        here = {path for path in contents if is_content(path)}
        there = {path for path in newest.files if is_content(path)}
        same = here == there and all(newest.files[path].holds(contents[path]) for path in here)
    return newest.number if same else newest.number + 1


def _newest_version(api: "HfApi", repo_id: str, tags: Mapping[str, str]) -> Version | None:
    numbers = [int(match[1]) for tag in tags if (match := DATA_TAG.fullmatch(tag))]
    if not numbers:
        return None
    sha = tags[f"data-v{max(numbers)}"]
    files = list_files(api, repo_id, "dataset", sha)
    known = files.get(PROVENANCE)
    provenance = read_file(api, repo_id, sha, known) if known is not None else None
    return Version(max(numbers), sha, fingerprint(provenance), files)
