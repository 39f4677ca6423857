"""Pushing datasets and policies: one commit with what changed, then the tags that publish it."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dp_hub.errors import HubError
from dp_hub.hub.cards import GENERATED, license_of
from dp_hub.hub.client import TOKEN, connect, endpoint, explained, has_token, quiet_in_logs
from dp_hub.hub.conflicts import refuse_damage, refuse_unseen
from dp_hub.hub.contents import (
    README,
    Content,
    format_version,
    gather,
    refuse_damaged,
    refuse_unfinished,
)
from dp_hub.hub.digests import Known
from dp_hub.hub.kinds import REPO_TYPE, Kind, belongs, is_content, kind_of_folder
from dp_hub.hub.names import parse_name
from dp_hub.hub.origin import Origin, try_to_write_origin
from dp_hub.hub.remote import Remote, Version, list_files, look_at, version_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MakeCard = Callable[[Path, str, str, Mapping[str, Any]], Mapping[str, bytes]]


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
    own: Set[str] = frozenset()
    """Paths whose content on the Hub is to be that of the folder's own file."""


def push(
    folder: Path | str,
    name: str,
    *,
    private: bool = False,
    message: str | None = None,
    license: str | None = None,
    ask_license: Callable[[], str] | None = None,
    onto: str | None = None,
    make_card: MakeCard | None = None,
) -> Pushed:
    """Publish a dataset or policy folder as one finished state.

    Only files that belong to a dataset or policy are sent, only those that differ from the Hub's,
    and all in one commit on what was looked at, so readers never see half of it. A dataset whose
    content is new gets the next tag ``data-vN``, which never moves again, and the tag of its
    format (``v3.0``) moves to the new commit, both last.

    A dataset on the Hub is replaced only by a folder that remembers it, or with ``onto``. The
    folder remembers what it was pulled from or pushed as in ``.dp_hub/remote.json``, the one file
    in it that is written here; if it can't be written to, it just doesn't remember.

    Args:
        folder: the dataset or policy.
        name: ``user/name``; made if it doesn't exist.
        private: make a new repository private.
        message: the commit's title.
        license: identifier such as ``cc-by-4.0``. Needed for a dataset unless its README.md or
            meta/dp_hub.json, or the README.md on the Hub, names one.
        ask_license: called when none is known, to ask the user.
        onto: the newest version on the Hub (``data-v3``, or its commit id), to replace that with a
            folder that was not made from it.
        make_card: ``make_card(folder, repo_id, license, facts)`` gives the files of the card
            (README.md, pictures under media/) unless the user has written a README.md; ``facts``
            holds "tag", the version that this will be. The same dataset must get the same README.
    Raises:
        HubError: no dataset or policy, unfinished or not as its checksums say, no licence, no
            token, no access, another dataset is there, or somebody else pushed at the same time.
    """
    repo_id, revision = parse_name(name)
    if revision is not None:
        raise HubError(
            f"a push goes to {repo_id}, not to {revision} of it",
            hint="each new content gets a tag of its own",
        )
    folder = Path(folder)
    kind = kind_of_folder(folder)
    if kind == "dataset":
        refuse_unfinished(folder)
    elif onto is not None:
        raise HubError(f"{folder} is a policy; --onto names a version of a dataset")
    api = connect()
    if not has_token():
        raise HubError(f"there is no token to push to {endpoint()} with", hint=TOKEN)
    with quiet_in_logs(), explained(repo_id):
        remote = look_at(api, repo_id, kind, private=private)
        readme = remote.readme if remote else None
        contents = gather(folder, kind, repo_id, readme, license=license, ask=ask_license)
        if kind == "dataset" and make_card is not None:
            newest = remote.newest if remote else None
            contents = _with_card(folder, repo_id, contents, newest, make_card)
        if remote is None:  # all that can be wrong with the folder has been said by now
            api.create_repo(repo_id, repo_type=REPO_TYPE[kind], private=private, exist_ok=True)
            remote = look_at(api, repo_id, kind, private=private)
            if remote is None:
                raise HubError(f"{repo_id} was removed from {endpoint()} just after it was made")
        plan = plan_push(repo_id, kind, contents, remote)
        if kind == "dataset" and any(map(is_content, [*plan.send, *plan.remove])):
            refuse_damaged(folder, contents, plan.send)
            refuse_unseen(api, repo_id, folder, remote, onto)
            refuse_damage(repo_id, folder, [*plan.send, *plan.remove], remote, onto)
        return publish(api, plan, remote, message, remember_in=folder)


def _with_card(
    folder: Path,
    repo_id: str,
    contents: Mapping[str, Content],
    newest: Version | None,
    make_card: MakeCard,
) -> dict[str, Content]:
    """``contents`` with a card in the place of ours, if there is no other README.md."""
    readme = contents[README]
    text = readme.decode() if isinstance(readme, bytes) else readme.read_text("utf-8")
    if GENERATED not in text:
        return dict(contents)
    facts = {"tag": f"data-v{version_of(contents, newest)}"}
    card = make_card(folder, repo_id, str(license_of(text)), facts)
    strange = [path for path in card if not belongs(path, "dataset") or is_content(path)]
    assert not strange and README in card, f"a card can't have the files {sorted(card)}"
    return {**contents, **card}


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
    own = frozenset(path for path, content in contents.items() if isinstance(content, Path))
    if kind == "policy":
        return Plan(repo_id, kind, remote.head, send, remove, None, None, own)
    if set(send) | set(remove) <= _pictures_made(contents, remote):
        send, remove = {}, []
    number = version_of(contents, remote.newest)
    tag = f"data-v{number}"
    return Plan(repo_id, kind, remote.head, send, remove, format_version(contents), tag, own)


def _pictures_made(contents: Mapping[str, Content], remote: Remote) -> set[str]:
    """Pictures of a card that the Hub has with the same words.

    Another version of a drawing library gives other bytes, which alone are no reason to push.
    """
    if README not in remote.files or not remote.files[README].holds(contents[README]):
        return set()
    made = (path for path, content in contents.items() if isinstance(content, bytes))
    return {path for path in made if path in remote.files} - {README}


def publish(
    api: "HfApi",
    plan: Plan,
    remote: Remote,
    message: str | None,
    *,
    remember_in: Path | None = None,
) -> Pushed:
    """Make ``plan`` true: the commit, a look at whether it is right, the tags.

    Raises:
        HubError: the repository is no longer at ``plan.head``; nothing was published.
    """
    sha, files = plan.head, remote.files
    changed = bool(plan.send or plan.remove)
    with explained(plan.repo_id):
        if changed:
            sha = _commit(api, plan, message or f"Push {plan.kind} with dp_hub")
            files = _confirm(api, plan, sha)
        # Before the tags as well: cut off between, the folder still knows that this was its own.
        _remember(remember_in, plan, sha, None, files)
        changed |= _tag(api, plan, sha, remote.tags)
        _remember(remember_in, plan, sha, plan.data_tag, files)
    kind_path = "datasets/" if plan.kind == "dataset" else ""
    url = f"{endpoint()}/{kind_path}{plan.repo_id}/tree/{plan.data_tag or sha}"
    n_sent, n_removed = len(plan.send), len(plan.remove)
    return Pushed(plan.repo_id, plan.kind, sha, url, plan.data_tag, changed, n_sent, n_removed)


def _remember(
    folder: Path | None, plan: Plan, sha: str, tag: str | None, files: Mapping[str, Known]
) -> None:
    if folder is None:
        return
    own = {
        path: file
        for path, file in files.items()
        if path in plan.own or (not is_content(path) and file.holds(folder / path))
    }
    try_to_write_origin(folder, Origin(endpoint(), plan.repo_id, plan.kind, sha, tag, own))


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


def _confirm(api: "HfApi", plan: Plan, sha: str) -> Mapping[str, Known]:
    """Compare the commit with what was sent, before a tag makes it a version; give its files."""
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
    return files


def _tag(api: "HfApi", plan: Plan, sha: str, tags: Mapping[str, str]) -> bool:
    """Set the tags that are missing or elsewhere; whether there were any."""
    done = False
    if plan.data_tag is not None and plan.data_tag not in tags:
        _tag_version(api, plan.repo_id, plan.data_tag, sha)
        done = True
    if plan.format_tag is not None and tags.get(plan.format_tag) != sha:
        if plan.format_tag in tags:
            api.delete_tag(plan.repo_id, tag=plan.format_tag, repo_type="dataset")
        api.create_tag(plan.repo_id, tag=plan.format_tag, revision=sha, repo_type="dataset")
        done = True
    return done


def _tag_version(api: "HfApi", repo_id: str, tag: str, sha: str) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_tag(repo_id, tag=tag, revision=sha, repo_type="dataset")
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise
        raise HubError(
            f"somebody else made {tag} of {repo_id} meanwhile; commit {sha[:10]} got no version",
            hint=f"look at what is there now (dp-hub log {repo_id}), then push again",
        ) from None
