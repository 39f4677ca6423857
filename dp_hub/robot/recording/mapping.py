"""What a robot observes and is told, as the mapping that makes datasets of its recordings.

It is an ordinary mapping file: the recorder applies it when an episode ends, and writes it beside
the raw streams, so that ``dp-hub convert folder`` with the same file, or an edited one, makes the
same dataset, or one of another rate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dp_hub.config import build
from dp_hub.replay.mapping.config import MappingConfig
from dp_hub.robot.recording.streams import INTERVENTION, RECORDING, STAGE


@dataclass(frozen=True)
class Numbers:
    """Numbers of a stream.

    Args:
        stream: ``arm/position``: the stream's name and the field's.
        latency_s: they were true so long before their time.
        size: D, how many a value has.
        rotation_at: index of the first of three that are a rotation vector; None: there is none.
        at: which of them, such as ``[0:2]``; all by default, and all where there is a rotation.
        method: ``nearest`` for what must not be mixed, such as angles that jump; by default what
            was measured is interpolated, and what was sent holds.
    """

    stream: str
    latency_s: float = 0.0
    size: int = 0
    rotation_at: int | None = None
    at: str = ""
    method: Literal["nearest"] | None = None


@dataclass(frozen=True)
class Pictures:
    """Pictures of a camera.

    Args:
        stream: the camera's name.
        latency_s: they were taken so long before their time.
        edits: ``rotate``, ``flip``, ``crop``, ``resize`` as in a mapping file.
    """

    stream: str
    latency_s: float = 0.0
    edits: Mapping[str, Any] | None = None


Feature = Pictures | Sequence[Numbers]


def recording_mapping(
    features: Mapping[str, Feature],
    *,
    fps: float,
    robot_type: str | None = None,
    stage: bool = False,
    intervention: bool = False,
) -> MappingConfig:
    """The mapping of a robot's recordings.

    Pictures are the nearest to each frame, measured numbers are interpolated, what was sent holds:
    an action is never from after its frame.

    Args:
        features: what each feature of the dataset is made of.
        fps: frames per second.
        robot_type: for the dataset.
        stage: a feature ``stage``, int64: the number that the person at the robot counted up.
        intervention: a feature ``intervention``, bool: whether a person was in control.
    Raises:
        ConfigError: a feature is not possible.
    """
    made: dict[str, Any] = {name: _feature(feature) for name, feature in features.items()}
    if stage:
        made["stage"] = {"from": STAGE.stream}
    if intervention:
        made["intervention"] = {"from": INTERVENTION.stream}
    values: dict[str, Any] = {
        "fps": fps,
        "episodes": {"split": "flag", "stream": RECORDING.stream},
        "on_gap": "keep",
        "features": made,
    }
    if robot_type:
        values["robot_type"] = robot_type
    return build(MappingConfig, values, where="the robot's observations and action")


def mapping_text(mapping: MappingConfig) -> str:
    """The mapping as a file."""
    import yaml

    values = mapping.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    head = "# Makes the dataset of these recordings: dp-hub convert folder THIS_FOLDER\n"
    head += "# --mapping mapping.yaml --to NEW; edited, one of another rate or other features.\n"
    return head + yaml.safe_dump(values, sort_keys=False)


def _feature(feature: Feature) -> dict[str, Any]:
    if isinstance(feature, Pictures):
        late = {"latency_s": feature.latency_s} if feature.latency_s else {}
        return {"from": feature.stream, "method": "nearest", **late, **(feature.edits or {})}
    terms = [term for numbers in feature for term in _terms(numbers)]
    return {"from": terms[0] if len(terms) == 1 else terms}


def _terms(numbers: Numbers) -> list[dict[str, Any]]:
    late = {"latency_s": numbers.latency_s} if numbers.latency_s else {}
    how = {"method": numbers.method} if numbers.method else {}
    plain: dict[str, Any] = {"stream": numbers.stream, **late, **how}
    if numbers.rotation_at is None or numbers.method:
        return [{**plain, "at": numbers.at} if numbers.at else plain]
    start, stop = numbers.rotation_at, numbers.rotation_at + 3
    turned = {"at": f"[{start}:{stop}]", "rotation": {"from": "rotvec", "to": "rotvec"}}
    parts = [{**plain, "at": f"[0:{start}]"}] if start else []
    parts.append({**plain, **turned})
    if stop < numbers.size:
        parts.append({**plain, "at": f"[{stop}:{numbers.size}]"})
    return parts
