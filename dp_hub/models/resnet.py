"""ResNet18 (He et al. 2016) without its classifier, in plain torch.

Parameters carry torchvision's names (``layer1.0.downsample.0.weight``), so weights trained with
torchvision fit by name, and torchvision need not be installed. Diffusion Policy puts GroupNorm in
the place of BatchNorm, whose running statistics an average of weights would not follow.
"""

from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dp_hub.errors import DataError

Norm = Literal["group", "batch"]
CHANNELS_PER_GROUP = 16
WIDTHS = (64, 128, 256, 512)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a residual path, over float (N, C, H, W)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = _norm(norm, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = _norm(norm, channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                _norm(norm, channels_out),
            )
            if stride > 1 or channels_in != channels_out
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """float (N, channels_out, H / stride, W / stride), rounded up."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """Pictures to a map of 512 features at a 32nd of their size.

    Args:
        norm: ``group`` (16 channels to a group) or ``batch``.
    """

    out_channels = WIDTHS[-1]

    def __init__(self, norm: Norm = "group") -> None:
        super().__init__()
        self.norm = norm
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = _norm(norm, WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], 1, norm)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], 2, norm)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], 2, norm)
        self.layer4 = _stage(WIDTHS[2], WIDTHS[3], 2, norm)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """float (N, 512, ceil(H / 32), ceil(W / 32)) of normalised pictures (N, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def load_resnet(network: ResNet18, path: str | Path) -> None:
    """Weights of torchvision's ``resnet18``, into ``network``.

    The classifier ``fc`` is left out. With group norm so are the running statistics; the norms'
    scales and shifts are taken over.

    Args:
        network: changed in place, only if everything fits.
        path: a safetensors file with torchvision's names.
    Raises:
        DataError: no such file, or a weight that is missing, not known, or misshapen.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot read the weights in {path}: {error}") from None
    ignored = STATISTICS if network.norm == "group" else ()
    weights = {
        name: value
        for name, value in weights.items()
        if not name.startswith("fc.") and not name.endswith(ignored)
    }
    _check_weights(weights, network.state_dict(), path)
    network.load_state_dict(weights)


def _check_weights(given: dict[str, Tensor], own: dict[str, Tensor], path: str | Path) -> None:
    hint = "it should hold the state dict of torchvision's resnet18, as safetensors"
    if missing := [name for name in own if name not in given]:
        raise DataError(f"{path} lacks {len(missing)} weights, first {missing[0]}", hint=hint)
    if unknown := sorted(name for name in given if name not in own):
        raise DataError(
            f"{path} holds {len(unknown)} weights a ResNet18 does not have, first {unknown[0]}",
            hint=hint,
        )
    for name, value in own.items():
        if given[name].shape != value.shape:
            raise DataError(
                f"{name} in {path} is {tuple(given[name].shape)}, not {tuple(value.shape)}",
                hint=hint,
            )


def _stage(channels_in: int, channels_out: int, stride: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(channels_in, channels_out, stride, norm),
        BasicBlock(channels_out, channels_out, 1, norm),
    )


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)
