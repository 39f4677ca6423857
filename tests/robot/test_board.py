"""Boards: named numbers that are read whole in every process."""

import math
import time

import pytest
from board_writers import PATTERN, flicker

from dp_hub.errors import RobotError
from dp_hub.robot.shared.board import Board
from dp_hub.robot.worker import Worker


def test_numbers_are_zero_until_they_are_written() -> None:
    board = Board.create(["stop", "beat"])
    assert list(board) == ["stop", "beat"] and board["stop"] == 0.0
    board["beat"] = 12.5
    board["stop"] = 1
    other = Board.attach(board.spec)
    assert (other["stop"], other["beat"]) == (1.0, 12.5)
    other["beat"] = math.inf
    assert board["beat"] == math.inf
    board.unlink()


def test_counts_are_exact() -> None:
    board = Board.create(["ticks"])
    board["ticks"] = 2**53 - 1
    assert int(board["ticks"]) == 2**53 - 1
    board.unlink()


def test_a_name_that_is_not_on_the_board_is_no_cell() -> None:
    board = Board.create(["stop"])
    with pytest.raises(KeyError, match="halt"):
        board["halt"] = 1.0
    board.unlink()


def test_a_board_that_is_gone_cannot_be_attached() -> None:
    board = Board.create(["stop"])
    board.unlink()
    with pytest.raises(RobotError, match="is gone"):
        Board.attach(board.spec)


def test_a_number_is_never_half_of_one_and_half_of_another() -> None:
    board = Board.create(["slow", "fast"])
    worker = Worker("flicker", flicker, board.spec)
    worker.start()
    try:
        worker.wait_ready(20)
        allowed, seen, end_s = set(PATTERN), set(), time.monotonic() + 2
        while time.monotonic() < end_s or len(seen) < 100:
            value = board["fast"]
            assert value in allowed
            seen.add(value)
        worker.check()
    finally:
        worker.stop()
        board.unlink()
