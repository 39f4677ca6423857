"""Which episode of one dataset is which of another: by equal content first, then by place.

Everything is linear in the number of episodes; a longest common subsequence would be quadratic for
datasets that were made anew.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

Pair = tuple[int, int]


@dataclass(frozen=True)
class Alignment:
    """Numbers of episodes in A and in B.

    Attributes:
        same: equal ones, (in A, in B), by their number in A.
        changed: different ones that stand between the same neighbours.
        removed: only in A.
        added: only in B.
    """

    same: tuple[Pair, ...]
    changed: tuple[Pair, ...]
    removed: tuple[int, ...]
    added: tuple[int, ...]


def align(
    a: Sequence[Hashable], b: Sequence[Hashable], lengths_a: Sequence[int], lengths_b: Sequence[int]
) -> Alignment:
    """Align two datasets.

    Args:
        a, b: a key of each episode's content; equal keys are equal episodes.
        lengths_a, lengths_b: frames of each; where more episodes went than came (or the other way
            round), those of equal length are taken for each other.
    """
    partner = _equal(a, b)
    taken = set(partner.values())
    changed: list[Pair] = []
    for start, stop in _gaps(partner, len(a)):
        low = partner[start - 1] + 1 if start else 0
        high = partner[stop] if stop < len(a) else len(b)
        # All of B between the same two neighbours must be free too, else the order is another.
        if low <= high and not any(i in taken for i in range(low, high)):
            changed += _pairs(range(start, stop), range(low, high), lengths_a, lengths_b)
    in_a, in_b = {i for i, _ in changed} | set(partner), {j for _, j in changed} | taken
    return Alignment(
        same=tuple(sorted(partner.items())),
        changed=tuple(sorted(changed)),
        removed=tuple(i for i in range(len(a)) if i not in in_a),
        added=tuple(j for j in range(len(b)) if j not in in_b),
    )


def _equal(a: Sequence[Hashable], b: Sequence[Hashable]) -> dict[int, int]:
    """Numbers in B by numbers in A, of equal keys.

    Common beginnings and ends first; of what is between, the k-th of a key goes with the k-th.
    """
    shorter = min(len(a), len(b))
    head = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    tail = next((i for i in range(shorter - head) if a[-1 - i] != b[-1 - i]), shorter - head)
    partner = {i: i for i in range(head)}
    places: dict[Hashable, list[int]] = defaultdict(list)
    for j in reversed(range(head, len(b) - tail)):
        places[b[j]].append(j)
    for i in range(head, len(a) - tail):
        if places.get(a[i]):
            partner[i] = places[a[i]].pop()
    return partner | {len(a) - 1 - i: len(b) - 1 - i for i in range(tail)}


def _gaps(partner: dict[int, int], total: int) -> list[Pair]:
    """Runs ``start, stop`` of episodes without a partner."""
    gaps, start = [], None
    for i in range(total + 1):
        free = i < total and i not in partner
        if free and start is None:
            start = i
        if not free and start is not None:
            gaps.append((start, i))
            start = None
    return gaps


def _pairs(a: range, b: range, lengths_a: Sequence[int], lengths_b: Sequence[int]) -> list[Pair]:
    shorter = min(len(a), len(b))
    if len(a) == len(b):
        return list(zip(a, b, strict=True))
    alike = [lengths_a[i] == lengths_b[j] for i, j in zip(a, b, strict=False)]
    head = next((k for k in range(shorter) if not alike[k]), shorter)
    behind = [lengths_a[i] == lengths_b[j]
              for i, j in zip(reversed(a), reversed(b), strict=False)]  # fmt: skip
    tail = next((k for k in range(shorter - head) if not behind[k]), shorter - head)
    front = shorter - tail  # the alike head, and what is left over behind it
    return [*zip(a[:front], b[:front], strict=True),
            *zip(a[len(a) - tail :], b[len(b) - tail :], strict=True)]  # fmt: skip
