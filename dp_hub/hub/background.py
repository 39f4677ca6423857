"""Work in threads that do not keep a program from ending, unlike those of concurrent.futures."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_background(work: Callable[[], T]) -> "Future[T]":
    """Run something in a thread of its own."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised by whoever takes the result
            future.set_exception(error)

    Thread(target=run, name="dp_hub-background", daemon=True).start()
    return future
