"""Whether a push would replace something that its sender has not seen, and what to say then."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dp_hub.errors import HubError
from dp_hub.hub.contents import PROVENANCE, source_fingerprints
from dp_hub.hub.digests import Known
from dp_hub.hub.kinds import belongs, is_content
from dp_hub.hub.origin import Origin, origin_of
from dp_hub.hub.remote import Remote, list_files
from dp_hub.hub.versions import entry_of, totals_at

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SHORT_SHA = 7
Files = Mapping[str, Known]


def refuse_unseen(
    api: "HfApi", repo_id: str, folder: Path, remote: Remote, onto: str | None
) -> None:
    """Let a dataset that differs from the Hub's be pushed only by who knows what is there.

    That is a folder which remembers this very content as what it was pulled from or pushed as, one
    that was made from it (an edit lists its sources), or a sender who names the newest version with
    ``onto``.

    Raises:
        HubError: neither is so.
    """
    there = content_of(remote.files)
    if not there:
        if onto is not None:
            raise HubError(f"{repo_id} holds no dataset yet, so no {onto}; leave --onto off")
        return
    if onto is not None:
        if onto not in _names_of(remote, onto):
            raise _refusal(api, repo_id, remote, f"--onto says {onto}")
        return
    origin, base = _remembered(api, repo_id, folder)
    if base is not None and _equal(base, there):
        return
    provenance = folder / PROVENANCE
    ancestors = source_fingerprints(provenance if provenance.is_file() else None)
    if _is_newest(remote) and remote.newest is not None and remote.newest.fingerprint in ancestors:
        return
    if origin is None or base is None:
        seen = "this folder was not made from it"
    else:
        seen = f"this folder was made from {origin.tag or f'commit {origin.sha[:10]}'}"
    raise _refusal(api, repo_id, remote, seen)


def refuse_damage(
    repo_id: str, folder: Path, send: Iterable[str], remote: Remote, onto: str | None
) -> None:
    """Refuse data that differs from the newest version's while all that describes it is the same.

    Whoever writes a dataset changes meta/ along with it; a damaged file doesn't.

    Raises:
        HubError: it is so, and ``onto`` doesn't say that it is meant.
    """
    sent = list(send)
    changed = [path for path in sent if path in remote.files and is_content(path)]
    described = any(path.startswith("meta/") for path in sent)
    if not changed or described or onto is not None or not _is_newest(remote):
        return
    assert remote.newest is not None
    names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
    tag = remote.newest.tag
    raise HubError(
        f"{names} in {folder} differs from {repo_id}@{tag}, but nothing in meta/ does, "
        "as when a file is damaged. Nothing was pushed",
        hint=f"take a good copy (dp-hub pull {repo_id}@{tag}, with --to {folder} it is mended); "
        f"if it was changed on purpose, push with --onto {tag}",
    )


def content_of(files: Files) -> dict[str, Known]:
    """The files that hold a dataset's data. README.md and pictures are words about it."""
    return {
        path: file for path, file in files.items() if is_content(path) and belongs(path, "dataset")
    }


def _equal(one: Files, other: Files) -> bool:
    return one.keys() == other.keys() and all(one[path].same(other[path]) for path in one)


def _remembered(
    api: "HfApi", repo_id: str, folder: Path
) -> tuple[Origin | None, dict[str, Known] | None]:
    """The commit of this repository that the folder comes from, and the content of it."""
    try:
        origin = origin_of(folder)
    except HubError:
        return None, None  # damaged: nothing is known then
    if origin is None or origin.repo_id != repo_id or origin.kind != "dataset":
        return None, None
    if origin.files:
        return origin, content_of(origin.files)
    return origin, _content_at(api, repo_id, origin.sha)


def _content_at(api: "HfApi", repo_id: str, sha: str) -> dict[str, Known] | None:
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        return content_of(list_files(api, repo_id, "dataset", sha))
    except RevisionNotFoundError:
        return None


def _is_newest(remote: Remote) -> bool:
    """Whether ``main`` holds the content of the newest version."""
    newest = remote.newest
    return newest is not None and _equal(content_of(newest.files), content_of(remote.files))


def _names_of(remote: Remote, asked: str) -> set[str]:
    """``asked`` if it names what is on the Hub now: its version, or its commit's first letters."""
    shas, names = [remote.head], set()
    if remote.newest is not None and _is_newest(remote):
        shas.append(remote.newest.sha)
        names.add(remote.newest.tag)
    if len(asked) >= SHORT_SHA and any(sha.startswith(asked) for sha in shas):
        names.add(asked)
    return names


def _refusal(api: "HfApi", repo_id: str, remote: Remote, seen: str) -> HubError:
    versioned = _is_newest(remote)
    sha = remote.newest.sha if versioned and remote.newest is not None else remote.head
    tag = remote.newest.tag if versioned and remote.newest is not None else None
    name = tag or sha[:10]
    return HubError(
        f"{repo_id} holds another dataset than this folder: {_described(api, repo_id, sha, tag)}; "
        f"{seen}. Nothing was pushed",
        hint=f"pull it (dp-hub pull {repo_id}@{name} --to NEW) and merge or append; or, to put "
        f"this folder in its place on purpose, push with --onto {name}",
    )


def _described(api: "HfApi", repo_id: str, sha: str, tag: str | None) -> str:
    commits = api.list_repo_commits(repo_id, repo_type="dataset", revision=sha)
    entry = entry_of(commits[0], tag, totals_at(api, repo_id, sha))
    when = entry.when.replace("T", " ").removesuffix("Z")
    facts = [f"commit {sha[:10]}", f"{when} UTC", f"by {entry.author}"]
    for number, noun in ((entry.episodes, "episode"), (entry.frames, "frame")):
        if number is not None:
            facts.append(f"{number:,} {noun}" + "s" * (number != 1))
    return f"{tag or 'content without a version'} ({', '.join(facts)})"
