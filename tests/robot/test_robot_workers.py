"""Workers: what goes wrong in one reaches who started it, and none stays."""

import ast
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import worker_mains as mains

from dp_hub.errors import ConfigError, RobotError
from dp_hub.robot.worker import Context, Scheduling, Worker


@contextmanager
def started(main: Callable[[Context, Any], None], argument: Any, **options: Any) -> Iterator[Any]:
    worker: Worker[Any] = Worker("arm", main, argument, **options)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop(2)


def wait_until(done: Callable[[], object], seconds: float = 30) -> None:
    end_s = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end_s, done
        time.sleep(0.01)


def test_a_worker_is_ready_beats_and_stops_when_asked() -> None:
    with started(mains.beats, 600.0, beat_within_s=10) as worker:
        worker.wait_ready(20)
        before_s = time.monotonic()
        wait_until(lambda: worker.beat_age_s(before_s) < 0)
        worker.check()
        assert worker.is_alive
        worker.stop()
        assert not worker.is_alive
        worker.check()  # it was asked to
        worker.stop()  # once more is nothing


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_error_meant_for_people_comes_as_it_was(when: str) -> None:
    with started(mains.fails, when) as worker:
        if when == "after":
            worker.wait_ready(20)
            wait_until(lambda: not worker.is_alive)
        for look in (lambda: worker.wait_ready(20), worker.check)[when == "after" :]:
            with pytest.raises(RobotError) as caught:
                look()
            assert caught.value.message == "there is no arm at 10.0.0.7"
            assert caught.value.hint == "switch it on"


def test_a_bug_comes_with_its_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with started(mains.has_a_bug, None) as worker:
        wait_until(lambda: not worker.is_alive)
        for _ in range(2):
            with pytest.raises(RobotError, match="arm failed: KeyError: 'key'"):
                worker.check()
    assert caplog.text.count('{}["key"]') == 1


@pytest.mark.parametrize(
    ("main", "argument", "message"),
    [
        (mains.returns, None, "arm has ended unasked"),
        (mains.exits, 3, "arm ended with status 3"),
    ],
)
def test_a_worker_that_is_gone_is_told(main: Any, argument: Any, message: str) -> None:
    with started(main, argument) as worker:
        wait_until(lambda: not worker.is_alive)
        with pytest.raises(RobotError, match=message):
            worker.check()


def test_a_killed_worker_is_told_before_and_after_it_was_ready() -> None:
    for main in (mains.is_never_ready, mains.beats):
        with started(main, 600.0) as worker:
            if main is mains.beats:
                worker.wait_ready(20)
            os.kill(worker.pid, signal.SIGKILL)
            wait_until(lambda: not worker.is_alive)
            for look in (worker.check, lambda: worker.wait_ready(9))[: 1 + (main != mains.beats)]:
                with pytest.raises(RobotError, match="arm was killed by SIGKILL"):
                    look()


def test_a_worker_that_is_not_ready_in_time_is_told() -> None:
    late = pytest.raises(RobotError, match=r"arm was not ready within 0\.1 s")
    with started(mains.is_never_ready, None, beat_within_s=0.01) as worker, late:
        worker.check()  # it may take its time, and need not beat until then
        assert worker.beat_age_s(time.monotonic()) == float("inf")
        worker.wait_ready(0.1)


def test_a_worker_that_no_longer_beats_is_told() -> None:
    with started(mains.beats, 0.2, beat_within_s=0.6) as worker:
        worker.wait_ready(20)
        wait_until(lambda: worker.beat_age_s(time.monotonic()) > 0.6)
        with pytest.raises(RobotError, match=r"arm hangs: .* more than 0\.6 s"):
            worker.check()


def test_one_that_does_not_look_is_terminated_and_lets_go(tmp_path: Path) -> None:
    with started(mains.sleeps, str(tmp_path / "told")) as worker:
        worker.wait_ready(20)
        worker.stop(1)
        assert not worker.is_alive
    assert (tmp_path / "told").read_text() == "closed"


def test_one_that_hangs_is_killed_within_the_time(caplog: pytest.LogCaptureFixture) -> None:
    with started(mains.hangs, None) as worker:
        worker.wait_ready(20)
        before_s = time.monotonic()
        worker.stop(1)
        assert not worker.is_alive and time.monotonic() - before_s >= 1
    assert "it is terminated" in caplog.text and "it is killed" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTSTP])
def test_what_a_terminal_sends_is_for_the_parent(number: signal.Signals) -> None:
    with started(mains.beats, 600.0) as worker:
        worker.wait_ready(20)
        os.kill(worker.pid, number)
        sent_s = time.monotonic()
        wait_until(lambda: worker.beat_age_s(sent_s) < -0.1)
        worker.check()


def test_what_is_logged_comes_to_the_parent_s_handlers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dp_hub")
    with started(mains.logs, 0) as worker:
        worker.wait_ready(20)
    ours = [one for one in caplog.records if one.name == "dp_hub.robot.mains"]
    assert [(one.levelname, one.getMessage()) for one in ours] == [
        ("INFO", "some news"),
        ("WARNING", f"a warning of {worker.pid}"),
    ]
    assert {one.processName for one in ours} == {"arm"}


def test_what_the_parent_does_not_log_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "dp_hub")
    with started(mains.logs, 0) as worker:
        worker.wait_ready(20)
    assert "news" not in caplog.text and "warning" not in caplog.text


def test_a_parent_that_is_slow_to_log_does_not_hold_up_a_worker() -> None:
    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            time.sleep(0.02)

    logger, slow = logging.getLogger("dp_hub.robot.mains"), Slow()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(slow)
    try:
        with started(mains.logs, 20_000) as worker:  # 20 MB, which would take 400 s
            worker.wait_ready(20)
            before_s = time.monotonic()
            worker.stop(60)
            assert time.monotonic() - before_s < 40
    finally:
        logger.removeHandler(slow)
        logger.setLevel(before)


def facts(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    told = [one.getMessage() for one in caplog.records if one.getMessage().startswith("facts")]
    assert len(told) == 1, caplog.text
    found: dict[str, Any] = ast.literal_eval(told[0].removeprefix("facts "))
    return found


def test_a_worker_is_run_as_any_process_if_nothing_is_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # a worker is as its parent is
    with started(mains.tells_of_itself, False) as worker:
        worker.wait_ready(20)
    assert facts(caplog) == {
        "policy": os.SCHED_OTHER,
        "priority": 0,
        "threads": [os.SCHED_OTHER],
        "cpus": sorted(os.sched_getaffinity(0)),
        "collects": True,
        "main": [],  # what the parent has imported for itself is not there
    }


def test_a_real_time_worker_collects_no_garbage_and_stays_on_its_cpu(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cpu = max(os.sched_getaffinity(0))
    with started(mains.tells_of_itself, False, scheduling=Scheduling(cpu=cpu)) as worker:
        worker.wait_ready(20)
    told = facts(caplog)
    assert told["cpus"] == [cpu] and not told["collects"]


def test_a_cpu_that_is_not_there_is_refused() -> None:
    with started(mains.tells_of_itself, False, scheduling=Scheduling(cpu=4000)) as worker:
        with pytest.raises(RobotError, match="arm cannot run on CPU 4000") as caught:
            worker.wait_ready(20)
        assert "CPUs of this process are [0" in str(caught.value)


def may_be_first() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


def test_a_real_time_worker_goes_first_where_that_is_permitted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not may_be_first():
        pytest.skip("this user may not use SCHED_FIFO")
    with started(mains.tells_of_itself, False, scheduling=Scheduling(fifo=7)) as worker:
        worker.wait_ready(20)
    told = facts(caplog)
    assert (told["policy"], told["priority"]) == (os.SCHED_FIFO, 7)
    assert told["threads"] == [os.SCHED_FIFO]


def test_where_it_is_not_permitted_one_line_says_so_and_how_it_would_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    to_nobody = may_be_first()
    if to_nobody and os.getuid():
        pytest.skip("this user may use SCHED_FIFO, and cannot be another one")
    with started(mains.tells_of_itself, to_nobody, scheduling=Scheduling(fifo=7)) as worker:
        worker.wait_ready(20)
    assert facts(caplog)["policy"] == os.SCHED_OTHER
    lines = [one.getMessage() for one in caplog.records if "SCHED_FIFO" in one.getMessage()]
    assert len(lines) == 1 and lines[0].startswith("arm runs without SCHED_FIFO")
    assert "rtprio" in lines[0] and "CAP_SYS_NICE" in lines[0]


@pytest.mark.parametrize("options", [{"fifo": 0}, {"fifo": 100}, {"spin_s": -1.0}])
def test_scheduling_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Scheduling(**options)


def test_memory_that_a_killed_worker_made_goes_with_it(tmp_path: Path) -> None:
    told = tmp_path / "told"
    with started(mains.makes_memory, str(told)) as worker:
        worker.wait_ready(20)
        path = Path("/dev/shm") / told.read_text()
        assert path.exists() and path.name.startswith(f"dphub-{worker.pid}-")
        os.kill(worker.pid, signal.SIGKILL)
    assert not path.exists()


def test_memory_that_a_worker_forgot_goes_with_it(tmp_path: Path) -> None:
    told = tmp_path / "told"
    with started(mains.makes_memory, str(told)) as worker:
        worker.wait_ready(20)
    assert not (Path("/dev/shm") / told.read_text()).exists()
