"""Episodes read, aligned and prepared in several processes; they come back in the source's order.

Every process opens the source itself. Where items can be entered one by one, process w of N takes
turn w, w + N ... of a few items each. Where few recordings give many episodes, every process reads
all of them and prepares every N-th episode only: pictures are not decoded sooner than that. Either
way what is prepared depends on nothing but the episode, so the dataset is that of one process.
"""

import itertools
import logging
import multiprocessing
import tempfile
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from tempfile import TemporaryDirectory
from typing import Any

from dp_hub.dataset.conversion.journal import Place
from dp_hub.dataset.conversion.request import StoppedError
from dp_hub.dataset.conversion.source import Bad, Ended, Reader, Reading, Stored, prepared
from dp_hub.dataset.features import Column
from dp_hub.dataset.preparing import Preparer
from dp_hub.errors import DataError
from dp_hub.processes import end_process, interrupts_held

log = logging.getLogger(__name__)
_HELD_BYTES = 48_000_000  # of one process's episodes that wait for their turn
Outcome = Stored | Bad | Ended


@dataclass(frozen=True)
class Work:
    """What every process needs to know.

    Args:
        reading: how to read.
        start: where to begin.
        columns: of the dataset.
        fps: of the dataset.
        task: of episodes whose source does not say.
        workers: how many processes.
        turn: how many items make a turn; None: every process reads all, and a turn is one outcome.
        threads: how many encode pictures in each process.
    """

    reading: Reading
    start: Place
    columns: Sequence[Column]
    fps: float
    task: str | None
    workers: int
    turn: int | None
    threads: int


@dataclass(frozen=True)
class _Next:
    """The turn is over."""


@dataclass(frozen=True)
class _End:
    """The source is."""


@dataclass(frozen=True)
class _Log:
    """What a process has to tell people."""

    level: int
    text: str


@dataclass(frozen=True)
class _Failure:
    """Why a process cannot go on: an error of the source's, or one of ours."""

    message: str
    hint: str | None = None
    is_ours: bool = False


def outcomes_of_workers(work: Work) -> Generator[Outcome, None, None]:
    """What comes of the source, in order.

    Raises:
        DataError: as `Reader.read` and `prepared`, at the same place in the order.
        StoppedError: a process was killed.
    """
    with _started(work) as workers:
        for worker in itertools.cycle(workers):
            while True:
                message = _take(worker, workers)
                if isinstance(message, _Log):
                    log.log(message.level, message.text)
                    continue
                if isinstance(message, _Next):
                    break
                if isinstance(message, _End):
                    return
                if isinstance(message, _Failure):
                    if message.is_ours:
                        raise RuntimeError(message.message)
                    raise DataError(message.message, hint=message.hint)
                yield message


@dataclass(eq=False)
class _Worker:
    """A process, our end of the pipe to it, and what it has sent."""

    process: Any
    connection: Connection
    waiting: deque[bytes] = field(default_factory=deque)
    held: int = 0
    ended: bool = False

    def receive(self) -> None:
        """One message from the pipe."""
        try:
            data = self.connection.recv_bytes()
        except (EOFError, OSError):  # OSError: it ended in the middle of a message
            self.ended = True
            return
        self.waiting.append(data)
        self.held += len(data)

    def stop(self) -> None:
        """End the process, at once if it is busy."""
        self.connection.close()
        end_process(self.process)


def _take(worker: _Worker, workers: Sequence[_Worker]) -> Any:
    """The next message of one process. Those of the others are taken in meanwhile, some ahead."""
    by_connection = {one.connection: one for one in workers}
    while True:
        open_ = [
            one.connection
            for one in workers
            if not one.ended and (one.held < _HELD_BYTES or (one is worker and not one.waiting))
        ]
        ready = wait(open_, timeout=0 if worker.waiting or worker.ended else None) if open_ else []
        for connection in ready:
            by_connection[connection].receive()  # type: ignore[index]
        if worker.waiting:
            data = worker.waiting.popleft()
            worker.held -= len(data)
            return ForkingPickler.loads(data)
        if worker.ended:
            worker.process.join()
            raise StoppedError(
                f"a process of the conversion ended with status {worker.process.exitcode}",
                hint="if memory ran out, --workers with a smaller number needs less",
            )


@contextmanager
def _started(work: Work) -> Iterator[list[_Worker]]:
    """Processes that are gone when the block ends, however it ends."""
    started: list[_Worker] = []
    context = multiprocessing.get_context("spawn")
    # What a process that is ended leaves in temporary files goes with their folder.
    with TemporaryDirectory(prefix="dp_hub-convert-", ignore_cleanup_errors=True) as folder:
        try:
            for number in range(work.workers):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_work, args=(work, number, theirs, folder), daemon=True
                )
                with interrupts_held():
                    process.start()
                theirs.close()  # so that the end of the process is the end of the pipe
                started.append(_Worker(process, ours))
            yield started
        finally:
            for worker in started:
                worker.stop()


def _work(work: Work, number: int, connection: Connection, folder: str) -> None:
    """A process's life. ``folder`` is for its temporary files."""
    tempfile.tempdir = folder
    told: deque[_Log] = deque()
    _tell(told if work.turn is not None or number == 0 else deque(maxlen=0))
    try:
        with ThreadPoolExecutor(work.threads, thread_name_prefix="encode") as pool:
            preparer = Preparer(work.columns, fps=work.fps, pool=pool, ahead=2 * work.threads)
            for message in _messages(work, number, preparer):
                while told:
                    connection.send(told.popleft())
                connection.send(message)
        return
    except (BrokenPipeError, ConnectionResetError):
        return  # nobody wants more
    except DataError as error:
        reason = _Failure(error.message, error.hint)
    except Exception:  # noqa: BLE001 - it goes on in the process that was asked
        text = f"a process of the conversion failed:\n{traceback.format_exc()}"
        reason = _Failure(text, is_ours=True)
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.send(reason)


def _tell(told: deque[_Log]) -> None:
    """Let our own messages go to the process that was asked, which knows how to print them."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(_Log(record.levelno, record.getMessage()))

    ours = logging.getLogger("dp_hub")
    ours.addHandler(Handler())
    ours.propagate = False
    ours.setLevel(logging.INFO)


def _messages(work: Work, number: int, preparer: Preparer) -> Iterator[Any]:
    reader = work.reading.reader()
    turns = _every_nth(work, reader, number) if work.turn is None else _own(work, reader, number)
    for turn in turns:
        yield from prepared(turn, preparer.prepare, task=work.task, skip_bad=work.reading.skip_bad)
        if isinstance(turn, _Turn) and turn.is_short:
            break  # before `_Next`: nobody looks behind the source's end
        yield _Next()
    yield _End()


def _every_nth(work: Work, reader: Reader, number: int) -> Iterator[Iterable[Any]]:
    """Turns of one outcome each."""
    for count, outcome in enumerate(reader.read(work.start)):
        if count % work.workers == number:
            yield [outcome]


def _own(work: Work, reader: Reader, number: int) -> Iterator[Iterable[Any]]:
    """Turns of some items each."""
    assert work.turn is not None
    for turn in itertools.count(number, work.workers):
        place = Place(work.start.item + turn * work.turn) if turn else work.start
        yield _Turn(reader, place, work.turn)


class _Turn:
    """What is in the source at a place, in so many items."""

    def __init__(self, reader: Reader, start: Place, n_items: int) -> None:
        self._reader, self._start, self._n = reader, start, n_items
        self._after = start.item

    @property
    def is_short(self) -> bool:
        """Whether the source ended inside."""
        return self._after < self._start.item + self._n

    def __iter__(self) -> Iterator[Any]:
        for outcome in self._reader.read(self._start, self._n):
            item = outcome.item if isinstance(outcome, Ended) else outcome.place.item
            self._after = item + 1
            yield outcome
