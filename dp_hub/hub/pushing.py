"""Pushing datasets and policies: one commit with what changed, then the tags that publish it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dp_hub.errors import HubError
from dp_hub.hub.client import TOKEN, connect, endpoint, explained, has_token
from dp_hub.hub.contents import PROVENANCE, README, Content, fingerprint, format_version, gather
from dp_hub.hub.kinds import REPO_TYPE, Kind, belongs, is_content, kind_of_folder
from dp_hub.hub.names import parse_name
from dp_hub.hub.remote import Remote, Version, list_files, look_at

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Pushed:
    """What a push made. Nothing did when ``changed`` is False; ``sha`` is then what was there.

    ``tag`` is the dataset's version (``data-v3``); policies have none.
    """

    repo_id: str
    kind: Kind
    sha: str
    url: str
    tag: str | None
    changed: bool
    n_sent: int
    n_removed: int


@dataclass(frozen=True)
class Plan:
    """What has to change on the Hub for it to hold the folder, from commit ``head`` on."""

    repo_id: str
    kind: Kind
    head: str
    send: Mapping[str, Content]
    remove: Sequence[str]
    format_tag: str | None
    """The format's version (``v3.0``), which moves along; None for policies."""
    data_tag: str | None
    """The content's version, new or there already; None for policies."""


def push(
    folder: Path | str,
    name: str,
    *,
    private: bool = False,
    message: str | None = None,
    license: str | None = None,
    ask_license: Callable[[], str] | None = None,
) -> Pushed:
    """Publish a dataset or policy folder as one finished state.

    Only files that belong to a dataset or policy are sent, only those that differ from the Hub's,
    and all in one commit on what was looked at, so readers never see half of it. A dataset whose
    content is new gets the next tag ``data-vN``, which never moves again, and the tag of its
    format (``v3.0``) moves to the new commit, both last. The folder itself isn't touched.

    Args:
        folder: the dataset or policy.
        name: ``user/name``; made if it doesn't exist.
        private: make a new repository private.
        message: the commit's title.
        license: identifier such as ``cc-by-4.0``. Needed for a dataset unless its README.md or
            meta/dp_hub.json, or the README.md on the Hub, names one.
        ask_license: called when none is known, to ask the user.
    Raises:
        HubError: no dataset or policy, no licence, no token, no access, or somebody else pushed
            at the same time.
    """
    repo_id, revision = parse_name(name)
    if revision is not None:
        raise HubError(
            f"a push goes to {repo_id}, not to {revision} of it",
            hint="each new content gets a tag of its own",
        )
    folder = Path(folder)
    kind = kind_of_folder(folder)
    api = connect()
    if not has_token():
        raise HubError(f"there is no token to push to {endpoint()} with", hint=TOKEN)
    with explained(repo_id):
        remote = look_at(api, repo_id, kind, private=private)
        readme = remote.readme if remote else None
        contents = gather(folder, kind, repo_id, readme, license=license, ask=ask_license)
        if remote is None:  # all that can be wrong with the folder has been said by now
            api.create_repo(repo_id, repo_type=REPO_TYPE[kind], private=private, exist_ok=True)
            remote = look_at(api, repo_id, kind, private=private)
            if remote is None:
                raise HubError(f"{repo_id} was removed from {endpoint()} just after it was made")
        return publish(api, plan_push(repo_id, kind, contents, remote), remote, message)


def plan_push(repo_id: str, kind: Kind, contents: Mapping[str, Content], remote: Remote) -> Plan:
    """Compare a folder's contents with a repository. Reads the files, changes nothing."""
    send = {
        path: content
        for path, content in contents.items()
        if path not in remote.files or not remote.files[path].holds(content)
    }
    # A README.md on the Hub is never removed: it may have been written there.
    remove = [
        path
        for path in remote.files
        if path not in contents and belongs(path, kind) and path != README
    ]
    if kind == "policy":
        return Plan(repo_id, kind, remote.head, send, remove, None, None)
    number = _version_of(contents, remote.newest)
    return Plan(
        repo_id, kind, remote.head, send, remove, format_version(contents), f"data-v{number}"
    )


def publish(api: "HfApi", plan: Plan, remote: Remote, message: str | None) -> Pushed:
    """Make ``plan`` true: the commit, a look at whether it is right, the tags.

    Raises:
        HubError: the repository is no longer at ``plan.head``; nothing was published.
    """
    sha = plan.head
    changed = bool(plan.send or plan.remove)
    with explained(plan.repo_id):
        if changed:
            sha = _commit(api, plan, message or f"Push {plan.kind} with dp_hub")
            _confirm(api, plan, sha)
        changed |= _tag(api, plan, sha, remote.tags)
    kind_path = "datasets/" if plan.kind == "dataset" else ""
    url = f"{endpoint()}/{kind_path}{plan.repo_id}/tree/{plan.data_tag or sha}"
    n_sent, n_removed = len(plan.send), len(plan.remove)
    return Pushed(plan.repo_id, plan.kind, sha, url, plan.data_tag, changed, n_sent, n_removed)


def _commit(api: "HfApi", plan: Plan, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    adds = [CommitOperationAdd(path, content) for path, content in plan.send.items()]
    removes = [CommitOperationDelete(path, is_folder=False) for path in plan.remove]
    try:
        commit = api.create_commit(
            plan.repo_id,
            [*adds, *removes],
            commit_message=message,
            repo_type=REPO_TYPE[plan.kind],
            parent_commit=plan.head,
        )
    except HfHubHTTPError:
        raise
    except ValueError as error:  # a README.md or a file that the Hub doesn't take
        raise HubError(f"{plan.repo_id}: {error}") from error
    return str(commit.oid)


def _confirm(api: "HfApi", plan: Plan, sha: str) -> None:
    """Compare the commit with what was sent, before a tag makes it a version."""
    files = list_files(api, plan.repo_id, plan.kind, sha)
    wrong = [
        path
        for path, content in plan.send.items()
        if path not in files or not files[path].holds(content)
    ]
    if wrong:
        raise HubError(
            f"{plan.repo_id}@{sha[:10]} does not hold what was sent: {', '.join(wrong[:3])}",
            hint="did the folder change during the push? it got no tag; push again",
        )


def _tag(api: "HfApi", plan: Plan, sha: str, tags: Mapping[str, str]) -> bool:
    """Set the tags that are missing or elsewhere; whether there were any."""
    done = False
    if plan.data_tag is not None and plan.data_tag not in tags:
        api.create_tag(plan.repo_id, tag=plan.data_tag, revision=sha, repo_type="dataset")
        done = True
    if plan.format_tag is not None and tags.get(plan.format_tag) != sha:
        if plan.format_tag in tags:
            api.delete_tag(plan.repo_id, tag=plan.format_tag, repo_type="dataset")
        api.create_tag(plan.repo_id, tag=plan.format_tag, revision=sha, repo_type="dataset")
        done = True
    return done


def _version_of(contents: Mapping[str, Content], newest: Version | None) -> int:
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
