"""Before anything moves: does the robot give what the policy observes, and take what it answers?"""

import math
from collections.abc import Mapping, Sequence

from dp_hub.errors import RobotError
from dp_hub.robot.fields import Field
from dp_hub.robot.observing.features import FeatureUse, Shape, feature_shapes
from dp_hub.robot.space import Space


def check_observed(
    wanted: Mapping[str, Shape],
    features: Mapping[str, FeatureUse],
    streams: Mapping[str, Field],
) -> None:
    """Does the robot give what the policy observes?

    Args:
        wanted: by feature that the policy observes, its shape: a width or (H, W, 3).
        features: what the configuration makes of the robot's streams; more than is wanted is fine.
        streams: by name, the field of the ring that holds it.
    Raises:
        RobotError: a feature is missing, has another width, or pictures of another size.
        ConfigError: as `feature_shapes`.
    """
    given = feature_shapes(features, streams)
    for name, shape in wanted.items():
        if name not in given:
            made = ", ".join(f"{one} ({_told(its)})" for one, its in given.items()) or "nothing"
            raise RobotError(
                f"the policy observes {name} ({_told(shape)}); the robot gives {made}",
                hint=_how(name, shape, streams),
            )
        if given[name] != shape:
            parts = ", ".join(features[name].parts)
            raise RobotError(
                f"the policy observes {name} with {_told(shape)}; the robot makes "
                f"{_told(given[name])} of {parts}",
                hint=_how(name, shape, streams),
            )


def check_action(width: int, actuators: Mapping[str, Space]) -> None:
    """Raises RobotError if the policy's actions have another width than the robot's targets.

    Args:
        width: Da of the policy.
        actuators: by name, in the order in which they take their numbers of an action.
    """
    total = sum(space.size for space in actuators.values())
    if total == width:
        return
    each = "; ".join(f"{name} {', '.join(one.names)}" for name, one in actuators.items())
    raise RobotError(
        f"the policy's actions are {width} numbers; the robot takes {total}: {each}",
        hint="put into the config the arms and grippers it was trained on, in that order, in the "
        "space that it was recorded in",
    )


def split_action(width_of: Sequence[int]) -> list[slice]:
    """Which numbers of an action are whose, for actuators of these widths."""
    ends = [sum(width_of[: i + 1]) for i in range(len(width_of))]
    return [slice(end - width, end) for width, end in zip(width_of, ends, strict=True)]


def _told(shape: Shape) -> str:
    if isinstance(shape, int):
        return f"{shape} number{'s' if shape != 1 else ''}"
    return f"pictures of {'x'.join(str(size) for size in shape)}"


def _how(name: str, shape: Shape, streams: Mapping[str, Field]) -> str:
    """What to put into the configuration, as far as that can be known."""
    if isinstance(shape, int):
        numbers = [
            f"{one} ({_size(field)})" for one, field in streams.items() if not field.is_picture
        ]
        return (
            f"put `{name}: [STREAM, ...]` under `observations` in the config, with the streams "
            f"whose numbers it was trained on; there are {', '.join(numbers) or 'none'}"
        )
    cameras = [
        f"{one} ({field.shape[0]}x{field.shape[1]})"
        for one, field in streams.items()
        if field.is_picture
    ]
    return (
        f"put `{name}: {{camera: CAMERA, resize: [{shape[0]}, {shape[1]}]}}` under `observations` "
        "in the config, with the `crop` it was recorded with; there are "
        f"{', '.join(cameras) or 'none'}"
    )


def _size(field: Field) -> int:
    return math.prod(field.shape)
