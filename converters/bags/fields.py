"""What a ROS message is made of: numbers, texts and times, side by side, in groups and in lists."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Numbers:
    """Numbers side by side.

    Args:
        path: of the field, empty if the message is nothing else.
        dtype: numpy's name, without the order of bytes.
        count: how many; None if every message says how many.
        names: of each, where they are fields of their own.
        scalar: a single number rather than a list of one.
    """

    path: str
    dtype: str
    count: int | None
    names: tuple[str, ...] = ()
    scalar: bool = False


@dataclass(frozen=True)
class Text:
    """A text, or a list of ``count``; None if every message says how many."""

    path: str
    count: int | None = 1
    scalar: bool = True


@dataclass(frozen=True)
class Moment:
    """Seconds and nanoseconds; ``stamp`` if it is when the message was true."""

    path: str
    stamp: bool = False


@dataclass(frozen=True)
class Group:
    """Fields one after another; those that are not ``shown`` are read over."""

    parts: "tuple[Numbers | Text | Moment | Group | Repeat, ...]"
    shown: bool = True


@dataclass(frozen=True)
class Repeat:
    """A list of groups; ``count`` is None if every message says how many."""

    group: Group
    count: int | None


Leaf = Numbers | Text | Moment
Part = Leaf | Group | Repeat


def shown_leaves(group: Group, *, listed: bool = False) -> Iterator[tuple[Leaf, bool]]:
    """The fields that become streams, and whether they are within a list of groups."""
    for part in group.parts if group.shown else ():
        if isinstance(part, Repeat):
            yield from shown_leaves(part.group, listed=True)
        elif isinstance(part, Group):
            yield from shown_leaves(part, listed=listed)
        elif isinstance(part, Numbers):
            yield part, listed
        elif not listed and _is_told(part):
            yield part, False


def _is_told(part: Text | Moment) -> bool:
    """Whether a text or a moment is more than part of what frames and clocks are called."""
    if isinstance(part, Moment):
        return not part.stamp
    return part.scalar and not part.path.endswith("frame_id")
