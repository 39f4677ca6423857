"""What a robot's configuration asks to be recorded.

Everything that its rings hold goes into the raw streams; the dataset has the features that the
configuration observes, and its action. An action is what was sent for the time of its frame.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dp_hub.replay.mapping.config import MappingConfig
from dp_hub.replay.mapping.selection import split_name
from dp_hub.robot.config import PictureFeature, RobotConfig
from dp_hub.robot.recording.mapping import Feature, Numbers, Pictures, recording_mapping
from dp_hub.robot.recording.process import RecorderJob
from dp_hub.robot.shared.ring import RingSpec
from dp_hub.robot.space import Space

_TURNED = ("rx", "ry", "rz")
_EDITS = ("rotate", "flip", "crop", "resize")


def recorder_job(
    config: RobotConfig,
    rings: Mapping[str, RingSpec],
    rates_hz: Mapping[str, float],
    to: Path,
    *,
    raw: Path | None = None,
    keep_raw: bool = True,
    source: Mapping[str, Any] | None = None,
    stage: bool = False,
    intervention: bool = False,
    **options: Any,
) -> RecorderJob:
    """The job of a robot's recorder.

    Args:
        config: of the robot.
        rings: by stream, such as ``arm``, ``arm.sent``, ``top``.
        rates_hz: of them.
        to: the dataset.
        raw: where the raw streams go; default: ``<to>.raw`` beside the dataset.
        keep_raw: whether they stay when the dataset has an episode.
        source: what is to be known of where the episodes come from, for meta/dp_hub.json.
        stage, intervention: see `recording_mapping`.
        options: ``images``, ``codec``, ``threads``: see `RecorderJob`.
    Raises:
        ConfigError: a feature is not possible.
    """
    mapping = robot_mapping(config, rings, stage=stage, intervention=intervention)
    return RecorderJob(
        rings={stream_name(name): spec for name, spec in rings.items()},
        rates_hz={stream_name(name): rate for name, rate in rates_hz.items()},
        mapping=mapping.model_dump(mode="json", exclude_defaults=True, by_alias=True),
        to=to,
        raw=raw or to.with_name(f"{to.name}.raw"),
        keep_raw=keep_raw,
        source={"robot": config.digest(), **(source or {})},
        **options,
    )


def robot_mapping(
    config: RobotConfig,
    rings: Mapping[str, RingSpec],
    *,
    stage: bool = False,
    intervention: bool = False,
) -> MappingConfig:
    """The mapping that makes datasets of a robot's raw streams. Raises ConfigError."""
    features: dict[str, Feature] = {
        name: _observed(config, rings, made_of) for name, made_of in config.observations.items()
    }
    features["action"] = [_sent(config, name) for name in config.action]
    return recording_mapping(
        features,
        fps=config.fps,
        robot_type=config.robot_type,
        stage=stage,
        intervention=intervention,
    )


def stream_name(ring: str) -> str:
    """What a ring's files are called: ``arm.sent`` is ``arm_sent``."""
    return ring.replace(".", "_")


def rotation_of(space: Space | tuple[str, ...]) -> int | None:
    """Where a rotation vector begins in a space, or among numbers with these names."""
    if isinstance(space, Space):
        return space.rotation_at
    places = [i for i in range(len(space) - 2) if space[i : i + 3] == _TURNED]
    return places[0] if places else None


def _observed(
    config: RobotConfig, rings: Mapping[str, RingSpec], made_of: list[str] | PictureFeature
) -> Feature:
    if isinstance(made_of, PictureFeature):
        edits = {key: value for key in _EDITS if (value := getattr(made_of, key))}
        return Pictures(made_of.camera, config.cameras[made_of.camera].latency_s, edits)
    return [_measured(config, rings, term) for term in made_of]


def _measured(config: RobotConfig, rings: Mapping[str, RingSpec], term: str) -> Numbers:
    stream, at = split_name(term)
    device, _, field = stream.partition(".")
    actuator = config.actuators[device]
    found = next((one for one in rings[device].fields if one.name == field), None)
    names = found.names if found else ()
    return Numbers(
        f"{device}/{field}",
        latency_s=actuator.state_latency_s,
        size=len(names),
        rotation_at=None if at else rotation_of(names),
        at=at,
        method=None if actuator.interpolate and not at else "nearest",
    )


def _sent(config: RobotConfig, name: str) -> Numbers:
    """What was sent for the time of a frame.

    A target is sent ``action_latency_s`` before it is due. Where targets step, the one of a frame
    is sent at the first tick after it; so it is looked for up to half a period later.
    """
    actuator = config.actuators[name]
    steps = actuator.interpolation == "hold"
    later_s = 0.5 / config.fps if steps else 1.0 / actuator.rate_hz
    return Numbers(f"{name}_sent/target", latency_s=later_s - actuator.action_latency_s)
