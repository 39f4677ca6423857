"""What the original's observations are called here, and how wide the features behind them are."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dp_hub.errors import PolicyError
from dp_hub.policies.selection import Shape, parse_selection

# The released PushT demonstrations, as `dp-hub convert zarr` names them: nine keypoints of the
# block; the agent's x and y, the block's x, y and angle.
_PUSHT_SHAPES: dict[str, Shape] = {
    "observation.environment_state": 18,
    "observation.state": 5,
    "observation.image": (96, 96, 3),
}
_PUSHT_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "diffusion_policy.dataset.pusht_dataset.PushTLowdimDataset": {
        "obs": ("observation.environment_state", "observation.state[:2]"),
    },
    "diffusion_policy.dataset.pusht_image_dataset.PushTImageDataset": {
        "image": ("observation.image",),
        "agent_pos": ("observation.state[:2]",),
    },
}


@dataclass
class Naming:
    """From keys of the original's observations to selections of features.

    Args:
        dataset: the class of the dataset that a checkpoint was trained on.
        wanted: feature for a key, where the usual one is not wanted.
    """

    dataset: str
    wanted: Mapping[str, str]
    notes: list[str] = field(default_factory=list)

    def numbers(self, key: str, width: int) -> tuple[str, ...]:
        """Selections that together are the ``width`` numbers of ``key``."""
        usual = "observation.state" if key == "obs" else f"observation.{key}"
        return self._named(key, usual, width)

    def picture(self, key: str) -> str:
        """The feature that is the picture ``key``."""
        return self._named(key, f"observation.images.{key}", None)[0]

    def _named(self, key: str, usual: str, width: int | None) -> tuple[str, ...]:
        if key in self.wanted:
            return (self.wanted[key],)
        known = _PUSHT_NAMES.get(self.dataset, {}).get(key)
        if known and (width is None or width == _width(known)):
            return known
        self.notes.append(f"`{key}` is called `{usual}` here (another name: --map {key}=FEATURE)")
        return (usual,)

    def check_used(self, keys: list[str]) -> None:
        """Raises PolicyError if a name was wanted for a key that there is not."""
        unknown = sorted(set(self.wanted) - set(keys))
        if unknown:
            raise PolicyError(
                f"--map names `{unknown[0]}`, which the checkpoint does not observe",
                hint=f"it observes {', '.join(keys)}",
            )


def _width(selections: tuple[str, ...]) -> int:
    return sum(parse_selection(one).width(_PUSHT_SHAPES) for one in selections)


def feature_shapes(selections: tuple[str, ...], shape: Shape) -> dict[str, Shape]:
    """Shapes of the features of which these selections are part.

    Args:
        selections: what is observed of them.
        shape: of all the selections side by side.
    Raises:
        PolicyError: a selection that is not as wide as what it stands for.
    """
    if not isinstance(shape, int) or (len(selections) == 1 and "[" not in selections[0]):
        return {parse_selection(one).name: shape for one in selections}
    shapes: dict[str, Shape] = {}
    width = 0
    for one in map(parse_selection, selections):
        known = _PUSHT_SHAPES.get(one.name, 0)
        least = one.stop or 0
        shapes[one.name] = max(known, least) if isinstance(known, int) else known
        width += one.width(shapes)
    if width != shape:
        raise PolicyError(
            f"`{', '.join(selections)}` is {width} numbers wide, but {shape} are needed"
        )
    return shapes
