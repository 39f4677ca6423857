"""What pushes and pulls say when they are stopped."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def goes_on(state: str) -> Iterator[None]:
    """Say on stderr that the same command goes on, when Ctrl-C or a signal ends the block."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        print(f"stopped: {state}; the same command goes on from here", file=sys.stderr)
        raise
