"""Pictures to a few numbers: crop, ResNet18, and a pooling that keeps where things are.

Two encoders of Diffusion Policy are within reach: robomimic's, which the paper's image policies
use (random crop, ResNet18 with GroupNorm, spatial softmax, a linear layer to 64 numbers, which its
encoder of observations puts through a ReLU), and the one of its real robots (ResNet18, average
pooling, 512 numbers).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from dp_hub.errors import ConfigError, PolicyError
from dp_hub.models.resnet import Norm, ResNet18, load_resnet

Pool = Literal["spatial_softmax", "average"]
Normalization = Literal["minus_one_one", "imagenet"]
Size = tuple[int, int]  # height and width, pixels

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class SpatialSoftmax(nn.Module):
    """Expected places of ``n_keypoints`` learned features (Finn et al. 2016), temperature 1.

    Args:
        channels: of the feature map.
        n_keypoints: K.
    """

    def __init__(self, channels: int, n_keypoints: int = 32) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, n_keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float (N, K, 2): x (across) and y (down), -1 to 1, of a map (N, channels, H, W)."""
        maps = self.nets(x)
        height, width = maps.shape[-2:]
        attention = maps.flatten(2).softmax(dim=-1).view_as(maps)
        across = torch.linspace(-1, 1, width, device=x.device, dtype=attention.dtype)
        down = torch.linspace(-1, 1, height, device=x.device, dtype=attention.dtype)
        # Sums rather than a matrix product: under autocast those stay in float32.
        place_x = (attention.sum(dim=2) * across).sum(dim=-1)
        place_y = (attention.sum(dim=3) * down).sum(dim=-1)
        return torch.stack([place_x, place_y], dim=-1)


def random_crop(pictures: Tensor, size: Size) -> Tensor:
    """A crop of every picture at a place of its own, from torch's default generator.

    All places are equally likely, the last ones included (the original's never draws those).

    Args:
        pictures: (N, C, H, W) of any dtype.
        size: (h, w), no larger than H, W.
    Returns:
        (N, C, h, w).
    """
    n, _, full_height, full_width = pictures.shape
    height, width = size
    device = pictures.device
    top = torch.randint(full_height - height + 1, (n,), device=device)
    left = torch.randint(full_width - width + 1, (n,), device=device)
    crops = pictures.unfold(2, height, 1).unfold(3, width, 1)  # a view: (N, C, tops, lefts, h, w)
    return crops[torch.arange(n, device=device), :, top, left]


def center_crop(pictures: Tensor, size: Size) -> Tensor:
    """The middle (N, C, h, w) of pictures (N, C, H, W); halves round as torchvision's do."""
    top, left = (
        round((full - part) / 2) for full, part in zip(pictures.shape[-2:], size, strict=True)
    )
    return pictures[..., top : top + size[0], left : left + size[1]]


class VisionEncoder(nn.Module):
    """uint8 pictures to float features; the defaults are robomimic's encoder without a crop.

    Args:
        image_hw: height and width of the pictures, pixels; None for any that are then resized.
        crop_hw: what a crop keeps, at random in training and the middle in evaluation; None for
            no crop.
        resize_hw: size before the crop, antialiased; None to leave the pictures as they are.
        pool: ``spatial_softmax`` gives ``feature_dim`` numbers, ``average`` 512.
        n_keypoints: of the spatial softmax.
        feature_dim: out of the linear layer after the spatial softmax.
        output_relu: a ReLU behind that layer.
        norm: of the ResNet; with ``batch`` an average of weights only copies its statistics.
        normalization: of the pixels: to [-1, 1], by ImageNet's mean and deviation, or by the given
            ``mean`` and ``std`` per colour, of pixels 0 to 1.
    Raises:
        ConfigError: a crop larger than the pictures.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        image_hw: Size | None,
        *,
        crop_hw: Size | None = None,
        resize_hw: Size | None = None,
        pool: Pool = "spatial_softmax",
        n_keypoints: int = 32,
        feature_dim: int = 64,
        output_relu: bool = True,
        norm: Norm = "group",
        normalization: Normalization | Mapping[str, Sequence[float]] = "minus_one_one",
    ) -> None:
        super().__init__()
        full = resize_hw or image_hw
        assert full is not None, "pictures of any size must be resized"
        if crop_hw is not None and (crop_hw[0] > full[0] or crop_hw[1] > full[1]):
            raise ConfigError(
                f"a crop of {crop_hw[0]} x {crop_hw[1]} pixels does not fit into pictures of "
                f"{full[0]} x {full[1]} (height x width)"
            )
        self.image_hw = None if image_hw is None else tuple(image_hw)
        self.resize_hw = resize_hw
        self.crop_hw = None if crop_hw is None or tuple(crop_hw) == tuple(full) else crop_hw
        self.backbone = ResNet18(norm)
        self.pool = _pool(pool, n_keypoints, feature_dim, output_relu)
        self.out_dim = feature_dim if pool == "spatial_softmax" else ResNet18.out_channels
        scale, shift = _pixel_scale(normalization)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """float (N, out_dim) of images, uint8 (N, H, W, 3). Raises PolicyError as `feature_map`."""
        return self.pool(self.feature_map(images))

    def feature_map(self, images: Tensor) -> Tensor:
        """What is pooled, float (N, 512, h, w), of images, uint8 (N, H, W, 3).

        Raises:
            PolicyError: not uint8, or of another size.
        """
        expected = self.image_hw or tuple(images.shape[1:3])
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != (*expected, 3):
            size = "H, W" if self.image_hw is None else f"{expected[0]}, {expected[1]}"
            raise PolicyError(
                f"pictures are {images.dtype} {tuple(images.shape)}, expected torch.uint8 (N, "
                f"{size}, 3)"
            )
        return self.backbone(self.prepare(images))

    def prepare(self, images: Tensor) -> Tensor:
        """What the ResNet sees: float (N, 3, h, w), resized, cropped and normalised."""
        x = images.permute(0, 3, 1, 2)
        if self.resize_hw is not None:
            x = nn.functional.interpolate(
                x.to(self.scale), self.resize_hw, mode="bilinear", antialias=True
            )
        if self.crop_hw is not None:  # while still bytes, where there was nothing to resize
            x = (random_crop if self.training else center_crop)(x, self.crop_hw)
        # Channels-last was measured with group norm on a CPU, and is no faster there.
        x = x.to(self.scale.dtype, memory_format=torch.contiguous_format)
        return torch.addcmul(self.shift, x, self.scale)


def load_torchvision(encoder: VisionEncoder, path: str | Path) -> None:
    """Give ``encoder`` the weights of torchvision's ``resnet18``, from a safetensors file.

    Raises:
        DataError: as `dp_hub.models.resnet.load_resnet`.
    """
    load_resnet(encoder.backbone, path)


def _pool(kind: Pool, n_keypoints: int, feature_dim: int, relu: bool) -> nn.Module:
    if kind == "average":
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(
        SpatialSoftmax(ResNet18.out_channels, n_keypoints),
        nn.Flatten(),  # x and y of each keypoint side by side
        nn.Linear(2 * n_keypoints, feature_dim),
        nn.ReLU() if relu else nn.Identity(),
    )


def _pixel_scale(given: Normalization | Mapping[str, Sequence[float]]) -> tuple[Tensor, Tensor]:
    """``scale`` and ``shift``, float32 (3, 1, 1), of ``byte * scale + shift``."""
    if given == "minus_one_one":
        mean, std = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.5)
    else:
        named = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} if isinstance(given, str) else given
        mean, std = (torch.tensor(named[one]).view(3, 1, 1) for one in ("mean", "std"))
    return 1 / (255 * std), -mean / std
