"""Which numbers of a stream are meant: ``/joint_states.position[0:6]``, and texts like it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dp_hub.errors import DataError

_PART = re.compile(r"-?\d*(:-?\d*)?$")
_EXAMPLES = "[0], [0:6], [-1], [0:3, 7] or, by row, [0:6][2]"


@dataclass(frozen=True)
class Selection:
    """Some numbers of every value of a stream.

    Args:
        axes: for every dimension of a value that is cut, in order, the numbers or slices taken of
            it. Dimensions that are not named are taken whole.
    """

    axes: tuple[tuple[int | slice, ...], ...] = ()

    def of(self, values: Any, name: str) -> Any:
        """The numbers that are meant, ``(n, ...)``; ``values`` themselves if all are.

        Raises:
            DataError: the values, called ``name``, have no such dimension or number.
        """
        if len(self.axes) > max(values.ndim - 1, 1):
            raise DataError(
                f"{name} has {values.ndim - 1} dimensions in a value, {self} names {len(self.axes)}"
            )
        for axis, parts in enumerate(self.axes, 1):
            if values.ndim == 1:  # a value is one number: its only dimension has a length of 1
                values = values[:, None]
            size = values.shape[axis]
            values = values.take(_numbers(parts, size, f"{name}{self}"), axis)
        return values

    def names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Of the names of a value's numbers, those that are meant; none if that is not told."""
        if len(self.axes) > 1:
            return ()
        if not self.axes:
            return tuple(names)
        try:
            return tuple(names[i] for i in _numbers(self.axes[0], len(names), ""))
        except DataError:
            return ()

    def __str__(self) -> str:
        return "".join(f"[{', '.join(map(_text, parts))}]" for parts in self.axes)


def read_selection(text: str) -> Selection:
    """The selection that ``text`` describes. Raises ValueError with what is wrong."""
    if not text.strip():
        return Selection()
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError(f"what is taken of a value is written like {_EXAMPLES}")
    return Selection(tuple(_axis(part) for part in text[1:-1].split("][")))


def split_name(text: str) -> tuple[str, str]:
    """``/joints[0:6]`` as ``/joints`` and ``[0:6]``."""
    name, bracket, rest = text.partition("[")
    return (name.strip(" "), bracket + rest.strip(" ")) if bracket else (text, "")


def _axis(text: str) -> tuple[int | slice, ...]:
    parts = []
    for word in (word.strip() for word in text.split(",")):
        if not word or not _PART.match(word) or word == "-":
            raise ValueError(f"`[{text}]` is not understood; it is written like {_EXAMPLES}")
        numbers = [int(number) if number else None for number in word.split(":")]
        parts.append(slice(*numbers) if ":" in word else int(word))
    return tuple(parts)


def _numbers(parts: Sequence[int | slice], size: int, where: str) -> list[int]:
    found: list[int] = []
    for part in parts:
        if isinstance(part, int):
            _check(part, size, where, -size <= part < size)
            found.append(part % size)
        else:
            # A slice past the end would quietly be shorter than it says.
            _check(part, size, where, all(abs(b or 0) <= size for b in (part.start, part.stop)))
            taken = range(*part.indices(size))
            _check(part, size, where, len(taken) > 0)
            found += taken
    return found


def _check(part: int | slice, size: int, where: str, fits: bool) -> None:
    if not fits:
        raise DataError(
            f"{where}: there is no [{_text(part)}] where there are {size} numbers",
            hint=f"they are numbered 0 to {size - 1}; a slice stops before its second number",
        )


def _text(part: int | slice) -> str:
    if isinstance(part, int):
        return str(part)
    return f"{'' if part.start is None else part.start}:{'' if part.stop is None else part.stop}"
