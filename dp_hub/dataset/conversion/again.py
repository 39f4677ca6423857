"""Which episodes of a copied video had to be encoded again, and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_REASONS = 10  # of a feature that are told apart


@dataclass(frozen=True)
class EncodedAgain:
    """Episodes of a feature that were encoded again for one reason.

    Args:
        feature: the others of which are copied.
        reason: why these are not.
        episodes: their numbers in the dataset, as ``3, 7-9``.
    """

    feature: str
    reason: str
    episodes: str

    @property
    def note(self) -> str:
        """In words, not too long."""
        shown = self.episodes
        if len(shown) > 60:
            shown = f"{shown[:60].rpartition(',')[0]} ..."
        noun = "episode" if shown.isdecimal() else "episodes"
        return f"{self.feature}, {noun} {shown}: encoded again, not copied: {self.reason}"


class AgainTally:
    """Counts them, in memory that hardly grows."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], list[list[int]]] = {}

    def add(self, number: int, reasons: Mapping[str, str]) -> None:
        """Why an episode was not copied, by feature."""
        for feature, reason in reasons.items():
            same = sum(key[0] == feature for key in self._runs)
            known = (feature, reason) in self._runs
            key = (feature, reason if known or same < _REASONS else "other reasons")
            runs = self._runs.setdefault(key, [])
            if runs and runs[-1][1] == number - 1:
                runs[-1][1] = number
            else:
                runs.append([number, number])

    def listed(self) -> Iterator[EncodedAgain]:
        """All of them, reason by reason."""
        for (feature, reason), runs in self._runs.items():
            ranges = (f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
            yield EncodedAgain(feature, reason, ", ".join(ranges))
