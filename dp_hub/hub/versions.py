"""The versions of a dataset on the Hub, newest first; of a policy, its commits."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from dp_hub.errors import HubError
from dp_hub.hub.client import connect, explained, quiet_in_logs
from dp_hub.hub.contents import INFO
from dp_hub.hub.digests import Known
from dp_hub.hub.kinds import REPO_TYPE, Kind
from dp_hub.hub.lookup import resolve, wanted_kinds
from dp_hub.hub.names import parse_name
from dp_hub.hub.remote import DATA_TAG, read_totals

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import GitCommitInfo

THREADS = 8


@dataclass(frozen=True)
class VersionEntry:
    """One version, or one commit where ``tag`` is None.

    ``when`` is the UTC time in ISO 8601, to the second; ``episodes`` and ``frames`` are what
    meta/info.json states there, None if it doesn't; ``message`` is the commit's title.
    """

    tag: str | None
    sha: str
    when: str
    author: str
    episodes: int | None
    frames: int | None
    message: str


@dataclass(frozen=True)
class History:
    """What a repository has been, newest first.

    ``versions`` are a policy's commits. ``unversioned`` are the commits on ``main`` of a dataset
    since its newest version, or all of them while there is none.
    """

    repo_id: str
    kind: Kind
    versions: Sequence[VersionEntry]
    unversioned: Sequence[VersionEntry]


def log(name: str, *, kind: Kind | None = None) -> list[VersionEntry]:
    """The versions of a dataset on the Hub, newest first; of a policy, its commits.

    Raises:
        HubError: no such name, or the Hub can't be asked.
    """
    return list(history(name, kind=kind).versions)


def history(name: str, *, kind: Kind | None = None) -> History:
    """As `log`, with the commits that came after the newest version.

    Raises:
        HubError: no such name, or the Hub can't be asked.
    """
    repo_id, revision = parse_name(name)
    if revision is not None:
        raise HubError(f"the versions are {repo_id}'s, not those of {revision}; leave that off")
    api = connect()
    with quiet_in_logs(), explained(repo_id):
        kind, _ = resolve(api, repo_id, "main", wanted_kinds(kind))
        commits = api.list_repo_commits(repo_id, repo_type=REPO_TYPE[kind])
        if kind == "policy":
            return History(repo_id, kind, [entry_of(commit) for commit in commits], [])
        tags = _version_tags(api, repo_id)
        by_sha = {commit.commit_id: commit for commit in commits}
        with ThreadPoolExecutor(THREADS) as pool:
            versions = list(
                pool.map(lambda tag: _version(api, repo_id, tag, tags[tag], by_sha), tags)
            )
    newest = tags[next(iter(tags))] if tags else None
    since = _since(commits, newest)
    return History(repo_id, kind, versions, [entry_of(commit) for commit in since])


def entry_of(
    commit: "GitCommitInfo",
    tag: str | None = None,
    totals: tuple[int | None, int | None] = (None, None),
) -> VersionEntry:
    """A commit as the Hub lists it, in our words."""
    when = commit.created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    author = ", ".join(map(str, commit.authors))
    return VersionEntry(tag, commit.commit_id, when, author, *totals, commit.title)


def totals_at(api: "HfApi", repo_id: str, sha: str) -> tuple[int | None, int | None]:
    """Episodes and frames of a dataset at a commit, each None where it doesn't say."""
    from huggingface_hub.hf_api import RepoFile

    rows = api.get_paths_info(repo_id, [INFO], revision=sha, repo_type="dataset")
    for row in rows:
        if isinstance(row, RepoFile):
            return read_totals(api, repo_id, sha, Known.of(row))
    return None, None


def _version_tags(api: "HfApi", repo_id: str) -> dict[str, str]:
    """Tag to commit id, the newest version first."""
    refs = api.list_repo_refs(repo_id, repo_type="dataset")
    found = {int(match[1]): ref for ref in refs.tags if (match := DATA_TAG.fullmatch(ref.name))}
    return {found[number].name: found[number].target_commit for number in sorted(found)[::-1]}


def _version(
    api: "HfApi", repo_id: str, tag: str, sha: str, commits: dict[str, "GitCommitInfo"]
) -> VersionEntry:
    commit = commits.get(sha)
    if commit is None:  # of a history that main no longer has
        commit = api.list_repo_commits(repo_id, repo_type="dataset", revision=sha)[0]
    return entry_of(commit, tag, totals_at(api, repo_id, sha))


def _since(commits: Sequence["GitCommitInfo"], newest: str | None) -> Sequence["GitCommitInfo"]:
    for number, commit in enumerate(commits):
        if commit.commit_id == newest:
            return commits[:number]
    return commits if newest is None else []
