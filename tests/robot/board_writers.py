"""A process that writes a board, for tests."""

import itertools

from dp_hub.robot.shared.board import Board, BoardSpec
from dp_hub.robot.worker import Context

PATTERN = tuple(float(n * 0x0101010101) for n in range(200))
"""Numbers of which every byte but the exponent's differs from that of the next."""


def flicker(context: Context, spec: BoardSpec) -> None:
    """Write one number after the other at full speed."""
    board = Board.attach(spec)
    context.ready()
    for value in itertools.cycle(PATTERN):
        board["fast"] = value
        if context.stopping:
            return
