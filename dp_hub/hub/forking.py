"""Processes that are forked while threads use the Hub, as workers of a DataLoader are.

huggingface_hub closes its connections in the new process, and waits there for ever for a lock if a
thread of the old one, which the new one does not have, held it at that moment.
"""

import os
import sys
import threading
from typing import Any


def _library() -> Any:
    return sys.modules.get("huggingface_hub.utils._http")


def _before() -> None:
    client = getattr(_library(), "_GLOBAL_CLIENT", None)
    if client is not None and not isinstance(client.close, _CloseHere):
        client.close = _CloseHere(client.close)


class _CloseHere:
    """Closes in the process that made it, and does nothing in those that were forked from it."""

    def __init__(self, close: Any) -> None:
        self._close, self._pid = close, os.getpid()

    def __call__(self) -> None:
        if os.getpid() == self._pid:
            self._close()


def _in_child() -> None:
    library = _library()
    if hasattr(library, "_CLIENT_LOCK"):
        library._CLIENT_LOCK = threading.Lock()


os.register_at_fork(before=_before, after_in_child=_in_child)
