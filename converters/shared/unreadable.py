"""Episodes that cannot be read, in their places among those that can."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dp_hub.errors import DataError


@dataclass(frozen=True)
class Unreadable:
    """An episode that cannot be read, or a file of which nobody can tell how many it holds.

    Args:
        name: which one, as the metadata of an episode says where it is from.
        error: why.
    """

    name: str
    error: DataError

    def told(self) -> DataError:
        """What to raise when its turn comes."""
        return DataError(self.error.message, hint=self.error.hint)


def notes_of(found: Iterable[Any]) -> Iterator[str]:
    """What to say of a source that is converted in spite of some."""
    for one in found:
        if isinstance(one, Unreadable):
            yield f"{one.name} cannot be converted: {one.error.message}"


def check_readable(found: Iterable[Any], *, skip_bad: bool) -> None:
    """Raises the first error among ``found``; with ``skip_bad`` only if there is nothing else."""
    first: Unreadable | None = None
    for one in found:
        if not isinstance(one, Unreadable):
            if skip_bad:
                return
        elif first is None:
            first = one
    if first is not None:
        raise first.told()
