"""From a robot's streams to the features of a dataset and a policy: joined, cut, made smaller."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from dp_hub.errors import ConfigError, DataError
from dp_hub.replay.mapping.picture_edits import PictureEdit
from dp_hub.replay.mapping.selection import read_selection, split_name
from dp_hub.robot.fields import Field
from dp_hub.robot.observing.align import Observation

Shape = int | tuple[int, ...]
"""Of a feature: a width, or (H, W, 3) of a picture."""


@dataclass(frozen=True)
class FeatureUse:
    """What one feature is made of.

    Args:
        parts: streams, joined in this order; ``arm.position[0:2]`` takes a part of one. A feature
            of pictures has one.
        edit: what is done to pictures.
    """

    parts: tuple[str, ...]
    edit: PictureEdit = field(default_factory=PictureEdit)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams it is made of."""
        return tuple(split_name(part)[0] for part in self.parts)


def as_features(observation: Observation, features: Mapping[str, FeatureUse]) -> Observation:
    """An observation of streams as one of features.

    Args:
        observation: from `observe`.
        features: by name; `feature_shapes` has found them possible.
    Returns:
        The same with ``values`` by feature: numbers float32 (To, D), pictures uint8 (To, H, W, 3).
    """
    values = {name: _made(observation.values, use) for name, use in features.items()}
    return replace(observation, values=values)


def feature_shapes(
    features: Mapping[str, FeatureUse], streams: Mapping[str, Field]
) -> dict[str, Shape]:
    """What each feature will be: a width, or (H, W, 3) after its edits.

    Args:
        features: by name.
        streams: by name, the field of the ring that holds it.
    Raises:
        ConfigError: no such stream or numbers, pictures joined, or an edit that does not fit.
    """
    return {name: _shape(name, use, streams) for name, use in features.items()}


def _made(streams: Mapping[str, np.ndarray], use: FeatureUse) -> np.ndarray:
    values = streams[use.streams[0]]
    if values.ndim == 4 and values.dtype == np.uint8:
        return np.stack([use.edit.apply(picture) for picture in values])
    return np.concatenate([_numbers(streams, part) for part in use.parts], axis=1)


def _numbers(streams: Mapping[str, np.ndarray], part: str) -> np.ndarray:
    name, text = split_name(part)
    taken = read_selection(text).of(streams[name], name)
    return np.asarray(taken, np.float32).reshape(len(taken), -1)


def _shape(name: str, use: FeatureUse, streams: Mapping[str, Field]) -> Shape:
    for stream in use.streams:
        if stream not in streams:
            near = difflib.get_close_matches(stream, streams, n=1)
            raise ConfigError(
                f"{name} is made of {stream}, and the robot has no such stream",
                hint=f"did you mean `{near[0]}`?" if near else f"there are {', '.join(streams)}",
            )
    pictures = [stream for stream in use.streams if streams[stream].is_picture]
    if not pictures:
        if use.edit != PictureEdit():
            raise ConfigError(f"{name} holds no pictures to turn, cut or resize")
        return sum(_width(name, part, streams) for part in use.parts)
    if len(use.parts) > 1 or split_name(use.parts[0])[1]:
        raise ConfigError(
            f"{name} is made of the pictures of {pictures[0]} and more, or of a part of them",
            hint="a feature of pictures is one stream; `crop: [top, left, height, width]` cuts it",
        )
    try:
        return use.edit.shape(streams[pictures[0]].shape, f"{name}: {pictures[0]}")
    except DataError as error:
        raise ConfigError(error.message, hint=error.hint) from None


def _width(name: str, part: str, streams: Mapping[str, Field]) -> int:
    stream, text = split_name(part)
    example = np.zeros((1, *streams[stream].shape), np.uint8)
    try:
        return int(read_selection(text).of(example, stream).size)
    except ValueError as error:
        raise ConfigError(f"{name} is made of {part}: {error}") from None
    except DataError as error:
        raise ConfigError(f"{name}: {error.message}", hint=error.hint) from None
