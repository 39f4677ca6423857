"""Random numbers of a batch that several processes, or several network calls, have a part of.

What a training draws for a window (its noise, its step) must not depend on who trains on it: then
two processes with half the batch each learn what one does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowsOf:
    """The random numbers of consecutive rows of a larger batch.

    Every draw is made for all rows, and these are taken of it: drawing more than needed costs
    little, for noise is small beside the network.

    Args:
        generator: seeded alike by everybody who has a part of the batch.
        first: number of the first row.
        total: rows of the whole batch.
    """

    generator: torch.Generator
    first: int
    total: int


Source = torch.Generator | RowsOf | None
"""Where random numbers come from: a generator, a part of a larger batch's, or torch's own."""


def normal(shape: tuple[int, ...], source: Source, device: torch.device) -> Tensor:
    """Standard normal float32 numbers, ``shape`` (B, ...)."""
    rows, rest = shape[0], shape[1:]
    return _draw(
        rows,
        source,
        lambda n, generator: torch.randn(n, *rest, generator=generator, device=device),
    )


def uniform(rows: int, source: Source, device: torch.device) -> Tensor:
    """float32 (B,) in [0, 1)."""
    return _draw(
        rows, source, lambda n, generator: torch.rand(n, generator=generator, device=device)
    )


def integers(high: int, rows: int, source: Source, device: torch.device) -> Tensor:
    """int64 (B,) from 0 to ``high - 1``."""
    return _draw(
        rows,
        source,
        lambda n, generator: torch.randint(high, (n,), generator=generator, device=device),
    )


def _draw(
    rows: int, source: Source, draw: Callable[[int, torch.Generator | None], Tensor]
) -> Tensor:
    if not isinstance(source, RowsOf):
        return draw(rows, source)
    assert source.first + rows <= source.total, (source.first, rows, source.total)
    return draw(source.total, source.generator)[source.first : source.first + rows]
