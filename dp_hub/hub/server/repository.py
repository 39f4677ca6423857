"""One repository on disk: trees, commits and the refs that name them."""

import hashlib
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dp_hub.hub.disk import write_atomic
from dp_hub.hub.server.faults import Fault, entry_not_found, revision_not_found
from dp_hub.hub.server.objects import ObjectStore

SHA = re.compile(r"[0-9a-f]{40}")
SHORT_SHA = re.compile(r"[0-9a-f]{7,39}")
REF = re.compile(r"(?!.*(\.\.|//|@\{|\.lock$|/\.))[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}(?<![./])")
CACHED_TREES = 32
RefKind = Literal["branches", "tags"]


@dataclass(frozen=True)
class Entry:
    """A file of a tree. ``oid`` is git's blob id: of the content, or of the LFS pointer to it."""

    sha256: str
    size: int
    oid: str
    lfs: bool

    @property
    def etag(self) -> str:
        """The digest that clients name and check the content by."""
        return self.sha256 if self.lfs else self.oid


Tree = Mapping[str, Entry]


@dataclass(frozen=True)
class Commit:
    """A commit: its parent's and tree's ids, and who said what when."""

    parent: str | None
    tree: str
    title: str
    message: str
    author: str
    date: str


@dataclass(frozen=True)
class Change:
    """One line of a commit: a file set to ``entry``, or removed (a folder with all below it)."""

    path: str
    entry: Entry | None
    folder: bool = False


def git_blob_id(data: bytes) -> str:
    """The sha1 that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The text that git would store in the place of an LFS file."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    )


def lfs_entry(sha256: str, size: int) -> Entry:
    return Entry(sha256, size, git_blob_id(lfs_pointer(sha256, size)), lfs=True)


def clean_path(path: str) -> str:
    """``path`` itself if it may name a file of a repository.

    Raises:
        Fault: it is absolute, climbs, is too long or holds control characters.
    """
    parts = path.split("/")
    bad = any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
    if bad or "\\" in path or len(path) > 1000 or any(ord(char) < 32 for char in path):
        raise Fault(400, f"{path!r} can't be the path of a file in a repository")
    return path


def with_changes(repo_id: str, tree: Tree, changes: Sequence[Change]) -> Tree:
    """``tree`` after ``changes``, in order. Raises Fault for a file that isn't there to remove."""
    result = dict(tree)
    for change in changes:
        if change.entry is not None:
            result[change.path] = change.entry
        elif change.folder:
            inside = [path for path in result if path.startswith(change.path.rstrip("/") + "/")]
            for path in inside:
                del result[path]
        elif result.pop(change.path, None) is None:
            raise entry_not_found(repo_id, change.path)
    _refuse_file_as_folder(result)
    return dict(sorted(result.items()))


def _refuse_file_as_folder(tree: Tree) -> None:
    for path in tree:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent in tree:
                raise Fault(400, f"{parent} can't be a file and the folder of {path}")


class Repository:
    """A repository in a folder. Methods block on the disk; writers take turns."""

    def __init__(self, root: Path, kind: str, repo_id: str) -> None:
        self.root = root
        self.kind = kind
        self.repo_id = repo_id
        self.objects = ObjectStore(root / "objects")
        self._lock = threading.RLock()
        self._trees: dict[str, Tree] = {}

    def begin(self, *, private: bool, user: str) -> None:
        """Make it, with one empty commit. ``repo.json``, written last, is what makes it exist."""
        first = self._write_commit(None, {}, "initial commit", "", user)
        self._write_refs({"branches": {"main": first}, "tags": {}})
        self._write_facts(private=private, created=_now())

    @property
    def exists(self) -> bool:
        return (self.root / "repo.json").is_file()

    @property
    def namespace(self) -> str:
        return self.repo_id.split("/")[0]

    @property
    def facts(self) -> dict[str, Any]:
        """``private`` (bool) and ``created`` (ISO time)."""
        return _read_json(self.root / "repo.json")

    @property
    def private(self) -> bool:
        return bool(self.facts["private"])

    def set_private(self, private: bool) -> None:
        with self._lock:
            self._write_facts(private=private, created=self.facts["created"])

    def refs(self) -> dict[str, dict[str, str]]:
        """``{"branches": {name: commit id}, "tags": {name: commit id}}``."""
        return _read_json(self.root / "refs.json")

    def resolve(self, revision: str) -> str:
        """The commit id that a branch, tag, full ref or (short) commit id stands for.

        Raises:
            Fault: RevisionNotFound.
        """
        refs = self.refs()
        name = revision
        order: list[str] = ["branches", "tags"]
        for prefix, only in (("refs/heads/", "branches"), ("refs/tags/", "tags")):
            if revision.startswith(prefix):
                name, order = revision.removeprefix(prefix), [only]
        for which in order:
            if name in refs[which]:
                return refs[which][name]
        if SHA.fullmatch(revision) and self._commit_path(revision).is_file():
            return revision
        if SHORT_SHA.fullmatch(revision):
            near = [path.stem for path in (self.root / "commits").glob(f"{revision}*.json")]
            if len(near) == 1:
                return near[0]
        raise revision_not_found(self.repo_id, revision)

    def read_commit(self, sha: str) -> Commit:
        return Commit(**_read_json(self._commit_path(sha)))

    def history(self, sha: str) -> list[tuple[str, Commit]]:
        """(id, commit) from ``sha`` back to the first."""
        found = []
        at: str | None = sha
        while at is not None:
            commit = self.read_commit(at)
            found.append((at, commit))
            at = commit.parent
        return found

    def tree(self, sha: str) -> Tree:
        """The files of commit ``sha`` by path, sorted."""
        name = self.read_commit(sha).tree
        cached = self._trees.get(name)
        if cached is None:
            rows = _read_json(self.root / "trees" / f"{name}.json")
            cached = {path: Entry(**entry) for path, entry in rows.items()}
            self._remember(name, cached)
        return cached

    def commit(
        self,
        branch: str,
        changes: Sequence[Change],
        *,
        title: str,
        message: str,
        user: str,
        parent: str | None,
    ) -> str:
        """Add a commit to ``branch`` and return its id.

        Args:
            parent: if given, the (short) id that the branch must still be at.
        Raises:
            Fault: no such branch (404), the branch has moved on (412), or an impossible change.
        """
        with self._lock:
            refs = self.refs()
            branch = branch.removeprefix("refs/heads/")
            head = refs["branches"].get(branch)
            if head is None:
                raise revision_not_found(self.repo_id, branch)
            if parent is not None and not head.startswith(parent):
                raise Fault(412, f"{branch} is at {head}, no longer at {parent}: try again on that")
            tree = with_changes(self.repo_id, self.tree(head), changes)
            sha = self._write_commit(head, tree, title, message, user)
            refs["branches"][branch] = sha
            self._write_refs(refs)
        return sha

    def add_ref(self, which: RefKind, name: str, revision: str) -> None:
        """Name a commit. Raises Fault: the name is impossible (400) or taken (409)."""
        if not REF.fullmatch(name) or SHA.fullmatch(name):
            raise Fault(400, f"{name!r} can't be the name of a tag or branch")
        with self._lock:
            refs = self.refs()
            if name in refs[which]:
                raise Fault(409, f"{name} exists already in {self.repo_id}")
            refs[which][name] = self.resolve(revision)
            self._write_refs(refs)

    def remove_ref(self, which: RefKind, name: str) -> None:
        """Raises Fault: no such ref (404), or it is main (403)."""
        with self._lock:
            refs = self.refs()
            if which == "branches" and name == "main":
                raise Fault(403, "the branch main can't be removed")
            if refs[which].pop(name, None) is None:
                raise revision_not_found(self.repo_id, name)
            self._write_refs(refs)

    def _commit_path(self, sha: str) -> Path:
        return self.root / "commits" / f"{sha}.json"

    def _write_commit(
        self, parent: str | None, tree: Tree, title: str, message: str, user: str
    ) -> str:
        rows = _dump({path: asdict(entry) for path, entry in tree.items()})
        name = hashlib.sha256(rows).hexdigest()
        tree_path = self.root / "trees" / f"{name}.json"
        if not tree_path.is_file():
            write_atomic(tree_path, rows)
        self._remember(name, tree)
        data = _dump(asdict(Commit(parent, name, title, message, user, _now())))
        sha = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        write_atomic(self._commit_path(sha), data)
        return sha

    def _remember(self, name: str, tree: Tree) -> None:
        with self._lock:
            while len(self._trees) >= CACHED_TREES:
                del self._trees[next(iter(self._trees))]
            self._trees[name] = tree

    def _write_refs(self, refs: Mapping[str, Any]) -> None:
        write_atomic(self.root / "refs.json", _dump(refs))

    def _write_facts(self, *, private: bool, created: str) -> None:
        write_atomic(self.root / "repo.json", _dump({"private": private, "created": created}))


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
