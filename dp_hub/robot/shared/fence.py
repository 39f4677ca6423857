"""The order in which one process's stores are seen by another.

What is shared here is read without locks, which asks for two orders: a writer's stores are seen in
the order they were made, and a reader's loads are made in the order they are written. CPUs of x86
promise both for ordinary loads and stores (and for the copies of C libraries, which end their
special stores with a fence), and Python's interpreter does not reorder what it calls: there `fence`
is nothing. ARM and others promise neither. There it is two rounds of a lock that nobody else takes:
what was stored before is seen before the first release, what is loaded or stored after is after the
second acquire, and the release is before that acquire. Not tried on such a CPU.
"""

import platform
import threading

IS_ORDERED = platform.machine().lower() in {"x86_64", "amd64", "i386", "i686"}
_lock = threading.Lock()


def _rounds() -> None:
    for _ in range(2):
        _lock.acquire()
        _lock.release()


def _nothing() -> None:
    pass


fence = _nothing if IS_ORDERED else _rounds
