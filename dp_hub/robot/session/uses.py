"""From a robot's configuration to how its streams are observed."""

from collections.abc import Mapping

from dp_hub.replay.mapping.picture_edits import PictureEdit
from dp_hub.robot.config import PictureFeature, RobotConfig
from dp_hub.robot.fields import Field
from dp_hub.robot.observing.align import Method, StreamUse
from dp_hub.robot.observing.features import FeatureUse


def feature_uses(config: RobotConfig) -> dict[str, FeatureUse]:
    """What each feature is made of."""
    return {name: _feature(made_of) for name, made_of in config.observations.items()}


def _feature(made_of: list[str] | PictureFeature) -> FeatureUse:
    if not isinstance(made_of, PictureFeature):
        return FeatureUse(tuple(made_of))
    edit = PictureEdit("rgb", made_of.rotate, made_of.flip, made_of.crop, made_of.resize)
    return FeatureUse((made_of.camera,), edit)


def stream_uses(
    config: RobotConfig, features: Mapping[str, FeatureUse], streams: Mapping[str, Field]
) -> dict[str, StreamUse]:
    """How the streams of these features are put onto observed steps.

    Pictures are the nearest in time; so are readings, unless the configuration interpolates them.
    """
    uses = {}
    for name in dict.fromkeys(name for use in features.values() for name in use.streams):
        device = name.partition(".")[0]
        if device in config.cameras:
            seen = config.cameras[device]
            method: Method = "nearest"
            rotation_at = None
            latency_s, limit_s = seen.latency_s, seen.max_age_s
        else:
            read = config.actuators[device]
            method, rotation_at = _between(streams[name]) if read.interpolate else ("nearest", None)
            latency_s, limit_s = read.state_latency_s, read.max_age_s
        uses[name] = StreamUse(
            device,
            streams[name].name,
            method,
            latency_s=latency_s,
            max_age_s=limit_s,
            rotation_at=rotation_at,
        )
    return uses


def _between(field: Field) -> tuple[Method, int | None]:
    """How readings of a field are interpolated: rotation vectors are known by their names."""
    if field.dtype not in ("float32", "float64"):
        return "nearest", None
    return "linear" if field.rotation_at is None else "slerp", field.rotation_at
