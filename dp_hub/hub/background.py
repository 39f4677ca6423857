"""Work in threads that keep a program from ending for a moment only, unlike concurrent.futures'."""

import atexit
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar
from weakref import WeakSet

T = TypeVar("T")
_NAME = "dp_hub-background"
_AT_END_S = 5.0
_told: "WeakSet[threading.Event]" = WeakSet()


def in_background(work: Callable[[], T]) -> "Future[T]":
    """Run something in a thread of its own.

    A program that ends waits for it, up to 5 s: libraries that are at work in other threads while
    Python is taken down crash it. Work that may wait long should heed an event of `set_at_end`.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised by whoever takes the result
            future.set_exception(error)

    threading.Thread(target=run, name=_NAME, daemon=True).start()
    return future


def set_at_end(event: threading.Event) -> None:
    """Set an event as soon as the program ends."""
    _told.add(event)


@atexit.register
def _end() -> None:
    for event in list(_told):
        event.set()
    until_s = time.monotonic() + _AT_END_S
    with suppress(KeyboardInterrupt):
        for thread in threading.enumerate():
            if thread.name == _NAME:
                thread.join(max(0.0, until_s - time.monotonic()))
