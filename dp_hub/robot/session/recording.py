"""What is recorded of a session: all its streams raw, and its features on the robot's grid."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dp_hub.errors import ConfigError
from dp_hub.replay.mapping.selection import split_name
from dp_hub.robot.config import PictureFeature
from dp_hub.robot.recording.mapping import Feature, Numbers, Pictures, recording_mapping
from dp_hub.robot.recording.process import RecorderJob
from dp_hub.robot.session.session import Session

NO_RAW = "none"


def recorder_job(
    session: Session,
    to: Path,
    raw: str | None,
    *,
    source: Mapping[str, Any],
    stage: bool = False,
    intervention: bool = False,
) -> RecorderJob:
    """What a recorder of this session does.

    Args:
        session: on.
        to: the dataset, made or continued.
        raw: folder of the raw streams; None: beside the dataset, ``none``: they are not kept.
        source: what is to be known of where the episodes come from.
        stage, intervention: record these as features.
    """
    config = session.config
    mapping = recording_mapping(
        {**_observed(session), "action": _action(session)},
        fps=config.fps,
        robot_type=config.robot_type,
        stage=stage,
        intervention=intervention,
    )
    names = {name: _file_name(name) for name in session.rings}
    beside = to.with_name(f"{to.name}.raw")
    return RecorderJob(
        rings={names[name]: ring.spec for name, ring in session.rings.items()},
        rates_hz={names[name]: hz for name, hz in session.parts.rates_hz.items()},
        mapping=mapping.model_dump(mode="json", exclude_defaults=True, by_alias=True),
        to=to,
        sent=frozenset(names[f"{name}.sent"] for name in config.actuators),
        raw=beside if raw in (None, NO_RAW) else Path(raw),
        keep_raw=raw != NO_RAW,
        source=dict(source),
    )


def _file_name(ring: str) -> str:
    return ring.replace(".", "_")


def _observed(session: Session) -> dict[str, Feature]:
    config = session.config
    made: dict[str, Feature] = {}
    for name, made_of in config.observations.items():
        if isinstance(made_of, PictureFeature):
            edits = made_of.model_dump(exclude={"camera"}, exclude_defaults=True, mode="json")
            latency_s = config.cameras[made_of.camera].latency_s
            made[name] = Pictures(made_of.camera, latency_s, edits)
        else:
            made[name] = [_numbers(session, term) for term in made_of]
    return made


def _numbers(session: Session, term: str) -> Numbers:
    stream, at = split_name(term)
    device, _, field = stream.partition(".")
    given = session.streams[stream]
    if len(given.shape) != 1:
        raise ConfigError(f"`{stream}` is no list of numbers: {list(given.shape)}")
    actuator = session.config.actuators[device]
    return Numbers(
        f"{device}/{field}",
        actuator.state_latency_s,
        size=given.shape[0],
        rotation_at=None if at else given.rotation_at,
        at=at,
        method=None if actuator.interpolate else "nearest",
    )


def _action(session: Session) -> Feature:
    return [
        Numbers(
            f"{_file_name(f'{name}.sent')}/target",
            _sent_late_s(session, name) - session.config.actuators[name].action_latency_s,
            size=space.size,
        )
        for name, space in session.spaces.items()
    ]


def _sent_late_s(session: Session, name: str) -> float:
    """How much later than a frame its target may have been sent: at the first tick after it.

    Where targets step, the one of a frame holds for a period: half of it later there is no doubt
    which one it is, however late the tick.
    """
    config = session.config
    actuator = config.actuators[name]
    return 0.5 / config.fps if actuator.interpolation == "hold" else 1.0 / actuator.rate_hz
