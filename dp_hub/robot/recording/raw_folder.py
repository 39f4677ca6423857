"""Where the recorded episodes of a dataset lie, and what is done about those that were cut off.

``episode_000000``, ``episode_000001`` ... are complete. One that is being recorded, or was when its
recorder was killed, is hidden; what can be read of it is then kept in ``.cut_off``, beside the
others but not among them: no conversion takes half an episode for a whole one.
"""

import json
import os
import re
import shutil
from pathlib import Path

from dp_hub.files import remove_folder, write_draft
from dp_hub.robot.recording.flushing import STREAMS
from dp_hub.robot.recording.raw_episode import PENDING, complete
from dp_hub.robot.recording.tables import GROWING, growing_rows, is_begun
from dp_hub.robot.recording.video import SUFFIX, cut_video

CUT_OFF = ".cut_off"
_EPISODE = re.compile(r"episode_(\d{6,})")


class RawFolder:
    """The recorded episodes of one dataset.

    Args:
        path: the folder; made when it is needed.
        keep: False removes each episode when the dataset has it.
    """

    def __init__(self, path: Path, *, keep: bool = True) -> None:
        self.path, self._keep = path, keep

    def episodes(self) -> list[Path]:
        """The complete ones, in order."""
        if not self.path.is_dir():
            return []
        found = [p for p in self.path.iterdir() if _EPISODE.fullmatch(p.name)]
        return sorted(found, key=_number)

    def pending(self) -> list[Path]:
        """Those that the dataset may not have yet."""
        return [path for path in self.episodes() if (path / PENDING).exists()]

    def next_number(self) -> int:
        """Of the next episode."""
        found = self.episodes()
        return _number(found[-1]) + 1 if found else 0

    def place(self, number: int) -> Path:
        """Where an episode lies."""
        return self.path / f"episode_{number:06d}"

    def growing(self, number: int, attempt: int) -> Path:
        """Where it lies while it is recorded, the so manieth time of this session."""
        return self.path / f".recording_{number:06d}_{attempt}"

    def settled(self, episode: Path) -> None:
        """The dataset has it."""
        if self._keep:
            (episode / PENDING).unlink(missing_ok=True)
        else:
            remove_folder(episode)

    def refused(self, episode: Path) -> None:
        """The dataset cannot take it: it stays, and is not tried again."""
        (episode / PENDING).unlink(missing_ok=True)

    def drop(self, episode: Path) -> None:
        """Remove an episode."""
        remove_folder(episode)

    def tidy(self) -> list[str]:
        """See to what a killed recorder has left. Returns a sentence for each.

        Only while nobody records into the folder.
        """
        told = []
        for trash in self.path.glob("*.trash"):
            shutil.rmtree(trash, ignore_errors=True)
        for partial in sorted(self.path.glob(".recording_*")):
            if (partial / PENDING).exists():  # complete but for its name
                os.rename(partial, self.place(int(partial.name.split("_")[1])))
            else:
                told.append(_salvaged(partial, self.path / CUT_OFF, keep=self._keep))
        return told

    def remove_if_empty(self) -> None:
        """Remove the folder if no episode is in it."""
        if self.path.is_dir() and not self.episodes() and not (self.path / CUT_OFF).exists():
            shutil.rmtree(self.path)


def _salvaged(partial: Path, into: Path, *, keep: bool) -> str:
    """Keep what can be read of an episode that was cut off."""
    if not keep:
        shutil.rmtree(partial)
        return "an episode that was cut off while it was recorded is gone: no raw streams are kept"
    rows = {p.name.removesuffix(GROWING): growing_rows(p) for p in partial.glob(f"*{GROWING}")}
    for video in partial.glob(f"*{SUFFIX}"):
        rows[video.stem] = cut_video(video, rows.get(video.stem, 0))
    if not any(rows.values()) or not (partial / STREAMS).exists():
        shutil.rmtree(partial)
        return "of an episode that was cut off while it was recorded nothing can be read"
    _leave_out(partial, [p for p in partial.glob(f"*{GROWING}") if not is_begun(p)])
    complete(partial, {"cut_off": True}, rows)
    (partial / PENDING).unlink()
    into.mkdir(exist_ok=True)
    name = f"episode_{partial.name.split('_')[1]}"
    place = next(p for k in range(1_000_000) if not (p := into / f"{name}_{k}").exists())
    os.rename(partial, place)
    return (
        f"an episode was cut off while it was recorded; what there is of it is kept in {place}, "
        "the dataset does not have it"
    )


def _leave_out(partial: Path, empty: list[Path]) -> None:
    """Of tables that were not begun when the first of them had rows: no one looks for them."""
    if not empty:
        return
    names = {growing.name.removesuffix(GROWING) for growing in empty}
    about = json.loads((partial / STREAMS).read_bytes())
    about["streams"] = {k: one for k, one in about["streams"].items() if k not in names}
    about["events"] = [one for one in about["events"] if one not in names]
    write_draft(partial / STREAMS, json.dumps(about).encode())
    for growing in empty:
        growing.unlink()


def _number(path: Path) -> int:
    match = _EPISODE.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])
