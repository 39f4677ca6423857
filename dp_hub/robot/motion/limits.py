"""What an actuator must not exceed, whatever it is told: a part of the robot's configuration."""

import math
from collections.abc import Sequence

from dp_hub.config import Config
from dp_hub.errors import ConfigError
from dp_hub.robot.space import Space


class Limits(Config):
    """In the units of the actuator's space; what is not given is not limited."""

    low: list[float] | None = None
    """The workspace: the least value of each number that is no rotation."""
    high: list[float] | None = None
    """The workspace: the largest value of each number that is no rotation."""
    speed: float | list[float] | None = None
    """Units/s: one number limits the length of the velocity, a list each number by itself."""
    acceleration: float | list[float] | None = None
    """Units/s²; one number or a list, as `speed` is."""
    rotation_speed: float | None = None
    """rad/s."""
    rotation_acceleration: float | None = None
    """rad/s²."""
    step: float | None = None
    """Units: how far a target may be from the position that is measured when it is asked for."""

    def missing(self, space: Space) -> tuple[str, ...]:
        """The keys without which a real robot is not moved: all that suit its space."""
        keys = ["low", "high", "speed", "acceleration", "step"]
        if space.rotation_at is not None:
            keys += ["rotation_speed", "rotation_acceleration"]
        return tuple(key for key in keys if getattr(self, key) is None)

    def check(self, space: Space, *, where: str = "limits") -> None:
        """Raises ConfigError if they do not fit an actuator of this space.

        Args:
            space: of the actuator.
            where: the key they stand at, for the messages.
        """
        names = [space.names[i] for i in space.linear]
        for key in ("low", "high", "speed", "acceleration"):
            value = getattr(self, key)
            if isinstance(value, list) and len(value) != len(names):
                raise ConfigError(
                    f"`{where}.{key}` has {len(value)} numbers: {value}",
                    hint=f"it needs {len(names)}: {', '.join(names)}",
                )
        for key in ("speed", "acceleration", "rotation_speed", "rotation_acceleration", "step"):
            self._check_positive(f"{where}.{key}", getattr(self, key))
        self._check_box(names, where)
        self._check_forms(where)
        self._check_rotation(space, where)

    def _check_positive(self, key: str, value: float | list[float] | None) -> None:
        for number in value if isinstance(value, list) else [value]:
            if number is not None and not (math.isfinite(number) and number > 0.0):
                raise ConfigError(
                    f"`{key}` is {value}: it must be more than 0",
                    hint="leave the key out for no limit",
                )

    def _check_box(self, names: Sequence[str], where: str) -> None:
        if (self.low is None) != (self.high is None):
            given, other = ("high", "low") if self.low is None else ("low", "high")
            raise ConfigError(f"`{where}.{given}` is given without `{where}.{other}`")
        for name, low, high in zip(names, self.low or (), self.high or (), strict=False):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ConfigError(
                    f"`{where}.low` is not below `{where}.high` for {name}: {low} and {high}"
                )

    def _check_forms(self, where: str) -> None:
        both = (self.speed, self.acceleration)
        if None not in both and len({isinstance(value, list) for value in both}) == 2:
            raise ConfigError(
                f"of `{where}.speed` and `{where}.acceleration` one is a number and one a list: "
                f"{self.speed} and {self.acceleration}",
                hint="a number limits the length over all numbers, a list each by itself: write "
                "both in one way",
            )

    def _check_rotation(self, space: Space, where: str) -> None:
        for key in ("rotation_speed", "rotation_acceleration"):
            if getattr(self, key) is not None and space.rotation_at is None:
                raise ConfigError(
                    f"`{where}.{key}` is given, but {', '.join(space.names)} hold no rotation "
                    "vector",
                    hint="joints are limited by `speed` and `acceleration`",
                )
