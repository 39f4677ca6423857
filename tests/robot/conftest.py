"""Every test here ends with no process and no shared memory of its own left."""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []
    assert sorted(Path("/dev/shm").glob(f"dphub-{os.getpid()}-*")) == []
