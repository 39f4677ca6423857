"""Spawned processes that do not import what only their parent needs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any


@contextmanager
def main_left_out(pickled: Any) -> Iterator[None]:
    """A process that is spawned in the block does not import its parent's main module.

    It would, with all that this imports, torch perhaps: seconds, and hundreds of MB, for each
    process. Where something that is pickled for it comes from there, it still does.
    """
    main = sys.modules["__main__"]
    if not _needs_main(pickled):
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _needs_main(pickled: Any) -> bool:
    before = context.get_spawning_popen()
    # What can be pickled for a new process only, can be here.
    context.set_spawning_popen(_NewProcess())  # type: ignore[arg-type]
    try:
        return b"__main__" in bytes(ForkingPickler.dumps(pickled))
    finally:
        context.set_spawning_popen(before)


class _NewProcess:
    """Stands for one, which is asked for numbers of files that nobody will use."""

    def duplicate_for_child(self, file: int) -> int:
        """Of an open file."""
        return file

    def DupFd(self, file: int) -> int:
        """The same, packed."""
        return file
