"""Processes that do one thing in a loop, and the one that started them.

A worker says when it is ready, looks whether it should stop, and beats. Its error, and what it
logs, reach the parent. Ctrl-C is the parent's alone. A worker whose parent has died is *orphaned*:
it is asked to stop like any other, so that it can bring its device to rest, and ends by force
some seconds later if it has not.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any, Generic, NoReturn, TypeVar

from dp_hub.errors import RobotError
from dp_hub.processes import interrupts_held
from dp_hub.robot.scheduling import Scheduling
from dp_hub.robot.shared import segment
from dp_hub.robot.shared.board import Board
from dp_hub.robot.spawning import main_left_out
from dp_hub.robot.working import Context, Failed, Job, Ready, levels, run

__all__ = ["Context", "Scheduling", "Worker"]
A = TypeVar("A")
log = logging.getLogger(__name__)
_ASKING = 0.7  # share of the time to stop in which it is only asked
_starting = threading.Lock()


class Worker(Generic[A]):
    """A process.

    Args:
        name: for people.
        main: what it does; a function of a module.
        argument: for ``main``; pickled, as spawned processes need.
        scheduling: of a real-time loop; None: as any process.
        beat_within_s: its heartbeat is older only if it hangs; None: it does not beat.
        orphan_s: how long it may go on to bring things to rest when its parent has died.
    """

    def __init__(
        self,
        name: str,
        main: Callable[[Context, A], None],
        argument: A,
        *,
        scheduling: Scheduling | None = None,
        beat_within_s: float | None = None,
        orphan_s: float = 10.0,
    ) -> None:
        self.name = name
        self._main, self._argument, self._scheduling = main, argument, scheduling
        self._beat_within_s, self._orphan_s = beat_within_s, orphan_s
        self._process: BaseProcess | None = None
        self._board: Board | None = None
        self._heard = _Heard()
        self._listener: threading.Thread | None = None
        self._at_exit: Any = None
        self._asked = False

    def start(self) -> None:
        """Start it; it may be a second until it is ready."""
        assert self._process is None, f"{self.name} was started before"
        board = Board.create(["stop", "beat_s"])
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe(duplex=False)
        try:
            job = self._job(theirs, board)
            process = spawn.Process(target=run, args=(job,), name=self.name, daemon=True)
            with _starting, interrupts_held(), main_left_out(job):
                process.start()
        except BaseException:
            ours.close()
            board.unlink()
            raise
        finally:
            theirs.close()  # so that the end of the process is the end of the pipe
        self._process, self._board = process, board
        # Before multiprocessing ends what is left, and would wait for what does not end.
        self._at_exit = Finalize(self, self.stop, exitpriority=20)
        self._listener = threading.Thread(
            target=_listen, args=(ours, self._heard), name=f"{self.name}-messages", daemon=True
        )
        self._listener.start()

    def _job(self, messages: Connection, board: Board) -> Job:
        return Job(
            self._main,
            self._argument,
            name=self.name,
            parent=os.getpid(),
            board=board.spec,
            messages=messages,
            scheduling=self._scheduling,
            orphan_s=self._orphan_s,
            levels=levels(),
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None and self._process.pid is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.is_alive()

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until it says that it is.

        Raises:
            RobotError: its own reason if it failed; or it was not ready in time.
        """
        if not self._heard.something.wait(timeout_s):
            raise RobotError(
                f"{self.name} was not ready within {timeout_s:g} s",
                hint="its device may be switched off, or the machine is very busy",
            )
        if self._heard.ready_s is None:
            self._raise_end()

    def check(self) -> None:
        """Nothing, if all is well.

        Raises:
            RobotError: its own reason if it failed; it has ended unasked; it does not beat.
        """
        if self._heard.failed or (not self.is_alive and not self._asked):
            self._raise_end()
        if self._beat_within_s is None or self._heard.ready_s is None or not self.is_alive:
            return
        age_s = self.beat_age_s(time.monotonic())
        if age_s > self._beat_within_s:
            raise RobotError(
                f"{self.name} hangs: its last heartbeat is {age_s:.2f} s old, more than"
                f" {self._beat_within_s:g} s"
            )

    def beat_age_s(self, now_s: float) -> float:
        """Since it last beat, or else was ready; infinite if neither was."""
        if self._board is None or self._heard.ready_s is None:
            return float("inf")
        return now_s - max(self._board["beat_s"], self._heard.ready_s)

    def ask_to_stop(self) -> None:
        """Let it begin to end, and do not wait: `stop` comes after. Nothing if it was not started.

        Several that are asked first take no longer than the slowest of them.
        """
        self._asked = True
        if self._board is not None:
            self._board["stop"] = 1.0

    def stop(self, timeout_s: float = 5.0) -> None:
        """End it within about ``timeout_s``: ask, then terminate, then kill. Never raises."""
        self.ask_to_stop()
        if self._process is None or self._board is None:
            return
        self._process.join(timeout_s * _ASKING)
        if self._process.is_alive():
            log.warning("%s does not stop when asked; it is terminated", self.name)
            self._process.terminate()
            self._process.join(timeout_s * (1 - _ASKING))
        if self._process.is_alive():
            log.warning("%s does not end when terminated; it is killed", self.name)
            self._process.kill()
            self._process.join(timeout_s)
        self._clean()

    def _clean(self) -> None:
        assert self._process is not None and self._board is not None
        self._hear_the_rest()
        if not self._process.is_alive():
            segment.remove_of(self.pid)
        self._board.unlink()
        self._at_exit.cancel()

    def _hear_the_rest(self) -> None:
        if self._listener is not None and not self.is_alive:
            self._listener.join(2.0)

    def _raise_end(self) -> NoReturn:
        assert self._process is not None, f"{self.name} was not started"
        self._process.join(1.0)
        self._hear_the_rest()
        failed = self._heard.failed
        if failed is None:
            if not self.is_alive:
                segment.remove_of(self.pid)
            raise RobotError(f"{self.name} {_end(self._process.exitcode)}")
        if failed.text:
            log.error("%s failed:\n%s", self.name, failed.text)
            self._heard.failed = replace(failed, text=None)  # once is enough
        raise RobotError(failed.message, hint=failed.hint)


class _Heard:
    """What a worker has told."""

    def __init__(self) -> None:
        self.something = threading.Event()  # it is ready, or will never be
        self.ready_s: float | None = None
        self.failed: Failed | None = None


def _listen(connection: Connection, heard: _Heard) -> None:
    """Take a worker's messages until it has ended."""
    with connection:
        while True:
            try:
                message = connection.recv()
            except (EOFError, OSError):
                break
            if isinstance(message, Ready):
                heard.ready_s = message.time_s
                heard.something.set()
            elif isinstance(message, Failed):
                heard.failed = message
                heard.something.set()
            elif isinstance(message, logging.LogRecord):
                logger = logging.getLogger(message.name)
                if logger.isEnabledFor(message.levelno):
                    logger.handle(message)
    heard.something.set()


def _end(status: int | None) -> str:
    if status is None:
        return "hangs at its end"
    if status < 0:
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
    return "has ended unasked" if status == 0 else f"ended with status {status}"
