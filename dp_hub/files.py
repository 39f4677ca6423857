"""Files that survive a kill or a power cut: either the old one is there or the new one, never half.

A rename reaches the disk before the data of the renamed file does, and a folder's entry after both,
unless each is told to; so data is flushed first, then renamed, then the folder is flushed.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_FICLONE = 0x40049409  # linux/fs.h
_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100


def cache_root() -> Path:
    """The user's cache folder: $DP_HUB_CACHE, or dp_hub in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("DP_HUB_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "dp_hub"


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` with ``data``, durably. Parents are made."""
    write_draft(path, data, mode=mode)
    sync_folder(path.parent)


def write_draft(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """As `write_atomic`, but the rename is durable only after `sync_folder` of the parent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


def sync_file(path: Path) -> None:
    """Let the bytes of a file reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable."""
    sync_file(folder)


def sync_tree(root: Path) -> None:
    """Let every file below ``root`` and every folder, itself included, reach the disk."""
    for folder, _, names in os.walk(root):
        for name in names:
            sync_file(Path(folder) / name)
        sync_folder(Path(folder))


def share_file(source: Path, target: Path) -> None:
    """``target`` with the bytes of ``source``: the same file by another name, else a copy.

    A hard link where the file system has them, else a reflink, else the bytes are copied. Only for
    files that are never changed in place. Parents are made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The file itself, not a symbolic link to it, as the Hugging Face cache is full of.
    source = source.resolve()
    try:
        os.link(source, target)
        return
    except FileExistsError:
        raise
    except OSError:
        pass  # another file system, or one without hard links
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new, 1 << 20)


def replace_folder(new: Path, target: Path) -> None:
    """Put the folder ``new`` in the place of the folder ``target``, which is then gone.

    Both lie in one parent. At once where the system can exchange two names (Linux); elsewhere
    ``target`` is out of sight between two renames. `finish_replacing` completes what was cut off.
    """
    finish_replacing(target)
    if _exchange(new, target):
        sync_folder(target.parent)
        remove_folder(new)
        return
    old = _old_of(target)
    target.rename(old)
    new.rename(target)
    sync_folder(target.parent)
    remove_folder(old)


def finish_replacing(target: Path) -> None:
    """Clear away what a `replace_folder` or `remove_folder` beside ``target`` has left."""
    for trash in target.parent.glob(f".{target.name}.*trash"):
        shutil.rmtree(trash, ignore_errors=True)
    old = _old_of(target)
    if target.exists():
        remove_folder(old)
    elif old.exists():
        old.rename(target)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that at no time a part of it stands under its name."""
    if folder.exists():
        trash = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.trash")
        folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _old_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two names in one step; False where that cannot be done."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    done = renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0
    if not done and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(a), None, str(b))
    return done


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` to fill; at the end it takes the target's place.

    An older ``target`` stays as it was until the new one is complete and on the disk. If the body
    raises, nothing is left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        draft.chmod(0o755)
        yield draft
        sync_tree(draft)
        if target.exists():
            replace_folder(draft, target)
        else:
            draft.rename(target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def discard(path: Path) -> None:
    """Remove a file if it is there and can be removed."""
    with contextlib.suppress(OSError):
        path.unlink()
