"""The store of fetched files: bounded, shared, and right whatever happened to it before."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dp_hub.errors import HubError
from dp_hub.hub import push
from dp_hub.hub.background import in_background
from dp_hub.hub.filestore import FileStore
from dp_hub.hub.partial import pull_meta

NAMES = [f"data/chunk-000/file-{number:03d}.parquet" for number in range(6)]


@pytest.fixture
def found(hub, make_dataset):
    """A commit with six files of a known size."""
    push(make_dataset("data", n_files=6, n_rows=2000), "me/data")
    found, meta = pull_meta("me/data")
    assert sorted(path.name for path in meta.iterdir()) == ["README.md", "meta"]
    return found


@pytest.fixture
def store(found, tmp_path):
    return new(found, tmp_path, 2.5)


def new(found, tmp_path, files, **options):
    """A store whose limit is so many files."""
    size = next(file.size for file in found.files if file.path == NAMES[0])
    return FileStore(tmp_path / "store", found, limit_bytes=int(files * size), **options)


def there(store):
    return [name for name in NAMES if (store.folder / name).exists()]


def use(store, *names):
    store.hold(names).release()


def test_longest_unused_file_goes_first(store):
    for name in NAMES[:2]:
        use(store, name)
        time.sleep(0.02)
    use(store, NAMES[0])
    use(store, NAMES[2])
    assert there(store) == [NAMES[0], NAMES[2]]
    assert store.fetched == NAMES[:3]


def test_files_in_use_stay_even_beyond_the_limit(store):
    held = store.hold(NAMES[:4])
    assert there(store) == NAMES[:4] and store.stored_bytes() > store.limit_bytes
    held.release()
    use(store, NAMES[5])
    assert len(there(store)) == 2 and store.stored_bytes() <= store.limit_bytes


def test_files_that_nobody_refers_to_any_more_are_free(store):
    store.hold(NAMES[:2])  # the result is gone at once
    use(store, NAMES[4])
    use(store, NAMES[5])
    assert there(store) == NAMES[4:]


def test_file_held_twice_stays_until_both_let_go(store):
    one, other = store.hold(NAMES[:1]), store.hold(NAMES[:1])
    one.release()
    use(store, *NAMES[1:4])
    assert NAMES[0] in there(store)
    other.release()
    use(store, *NAMES[1:4])
    assert NAMES[0] not in there(store)


@pytest.mark.parametrize("at", ["making room", "deleting", "a failed download"])
def test_a_process_forked_while_a_lock_is_held_does_not_keep_it(found, tmp_path, monkeypatch, at):
    store = new(found, tmp_path, 1.5)
    use(store, NAMES[0])
    forked = []

    def fork(*_, **__):
        if not forked:
            ours, its = os.pipe()
            forked.append((os.fork(), its))
            if not forked[0][0]:
                os.close(its)
                os.read(ours, 1)  # until the test is over
                os._exit(0)
            os.close(ours)

    where = {
        "making room": (FileStore, "_stored"),
        "deleting": (type(store.folder), "unlink"),
        "a failed download": (FileStore, "_download"),
    }[at]
    before = getattr(*where)

    def forking(*args, **options):
        fork()
        if at == "a failed download":
            raise OSError("no space left")
        return before(*args, **options)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(*where, forking)
            used = in_background(lambda: use(store, NAMES[1]))
            if at == "a failed download":
                with pytest.raises(HubError, match="no space left"):
                    used.result(timeout=30)
            else:
                used.result(timeout=30)
        assert forked
        # The file that was deleted, or not fetched, too.
        in_background(lambda: use(new(found, tmp_path, 1.5), *NAMES[:3])).result(timeout=30)
    finally:
        for pid, its in forked:
            os.close(its)
            os.waitpid(pid, 0)


def test_threads_fetch_a_file_once(found, tmp_path):
    stores = [new(found, tmp_path, 10) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: use(stores[number % 4], *NAMES), range(8)))
    assert sorted(name for store in stores for name in store.fetched) == NAMES
    assert there(stores[0]) == NAMES


def test_file_that_another_fetched_and_holds_meanwhile_is_not_waited_for(
    found, store, tmp_path, monkeypatch
):
    other = new(found, tmp_path, 10)
    flock, held = fcntl.flock, []

    def overtaken(lock, operation):
        if (
            operation & fcntl.LOCK_EX and not held
        ):  # the shared lock is let go for the exclusive one
            held.append(None)
            flock(lock, fcntl.LOCK_UN)
            held.append(other.hold(NAMES[:1]))
        flock(lock, operation)

    monkeypatch.setattr(fcntl, "flock", overtaken)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(store.hold, NAMES[:1])
        try:
            coming.result(timeout=30).release()
        finally:
            held[1].release()
    assert other.fetched == NAMES[:1] and store.fetched == []


def test_content_is_what_was_pushed(store, tmp_path):
    held = store.hold(NAMES[:2])
    for name in NAMES[:2]:
        assert (store.folder / name).read_bytes() == (tmp_path / "data" / name).read_bytes()
    held.release()


def test_limit_counts_all_commits_and_a_lower_one_holds_at_once(
    found, store, make_dataset, tmp_path
):
    use(store, *NAMES[:2])
    push(make_dataset("other", n_files=6, n_rows=2000, seed=1), "me/other")
    other = new(pull_meta("me/other")[0], tmp_path, 2.5)
    use(other, NAMES[0])
    assert len(there(store)) == 1 and there(other) == NAMES[:1]
    new(found, tmp_path, 0.5)
    assert there(store) == there(other) == [] and store.stored_bytes() == 0


HOLD = """
import sys, time
from pathlib import Path
from dp_hub.hub.filestore import FileStore
from dp_hub.hub.partial import pull_meta
store = FileStore(Path(sys.argv[1]), pull_meta("me/data")[0], limit_bytes=10**9)
held = store.hold([sys.argv[2]])
print("holding", flush=True)
time.sleep(60)
"""


def test_file_another_process_uses_stays_until_it_is_killed(hub, found, tmp_path):
    env = os.environ | {"HF_HOME": str(tmp_path / "client")}
    command = [sys.executable, "-c", HOLD, str(tmp_path / "store"), NAMES[0]]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "holding\n"
        store = new(found, tmp_path, 1.5)
        use(store, NAMES[1])
        assert there(store) == NAMES[:1] and store.fetched == NAMES[1:2]
        process.kill()
    use(store, NAMES[2])
    assert there(store) == NAMES[2:3]


def test_fork_neither_keeps_files_nor_lets_go_of_them(store):
    held = store.hold(NAMES[:1])
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        held.release()  # as when the child's objects are deleted
        os.write(tell, b"x")
        time.sleep(60)
        os._exit(0)
    try:
        os.read(ready, 1)
        use(store, *NAMES[1:4])
        assert NAMES[0] in there(store)
        held.release()
        use(store, *NAMES[1:4])
        assert NAMES[0] not in there(store)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_leftovers_of_a_killed_fetch_are_counted_and_cleared(found, store, tmp_path):
    use(store, NAMES[0])
    path = store.folder / NAMES[1]
    coming = store._coming(path)
    (coming / "files" / ".cache").mkdir(parents=True)
    (coming / "files" / ".cache" / "part.incomplete").write_bytes(b"x" * 100)
    with (coming / "size").open("wb") as announced:
        announced.truncate(store.size(NAMES[1]))
    os.utime(coming / "size", (0, 0))
    assert store.stored_bytes() == 2 * store.size(NAMES[0])
    use(store, NAMES[2])
    assert there(store) == [NAMES[0], NAMES[2]] and not coming.exists()


def test_fetch_under_way_is_not_cleared(store):
    coming = store._coming(store.folder / NAMES[1])
    coming.mkdir()
    (coming / "size").write_bytes(b"x" * store.size(NAMES[1]))
    os.utime(coming / "size", (0, 0))
    with store._lock_of(store.folder / NAMES[1]).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        use(store, NAMES[2])
        use(store, NAMES[3])
        assert coming.exists() and there(store) == [NAMES[3]]


def test_unknown_file_and_folder_that_cannot_be_written_are_explained(found, store, tmp_path):
    with pytest.raises(HubError, match=r"has no file data/nothing, which its meta/ speaks of"):
        store.hold(["data/nothing"])
    (tmp_path / "file").write_text("")
    with pytest.raises(HubError, match="cannot keep fetched files in"):
        FileStore(tmp_path / "file", found, limit_bytes=1)


def test_offline_is_not_waited_for(store, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    began = time.monotonic()
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        store.hold(NAMES[:1])
    assert time.monotonic() - began < 5


def test_meta_is_checked_and_nothing_else_is_fetched(hub, make_dataset, tmp_path):
    folder = make_dataset("checked")
    push(folder, "me/checked")
    content = (folder / "meta/tasks.parquet").read_bytes()
    found, meta = pull_meta("me/checked@main")
    assert (meta / "meta/tasks.parquet").read_bytes() == content
    real = (meta / "meta/tasks.parquet").resolve()
    real.write_bytes(content[:-1] + b"x")
    assert (pull_meta("me/checked")[1] / "meta/tasks.parquet").read_bytes() == content
    shutil.rmtree(meta)
    assert pull_meta("me/checked", revision=found.sha)[0].sha == found.sha
