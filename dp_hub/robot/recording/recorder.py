"""Records episodes of a running robot: one object, polled by whoever has the time.

Reading rings and handing pictures to encoders happens in `poll`, which never waits. What takes
longer, completing an episode and adding it to the dataset, happens in a thread, one episode after
the other, while the next may be recorded already.
"""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dp_hub.errors import DpHubError, RobotError
from dp_hub.robot.recording.raw_episode import RawEpisode
from dp_hub.robot.recording.raw_folder import RawFolder
from dp_hub.robot.recording.saving import EpisodeSaver, Saved, write_mapping
from dp_hub.robot.recording.state import RecorderState
from dp_hub.robot.recording.streams import StreamSource, check_sources

SETTLE_S = 1.0  # how long after its end an episode waits for the last sample of each stream


class Recorder:
    """Records one episode at a time.

    Args:
        sources: the streams.
        raw: where they are stored.
        saver: of the dataset; the recorder finishes it.
    Raises:
        ConfigError: two streams have one name.
        RobotError: the raw folder cannot be made.
    """

    def __init__(
        self, sources: Sequence[StreamSource], raw: RawFolder, saver: EpisodeSaver
    ) -> None:
        check_sources(sources)
        self._sources, self._raw, self._saver = list(sources), raw, saver
        self._episode: RawEpisode | None = None
        self._facts: dict[str, Any] = {}
        self._number, self._attempts = saver.next_number(), 0
        self._kept: list[str] = []  # of this session, in the dataset or on their way
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._saved: set[str] = set()
        self._failure: Exception | None = None
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        for sentence in saver.told:
            self._told.put(sentence)
        self._thread = threading.Thread(target=self._work, name="save episodes", daemon=True)
        self._thread.start()

    @property
    def state(self) -> RecorderState:
        """What it is doing."""
        episode = self._episode
        lost = sum(one.missed + one.dropped for one in episode.losses.values()) if episode else 0
        return RecorderState(
            recording=self._raw.place(self._number).name if episode else None,
            since_s=episode.start_s if episode else None,
            saving=self._jobs.unfinished_tasks,
            n_episodes=self._saver.n_episodes,
            lost=lost,
            backlog=episode.backlog if episode else 0,
        )

    def told(self) -> list[str]:
        """Sentences for the person since the last call: what was saved, lost, or went wrong."""
        sentences = []
        while not self._told.empty():
            sentences.append(self._told.get())
        return sentences

    def start(self, start_s: float, facts: Mapping[str, Any] | None = None) -> str:
        """Begin an episode.

        Args:
            start_s: its first frame.
            facts: about it that JSON can hold; ``task`` is what is to be done.
        Returns:
            The name of its recording.
        Raises:
            RobotError: one is being recorded.
        """
        if self._episode is not None:
            if self._episode.stop_s is None:
                raise RobotError("an episode is being recorded already", hint="stop it first")
            self._hand_over()
        self._facts = dict(facts or {})
        self._attempts += 1
        folder = self._raw.growing(self._number, self._attempts)
        self._episode = RawEpisode(folder, self._sources, start_s=start_s)
        return self._raw.place(self._number).name

    def mark(self, event: str, value: Any, time_s: float) -> None:
        """Tell of an event, such as ``stage`` 1; between episodes nothing is recorded of it."""
        if self._episode is not None and self._episode.stop_s is None:
            self._episode.mark(event, value, time_s)

    def poll(self, now_s: float) -> None:
        """Take what has come; call it some 20 times a second.

        Raises:
            RobotError: the episode cannot be written; it is given up, those before it are kept.
        """
        if self._failure is not None:
            raise self._failure
        episode = self._episode
        if episode is None:
            return
        try:
            episode.take()
        except RobotError:
            self.give_up()
            raise
        late = episode.stop_s is not None and now_s >= episode.stop_s + SETTLE_S
        if episode.is_over or late:
            self._hand_over()

    def stop(self, stop_s: float, facts: Mapping[str, Any] | None = None) -> None:
        """End the episode then; it is saved as soon as all streams have come so far.

        Args:
            stop_s: no frame is then or later.
            facts: more about it, such as ``success``.
        Raises:
            RobotError: none is being recorded.
        """
        if self._episode is None or self._episode.stop_s is not None:
            raise RobotError("no episode is being recorded", hint="start one first")
        self._facts |= facts or {}
        self._episode.end(stop_s)

    def give_up(self) -> None:
        """Throw away the episode that is being recorded."""
        episode, self._episode = self._episode, None
        if episode is not None:
            self._jobs.put(lambda: self._throw_away(episode))

    def drop_last(self) -> str | None:
        """Drop the episode that is being recorded, else the last one of this session.

        Returns:
            Its name; None if there is none. What was saved is out of the dataset once `state` says
            that nothing is on its way.
        """
        if self._episode is not None:
            self.give_up()
            return self._raw.place(self._number).name
        if not self._kept:
            return None
        name = self._kept.pop()
        self._jobs.put(lambda: self._drop(name))
        return name

    def wait(self) -> None:
        """Until nothing is on its way."""
        self._jobs.join()

    def close(self, *, finish: bool = True) -> Any:
        """Wait for what is on its way, and complete the dataset.

        Args:
            finish: False leaves the dataset as it is, valid but in many files. What is being
                recorded is thrown away; or else kept as what a killed recorder leaves.
        Returns:
            `dp_hub.dataset.writer.Written`; None without episodes, or if it is not finished.
        Raises:
            DataError: as `EpisodeSaver.finish`.
        """
        if self._episode is not None and self._episode.stop_s is not None:
            self._hand_over()  # it is over; its last samples have not all come
        if finish:
            self.give_up()
        elif self._episode is not None and self._episode.stop_s is not None:
            self._hand_over()  # it is over, though its last samples may be on their way
        elif self._episode is not None:
            self._episode.abandon()
            self._episode = None
        self._jobs.put(None)
        self._thread.join()
        if finish:
            return self._saver.finish()
        self._saver.close()
        return None

    def _hand_over(self) -> None:
        """Let the thread complete and save the episode."""
        episode, self._episode = self._episode, None
        assert episode is not None
        place, facts = self._raw.place(self._number), self._facts
        self._number += 1
        self._kept.append(place.name)
        self._jobs.put(lambda: self._save(episode, place, facts))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except (DpHubError, OSError) as error:
                self._told.put(str(error))
            except Exception as error:  # noqa: BLE001 - it goes on in the thread that polls
                self._failure = error
            finally:
                self._jobs.task_done()

    def _save(self, episode: RawEpisode, place: Path, facts: Mapping[str, Any]) -> None:
        try:
            episode.finish(place, facts)
        except RobotError:
            self._throw_away(episode)
            raise
        write_mapping(self._raw, self._saver.mapping)
        for name, one in episode.losses.items():
            self._told.put(
                f"{place.name}: of {name}, {one.missed} samples were missed and {one.dropped} "
                "pictures dropped: the computer was too slow"
            )
        try:
            saved = self._saver.add(place)
        except DpHubError:
            self._raw.refused(place)
            raise
        self._saved.add(saved.name)
        self._told.put(_sentence(saved))

    def _drop(self, name: str) -> None:
        if name not in self._saved:
            self._told.put(f"{name} was not saved, so there is nothing to drop")
            return
        self._saver.drop_last(name)
        self._told.put(f"{name} is dropped")

    def _throw_away(self, episode: RawEpisode) -> None:
        episode.abandon()
        self._raw.drop(episode.folder)


def _sentence(saved: Saved) -> str:
    """What became of an episode."""
    parts = [f"{saved.name}: {saved.n_frames} frames saved"]
    if saved.n_missing:
        parts.append(f"{saved.n_missing} left out, for which a stream or an action was not there")
    for feature, count in saved.off_grid.items():
        worst_ms = 1000 * saved.fits[feature].worst_s
        parts.append(
            f"{count} are farther from {feature} than half a period, up to {worst_ms:.0f} ms"
        )
    return "; ".join(parts)
