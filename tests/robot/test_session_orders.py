"""What a session tells its controllers when their queues are full; controllers told of by hand."""

from contextlib import contextmanager

import numpy as np
import pytest

from dp_hub.robot.config import load_robot
from dp_hub.robot.motion.plan import Order, Plan, plan_fields, unpack
from dp_hub.robot.session.parts import BEAT, STOP, Parts
from dp_hub.robot.session.session import Session
from dp_hub.robot.shared.board import Board
from dp_hub.robot.shared.queue import Queue
from dp_hub.robot.space import Space

ROOM = 4


@pytest.fixture
def robot():
    with made() as both:
        yield both


@contextmanager
def made():
    """A session that is on as far as commands go, and its controller's end of the queue."""
    session = Session(load_robot("pusht"))
    board, queue = Board.create([BEAT, STOP]), Queue.create(plan_fields(2), capacity=ROOM)
    space = Space(("x", "y"), ("px", "px"))
    session._parts = Parts(board, commands={"arm": queue}, spaces={"arm": space})
    taken = Queue.attach(queue.spec)
    try:
        yield session, taken
    finally:
        for memory in (board, queue, taken):
            memory.close()
        board.unlink()
        queue.unlink()


def send(session) -> bool:
    return session.move("arm", np.array([1.0]), np.zeros((1, 2)), 0.0)


def orders(queue) -> list:
    commands = [unpack(record) for record in queue.take()]
    return ["plan" if isinstance(one, Plan) else one for one in commands]


def test_a_plan_without_room_is_thrown_away_and_counted(robot):
    session, queue = robot
    assert [send(session) for _ in range(ROOM + 2)] == [True] * ROOM + [False] * 2
    assert session.full_queues == 2
    assert orders(queue) == ["plan"] * ROOM


def test_an_order_to_hold_is_told_as_soon_as_there_is_room(robot):
    session, queue = robot
    for _ in range(ROOM):
        send(session)
    session.hold()
    session.beat()
    assert orders(queue) == ["plan"] * ROOM
    session.beat()
    assert orders(queue) == [Order.HOLD]
    session.beat()
    assert orders(queue) == []


def test_orders_keep_their_order_and_no_plan_gets_before_them(robot):
    session, queue = robot
    for _ in range(ROOM):
        send(session)
    session.resume()
    session.hold()
    session.resume()
    session.resume()
    assert not send(session)
    orders(queue)
    assert send(session)
    assert orders(queue) == [Order.HOLD, Order.RESUME, "plan"]
