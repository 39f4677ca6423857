"""One picture that shows what is in a dataset: frames, or trajectories; ranges; lengths.

It is drawn for the dataset card, where it is shown about 800 px wide. Everything is read by
seeking: some frames of some episodes, statistics from meta/. Equal content gives equal bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp_hub.dataset.columns import Feature
from dp_hub.dataset.facts import dimension_names, episode_lengths
from dp_hub.dataset.features import INDEX_DTYPES
from dp_hub.dataset.meta import Meta
from dp_hub.dataset.some_frames import data_spots, pictures_of, vectors_of, video_pictures
from dp_hub.errors import DataError

FRAMES_PER_ROW = 6
_MOST_CAMERAS = 6
_MOST_TRACES, _MOST_TRACED_DIMS = 12, 4
_KEPT_PX = 400  # shown half as large at most


@dataclass(frozen=True)
class Strip:
    """Some frames of one episode.

    Attributes:
        frames: their numbers in the episode.
        pictures: of each, uint8 (H, W, 3).
    """

    episode: int
    length: int
    frames: tuple[int, ...]
    pictures: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Camera:
    """A picture feature: its frames, row by row; no rows if its files are not here."""

    name: str
    rows: tuple[tuple[Strip, ...], ...]


@dataclass(frozen=True)
class Traces:
    """The first dimensions of a feature over time.

    Attributes:
        names: of the n dimensions that are shown, of all ``n_dimensions``.
        episodes: float64 (T, n) of some.
    """

    feature: str
    n_dimensions: int
    names: tuple[str, ...]
    episodes: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Range:
    """What values one dimension takes.

    Attributes:
        low, high: the extremes.
        q01, q99: quantiles; None where the dataset has none.
    """

    name: str
    low: float
    high: float
    q01: float | None
    q99: float | None


@dataclass(frozen=True)
class Overview:
    """All that the picture shows.

    Attributes:
        cameras: those that are drawn.
        n_more_cameras: how many there are beyond.
        traces: drawn where there are no pictures.
        ranges: of the dimensions of actions, or of the first feature where there is no action.
        ranges_of: that feature's name; "" if there are none.
        lengths: frames of each episode, int64 (E,).
    """

    fps: float
    n_frames: int
    lengths: np.ndarray
    cameras: tuple[Camera, ...]
    n_more_cameras: int
    traces: Traces | None
    ranges_of: str
    ranges: tuple[Range, ...]


def collect(meta: Meta) -> Overview:
    """Read what the picture of a dataset shows.

    Raises:
        DataError: there are no episodes, or files that are here are damaged.
    """
    table = meta.episodes(["length", "dataset_from_index", "dataset_to_index"])
    columns = {name: table.column(name).to_pylist() for name in table.schema.names}
    lengths = episode_lengths(columns)
    if not len(lengths):
        raise DataError(f"{meta.root} has no episodes to draw", hint="record at least one")
    visual = [feature for feature in meta.features.values() if feature.is_visual]
    shown = visual[:_MOST_CAMERAS]
    cameras = tuple(_camera(meta, feature, lengths, len(shown)) for feature in shown)
    main = _main_features(meta.features)
    pictured = any(camera.rows for camera in cameras)
    ranges = tuple(r for feature in main for r in _ranges(feature, meta.stats()))
    return Overview(
        fps=meta.fps,
        n_frames=int(lengths.sum()),
        lengths=lengths,
        cameras=cameras,
        n_more_cameras=len(visual) - len(shown),
        traces=None if pictured or not main else _traces(meta, main[0], lengths),
        ranges_of=", ".join(feature.name for feature in main) if ranges else "",
        ranges=ranges,
    )


def spread(total: int, wanted: int) -> list[int]:
    """At most ``wanted`` of 0..total-1, from the first to the last, evenly."""
    if wanted == 1:
        return [0] if total else []
    return sorted(set(np.rint(np.linspace(0, total - 1, min(wanted, total))).astype(int).tolist()))


def _camera(meta: Meta, feature: Feature, lengths: np.ndarray, n_cameras: int) -> Camera:
    n_rows = {1: 3, 2: 2}.get(n_cameras, 1)
    episodes = spread(len(lengths), 2 * n_rows)
    frames_each = FRAMES_PER_ROW if len(episodes) == 1 else FRAMES_PER_ROW // 2
    strips = []
    for episode in episodes:
        frames = spread(int(lengths[episode]), frames_each)
        pictures = _pictures(meta, feature, episode, frames)
        if pictures is None:
            return Camera(feature.name, ())
        small = tuple(_reduced(picture) for picture in pictures)
        strips.append(Strip(episode, int(lengths[episode]), tuple(frames), small))
    rows = tuple(tuple(strips[i : i + 2]) for i in range(0, len(strips), 2))
    return Camera(feature.name, rows)


def _pictures(
    meta: Meta, feature: Feature, episode: int, frames: Sequence[int]
) -> list[np.ndarray] | None:
    if feature.dtype == "video":
        return video_pictures(meta, feature.name, episode, frames)
    spots = data_spots(meta, [episode])
    return None if spots is None else pictures_of(spots[0], feature.name, frames)


def _reduced(picture: np.ndarray) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((_KEPT_PX, _KEPT_PX), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _main_features(features: Mapping[str, Feature]) -> list[Feature]:
    """The actions; without any, the first feature of numbers."""
    numbers = [f for f in features.values()
               if not f.is_visual and f.dtype not in ("string", "language")
               and f.name not in INDEX_DTYPES]  # fmt: skip
    actions = [
        f for f in numbers if f.name == "action" or f.name.startswith(("action.", "action_"))
    ]
    return actions or numbers[:1]


def dimension_labels(feature: Feature, count: int) -> tuple[str, ...]:
    """What to call the ``count`` values of a feature's statistics."""
    if feature.is_visual:
        return tuple(f"channel {i}" for i in range(count))
    names = dimension_names(feature.names)
    if len(names) == count:
        return names
    stem = feature.name.rsplit(".", 1)[-1]
    return (stem,) if count == 1 else tuple(f"{stem}_{i}" for i in range(count))


def _ranges(feature: Feature, stats: Mapping[str, Any]) -> list[Range]:
    entry = stats.get(feature.name)
    if not isinstance(entry, dict):
        return []
    rows = {name: stat_values(entry.get(name)) for name in ("min", "max", "q01", "q99")}
    count = len(rows["min"])
    if not count or len(rows["max"]) != count:
        return []
    labels = dimension_labels(feature, count)
    quantiles = len(rows["q01"]) == len(rows["q99"]) == count
    found = []
    for i, label in enumerate(labels):
        low, high = rows["min"][i], rows["max"][i]
        inner = (rows["q01"][i], rows["q99"][i]) if quantiles else (np.nan, np.nan)
        if np.isfinite(low) and np.isfinite(high):
            q01, q99 = (float(q) if np.isfinite(q) else None for q in inner)
            found.append(Range(label, float(low), float(high), q01, q99))
    return found


def stat_values(stored: Any) -> np.ndarray:
    """A statistic of meta/stats.json or meta/episodes as float64 (n,); NaN for what has none."""
    try:
        return np.asarray(stored if stored is not None else [], np.float64).reshape(-1)
    except (TypeError, ValueError):
        return np.zeros(0)


def _traces(meta: Meta, feature: Feature, lengths: np.ndarray) -> Traces | None:
    spots = data_spots(meta, spread(len(lengths), _MOST_TRACES))
    if spots is None:
        return None
    parts = [vectors_of(spot, feature) for spot in spots]
    size = parts[0].shape[1]
    labels = dimension_labels(feature, size)[:_MOST_TRACED_DIMS]
    return Traces(feature.name, size, labels, tuple(part[:, : len(labels)] for part in parts))
