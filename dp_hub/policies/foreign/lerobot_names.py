"""LeRobot's names for the weights of its Diffusion Policy, and ours for the same, both ways.

Facts about LeRobot's modules (0.4.4): a residual block's convolutions are ``conv1`` and ``conv2``;
a picture encoder is torchvision's ResNet18 as a sequence of its first eight children, a 1x1
convolution to keypoints (``pool.nets``) whose grid is stored too (``pool.pos_grid``), a linear
layer (``out``) and a ReLU. With one encoder for all cameras it is ``rgb_encoder``, else
``rgb_encoder.<number of the camera>``.
"""

import re
from collections.abc import Sequence

_CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
_OURS_CHILDREN = {str(number): name for name, number in _CHILDREN.items()}
_GRID = ".pool.pos_grid"


def our_name(name: str, cameras: Sequence[str]) -> str | None:
    """Our name for a weight of LeRobot's; None for one that is not needed.

    Args:
        name: such as ``diffusion.unet.mid_modules.0.conv1.block.0.weight``.
        cameras: our names of the encoders, in LeRobot's order.
    Raises:
        KeyError: there is nothing of the kind here.
    """
    if name.startswith("diffusion.unet."):
        inner = name.removeprefix("diffusion.unet.")
        return "denoiser." + re.sub(
            r"\.conv([12])\.", lambda found: f".blocks.{int(found[1]) - 1}.", inner
        )
    found = re.fullmatch(r"diffusion\.rgb_encoder\.(?:(\d+)\.)?([a-z_]+\..+)", name)
    if found is None or int(found[1] or 0) >= len(cameras):
        raise KeyError(name)
    if name.endswith(_GRID):
        return None
    return f"encoder.cameras.{cameras[int(found[1] or 0)]}.{_our_vision(found[2])}"


def their_name(name: str, cameras: Sequence[str]) -> str:
    """LeRobot's name for one of our weights, without the normaliser's. Raises KeyError."""
    if name.startswith("denoiser."):
        inner = name.removeprefix("denoiser.")
        return "diffusion.unet." + re.sub(
            r"\.blocks\.([01])\.", lambda found: f".conv{int(found[1]) + 1}.", inner
        )
    camera, rest = name.removeprefix("encoder.cameras.").split(".", 1)
    number = cameras.index(camera)
    middle = f"{number}." if len(cameras) > 1 else ""
    return f"diffusion.rgb_encoder.{middle}{_their_vision(rest)}"


def _our_vision(rest: str) -> str:
    part, inner = rest.split(".", 1)
    match part:
        case "backbone":
            child, inner = inner.split(".", 1)
            return f"backbone.{_OURS_CHILDREN[child]}.{inner}"
        case "pool":
            return f"pool.0.{inner}"
        case "out":
            return f"pool.2.{inner}"
    raise KeyError(rest)


def _their_vision(rest: str) -> str:
    part, inner = rest.split(".", 1)
    if part == "backbone":
        child, inner = inner.split(".", 1)
        return f"backbone.{_CHILDREN[child]}.{inner}"
    number, inner = inner.split(".", 1)
    return {"0": f"pool.{inner}", "2": f"out.{inner}"}[number]
