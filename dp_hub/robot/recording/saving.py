"""Recorded episodes into a dataset, one by one, each durable before the next."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dp_hub.dataset.lock import WriterLock
from dp_hub.errors import DataError
from dp_hub.files import finish_replacing, remove_folder, replace_folder, write_draft
from dp_hub.replay.episode import Episode
from dp_hub.replay.mapping.apply import episodes_of
from dp_hub.replay.mapping.check import feature_names
from dp_hub.replay.mapping.config import MappingConfig
from dp_hub.replay.recording import Recording
from dp_hub.replay.timeline.grid import SAME_S
from dp_hub.robot.recording.fitting import Fit, fits_of, without_times
from dp_hub.robot.recording.mapping import mapping_text
from dp_hub.robot.recording.raw_folder import RawFolder
from dp_hub.robot.recording.reading import read_raw, units_of
from dp_hub.robot.recording.streams import RECORDING

if TYPE_CHECKING:
    from dp_hub.dataset.features import ImageMode
    from dp_hub.dataset.writer import DatasetWriter, Written

MAPPING = "mapping.yaml"


@dataclass(frozen=True)
class Saved:
    """An episode that the dataset has now.

    Args:
        name: of its recording.
        n_episodes: of the dataset.
        n_frames: of the episode.
        n_missing: frames at its beginning or end for which a stream was not there.
        fits: by feature, how far its values are from the frames.
    """

    name: str
    n_episodes: int
    n_frames: int
    n_missing: int
    fits: Mapping[str, Fit]

    @property
    def off_grid(self) -> dict[str, int]:
        """By feature, how many frames are farther than half a period from their values."""
        return {name: fit.outside for name, fit in self.fits.items() if fit.outside}


class EpisodeSaver:
    """Makes a dataset of recorded episodes, or adds them to one.

    Args:
        to: the dataset's folder; continued if it exists.
        mapping: of `dp_hub.robot.recording.mapping.recording_mapping`.
        raw: where the recorded streams lie.
        source: what is to be known of where the episodes come from, for meta/dp_hub.json.
        images, codec: how pictures are stored, as of `dp_hub.dataset.convert.convert`.
        threads: that encode pictures.
    Raises:
        DataError: what is at ``to`` is no dataset, has other features or another rate, or somebody
            else is writing it.
    """

    def __init__(
        self,
        to: Path,
        mapping: MappingConfig,
        raw: RawFolder,
        *,
        source: Mapping[str, Any] | None = None,
        images: "ImageMode" = "auto",
        codec: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.to, self.mapping, self._raw = Path(os.path.realpath(to)), mapping, raw
        self._source, self._images, self._codec = dict(source or {}), images, codec
        self._threads = threads
        self._writer: DatasetWriter | None = None
        self._lock = WriterLock(self.to)
        try:
            finish_replacing(self.to)
            if self.to.exists():
                self._resume()
            self.told = self._tidy()
            """Sentences about what a killed recorder had left."""
        except BaseException:
            self.close()
            raise

    @property
    def n_episodes(self) -> int:
        """Episodes that the dataset has."""
        return self._writer.n_episodes if self._writer else 0

    def next_number(self) -> int:
        """Of the next recording."""
        return max(self._raw.next_number(), self.n_episodes)

    def add(self, recorded: Path) -> Saved:
        """Add a complete recording; when this returns, it is in the dataset whatever happens.

        Raises:
            DataError: it does not become an episode of this dataset; its streams are kept.
            dp_hub.dataset.writer.WriteError: the disk is full; likewise.
        """
        recording = read_raw(recorded)
        episode, fits = self._episode(recording)
        if self._writer is None:
            self._writer = self._create(episode, recording, recorded)
        self._writer.add_episode(episode)
        missing = int(episode.metadata.get("missing_frames", 0))
        saved = Saved(recording.name, self._writer.n_episodes, episode.length, missing, fits)
        self._raw.settled(recorded)
        return saved

    def drop_last(self, name: str) -> None:
        """Take the last episode out of the dataset, and remove its recording.

        Args:
            name: of its recording, to be sure.
        Raises:
            DataError: the last episode is another one.
        """
        from dp_hub.dataset.reader import open_dataset

        if self._writer is None:
            raise DataError(f"{self.to} has no episodes to drop")
        metadata = open_dataset(self.to).episodes.metadata
        last = metadata[-1].get("recording") if metadata else None
        if last != name:
            raise DataError(
                f"the last episode of {self.to} is {last}, not {name}",
                hint=f"dp-hub edit {self.to} --delete N --to NEW leaves any episode out",
            )
        self._writer.close()
        self._writer = None
        if len(metadata) == 1:
            remove_folder(self.to)
        else:
            self._without_last(len(metadata) - 1)
            self._resume()
        self._raw.drop(self._raw.path / name)

    def finish(self) -> "Written | None":
        """Complete the dataset: whole files, exact statistics, card. None without episodes."""
        written = None
        if self._writer is not None and self._writer.n_episodes:
            written = self._writer.finish()
        self.close()
        return written

    def close(self) -> None:
        """Let go of the dataset as it is."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._raw.remove_if_empty()
        self._lock.release()

    def _episode(self, recording: Recording) -> tuple[Episode, dict[str, Fit]]:
        timed = self.mapping.model_copy(update={"keep_times": True})
        found = list(episodes_of(recording, timed))
        if len(found) != 1:
            raise DataError(f"{recording.name} becomes {len(found)} episodes")
        fits = fits_of(found[0], recording, timed, start_s=found[0].metadata["start_s"])
        data = found[0].data if self.mapping.keep_times else without_times(found[0].data)
        metadata = dict(found[0].metadata)
        if outside := {name: fit.outside for name, fit in fits.items() if fit.outside}:
            metadata["off_grid"] = outside
        if missing := self._asked_for(recording) - found[0].length:
            metadata["missing_frames"] = missing
        return replace(found[0], data=data, metadata=metadata), fits

    def _asked_for(self, recording: Recording) -> int:
        """How many frames there are from the beginning to the end of a recording."""
        assert self.mapping.fps is not None
        started_s, stopped_s = recording.streams[RECORDING.stream].times_s
        return math.ceil((stopped_s - started_s - SAME_S) * self.mapping.fps)

    def _create(self, episode: Episode, recording: Recording, recorded: Path) -> "DatasetWriter":
        from dp_hub.dataset.features import plan_columns
        from dp_hub.dataset.writer import DatasetWriter

        assert self.mapping.fps is not None
        names = {key: stream.names for key, stream in recording.streams.items() if stream.names}
        columns = plan_columns(
            episode.data,
            images=self._images,
            codec=self._codec,
            names=feature_names(self.mapping, names),
        )
        mapping = self.mapping.model_dump(mode="json", exclude_defaults=True, by_alias=True)
        return DatasetWriter(
            self.to,
            columns,
            fps=self.mapping.fps,
            robot_type=self.mapping.robot_type,
            source={**self._source, "units": units_of(recorded), "mapping": mapping},
            threads=self._threads,
            lock=self._lock,
        )

    def _resume(self) -> None:
        from dp_hub.dataset.writer import DatasetWriter

        writer = DatasetWriter.resume(self.to, threads=self._threads, lock=self._lock)
        self._writer = writer
        there, ours = {c.feature for c in writer.columns}, set(self.mapping.features)
        if writer.fps != self.mapping.fps or there != ours:
            raise DataError(
                f"{self.to} has {', '.join(sorted(there))} at {writer.fps:g} fps; this robot "
                f"records {', '.join(sorted(ours))} at {self.mapping.fps:g}",
                hint="record into a new folder",
            )

    def _without_last(self, number: int) -> None:
        from dp_hub.dataset.editing import Edit, edit

        draft = self.to.with_name(f".{self.to.name}.dropping")
        remove_folder(draft)
        edit([self.to], draft, Edit(delete=str(number)))
        replace_folder(draft, self.to)

    def _tidy(self) -> list[str]:
        """See to what a killed recorder has left; add what was complete."""
        if not self._raw.path.is_dir():
            return []
        told = self._raw.tidy()
        for recorded in self._raw.pending():
            if recorded.name in self._names_there():
                self._raw.settled(recorded)
                continue
            try:
                self.add(recorded)
                told.append(f"{recorded.name} was recorded but not yet in the dataset: now it is")
            except DataError as error:
                told.append(f"{recorded.name} is left out of the dataset: {error.message}")
                self._raw.refused(recorded)
        return told

    def _names_there(self) -> set[str]:
        if self._writer is None or not self._writer.n_episodes:
            return set()
        from dp_hub.dataset.reader import open_dataset

        return {str(m.get("recording")) for m in open_dataset(self.to).episodes.metadata}


def write_mapping(raw: RawFolder, mapping: MappingConfig) -> None:
    """Write the mapping beside the raw streams."""
    write_draft(raw.path / MAPPING, mapping_text(mapping).encode())
