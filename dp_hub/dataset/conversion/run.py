"""The work of a conversion: what is read becomes what is written, in order, and can go on."""

import itertools
import logging
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dp_hub.dataset.conversion.again import AgainTally, EncodedAgain
from dp_hub.dataset.conversion.journal import BadEpisode, Done, Entry, Journal, Place
from dp_hub.dataset.conversion.request import Request
from dp_hub.dataset.conversion.source import (
    Bad,
    Ended,
    Found,
    Reader,
    Stored,
    after,
    has_recordings,
    prepared,
)
from dp_hub.dataset.features import Column
from dp_hub.dataset.lock import WriterLock
from dp_hub.dataset.writer import DatasetWriter, WriteError, Written
from dp_hub.errors import DataError
from dp_hub.files import write_atomic
from dp_hub.replay.episode import Episode
from dp_hub.replay.source import Source

COMMIT_S = 10.0  # what is lost, at most, when a conversion is killed
_TURN_BYTES = 64_000_000  # of decoded episodes that one process takes at a time
_TURN_ITEMS = 32
_AHEAD_BYTES = 4_000_000  # of episodes that are read in one go while others are written
_AHEAD_ITEMS = 32
_USUAL_STEPS = 300  # of an episode, where the source does not say
log = logging.getLogger(__name__)
Outcome = Stored | Bad | Ended


@dataclass(frozen=True)
class Progress:
    """How far a conversion is. Totals are None where the source cannot tell."""

    episodes: int
    frames: int
    total_episodes: int | None
    total_frames: int | None


@dataclass(frozen=True)
class Job:
    """A conversion that is ready to be done.

    Args:
        request: what is asked for.
        found: what the source says of itself.
        reader: of the source.
        plan: the columns that follow from the first episode.
        provenance: where the episodes come from, for meta/dp_hub.json.
        threads: how many encode pictures; None: all cores.
        workers: how many processes read and prepare.
        on_progress: called after every episode.
        lock: of the target.
    """

    request: Request
    found: Source
    reader: Reader
    plan: Callable[[Episode], list[Column]]
    provenance: Mapping[str, Any]
    threads: int | None
    workers: int
    on_progress: Callable[[Progress], None]
    lock: WriterLock

    @property
    def skip_bad(self) -> bool:
        """Whether episodes that cannot be converted are left out."""
        return self.reader.reading.skip_bad

    @property
    def has_recordings(self) -> bool:
        """Whether an item of the source gives any number of episodes."""
        return has_recordings(self.reader.converter)

    @property
    def cores(self) -> int:
        """How many threads may encode."""
        return self.threads or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Result:
    """What came of it: the dataset, what was left out, how streams were followed."""

    written: Written
    bad: tuple[BadEpisode, ...]
    alignment: Any = None
    encoded_again: tuple[EncodedAgain, ...] = ()


def run(job: Job) -> Result:
    """Do it. Raises as `dp_hub.dataset.convert.convert`."""
    request = job.request
    done = request.done()
    begun: Iterable[Found | Bad | Ended] | None = None
    if done.episodes:
        writer = DatasetWriter.resume(
            request.target,
            work=request.work,
            commit_s=COMMIT_S,
            threads=job.threads,
            lock=job.lock,
        )
        log.info("%s: continuing after %d episodes", request.target, done.episodes)
    else:
        done = Done()
        columns, begun = _columns(job)
        writer = _new_writer(job, columns)
    with request.kept(), writer, closing(request.remember(done)) as journal:
        tally = Tally(job, done)
        with closing(_outcomes(job, writer, done.place, begun)) as outcomes:
            _write_all(job, writer, outcomes, tally, journal)
        tally.check_whole(writer)
        writer.add_to_source(tally.facts())
        writer.commit()
        tally.write_report(request.work)
        again = tuple(tally.again.listed())
        return Result(writer.finish(), tuple(tally.bad), tally.alignment, again)


def _columns(job: Job) -> tuple[list[Column], Iterable[Found | Bad | Ended] | None]:
    """The dataset's columns, and the source from its beginning on if nothing of it is lost.

    The first episode says what the columns are; with ``skip_bad`` the first that can.
    """
    outcomes = job.reader.read(Place())
    seen: list[Found | Bad | Ended] = []
    told, whole = "", True
    for outcome in outcomes:
        if not isinstance(outcome, Found):
            seen.append(outcome)
            continue
        try:
            columns = job.plan(outcome.episode)
        except DataError as error:
            if not job.skip_bad or str(error) == told:  # twice the same: not the episodes' fault
                raise
            told, whole = str(error), False
            continue
        return columns, itertools.chain(seen, [outcome], outcomes) if whole else None
    bad = [outcome.episode for outcome in seen if isinstance(outcome, Bad)]
    raise _nothing_left(job, bad)


def _nothing_left(job: Job, bad: Sequence[BadEpisode]) -> DataError:
    source = job.request.settings["source"]
    if not bad:
        split = (job.request.settings["mapping"] or {}).get("episodes")
        if not split:
            return DataError(f"{source} holds no episodes")
        told = ", ".join(f"{key}: {value}" for key, value in split.items())
        return DataError(
            f"no episodes come of {source} with episodes: {{{told}}} in the mapping",
            hint="are all shorter than min_s, or is nothing as `split` asks for?",
        )
    return DataError(
        f"none of the episodes of {source} can be converted; the first, {bad[0].source}: "
        f"{bad[0].reason}"
    )


def _new_writer(job: Job, columns: Sequence[Column]) -> DatasetWriter:
    settings = job.request.settings
    return DatasetWriter(
        job.request.target,
        columns,
        fps=settings["fps"],
        robot_type=settings["robot_type"],
        source=job.provenance,
        sources=job.found.sources,
        license=stated(job.found, "license", str),
        work=job.request.work,
        commit_s=COMMIT_S,
        threads=job.threads,
        lock=job.lock,
    )


def _outcomes(
    job: Job, writer: DatasetWriter, start: Place, begun: Iterable[Found | Bad | Ended] | None
) -> Generator[Outcome, None, None]:
    """What comes of the source from ``start`` on, prepared here or in other processes."""
    task = job.request.settings["task"]
    if job.workers > 1:
        from dp_hub.dataset.conversion.workers import Work, outcomes_of_workers

        reading, columns = job.reader.reading, writer.columns
        turn = _turn(job, columns)
        threads = max(1, job.cores // job.workers)
        yield from outcomes_of_workers(
            Work(reading, start, columns, writer.fps, task, job.workers, turn, threads)
        )
        return
    read = iter(job.reader.read(start) if begun is None else begun)
    with closing(_ahead(read)) as upcoming:
        yield from prepared(upcoming, writer.prepare, task=task, skip_bad=job.skip_bad)


def _turn(job: Job, columns: Sequence[Column]) -> int | None:
    """How many items a process takes at a time: many small episodes, few large ones.

    None for recordings that are split into episodes, unless there are many of them.
    """
    n_items, n_frames = job.found.n_episodes, job.found.n_frames
    if job.has_recordings:
        many = n_items is not None and n_items >= 4 * job.workers
        return 1 if many or not job.reader.splits else None
    n_steps = n_frames / n_items if n_items and n_frames else _USUAL_STEPS
    sizes = (math.prod(c.shape) * (1 if c.is_visual else 8) for c in columns)
    return int(min(_TURN_ITEMS, max(1, _TURN_BYTES // (n_steps * sum(sizes)))))


def _write_all(
    job: Job,
    writer: DatasetWriter,
    outcomes: Iterable[Outcome],
    tally: "Tally",
    journal: Journal,
) -> None:
    found = job.found
    totals = (None, None) if job.has_recordings else (found.n_episodes, found.n_frames)
    for outcome in outcomes:
        is_new = tally.unseen == 0
        journal.add(tally.take(outcome))
        if isinstance(outcome, Stored) and is_new:
            writer.add_stored(outcome.episode)
            job.on_progress(Progress(writer.n_episodes, writer.n_frames, *totals))


class Tally:
    """What has come of the source so far.

    Args:
        job: what is done.
        done: what was done before.
    """

    def __init__(self, job: Job, done: Done) -> None:
        self._job = job
        self.bad: list[BadEpisode] = []
        self.alignment: Any = None
        self.again = AgainTally()
        self.place, self._n_episodes = done.place, done.episodes - done.unseen
        self.unseen = done.unseen
        for entry in done.entries:
            self._note(entry)

    def take(self, outcome: Outcome) -> Entry:
        """Count an outcome in. Returns what the journal says of it."""
        self.place = after(outcome, recordings=self._job.has_recordings)
        bad = report = None
        again: Mapping[str, str] = {}
        if isinstance(outcome, Stored):
            self._n_episodes += 1
            self.unseen = max(0, self.unseen - 1)
            again = outcome.episode.encoded_again
        elif isinstance(outcome, Bad):
            bad = outcome.episode
            log.warning("left out: %s: %s", bad.label, bad.reason)
        else:
            report = outcome.report
        entry = Entry(self.place, self._n_episodes, bad, report, again)
        self._note(entry)
        return entry

    def _note(self, entry: Entry) -> None:
        if entry.bad is not None:
            self.bad.append(entry.bad)
        self.again.add(entry.episodes - 1, entry.encoded_again)
        if entry.report is not None:
            from dp_hub.replay.timeline import AlignmentReport

            report = AlignmentReport.from_json(entry.report)
            self.alignment = report if self.alignment is None else self.alignment.then(report)

    def check_whole(self, writer: DatasetWriter) -> None:
        """Raises DataError if the source gave something else than it announced, or nothing."""
        found, n_items = self._job.found, self.place.item
        if not writer.n_episodes:
            raise _nothing_left(self._job, self.bad)
        plain = not (self.bad or self._job.has_recordings or self._job.reader.reading.mapping)
        n_frames = found.n_frames if plain else None
        if found.n_episodes in (None, n_items) and n_frames in (None, writer.n_frames):
            return
        raise DataError(
            f"the source announced {found.n_episodes} episodes and {found.n_frames} steps but gave "
            f"{n_items} and {writer.n_frames}",
            hint="was it changed while it was read?",
        )

    def facts(self) -> dict[str, Any]:
        """What meta/dp_hub.json says of it."""
        facts: dict[str, Any] = {}
        if self.bad:
            facts["left_out"] = [asdict(one) for one in self.bad]
        if again := list(self.again.listed()):
            facts["encoded_again"] = [asdict(one) for one in again]
        return facts

    def write_report(self, work: Path) -> None:
        """How streams were put on the grid, beside what is committed already."""
        if self.alignment is not None:
            from dp_hub.dataset.conversion.alignment_report import report_files

            try:
                for name, data in report_files(self.alignment).items():
                    write_atomic(work / name, data)
            except OSError as error:
                raise WriteError(f"{work} cannot be written: {error.strerror}") from error


def stated(found: Source, name: str, kind: Any) -> Any:
    """What a source states of itself, if it is of the kind that is wanted."""
    value = found.attrs.get(name)
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _ahead(items: Iterator[Any]) -> Generator[Any, None, None]:
    """``items``, with the next ones being read in a thread while these are used."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        upcoming = pool.submit(_next_few, items)
        while True:
            few, error = upcoming.result()
            if few and error is None:
                upcoming = pool.submit(_next_few, items)
            yield from few
            if error is not None:
                raise error
            if not few:
                return


def _next_few(items: Iterator[Any]) -> tuple[list[Any], DataError | None]:
    """Items until they are large or many: for each a thread of its own would take longer than it.

    Returns:
        They, none at the end; and what the one behind them raised.
    """
    few: list[Any] = []
    n_bytes = 0
    try:
        for item in items:
            few.append(item)
            n_bytes += _size(item)
            if n_bytes >= _AHEAD_BYTES or len(few) == _AHEAD_ITEMS:
                break
    except DataError as error:
        return few, error
    return few, None


def _size(item: Any) -> int:
    """Bytes of an episode's arrays; pictures, which are read later, count as many."""
    if not isinstance(item, Found):
        return 0
    values = item.episode.data.values()
    return sum(getattr(one, "nbytes", _AHEAD_BYTES) for one in values)
