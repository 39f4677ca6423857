"""What a conversion was asked for, remembered beside what it has written, so that it can go on.

The episodes converted so far are in ``.<name>.partial`` beside the target, the request in the first
line of ``.<name>.partial.json``, the journal in the others. Only the same request on the same
source continues.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp_hub.dataset.conversion.journal import Done, Journal, entries_up_to, lines_of
from dp_hub.dataset.episodes_io import open_folder
from dp_hub.dataset.writer import WriteError
from dp_hub.errors import DataError
from dp_hub.files import discard, remove_folder, write_atomic

log = logging.getLogger(__name__)


_MOST_TOLD = 5  # settings that have changed


class StoppedError(DataError):
    """The work was ended from outside, not by its source; what is committed is kept."""


def signature(source: Path) -> dict[str, list[int]]:
    """Size and time of change of every file of a source, by name: cheap, and changes with them."""
    paths = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    return {
        path.relative_to(source).as_posix(): [status.st_size, status.st_mtime_ns]
        for path in paths
        for status in [os.stat(path)]
    }


def _differences(place: str, was: Any, now: Any) -> Iterator[str]:
    """What is not the same in two settings, with its place: ``mapping.fps was 30, is 20``."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*now, *(key for key in was if key not in now)]:
            inner = f"{place}.{key}" if place else str(key)
            yield from _differences(inner, was.get(key), now.get(key))
    elif was != now:
        yield f"{place} was {was!r}, is {now!r}"


@dataclass(frozen=True)
class Request:
    """What to convert, how, and where to.

    Args:
        target: the dataset folder to make.
        settings: everything that decides about the result, as plain values.
        source: from `signature`.
    """

    target: Path
    settings: Mapping[str, Any]
    source: Mapping[str, list[int]]

    @property
    def work(self) -> Path:
        """Where episodes are written until all are."""
        return self.target.with_name(f".{self.target.name}.partial")

    @property
    def _note(self) -> Path:
        return self.target.with_name(f".{self.target.name}.partial.json")

    def done(self) -> Done:
        """What an interrupted conversion has committed; nothing if there was none.

        Call it, and work, with the target locked.

        Raises:
            DataError: it had other settings, or its source has changed since.
        """
        if not self.work.exists():
            discard(self._note)
            return Done()
        before = self._read_request()
        restart = f"remove {self.work} to start again"
        if before.get("settings") != json.loads(json.dumps(self.settings)):
            was, now = before.get("settings") or {}, json.loads(json.dumps(self.settings))
            changed = list(_differences("", was, now))
            more = f" and {len(changed) - _MOST_TOLD} more" if len(changed) > _MOST_TOLD else ""
            seen = ", ".join(changed[:_MOST_TOLD] or ["settings"]) + more
            raise DataError(
                f"an interrupted conversion to {self.target} was asked for something else: {seen}",
                hint=f"ask for the same to continue it, or {restart}",
            )
        if before.get("source") != self.source:
            raise DataError(
                f"{self.settings['source']} has changed since its conversion to {self.target} was "
                "interrupted",
                hint=f"half of the dataset would be of the old source: {restart}",
            )
        n_episodes = int(open_folder(self.work).info["total_episodes"])
        with self._note.open("rb") as file:
            file.readline()
            return Done(n_episodes, entries_up_to(n_episodes, file))

    def _read_request(self) -> dict[str, Any]:
        try:
            with self._note.open("rb") as file:
                before = json.loads(file.readline())
        except (OSError, ValueError):
            return {}
        return before if isinstance(before, dict) else {}

    def remember(self, done: Done) -> Journal:
        """Write the request and the journal so far down. Call with the target locked."""
        request = json.dumps({"settings": self.settings, "source": self.source})
        write_atomic(self._note, f"{request}\n".encode() + lines_of(done.entries))
        return Journal(self._note)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Around the work: keep what is committed if it is stopped, remove it if it cannot be.

        A source that does not hold together has to be mended, and is another source then.
        """
        try:
            yield
        except (WriteError, StoppedError, KeyboardInterrupt, SystemExit):
            if self.work.exists():
                log.warning(
                    "%d episodes are converted; the same command goes on from there",
                    open_folder(self.work).info["total_episodes"],
                )
            else:
                log.warning("nothing was converted yet")
                discard(self._note)
            raise
        except DataError:
            remove_folder(self.work)
            discard(self._note)
            raise
        discard(self._note)
