"""Every test here begins with all signals heard, and ends with no process and no memory left."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Robots are tested against the wall clock."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.alone)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []
    assert sorted(Path("/dev/shm").glob(f"dphub-{os.getpid()}-*")) == []


@pytest.fixture(autouse=True)
def nobody_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of a session counts as hanging because the machine stood still for a while."""
    monkeypatch.setattr("dp_hub.robot.session.parts._HANGS_S", 60.0)


@pytest.fixture(autouse=True)
def signals_are_heard() -> Iterator[None]:
    """What a shell has ignored for a program in the background, programs of tests would ignore."""
    heard = {signal.SIGINT: signal.default_int_handler}
    ignored = [
        one
        for one in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
        if signal.getsignal(one) is signal.SIG_IGN
    ]
    for one in ignored:
        signal.signal(one, heard.get(one, signal.SIG_DFL))
    yield
    for one in ignored:
        signal.signal(one, signal.SIG_IGN)
