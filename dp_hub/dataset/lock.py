"""One writer at a time: a lock file beside a dataset that says who holds it.

The operating system gives the lock back when its holder ends, however that happens, so a lock whose
owner is dead is free; the file that stays behind is only a name.
"""

import fcntl
import getpass
import json
import logging
import os
import shlex
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import TextIO

from dp_hub.errors import DataError

log = logging.getLogger(__name__)


class InUseError(DataError):
    """Another process holds the lock."""


class WriterLock:
    """Held from construction until `release`.

    Args:
        target: the dataset folder; the lock is the file ``.<name>.lock`` beside it.
    Raises:
        InUseError: another process is writing there; the message says which.
        DataError: the lock cannot be made.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.lock")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._acquire(target)
            left = self._file.read()
            self._file.seek(0)
            self._file.truncate()
            self._file.write(json.dumps(_myself()))
            self._file.flush()
        except OSError as error:
            raise DataError(
                f"cannot write beside {target}: {error.strerror}",
                hint="choose a folder elsewhere, or see who may write there",
            ) from None
        if left:
            log.info("%s: took over from %s, which has ended", target, _described(left))

    def release(self) -> None:
        """Let others write, and remove the file."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            self._file.close()

    def _acquire(self, target: Path) -> TextIO:
        while True:
            file = self.path.open("a+", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = _described(file.read())
                file.close()
                raise InUseError(
                    f"{target} is being written by {owner}",
                    hint="wait until it is done, or stop that process; finished episodes are kept",
                ) from None
            # Whoever held it before may have removed the file after we opened it.
            try:
                if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    file.seek(0)
                    return file
            except FileNotFoundError:
                pass
            file.close()


def _myself() -> dict[str, str | int]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else ""
    return {
        "user": user,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
    }


def _described(text: str) -> str:
    try:
        owner = json.loads(text)
        return (
            f"{owner['user']} on {owner['host']} (process {owner['pid']} since {owner['since']}: "
            f"{owner['command']})"
        )
    except (ValueError, KeyError, TypeError):
        return "another process"
