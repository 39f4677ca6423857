"""From a robot's configuration to how its streams are observed."""

from collections.abc import Mapping

from dp_hub.replay.mapping.picture_edits import PictureEdit
from dp_hub.robot.config import PictureFeature, RobotConfig
from dp_hub.robot.fields import Field
from dp_hub.robot.observing.align import StreamUse
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

    Pictures and whole readings are taken as they were measured, the nearest in time.
    """
    uses = {}
    for name in dict.fromkeys(name for use in features.values() for name in use.streams):
        device = name.partition(".")[0]
        if device in config.cameras:
            seen = config.cameras[device]
            latency_s, limit_s = seen.latency_s, seen.max_age_s
        else:
            latency_s = config.actuators[device].state_latency_s
            limit_s = config.actuators[device].max_age_s
        uses[name] = StreamUse(
            device, streams[name].name, "nearest", latency_s=latency_s, max_age_s=limit_s
        )
    return uses
