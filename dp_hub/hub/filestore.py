"""Files of a commit on this machine while they are needed, in a folder whose size is bounded.

All processes of a machine share the folder. A file is fetched once, by whoever needs it first, and
checked against the Hub's checksum before it gets its name. Whoever uses a file holds a shared lock
on it; whoever fetches or deletes one, an exclusive lock. The locks are flock's, so those of a
process that dies are gone with it. Room is made by deleting what nobody holds, longest unused
first, of whichever commit it is; files in use always stay, even beyond the limit.
"""

import fcntl
import functools
import hashlib
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dp_hub.errors import HubError
from dp_hub.hub.background import in_background, set_at_end
from dp_hub.hub.client import Unreachable, connect, endpoint, explained
from dp_hub.hub.digests import Known
from dp_hub.hub.kinds import REPO_TYPE
from dp_hub.hub.lookup import Found

log = logging.getLogger(__name__)
LONGEST_PAUSE_S = 30.0
PAUSE_S = 0.01  # between two looks at a file that others are about to fetch
THREADS = 4  # fetches at a time


class Held:
    """Files that stay until `release`, or until nobody has this object any more."""

    _is_ending = staticmethod(sys.is_finalizing)  # modules may be gone before the last object is

    def __init__(self, then: Callable[[], None]) -> None:
        self._locks: list[IO[bytes]] = []
        self._then = then
        self._process = os.getpid()

    def add(self, lock: IO[bytes]) -> None:
        """Keep a lock, an open file."""
        self._locks.append(lock)

    def release(self) -> None:
        """The files may be deleted from now on, and are if the store is beyond its limit."""
        if self._locks:
            self._unlock()
            if self._process == os.getpid():
                self._then()

    def _unlock(self) -> None:
        for lock in self._locks:
            if self._process == os.getpid():
                _let_go(lock)
            else:
                lock.close()
        self._locks.clear()

    def __del__(self) -> None:
        if not self._is_ending():  # else its locks end with the program
            self._unlock()


class FileStore:
    """The files of one commit.

    Args:
        root: the folder shared with other commits; the limit is for all of it.
        found: the commit and its files.
        limit_bytes: files nobody holds are deleted to stay below it.
        patience_s: how long to wait for a Hub that is away, for each file.
    Attributes:
        folder: under which the files lie by their names in the repository.
        fetched: names of the files this object has fetched, in order.
    """

    def __init__(
        self, root: Path, found: Found, *, limit_bytes: int, patience_s: float = 300.0
    ) -> None:
        self.limit_bytes, self.patience_s = limit_bytes, patience_s
        self.fetched: list[str] = []
        self._found = found
        self._known = {file.path: file for file in found.files}
        where = hashlib.sha256(endpoint().encode()).hexdigest()[:8]
        self._root = root
        self.folder = root / f"{found.repo_id.replace('/', '--')}-{where}" / found.sha
        self._checked: set[tuple[str, int]] = set()
        self._closed = _closed_at_end()
        try:
            for part in (self.folder, root / ".locks", root / ".coming"):
                part.mkdir(parents=True, exist_ok=True)
            self._trim()  # the limit may be lower than the last one
        except OSError as error:
            raise self._unwritable(error) from None

    def size(self, name: str) -> int:
        """Bytes of a file. Raises HubError if the commit has none of that name."""
        return self._entry(name).size

    def hold(self, names: Iterable[str]) -> Held:
        """Fetch what is not there, and keep all of it until the result is released.

        Raises:
            HubError: the Hub stays away, refuses or has a damaged file; the disk is full.
        """
        held = Held(self._trim)
        files = [self._entry(name) for name in names]

        def hold(some: list[Known]) -> None:
            for file in some:
                held.add(self._hold(file))

        # After an error the other threads go on with what they are at; it is let go with `held`.
        parts = [files[first::THREADS] for first in range(min(THREADS, len(files)))]
        running = [in_background(functools.partial(hold, part)) for part in parts]
        try:
            for one in running:
                one.result()
        except OSError as error:
            raise self._unwritable(error) from None
        return held

    def close(self) -> None:
        """Stop waiting for a Hub that is away."""
        self._closed.set()

    def stored_bytes(self) -> int:
        """What the folder holds now, of all commits, with what is being fetched."""
        return sum(size for _, size, _ in self._stored())

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_closed"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _closed=_closed_at_end())

    def _entry(self, name: str) -> Known:
        if name not in self._known:
            raise HubError(
                f"{self._found.repo_id}@{self._found.sha[:10]} has no file {name}, which its "
                "meta/ speaks of",
                hint="the dataset was not pushed whole; push it again",
            )
        return self._known[name]

    def _hold(self, file: Known) -> IO[bytes]:
        """The file, there and right; its shared lock."""
        path = self.folder / file.path
        lock = self._lock_of(path).open("ab")
        try:
            while True:
                fcntl.flock(lock, fcntl.LOCK_SH)
                if self._right(path, file):
                    os.utime(path)
                    return lock
                try:
                    # Never waited for: whoever has the file may wait for one that we hold.
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(PAUSE_S)  # others look for it too; one of them fetches it
                    continue
                if not self._right(path, file):
                    self._fetch_patiently(file, path)
                # On to the shared lock, which may let another process in between: look again.
        except BaseException:
            _let_go(lock)
            raise

    def _right(self, path: Path, file: Known) -> bool:
        """Whether the file is there and what the Hub has; read once for as long as it stays."""
        try:
            stamp = (file.path, path.stat().st_ino)
        except FileNotFoundError:
            return False
        if stamp not in self._checked:
            if not file.holds(path):
                log.warning("%s is damaged; fetching it again", path)
                return False
            self._checked.add(stamp)
        return True

    def _fetch_patiently(self, file: Known, path: Path) -> None:
        began, pause_s = time.monotonic(), 1.0
        while True:
            try:
                return self._fetch(file, path)
            except Unreachable as away:
                waited_s = time.monotonic() - began
                if waited_s + pause_s > self.patience_s or _offline() or self._closed.is_set():
                    raise HubError(
                        f"{file.path} of {self._found.repo_id} cannot be fetched, after "
                        f"{waited_s:.0f} s of trying: {away.message}",
                        hint=away.hint,
                    ) from away
                log.warning("%s; trying again in %.0f s", away.message, pause_s)
            self._closed.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _fetch(self, file: Known, path: Path) -> None:
        """Fetch, check and only then give it its name. The caller has the exclusive lock."""
        coming = self._coming(path)
        shutil.rmtree(coming, ignore_errors=True)  # of a process that was killed
        self._make_room(file.size, coming)
        try:
            for again in (False, True):
                got = self._download(file, coming / "files", again=again)
                if file.holds(got):
                    break
            else:
                raise HubError(
                    f"{self._found.repo_id}@{self._found.sha[:10]}: the checksum of {file.path} "
                    "is wrong",
                    hint="the Hub's own copy is damaged, or something on the way changes it",
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            got.replace(path)
        finally:
            shutil.rmtree(coming, ignore_errors=True)
        self._checked.add((file.path, path.stat().st_ino))
        self.fetched.append(file.path)

    def _download(self, file: Known, into: Path, *, again: bool) -> Path:
        from huggingface_hub.utils import tqdm

        class Silent(tqdm):  # the library's own bars would tear the line of the training's progress
            def __init__(self, *args: object, **options: object) -> None:
                super().__init__(*args, **{**options, "disable": True})

        api, repo_id, sha = connect(), self._found.repo_id, self._found.sha
        repo_type = REPO_TYPE[self._found.kind]
        with explained(repo_id):
            # Of a Hub that is away this tells at once; the download would try for half a minute.
            api.repo_info(repo_id, revision=sha, repo_type=repo_type, timeout=10)
            path = api.hf_hub_download(
                repo_id,
                file.path,
                repo_type=repo_type,
                revision=sha,
                local_dir=into,
                force_download=again,
                tqdm_class=Silent,
            )
        return Path(str(path))

    def _make_room(self, size: int, coming: Path) -> None:
        """Delete what nobody holds until ``size`` more bytes fit, and announce them."""
        with self._lock("room"):
            excess = self._shrink(size)
            if excess > 0:
                log.info("the files in use are %.3g GB beyond the store's limit", excess / 1e9)
            coming.mkdir(parents=True)
            with (coming / "size").open("wb") as announced:
                announced.truncate(size)  # takes no room on the disk

    def _trim(self) -> None:
        with self._lock("room"):
            self._shrink(0)

    def _shrink(self, size: int) -> int:
        """Delete until ``size`` more bytes fit; how many do not because of files in use."""
        stored = sorted(self._stored())  # longest unused first
        excess = sum(taken for _, taken, _ in stored) + size - self.limit_bytes
        for _, taken, path in stored:
            if excess <= 0:
                break
            if self._delete(path):
                excess -= taken
        return excess

    def _stored(self) -> Iterator[tuple[float, int, Path]]:
        """(last use, bytes, path) of all files, and of the announcements of those that come."""
        for folder, names, files in os.walk(self._root):
            if Path(folder) == self._root:
                names.remove(".locks")
                files.clear()
            elif Path(folder).parent == self._root / ".coming":
                names.clear()  # the partial file: it is counted as announced
            for name in files:
                path = Path(folder, name)
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue  # another process was faster
                yield status.st_mtime, status.st_size, path

    def _delete(self, path: Path) -> bool:
        """Whether nobody held it, so that it is gone now."""
        announced = path.parent.parent == self._root / ".coming"
        name = path.parent.name if announced else self._lock_of(path).stem
        lock = (self._root / ".locks" / f"{name}.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if announced:
                shutil.rmtree(path.parent, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        except BlockingIOError:
            return False
        finally:
            _let_go(lock)
        return True

    def _lock_of(self, path: Path) -> Path:
        name = hashlib.sha256(os.fsencode(path.relative_to(self._root))).hexdigest()[:32]
        return self._root / ".locks" / f"{name}.lock"

    def _coming(self, path: Path) -> Path:
        return self._root / ".coming" / self._lock_of(path).stem

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        lock = (self._root / ".locks" / name).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            _let_go(lock)

    def _unwritable(self, error: OSError) -> HubError:
        return HubError(
            f"cannot keep fetched files in {self._root}: {error}",
            hint="make room, or set DP_HUB_CACHE to a folder that can be written",
        )


def _closed_at_end() -> threading.Event:
    closed = threading.Event()
    set_at_end(closed)  # a program that ends does not go on trying
    return closed


def _let_go(lock: IO[bytes]) -> None:
    """Not by closing alone: a process that was forked meanwhile has the file open as well."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    lock.close()


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
