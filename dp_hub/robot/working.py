"""The inside of a worker's process: see `dp_hub.robot.worker`."""

import faulthandler
import logging
import logging.handlers
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import Queue
from typing import Any

from dp_hub.errors import DpHubError
from dp_hub.robot.scheduling import Scheduling, be_realtime
from dp_hub.robot.shared import segment
from dp_hub.robot.shared.board import Board, BoardSpec

log = logging.getLogger(__name__)
_MESSAGES = 1000


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
    scheduling: Scheduling | None
    orphan_s: float
    levels: Mapping[str, int]


class Context:
    """A worker's side of things, given to its ``main``."""

    def __init__(self, job: Job, board: Board, tell: Callable[[Any], None]) -> None:
        self.name = job.name
        self.scheduling = job.scheduling or Scheduling()
        self._is_realtime = job.scheduling is not None
        self._parent = job.parent
        self._cells = board
        self._tell = tell

    def ready(self) -> None:
        """Say that the loop begins. What `Scheduling` asks for begins with it.

        Raises:
            RobotError: there is no such CPU.
        """
        if self._is_realtime:
            be_realtime(self.name, self.scheduling)
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
    faulthandler.enable()  # a driver that crashes says where
    _mind_signals()
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


def _mind_signals() -> None:
    """Those of a terminal go to all its processes, but only the parent knows what to do then."""
    # It is closed, Ctrl-Z, Ctrl-backslash. That of Ctrl-C is blocked already.
    for one in (signal.SIGHUP, signal.SIGTSTP, signal.SIGQUIT):
        signal.signal(one, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _on_terminate)


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
    time.sleep(job.orphan_s)
    segment.remove_of(os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)


class _Outbox:
    """Messages to the parent, sent by a thread: a loop never waits for who reads them.

    Once the parent is gone, what is logged goes to stderr.
    """

    def __init__(self, connection: Connection, levels: Mapping[str, int]) -> None:
        self._connection = connection
        self._waiting: Queue[Any] = Queue()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        logging.root.handlers[:] = [_ToOutbox(self._waiting)]
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


class _ToOutbox(logging.handlers.QueueHandler):
    """Records that find no room are lost."""

    def __init__(self, waiting: Queue[Any]) -> None:
        super().__init__(waiting)
        self._waiting = waiting

    def enqueue(self, record: logging.LogRecord) -> None:
        """Take a record that is ready to be sent."""
        if self._waiting.qsize() < _MESSAGES:
            self._waiting.put_nowait(record)
