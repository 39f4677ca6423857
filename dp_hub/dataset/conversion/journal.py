"""What has come of a source so far: one line for each episode, failure and end of a recording.

From the lines and the number of committed episodes follows where an interrupted conversion goes on
reading, whatever number of episodes each recording gives. A line is written before its episode is
committed, so that a kill leaves none behind; lines ahead of what is committed do not count.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dp_hub.dataset.writer import WriteError


@dataclass(frozen=True, order=True)
class Place:
    """Where in a source something is.

    Args:
        item: number of the source's episode or recording.
        part: which of the episodes that became of a recording.
    """

    item: int = 0
    part: int = 0


@dataclass(frozen=True)
class BadEpisode:
    """An episode that was left out.

    Args:
        number: of the episode or recording in the source.
        source: which one that is, in the source's words.
        reason: why.
    """

    number: int
    source: str
    reason: str

    @property
    def label(self) -> str:
        """Which one, for people: ``episode 2``, or ``2 (take_2)``."""
        plain = self.source in (f"episode {self.number}", f"recording {self.number}")
        return self.source if plain else f"{self.number} ({self.source})"


@dataclass(frozen=True)
class Entry:
    """A line of the journal: what has come of the source up to a place.

    Args:
        after: where the source goes on.
        episodes: how many were made so far.
        bad: what was left out just before.
        report: of the recording that ended just before, as plain values.
        encoded_again: by feature that is copied otherwise, why the episode just before was not.
    """

    after: Place
    episodes: int
    bad: BadEpisode | None = None
    report: Mapping[str, Any] | None = None
    encoded_again: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """Where an interrupted conversion stands.

    Args:
        episodes: how many are committed.
        entries: of the journal as `entries_up_to` sums them up, none that is ahead of them. After a
            power cut its end may be lost; then it is behind.
    """

    episodes: int = 0
    entries: Sequence[Entry] = ()

    @property
    def place(self) -> Place:
        """Where to go on reading."""
        return self.entries[-1].after if self.entries else Place()

    @property
    def unseen(self) -> int:
        """How many of the episodes that are read next are committed already."""
        return self.episodes - (self.entries[-1].episodes if self.entries else 0)


class Journal:
    """Lines that follow one another in a file that is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def add(self, entry: Entry) -> None:
        """Write the next line; before the episode that it tells of is committed.

        Raises:
            WriteError: the disk is full or cannot be written.
        """
        data = lines_of([entry])
        try:
            written = os.write(self._file, data)
        except OSError as error:
            raise WriteError(f"{self._path} cannot be written: {error.strerror}") from error
        if written < len(data):
            raise WriteError(f"{self._path} cannot be written: the disk is full")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def lines_of(entries: Iterable[Entry]) -> bytes:
    """The entries as they stand in the file."""
    return "".join(f"{json.dumps(_plain(entry))}\n" for entry in entries).encode()


def _plain(entry: Entry) -> dict[str, Any]:
    values: dict[str, Any] = {"after": vars(entry.after), "episodes": entry.episodes}
    values |= {"bad": vars(entry.bad)} if entry.bad else {}
    values |= {"encoded_again": dict(entry.encoded_again)} if entry.encoded_again else {}
    return values | ({"report": entry.report} if entry.report is not None else {})


def entries_up_to(n_episodes: int, lines: Iterable[bytes]) -> list[Entry]:
    """Those in the file that are whole and not ahead of so many committed episodes, summed up.

    What was left out or encoded again is there one by one. The last entry has the sum of all
    reports: those of thousands of recordings are many gigabytes.
    """
    kept: list[Entry] = []
    last, report = None, None
    for last in _entries(n_episodes, lines):
        if last.bad is not None or last.encoded_again:
            kept.append(replace(last, report=None))
        if last.report is not None:
            from dp_hub.replay.timeline import AlignmentReport

            one = AlignmentReport.from_json(last.report)
            report = one if report is None else report.then(one)
    if last is None:
        return []
    summed = None if report is None else report.to_json()
    return [*kept, replace(last, bad=None, report=summed, encoded_again={})]


def _entries(n_episodes: int, lines: Iterable[bytes]) -> Iterator[Entry]:
    with suppress(ValueError, KeyError, TypeError):
        for line in lines:
            values = json.loads(line)
            if values["episodes"] > n_episodes:
                return
            bad = values.get("bad")
            yield Entry(
                Place(**values["after"]),
                values["episodes"],
                BadEpisode(**bad) if bad else None,
                values.get("report"),
                values.get("encoded_again") or {},
            )
