"""Which numbers a policy observes: a feature, or a slice of one, as ``observation.state[:2]``."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from dp_hub.errors import PolicyError

MOST_NUMBERS, MOST_PX = 1_000_000, 8192
"""More no feature has: a downloaded configuration cannot ask for all memory there is."""
_Px = Annotated[int, Field(ge=1, le=MOST_PX)]
Shape = Annotated[int, Field(ge=1, le=MOST_NUMBERS)] | tuple[_Px, _Px, _Px]
"""Of a feature: the width of numbers, or height, width and channels of a picture."""

_PATTERN = re.compile(r"(?P<name>[^\[\]\s]+)(?:\[(?P<start>\d*)(?P<colon>:?)(?P<stop>\d*)\])?")


@dataclass(frozen=True)
class Selection:
    """Entries ``start`` to ``stop`` (exclusive; None: to the end) of feature ``name``."""

    name: str
    start: int = 0
    stop: int | None = None

    def take(self, x: Tensor) -> Tensor:
        """The selected entries (..., width) of the whole feature (..., dim)."""
        return x if self.whole else x[..., self.start : self.stop]

    @property
    def whole(self) -> bool:
        """Whether all of the feature is selected."""
        return self.start == 0 and self.stop is None

    def width(self, features: Mapping[str, Shape]) -> int:
        """How many numbers are selected. Raises PolicyError if the feature does not hold them."""
        if self.name not in features:
            raise PolicyError(
                f"the policy observes {self.name}, which is not among the features",
                hint=f"there are: {', '.join(features)}",
            )
        dim = features[self.name]
        if not isinstance(dim, int):
            raise PolicyError(
                f"{self.name} is a picture of {' x '.join(map(str, dim))}, not a list of numbers"
            )
        stop = dim if self.stop is None else self.stop
        if not self.start < stop <= dim:
            raise PolicyError(
                f"{self.name}[{self.start}:{stop}] selects nothing or runs past the end: "
                f"{self.name} has {dim} entries"
            )
        return stop - self.start


def parse_selection(text: str) -> Selection:
    """``name``, ``name[i]``, ``name[a:b]``, ``name[:b]`` or ``name[a:]``, counted from 0.

    Raises:
        ValueError: anything else (a configuration's validator turns it into a ConfigError).
    """
    match = _PATTERN.fullmatch(text)
    if match is None or (match["start"] == "" and not match["colon"]):
        raise ValueError(f"{text!r} is not a feature name with an optional slice such as `[:2]`")
    if match["start"] is None:
        return Selection(match["name"])
    start = int(match["start"] or 0)
    if not match["colon"]:
        return Selection(match["name"], start, start + 1)
    stop = int(match["stop"]) if match["stop"] else None
    if stop is not None and stop <= start:
        raise ValueError(f"{text!r} selects nothing: the slice ends before it starts")
    return Selection(match["name"], start, stop)


def check_not_observed(action: str, observations: Iterable[str]) -> str:
    """``action``, the feature predicted. Raises ValueError if it is observed too."""
    if action in {parse_selection(text).name for text in observations}:
        raise ValueError("it is observed too: a policy cannot observe what it predicts")
    return action


def selected_features(selections: Iterable[Selection]) -> list[str]:
    """The features needed, each once, in the order of their first use."""
    return list(dict.fromkeys(selection.name for selection in selections))
