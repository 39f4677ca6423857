"""From the names of the original's state dict to those of a dp_hub policy.

Facts about the original's modules, beside their names:

- the convolutions between the U-Net's levels lie one level deeper (``down_modules.0.2.conv``);
- its modules carry an empty parameter (``_dummy_variable``), and transformers their masks;
- robomimic's picture encoder registers its parts twice, by name (``backbone``, ``pool``) and in a
  sequence (``nets.0``, ``nets.1``), so a state dict holds the same numbers twice; ``nets.3`` is the
  linear layer. The backbone is torchvision's ResNet18 as a sequence of its first eight children.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dp_hub.errors import PolicyError
from dp_hub.models.normalizer import STATISTICS, FeatureNormalizer, Normalizer
from dp_hub.policies.foreign.names import TensorRef
from dp_hub.policies.foreign.original_config import Plan
from dp_hub.policies.observing import camera_key
from dp_hub.policies.selection import parse_selection

_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_BETWEEN_LEVELS = re.compile(r"^((?:down|up)_modules\.\d+\.2)\.conv\.")
_NORMALIZER = "normalizer.params_dict."
_VISION = "obs_encoder.obs_nets."


class Weights:
    """A state dict whose tensors are read when asked for, and which knows what was not.

    Args:
        refs: by name.
        read: gives the numbers.
        where: what it is, for the messages.
    """

    def __init__(
        self, refs: Mapping[str, object], read: Callable[[TensorRef], Tensor], where: str
    ) -> None:
        self._left = dict(refs)
        self._read = read
        self._where = where

    def names(self) -> list[str]:
        """Of what has not been taken."""
        return list(self._left)

    def take(self, name: str) -> Tensor:
        """float32 (other types as they are). Raises PolicyError."""
        ref = self._left.pop(name, None)
        if not isinstance(ref, TensorRef):
            raise PolicyError(f"{self._where} lacks the weights `{name}`")
        tensor = self._read(ref)
        return tensor.float() if tensor.is_floating_point() else tensor

    def leave(self, name: str) -> None:
        """Not needed."""
        self._left.pop(name, None)

    def end(self) -> None:
        """Raises PolicyError if something has not been taken."""
        if self._left:
            names = ", ".join(f"`{name}`" for name in list(self._left)[:3])
            more = f" and {len(self._left) - 3} more" if len(self._left) > 3 else ""
            raise PolicyError(
                f"{self._where} has weights that its settings do not speak of: {names}{more}",
                hint="they may change what the policy does, so it is not converted",
            )


def policy_weights(weights: Weights, plan: Plan) -> dict[str, Tensor]:
    """The state dict of the policy of ``plan``. Takes everything; raises PolicyError."""
    state = {
        f"normalizer.{name}": value
        for name, value in _normalizer(weights, plan).state_dict().items()
    }
    for name in weights.names():
        if name.endswith("_dummy_variable") or name in ("model.mask", "model.memory_mask"):
            weights.leave(name)  # the masks follow from the settings
        elif name.startswith("model."):
            ours = _BETWEEN_LEVELS.sub(r"\1.", name.removeprefix("model."))
            state[f"denoiser.{ours}"] = weights.take(name)
        elif name.startswith(_VISION):
            camera = _camera(weights, name, plan)
            if camera is not None:
                state[camera] = weights.take(name)
    weights.end()
    return state


def picture_scale(weights: Weights, key: str) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel, of pixels 0 to 1, by which the original scales pictures."""
    scale, offset, _ = _affine(weights, key, 3)
    return (-offset / scale).tolist(), (1 / scale).tolist()


def _affine(weights: Weights, key: str, dim: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """``scale``, ``offset`` and the statistics, each float32 (dim,); one number stands for all."""
    parts = {}
    for part in ("scale", "offset", *(f"input_stats.{one}" for one in STATISTICS)):
        value = weights.take(f"{_NORMALIZER}{key}.{part}")
        if value.ndim != 1 or len(value) not in (1, dim):
            raise PolicyError(
                f"the normaliser of `{key}` is of shape {tuple(value.shape)}, not ({dim},)"
            )
        parts[part] = value.expand(dim).clone()
    if not (parts["scale"].isfinite() & (parts["scale"] != 0)).all():
        raise PolicyError(f"the normaliser of `{key}` cannot be undone: {parts['scale'].tolist()}")
    statistics = {name.removeprefix("input_stats."): value for name, value in parts.items()}
    return statistics.pop("scale"), statistics.pop("offset"), statistics


def _normalizer(weights: Weights, plan: Plan) -> Normalizer:
    widths = {name: shape for name, shape in plan.features.items() if isinstance(shape, int)}
    normalizer = Normalizer.empty(widths)  # numbers that are not observed keep the identity
    keys = {key: source for key, source in plan.sources.items() if isinstance(source.shape, int)}
    places = {key: (source.selections, source.shape) for key, source in keys.items()}
    places["action"] = ((plan.config.action,), widths[plan.config.action])
    for key, (selections, dim) in places.items():
        assert isinstance(dim, int)
        scale, offset, statistics = _affine(weights, key, dim)
        start = 0
        for one in map(parse_selection, selections):
            width = one.width(widths)
            part = slice(start, start + width)
            _fill(
                normalizer[one.name],
                one.start,
                part,
                {"scale": scale, "offset": offset} | statistics,
            )
            start += width
    return normalizer


def _fill(target: FeatureNormalizer, at: int, part: slice, values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        getattr(target, name)[at : at + part.stop - part.start] = value[part]


def _camera(weights: Weights, name: str, plan: Plan) -> str | None:
    """The name here of a part of robomimic's encoder; None for what is not needed."""
    key, _, rest = name.removeprefix(_VISION).partition(".")
    if key not in plan.sources:
        return None  # left for `Weights.end` to tell of
    feature = camera_key(plan.sources[key].selections[0], shared=False)
    if rest.startswith(("nets.0.", "nets.1.")) or rest in ("pool.pos_x", "pool.pos_y"):
        weights.leave(name)
        return None
    if rest == "pool.temperature":
        if not torch.equal(weights.take(name), torch.ones(1)):
            raise PolicyError(f"`{name}` is not 1; only that can be converted")
        return None
    if rest.startswith("backbone.nets."):
        child, _, inner = rest.removeprefix("backbone.nets.").partition(".")
        rest = f"backbone.{_CHILDREN.get(child, child)}.{inner}"
    rest = re.sub(r"^pool\.nets\.", "pool.0.nets.", rest)
    rest = re.sub(r"^nets\.3\.", "pool.2.", rest)
    return f"encoder.cameras.{feature}.{rest}"
