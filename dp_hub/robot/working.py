"""The inside of a worker's process: see `dp_hub.robot.worker`."""

import gc
import logging
import logging.handlers
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from dp_hub.errors import DpHubError, RobotError
from dp_hub.robot.shared import segment
from dp_hub.robot.shared.board import Board, BoardSpec

log = logging.getLogger(__name__)
ORPHAN_S = 10.0
"""So long may a worker go on after its parent has died."""
_MESSAGES = 1000


@dataclass(frozen=True)
class Scheduling:
    """How a real-time loop is run.

    Args:
        fifo: priority of SCHED_FIFO, 1 to 99, if that is permitted; None: as any process.
        spin_s: see `dp_hub.robot.clock.Clock.sleep_until`.
        cpu: number of the only CPU it runs on; None: any.
    """

    fifo: int | None = None
    spin_s: float = 0.0
    cpu: int | None = None


@dataclass(frozen=True)
class Ready:
    """The worker is."""

    time_s: float


@dataclass(frozen=True)
class Failed:
    """Why a worker ended; ``text`` is the traceback of what was not meant for people."""

    message: str
    hint: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Job:
    """What a worker's process is given."""

    main: Callable[..., None]
    argument: Any
    name: str
    parent: int
    board: BoardSpec
    messages: Connection
    scheduling: Scheduling
    is_realtime: bool
    levels: Mapping[str, int]


class Context:
    """A worker's side of things, given to its ``main``."""

    def __init__(self, job: Job, board: Board, tell: Callable[[Any], None]) -> None:
        self.name = job.name
        self.scheduling = job.scheduling
        self._parent, self._is_realtime = job.parent, job.is_realtime
        self._cells = board
        self._tell = tell

    def ready(self) -> None:
        """Say that the loop begins. What `Scheduling` asks for begins with it.

        Raises:
            RobotError: there is no such CPU.
        """
        if self._is_realtime:
            _be_realtime(self.name, self.scheduling)
        self._tell(Ready(time.monotonic()))

    @property
    def stopping(self) -> bool:
        """Whether it should end: it was asked to, or is orphaned."""
        return self._cells["stop"] != 0.0 or self.orphaned

    @property
    def orphaned(self) -> bool:
        """Whether the parent is gone."""
        return os.getppid() != self._parent

    def beat(self, now_s: float) -> None:
        """Say that it still works."""
        self._cells["beat_s"] = now_s


def levels() -> dict[str, int]:
    """Of this process's loggers, those that were set; the root's is called ''."""
    loggers = logging.root.manager.loggerDict.items()
    found = {name: one.level for name, one in loggers if isinstance(one, logging.Logger)}
    return {"": logging.root.level} | {name: level for name, level in found.items() if level}


def run(job: Job) -> None:
    """A process's life."""
    signal.signal(signal.SIGTERM, _on_terminate)
    outbox = _Outbox(job.messages, job.levels)
    threading.Thread(target=_watch_parent, args=(job,), name="orphan", daemon=True).start()
    status = 1
    try:
        job.main(Context(job, Board.attach(job.board), outbox.tell), job.argument)
        status = 0
    except DpHubError as error:
        outbox.tell(Failed(error.message, error.hint))
    except SystemExit as ending:
        outbox.tell(Failed(f"{job.name} ended: {ending}"))
    except BaseException as error:  # noqa: BLE001 - it goes on in the parent
        told = f"{job.name} failed: {type(error).__name__}: {error}"
        outbox.tell(Failed(told, text=traceback.format_exc()))
    outbox.close()
    if os.getppid() != job.parent:
        segment.remove_of(job.parent)
    sys.exit(status)


def _on_terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit("it was terminated")


def _watch_parent(job: Job) -> None:
    """When the parent has died: remove what it shared, and end by force what does not end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    while os.getppid() == job.parent:
        time.sleep(0.01)
    segment.remove_of(job.parent)
    time.sleep(ORPHAN_S)
    os.kill(os.getpid(), signal.SIGKILL)


class _Outbox:
    """Messages to the parent, sent by a thread: a loop never waits for who reads them.

    Once the parent is gone, what is logged goes to stderr.
    """

    def __init__(self, connection: Connection, levels: Mapping[str, int]) -> None:
        self._connection = connection
        self._waiting: queue.Queue[Any] = queue.Queue()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        logging.root.handlers[:] = [_ToQueue(self._waiting)]
        self._thread = threading.Thread(target=self._send, name="messages", daemon=True)
        self._thread.start()

    def tell(self, message: Any) -> None:
        """Send it, soon."""
        self._waiting.put(message)

    def close(self) -> None:
        """Send what is left, but do not wait long for it."""
        self._waiting.put(None)
        self._thread.join(2.0)

    def _send(self) -> None:
        while (message := self._waiting.get()) is not None:
            try:
                self._connection.send(message)
            except OSError:
                if isinstance(message, logging.LogRecord):
                    with suppress(OSError):
                        print(message.getMessage(), file=sys.stderr, flush=True)  # noqa: T201


class _ToQueue(logging.handlers.QueueHandler):
    """Records that find no room are lost."""

    def enqueue(self, record: logging.LogRecord) -> None:
        if self.queue.qsize() < _MESSAGES:
            self.queue.put_nowait(record)


def _be_realtime(name: str, scheduling: Scheduling) -> None:
    # Collecting garbage stops a loop for milliseconds; what is there now is never looked at again.
    gc.collect()
    gc.freeze()
    gc.disable()
    if scheduling.cpu is not None:
        _pin(name, scheduling.cpu)
    if scheduling.fifo is not None:
        _go_first(name, scheduling.fifo)


def _pin(name: str, cpu: int) -> None:
    try:
        os.sched_setaffinity(0, {cpu})
    except AttributeError:
        log.warning("%s runs on any CPU: this system cannot say on which", name)
    except OSError as error:
        raise RobotError(
            f"{name} cannot run on CPU {cpu}: {error.strerror}",
            hint=f"CPUs of this process are {sorted(os.sched_getaffinity(os.getppid()))}",
        ) from None


def _go_first(name: str, priority: int) -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except AttributeError:
        log.warning("%s runs without SCHED_FIFO, which this system does not have", name)
    except PermissionError:
        log.warning(
            "%s runs without SCHED_FIFO, so other programs can make it late: this user is not"
            " permitted to use it. A line `@realtime - rtprio 90` in /etc/security/limits.conf"
            " (and membership of that group), `--cap-add SYS_NICE` for docker, or CAP_SYS_NICE"
            " permits it",
            name,
        )
