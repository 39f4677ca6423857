"""Processes of our own: Ctrl-C is for the one that started them, which ends them with itself."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess

_PATIENCE_S = 5.0


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches a process started here never, and this one when the block has ended.

    A terminal sends it to all processes at once, and each would end with a traceback; they are
    stopped by this one instead.
    """
    # Started with the first process, it would let the signals through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_process(process: BaseProcess) -> None:
    """End a process, at once if it is busy, by force if it does not listen."""
    process.terminate()
    process.join(_PATIENCE_S)
    if process.is_alive():
        process.kill()
        process.join()
