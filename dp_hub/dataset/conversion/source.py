"""What a conversion reads: a source's episodes or recordings in order, and what becomes of each.

Everything that says how to read is plain values in a `Reading`, so that several processes can read
the same source, each with a converter of its own.
"""

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dp_hub.dataset.conversion.formats import load_converter
from dp_hub.dataset.conversion.journal import BadEpisode, Place
from dp_hub.dataset.preparing import StoredEpisode
from dp_hub.dataset.writer import WriteError
from dp_hub.errors import DataError
from dp_hub.replay.episode import Episode
from dp_hub.replay.recording import Recording
from dp_hub.replay.source import Converter, RecordingConverter, Source

_SAME_FAILURES = 20


@dataclass(frozen=True)
class Found:
    """An episode of the source. ``recording``: the name of the one it is from."""

    place: Place
    episode: Episode
    recording: str | None = None


@dataclass(frozen=True)
class Stored:
    """An episode, ready to be written."""

    place: Place
    episode: StoredEpisode


@dataclass(frozen=True)
class Bad:
    """An episode, or the rest of a recording, that is left out."""

    place: Place
    episode: BadEpisode


@dataclass(frozen=True)
class Ended:
    """Nothing more comes of a recording. ``report``: how its streams were followed."""

    item: int
    report: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Reading:
    """How to read a source.

    Args:
        format_name: an installed format.
        options: its own options.
        path: where the source is.
        drop: keys that are not needed.
        source_fps: rows per second, where the source says.
        mapping: the mapping's plain values, None without one.
        skip_bad: what cannot be read is left out instead of ending the conversion.
        n_items: how many episodes or recordings there are, None if that is not known.
    """

    format_name: str
    options: Mapping[str, Any]
    path: Path
    drop: frozenset[str] = frozenset()
    source_fps: float | None = None
    mapping: Mapping[str, Any] | None = None
    skip_bad: bool = False
    n_items: int | None = None

    def reader(self, converter: Converter | RecordingConverter | None = None) -> "Reader":
        """With a converter of its own, or the one that is open already."""
        return Reader(self, converter or load_converter(self.format_name, self.options))


def has_recordings(converter: Converter | RecordingConverter) -> bool:
    """Whether a format's streams each have times of their own."""
    return hasattr(converter, "recordings")


def describe(converter: Converter | RecordingConverter, path: Path, *, skip_bad: bool) -> Source:
    """What is at ``path``. Formats that can tell in spite of bad files are asked to."""
    method: Callable[..., Source] = converter.describe
    if skip_bad and "skip_bad" in inspect.signature(method).parameters:
        return method(path, skip_bad=True)
    return method(path)


@dataclass
class Reader:
    """Reads a source from any place on."""

    reading: Reading
    converter: Any
    _mapping: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.reading.mapping is not None:
            from dp_hub.replay.mapping.config import MappingConfig

            self._mapping = MappingConfig.model_validate(self.reading.mapping)

    @property
    def splits(self) -> bool:
        """Whether a recording may give many episodes."""
        return self._mapping is not None and self._mapping.episodes.split != "recording"

    def read(self, start: Place, n_items: int | None = None) -> Iterator[Found | Bad | Ended]:
        """What is in the source from ``start`` on, in at most so many of its items.

        Raises:
            DataError: something cannot be read, and `Reading.skip_bad` is not set.
        """
        recordings = has_recordings(self.converter)
        enter: Callable[[int], Iterator[Any]]
        enter = self._recordings if recordings else self._episodes
        for number, item in itertools.islice(self._each(enter, start.item), n_items):
            first = start.part if number == start.item else 0
            if isinstance(item, DataError):
                if first == 0:
                    yield self._bad(Place(number), item)
                if recordings:
                    yield Ended(number)
            elif recordings:
                yield from self._parts(number, item, first)
            else:
                yield self._episode(number, item)

    def _each(self, enter: Callable[[int], Iterator[Any]], start: int) -> Iterator[tuple[int, Any]]:
        """The items with their numbers, or why there is none; then it is entered behind that."""
        number, told, same, last = start, "", 0, self.reading.n_items
        while True:
            try:
                for item in enter(number):
                    yield number, item
                    number, same = number + 1, 0
                return
            except WriteError:
                raise
            except DataError as error:
                same = same + 1 if str(error) == told else 0
                told = str(error)
                # Where nobody knows how many there are, what always fails would never end.
                if not self.reading.skip_bad or (last is None and same >= _SAME_FAILURES):
                    raise
                yield number, error
            number += 1
            if last is not None and number >= last:
                return

    def _episodes(self, start: int) -> Iterator[Episode]:
        reading = self.reading
        episodes: Iterator[Episode] = self.converter.episodes(
            reading.path, drop=reading.drop, start=start
        )
        return episodes

    def _recordings(self, start: int) -> Iterator[Recording]:
        only = self._mapping.streams()
        recordings: Iterator[Recording] = self.converter.recordings(
            self.reading.path, only=only, start=start
        )
        return recordings

    def _episode(self, number: int, episode: Episode) -> Found | Bad:
        if self._mapping is None:
            return Found(Place(number), episode)
        from dp_hub.replay.mapping.apply import mapped_episode

        try:
            return Found(
                Place(number), mapped_episode(episode, self._mapping, self.reading.source_fps)
            )
        except DataError as error:
            return self._bad(Place(number), error, _source_of(episode))

    def _parts(
        self, number: int, recording: Recording, first: int
    ) -> Iterator[Found | Bad | Ended]:
        """The episodes that become of a recording, from part ``first`` on, and its report."""
        from dp_hub.replay.mapping.apply import episodes_of

        report, part = _Report(), 0
        try:
            for episode in episodes_of(recording, self._mapping, report=report):
                if part >= first:
                    metadata = {"recording": recording.name, **episode.metadata}
                    named = replace(episode, metadata=metadata)
                    yield Found(Place(number, part), named, recording.name)
                part += 1
        except DataError as error:
            if part >= first:
                yield self._bad(Place(number, part), error, recording.name)
        yield Ended(number, report.to_json())

    def _bad(self, place: Place, error: DataError, source: str | None = None) -> Bad:
        if not self.reading.skip_bad:
            raise error
        noun = "recording" if has_recordings(self.converter) else "episode"
        name = source or f"{noun} {place.item}"
        return Bad(place, BadEpisode(place.item, name, error.message))


class _Report:
    """Adds the reports of a recording up."""

    def __init__(self) -> None:
        self._sum: Any = None

    def __call__(self, report: Any) -> None:
        self._sum = report if self._sum is None else self._sum.then(report)

    def to_json(self) -> dict[str, Any] | None:
        """As plain values; None if there was none."""
        return None if self._sum is None else self._sum.to_json()


def prepared(
    outcomes: Iterable[Found | Bad | Ended],
    prepare: Callable[[Episode, int], StoredEpisode],
    *,
    task: str | None,
    skip_bad: bool,
) -> Iterator[Stored | Bad | Ended]:
    """Episodes made ready to be written; what cannot be is bad, too.

    Args:
        outcomes: from `Reader.read`.
        prepare: `dp_hub.dataset.preparing.Preparer.prepare`.
        task: of episodes whose source does not say.
        skip_bad: as of `Reading`.
    Raises:
        DataError: an episode does not fit into the dataset, and ``skip_bad`` is not set.
    """
    for outcome in outcomes:
        if not isinstance(outcome, Found):
            yield outcome
            continue
        place, episode = outcome.place, outcome.episode
        episode = Episode(episode.data, episode.task or task, episode.metadata)
        try:
            stored = prepare(episode, place.part if outcome.recording else place.item)
        except WriteError:
            raise
        except DataError as error:
            told = error
            if outcome.recording:
                told = DataError(f"{outcome.recording}: {error.message}", hint=error.hint)
            if not skip_bad:
                raise told from None
            name = outcome.recording or _source_of(episode) or f"episode {place.item}"
            yield Bad(place, BadEpisode(place.item, name, error.message))
        else:
            yield Stored(place, stored)


def _source_of(episode: Episode) -> str | None:
    """Where the source says that an episode is from."""
    source = episode.metadata.get("source")
    return source if isinstance(source, str) else None


def after(outcome: Stored | Bad | Ended, *, recordings: bool) -> Place:
    """Where the source goes on behind an outcome."""
    if isinstance(outcome, Ended):
        return Place(outcome.item + 1)
    place = outcome.place
    return Place(place.item, place.part + 1) if recordings else Place(place.item + 1)
