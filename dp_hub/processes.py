"""Processes of our own: Ctrl-C is for the one that started them, which ends them with itself."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """A library that makes this thread and its own real-time ones inside has not when it ends.

    SVT-AV1 does where it may, as root: SCHED_FIFO at 99, above all else on the machine, and what
    the thread starts later inherits it.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, param, threads = os.sched_getscheduler(0), os.sched_getparam(0), _threads()
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            for thread in (0, *(_threads() - threads)):
                with suppress(ProcessLookupError):  # it has just ended
                    os.sched_setscheduler(thread, policy, param)


def _threads() -> set[int]:
    return {int(number) for number in os.listdir("/proc/self/task")}


def end_process(process: BaseProcess) -> None:
    """End a process, at once if it is busy, by force if it does not listen."""
    process.terminate()
    process.join(_PATIENCE_S)
    if process.is_alive():
        process.kill()
        process.join()
