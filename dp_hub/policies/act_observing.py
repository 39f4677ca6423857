"""What ACT is given of its observations: two vectors of numbers, and maps of what cameras see."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dp_hub.models.act import Observed
from dp_hub.models.resnet import ResNet18
from dp_hub.models.vision import VisionEncoder
from dp_hub.policies.config import CameraConfig
from dp_hub.policies.observing import camera_key, is_picture, make_cameras
from dp_hub.policies.selection import Selection, Shape, selected_features


class ActObserver(nn.Module):
    """Sorts observations into the robot's state, the environment's, and feature maps.

    Without pictures it has no weights.

    Args:
        selections: what is observed.
        features: shape of every feature observed.
        environment: names of the features that tell of the environment.
        vision: of the networks that see the pictures: one per camera, or one for all.
    Raises:
        PolicyError: a feature is missing or too narrow, or cameras that share weights differ.
    """

    def __init__(
        self,
        selections: Sequence[Selection],
        features: Mapping[str, Shape],
        *,
        environment: Sequence[str],
        vision: CameraConfig,
    ) -> None:
        super().__init__()
        self.names = tuple(selected_features(selections))
        pictures = {name: features[name] for name in self.names if is_picture(features[name])}
        numbers = [one for one in selections if one.name not in pictures or not one.whole]
        self._state = [one for one in numbers if one.name not in environment]
        self._environment = [one for one in numbers if one.name in environment]
        self._pictures = tuple(pictures)
        self._shared = vision.share_weights
        self.cameras = nn.ModuleDict(make_cameras(pictures, vision))
        self.state_dim = sum(one.width(features) for one in self._state)
        self.environment_dim = sum(one.width(features) for one in self._environment)
        self.map_channels = ResNet18.out_channels if pictures else 0

    def forward(self, observations: Mapping[str, Tensor]) -> Observed:
        """What the network is given.

        Args:
            observations: normalised numbers float (B, 1, D); pictures uint8 (B, 1, H, W, 3).
        """
        return Observed(
            state=_joined(self._state, observations),
            environment=_joined(self._environment, observations),
            maps=[self._see(name, observations[name][:, 0]) for name in self._pictures],
        )

    def _see(self, name: str, pictures: Tensor) -> Tensor:
        camera = self.cameras[camera_key(name, shared=self._shared)]
        assert isinstance(camera, VisionEncoder), name
        return camera.feature_map(pictures)


def _joined(selections: Sequence[Selection], observations: Mapping[str, Tensor]) -> Tensor | None:
    if not selections:
        return None
    return torch.cat([one.take(observations[one.name])[:, 0] for one in selections], dim=-1)
