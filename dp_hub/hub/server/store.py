"""The folder that ``dp-hub serve`` serves: which repositories there are."""

import re
import secrets
import shutil
import threading
from pathlib import Path

from dp_hub.hub.server.faults import Fault
from dp_hub.hub.server.repository import Repository

KINDS = {"datasets": "dataset", "models": "model"}
# The Hub's own rule for the two halves of a name.
NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
# First parts of addresses that mean something else.
RESERVED = {"api", "datasets", "models", "spaces"}


def is_user_name(text: str) -> bool:
    """Whether a user may be called so."""
    return NAME.fullmatch(text) is not None and text not in RESERVED


class Store:
    """Repositories in ``root/repos/<datasets|models>/<user>/<name>``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: dict[Path, Repository] = {}
        self._lock = threading.Lock()

    def find(self, kinds: str, user: str, name: str) -> Repository | None:
        """The repository, or None. Impossible names are simply not here."""
        if kinds not in KINDS or not is_user_name(user) or not NAME.fullmatch(name):
            return None
        if not (self._root(kinds, user, name) / "repo.json").is_file():
            return None
        return self._at(kinds, user, name)

    def create(self, kinds: str, user: str, name: str, *, private: bool) -> Repository:
        """Raises Fault: an impossible name (400), or it exists (409)."""
        if not is_user_name(user) or not NAME.fullmatch(name) or name.endswith(".git"):
            raise Fault(400, f"{user}/{name} can't be the name of a repository")
        repo = self._at(kinds, user, name)
        with self._lock:
            if repo.exists:
                raise Fault(409, f"{repo.repo_id} exists already")
            shutil.rmtree(repo.root, ignore_errors=True)  # a creation that was cut off
            repo.begin(private=private, user=user)
            return repo

    def delete(self, repo: Repository) -> None:
        """Gone from view at once (a rename), then from the disk."""
        trash = self.root / "trash" / secrets.token_hex(8)
        trash.parent.mkdir(exist_ok=True)
        with self._lock:
            self._open.pop(repo.root, None)
            repo.root.rename(trash)
        shutil.rmtree(trash)

    def all(self, kinds: str) -> list[Repository]:
        """Every repository of a kind, by name."""
        folder = self.root / "repos" / kinds
        paths = sorted(path.parent for path in folder.glob("*/*/repo.json"))
        return [self._at(kinds, path.parent.name, path.name) for path in paths]

    def sweep(self) -> None:
        """Remove what a killed server left behind. Only while nobody else has the store open."""
        shutil.rmtree(self.root / "trash", ignore_errors=True)
        for kinds in KINDS:
            for repo in self.all(kinds):
                repo.objects.sweep()
                for folder in (repo.root, repo.root / "commits", repo.root / "trees"):
                    for leftover in folder.glob(".*.tmp"):
                        leftover.unlink()

    def _root(self, kinds: str, user: str, name: str) -> Path:
        return self.root / "repos" / kinds / user / name

    def _at(self, kinds: str, user: str, name: str) -> Repository:
        # One object per repository, since it holds the lock that its writers take turns by.
        root = self._root(kinds, user, name)
        return self._open.setdefault(root, Repository(root, KINDS[kinds], f"{user}/{name}"))
