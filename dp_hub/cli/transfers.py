"""What pushes and pulls do when they are stopped."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def goes_on(state: str) -> Iterator[None]:
    """Stop in two steps, and say on stderr that the same command goes on.

    Ctrl-C lets the library finish the files that are on their way, which with a slow line takes a
    while; pressed again, it ends the process at once, which is safe but fetches those anew. That is
    so until the process has ended, for the library's threads may outlive the block.
    """
    last_words = [f"stopped: {state}; the same command goes on from here"]

    def say() -> None:
        for words in last_words:
            print(words, file=sys.stderr, flush=True)
        last_words.clear()

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, stop_at_once)
        print("\nstopping after the files on their way; Ctrl-C again: at once", file=sys.stderr)
        raise KeyboardInterrupt

    def stop_at_once(number: int, frame: FrameType | None) -> None:
        print(file=sys.stderr)
        say()
        os._exit(130)  # the library's threads can't be stopped otherwise

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        say()
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is stop:
            signal.signal(signal.SIGINT, before)
