"""From observations, as a robot or a dataset gives them, to one vector of numbers per step."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dp_hub.errors import PolicyError
from dp_hub.models.normalizer import Normalizer
from dp_hub.models.vision import VisionEncoder
from dp_hub.policies.config import CameraConfig, VisionConfig
from dp_hub.policies.selection import Selection, Shape, selected_features

SHARED = "shared"


def is_picture(shape: Shape) -> bool:
    """Whether a feature of this shape is a picture."""
    return not isinstance(shape, int)


def number_widths(features: Mapping[str, Shape]) -> dict[str, int]:
    """The features that are numbers, with their widths: those a normaliser is about."""
    return {name: shape for name, shape in features.items() if isinstance(shape, int)}


class ObservationEncoder(nn.Module):
    """Numbers and pictures side by side, in the order of the selections.

    Without pictures it has no weights.

    Args:
        selections: what is observed.
        features: shape of every feature observed.
        vision: of the networks that see the pictures: one per camera, or one for all.
    Raises:
        PolicyError: a feature is missing or too narrow, or cameras that share weights differ.
    """

    def __init__(
        self,
        selections: Sequence[Selection],
        features: Mapping[str, Shape],
        *,
        vision: VisionConfig,
    ) -> None:
        super().__init__()
        self.selections = tuple(selections)
        self.names = tuple(selected_features(self.selections))
        pictures = {name: features[name] for name in self.names if is_picture(features[name])}
        self.cameras = nn.ModuleDict(make_cameras(pictures, vision))
        self._shared = vision.share_weights
        self.widths = [
            self._camera(one.name).out_dim
            if one.name in pictures and one.whole
            else one.width(features)
            for one in self.selections
        ]

    @property
    def out_dim(self) -> int:
        """Do: numbers per step."""
        return sum(self.widths)

    def forward(self, observations: Mapping[str, Tensor]) -> Tensor:
        """One vector per step.

        Args:
            observations: normalised numbers float (B, T, D); pictures uint8 (B, T, H, W, 3).
        Returns:
            float32 (B, T, Do).
        """
        parts = []
        for one in self.selections:
            value = observations[one.name]
            parts.append(self._see(one.name, value) if value.ndim == 5 else one.take(value))
        return torch.cat(parts, dim=-1)

    def _see(self, name: str, pictures: Tensor) -> Tensor:
        # Every frame goes through the network on its own, and is cropped on its own.
        seen = self._camera(name)(pictures.flatten(0, 1))
        return seen.float().unflatten(0, pictures.shape[:2])

    def _camera(self, name: str) -> VisionEncoder:
        camera = self.cameras[camera_key(name, shared=self._shared)]
        assert isinstance(camera, VisionEncoder), name
        return camera


def make_cameras(pictures: Mapping[str, Shape], vision: CameraConfig) -> dict[str, VisionEncoder]:
    """What sees each picture, by `camera_key`.

    Raises:
        PolicyError: cameras that share weights have pictures of different sizes, and they are not
            resized to one.
    """
    # Without a choice of pooling nobody pools: the average has no weights to go untrained.
    options = {"pool": "average"} | vision.model_dump(exclude={"resize", "crop", "share_weights"})
    sizes = {name: shape[:2] for name, shape in pictures.items() if not isinstance(shape, int)}

    def camera(size: tuple[int, int] | None) -> VisionEncoder:
        return VisionEncoder(size, crop_hw=vision.crop, resize_hw=vision.resize, **options)

    if not vision.share_weights:
        return {camera_key(name, shared=False): camera(size) for name, size in sizes.items()}
    each = set(sizes.values())
    if len(each) > 1 and vision.resize is None:
        raise PolicyError(
            f"cameras that share weights have pictures of different sizes: {sizes}",
            hint="set vision.resize, or vision.share_weights to false",
        )
    return {SHARED: camera(each.pop() if len(each) == 1 else None)} if each else {}


def normalised(normalizer: Normalizer, observations: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Numbers normalised, pictures as they are."""
    return {
        name: normalizer.normalize(name, value) if name in normalizer else value
        for name, value in observations.items()
    }


def checked(
    observations: Mapping[str, Tensor],
    features: Mapping[str, Shape],
    names: Sequence[str],
    *,
    n_obs_steps: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """What a policy observes, on its device: numbers float32 (B, To, D), pictures uint8.

    Raises:
        PolicyError: an observation is missing, misshapen, or a picture is not uint8.
    """
    result: dict[str, Tensor] = {}
    for name in names:
        if name not in observations:
            raise PolicyError(
                f"the policy observes {name}, which was not given",
                hint=f"given: {', '.join(observations) or 'nothing'}",
            )
        value = torch.as_tensor(observations[name])
        shape = features[name]
        dims = (shape,) if isinstance(shape, int) else shape
        if value.ndim != 2 + len(dims) or tuple(value.shape[1:]) != (n_obs_steps, *dims):
            expected = ", ".join(str(size) for size in (n_obs_steps, *dims))
            raise PolicyError(
                f"{name} has shape {tuple(value.shape)}, expected (B, {expected}): "
                f"a batch of {n_obs_steps} observed steps"
            )
        if is_picture(shape) and value.dtype != torch.uint8:
            raise PolicyError(
                f"{name} is {value.dtype}, expected torch.uint8: pictures of 0 to 255",
                hint="give the pictures as the camera does; the policy scales them itself",
            )
        result[name] = value.to(device, value.dtype if is_picture(shape) else torch.float32)
    return result


def camera_key(name: str, *, shared: bool) -> str:
    """Under which name a module holds what sees the pictures of feature ``name``."""
    return SHARED if shared else name.replace(".", "__")  # torch takes a dot for a submodule
