"""What an actuator is told: numbers with names, units, and which of them are a rotation."""

from dataclasses import dataclass

from dp_hub.robot.fields import ROTATION


@dataclass(frozen=True)
class Space:
    """The numbers of a target and of the position that follows it.

    Args:
        names: of the numbers, such as ``x``, ``y``, ``z``, ``rx``, ``ry``, ``rz``.
        units: ``m``, ``rad``, ``px``, ``1`` ...; one for each.
        rotation_at: index of the first of three numbers that are a rotation vector (axis times
            angle, rad), which is interpolated on the sphere; None where there is none.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    rotation_at: int | None = None

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.units), (self.names, self.units)
        if self.rotation_at is not None:
            assert 0 <= self.rotation_at <= len(self.names) - 3, self

    @property
    def size(self) -> int:
        """D: how many numbers."""
        return len(self.names)

    @property
    def linear(self) -> tuple[int, ...]:
        """Indices of the numbers that are no rotation."""
        turned = (
            set()
            if self.rotation_at is None
            else set(range(self.rotation_at, self.rotation_at + 3))
        )
        return tuple(i for i in range(self.size) if i not in turned)


POSE = Space(("x", "y", "z", *ROTATION), ("m", "m", "m", "rad", "rad", "rad"), rotation_at=3)
"""A tool in the robot's base frame."""

WIDTH = Space(("width",), ("m",))
"""A gripper: the distance between its fingers."""


def joints(n: int) -> Space:
    """``n`` revolute joints."""
    return Space(tuple(f"joint_{i}" for i in range(1, n + 1)), ("rad",) * n)
