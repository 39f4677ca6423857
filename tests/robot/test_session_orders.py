"""What controllers are told when their queues are full."""

import numpy as np
import pytest

from dp_hub.robot.motion.plan import Order, Plan, plan_fields, unpack
from dp_hub.robot.session.orders import Orders
from dp_hub.robot.shared.queue import Queue
from dp_hub.robot.space import Space

ROOM = 4


@pytest.fixture
def robot():
    """The session's end of a controller's queue, and the controller's."""
    queue = Queue.create(plan_fields(2), capacity=ROOM)
    taken = Queue.attach(queue.spec)
    yield Orders({"arm": queue}, {"arm": Space(("x", "y"), ("px", "px"))}), taken
    for memory in (queue, taken):
        memory.close()
    queue.unlink()


def send(told) -> bool:
    return told.move("arm", np.array([1.0]), np.zeros((1, 2)), 0.0)


def orders(queue) -> list:
    commands = [unpack(record) for record in queue.take()]
    return ["plan" if isinstance(one, Plan) else one for one in commands]


def test_a_plan_without_room_is_thrown_away_and_counted(robot):
    told, queue = robot
    assert [send(told) for _ in range(ROOM + 2)] == [True] * ROOM + [False] * 2
    assert told.full == 2
    assert orders(queue) == ["plan"] * ROOM


def test_an_order_to_hold_is_told_as_soon_as_there_is_room(robot):
    told, queue = robot
    for _ in range(ROOM):
        send(told)
    told.give(Order.HOLD)
    told.pay()
    assert orders(queue) == ["plan"] * ROOM
    told.pay()
    assert orders(queue) == [Order.HOLD]
    told.pay()
    assert orders(queue) == []


def test_orders_keep_their_order_and_no_plan_gets_before_them(robot):
    told, queue = robot
    for _ in range(ROOM):
        send(told)
    told.give(Order.RESUME)
    told.give(Order.HOLD)
    told.give(Order.RESUME)
    told.give(Order.RESUME)
    assert not send(told)
    orders(queue)
    assert send(told)
    assert orders(queue) == [Order.HOLD, Order.RESUME, "plan"]
