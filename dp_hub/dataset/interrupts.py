"""Ctrl-C and termination that wait until a short piece of work is whole."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Let signals that arrive inside take effect at the end. Only the main thread can do that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[tuple[int, FrameType | None]] = []
    before = {
        number: signal.signal(number, lambda *arrived: waiting.append(arrived))
        for number in _SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for arrived, frame in waiting:
        handler = before[signal.Signals(arrived)]
        if callable(handler):
            handler(arrived, frame)
        elif handler == signal.SIG_DFL:
            os.kill(os.getpid(), arrived)
