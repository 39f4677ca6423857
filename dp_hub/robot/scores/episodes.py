"""Scores of a dataset's recorded episodes, each by whatever the dataset can be scored by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dp_hub.dataset.reader import Dataset
from dp_hub.errors import DataError
from dp_hub.robot.scores.pictures import REAL_PUSHT, ColourRange, mask_of, overlap

_STATE = 5  # numbers of PushT's state: agent x, y, block x, y, angle


@dataclass(frozen=True)
class EpisodeScore:
    """One episode.

    Args:
        episode: its number in the dataset.
        seed: of its start, where it was told.
        frames: how many.
        success: as it was told, or found by coverage; None: not known.
        iou: intersection over union with the reference in the last frame; None: not measured.
        max_reward: of simulated PushT, the highest coverage over 0.95, at most 1.
    """

    episode: int
    seed: int | None
    frames: int
    success: bool | None = None
    iou: float | None = None
    max_reward: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Reference:
    """What the last frame should look like.

    Args:
        mask: bool (H, W).
        about: where it is from, for people.
    """

    mask: np.ndarray
    about: str


def score_episodes(
    dataset: Dataset,
    *,
    success_key: str = "success",
    block: str | None = None,
    reference: Reference | None = None,
    feature: str | None = None,
    colours: ColourRange = REAL_PUSHT,
    seeds: range | None = None,
) -> list[EpisodeScore]:
    """Score every episode.

    Args:
        dataset: opened.
        success_key: of the episodes' metadata.
        block: feature with PushT's block pose, (3,), or whole state, (5,); see `find_block`.
        reference: pictures' last frames are compared with it.
        feature: of the pictures; default: the only one.
        colours: of the object.
        seeds: only episodes with one of these seeds.
    Raises:
        DataError: there is nothing to score by, no such feature, or no such episodes.
    """
    scorers: list[Callable[[int, slice], Mapping[str, Any]]] = []
    if block is not None:
        scorers.append(_block_scorer(dataset, block))
    if reference is not None:
        scorers.append(_picture_scorer(dataset, feature, reference, colours))
    metadata = dataset.episodes.metadata or [{} for _ in range(dataset.n_episodes)]
    told = [_flag(facts.get(success_key), success_key) for facts in metadata]
    if not scorers and all(one is None for one in told):
        raise DataError(
            f"{dataset.root} has nothing to score by: no episode says `{success_key}`, and no "
            "reference was given",
            hint="--reference PICTURE.png or --reference DATASET#EPISODE compares last frames; "
            "--success-key names another fact of the episodes",
        )
    scores = []
    for number in _chosen(dataset, metadata, seeds):
        rows = slice(int(dataset.episodes.starts[number]), int(dataset.episodes.stops[number]))
        found: dict[str, Any] = {}
        for scorer in scorers:
            found |= scorer(number, rows)
        if told[number] is not None:
            found["success"] = told[number]
        seed = _seed(metadata[number])
        scores.append(EpisodeScore(number, seed, rows.stop - rows.start, **found))
    return scores


def find_block(dataset: Dataset) -> str | None:
    """The feature that PushT's block pose is read from; None if the dataset is of another robot."""
    if dataset.info.get("robot_type") != "pusht":
        return None
    for name, feature in dataset.features.items():
        bare = name.rpartition(".")[2]
        if feature.shape == (_STATE,) and bare == "state":
            return name
        if feature.shape == (3,) and bare in ("block", "block_pose"):
            return name
    return None


def read_reference(text: str, feature: str | None, colours: ColourRange) -> Reference:
    """A reference: the file of a picture, or ``DATASET#EPISODE`` for the last frame of one.

    Raises:
        DataError: there is none.
    """
    name, mark, number = text.rpartition("#")
    if mark:
        return Reference(mask_of(_last_frame(name, number, feature), colours), text)
    path = Path(text)
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            picture = np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(
            f"{path} cannot be read as a picture: {error}",
            hint="a reference is a picture's file, or DATASET#EPISODE",
        ) from None
    return Reference(mask_of(picture, colours), text)


def parse_seeds(text: str) -> range:
    """``100000-100049`` or ``7`` as a range. Raises DataError."""
    first, _, last = text.partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError:
        found = range(0)
    if not found:
        raise DataError(f"{text!r} are no seeds", hint="give the first and the last: 100000-100049")
    return found


def _last_frame(name: str, number: str, feature: str | None) -> np.ndarray:
    from dp_hub.dataset.reader import open_dataset

    dataset = open_dataset(name)
    if not number.isdigit() or int(number) >= dataset.n_episodes:
        raise DataError(f"{name} has no episode {number}: there are {dataset.n_episodes}")
    pictures = dataset.column(_picture_feature(dataset, feature))
    return np.array(pictures[int(dataset.episodes.stops[int(number)]) - 1])


def _block_scorer(dataset: Dataset, name: str) -> Callable[[int, slice], Mapping[str, Any]]:
    from dp_hub.envs.pusht.physics import SUCCESS_COVERAGE, coverage_of

    poses = np.asarray(dataset.column(name), np.float64)
    if poses.ndim != 2 or poses.shape[1] not in (3, _STATE):
        raise DataError(
            f"{name} has the shape {list(poses.shape[1:])}; a block pose has 3 numbers, a state 5"
        )

    def score(number: int, rows: slice) -> Mapping[str, Any]:
        covered = [coverage_of(*pose) for pose in poses[rows, -3:].tolist()]
        most, last = max(covered), covered[-1]
        # Both are the T: of one that covers a share c of the other, the union is 2 - c.
        iou = last / (2 - last)
        reward = min(most / SUCCESS_COVERAGE, 1.0)
        return {"iou": iou, "max_reward": reward, "success": most > SUCCESS_COVERAGE}

    return score


def _picture_scorer(
    dataset: Dataset, feature: str | None, reference: Reference, colours: ColourRange
) -> Callable[[int, slice], Mapping[str, Any]]:
    pictures = dataset.column(_picture_feature(dataset, feature))

    def score(number: int, rows: slice) -> Mapping[str, Any]:
        last = np.asarray(pictures[rows.stop - 1])
        return {"iou": overlap(mask_of(last, colours), reference.mask)}

    return score


def _picture_feature(dataset: Dataset, feature: str | None) -> str:
    visual = [name for name, one in dataset.features.items() if one.is_visual]
    if feature is not None:
        if feature not in visual:
            raise DataError(
                f"{dataset.root} has no pictures called {feature!r}",
                hint=f"it has: {', '.join(visual) or 'none'}",
            )
        return feature
    if len(visual) != 1:
        raise DataError(
            f"{dataset.root} has {len(visual)} features of pictures"
            + (f": {', '.join(visual)}" if visual else ""),
            hint="say which with --feature",
        )
    return visual[0]


def _chosen(
    dataset: Dataset, metadata: Sequence[Mapping[str, Any]], seeds: range | None
) -> list[int]:
    if seeds is None:
        return list(range(dataset.n_episodes))
    chosen = [number for number, facts in enumerate(metadata) if _seed(facts) in seeds]
    if not chosen:
        raise DataError(
            f"{dataset.root} has no episode with a seed from {seeds[0]} to {seeds[-1]}",
            hint="without --seeds all are scored",
        )
    return chosen


def _seed(facts: Mapping[str, Any]) -> int | None:
    seed = facts.get("seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def _flag(value: Any, key: str) -> bool | None:
    """A fact as yes or no: true, false, 1, 0; None without one. Raises DataError: it is neither."""
    if value is None or value in (0, 1):
        return None if value is None else bool(value)
    raise DataError(
        f"`{key}` of an episode is {value!r}, neither yes nor no",
        hint="--success-key names a fact of the episodes that is true or false",
    )
