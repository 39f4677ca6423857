"""Diffusion Policy's zarr replay buffer: ``data/<key>`` arrays and ``meta/episode_ends``."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from dp_hub.replay.buffer import ReplayBuffer, is_replay, open_replay
from dp_hub.replay.episode import Episode
from dp_hub.replay.source import Source

_NO_ACTION = (
    "no action is stored; where it is the next pose, as in UMI's buffers, say so in a mapping: "
    "`action: {next: observation.state}`, and give the camera's rate with --fps"
)


class ReplayZarr:
    """Reads a folder or a .zip, zarr v2 or v3.

    Args:
        missing_chunks: ``"fill"`` takes chunks that are not stored for the fill value.
    """

    name = "zarr"
    summary = (
        "Diffusion Policy's replay buffer, a .zarr folder or .zarr.zip; UMI's, with pip install "
        '"dp_hub[jpegxl]"'
    )

    def __init__(self, *, missing_chunks: Literal["error", "fill"] = "error") -> None:
        self._missing = missing_chunks
        self._opened: ReplayBuffer | None = None

    def recognises(self, path: Path) -> bool:
        """Whether there are data/ and meta/episode_ends, at the root or one folder down."""
        return is_replay(path) and not (path / "videos").is_dir()

    def describe(self, path: Path) -> Source:
        """What the replay buffer holds. Raises DataError where it does not hold together."""
        buffer = self._open(path)
        notes = [
            f"{key}: {n} chunks are not stored, read as fill" for key, n in buffer.filled.items()
        ]
        notes += [f"meta/{key} is not per episode: left out" for key in buffer.unplaced_metadata()]
        if not any(key.rpartition("/")[2].startswith("action") for key in buffer):
            notes.append(_NO_ACTION)
        return Source(
            dtypes={key: buffer.dtype(key).name for key in buffer},
            n_episodes=buffer.n_episodes,
            n_frames=buffer.n_steps,
            attrs=buffer.attrs,
            notes=tuple(notes),
        )

    def episodes(
        self, path: Path, *, drop: Collection[str] = (), start: int = 0
    ) -> Iterator[Episode]:
        """Its episodes from number ``start`` on; what meta/ says of each is the metadata (``task``
        becomes the task)."""
        buffer = self._open(path)
        keys = [key for key in buffer if key not in drop]
        pictures = [k for k in keys if buffer.dtype(k).kind == "f" and len(buffer.shape(k)) == 3]
        episodes = buffer.episodes(keys, compact=pictures, start=start)
        for data, facts in zip(episodes, buffer.episode_metadata()[start:], strict=True):
            yield Episode(data, task=facts.pop("task", None), metadata=facts)

    def _open(self, path: Path) -> ReplayBuffer:
        if self._opened is None or self._opened.path != path:
            self._opened = open_replay(path, missing=self._missing)
        return self._opened
