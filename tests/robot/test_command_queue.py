"""Queues: records come in order, whole, once; what finds no room is told to who put it."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_ends import FIELDS, SEEN, Taking, put_all, record, take_all

from dp_hub.errors import RobotError
from dp_hub.robot.shared.queue import Queue, QueueFull
from dp_hub.robot.shared.ring import Ring
from dp_hub.robot.worker import Worker


@contextmanager
def made(capacity: int) -> Iterator[Queue]:
    queue = Queue.create(FIELDS, capacity=capacity)
    try:
        yield queue
    finally:
        queue.close()
        queue.unlink()


def numbers(records: list[dict[str, np.ndarray]]) -> list[int]:
    assert all((one["values"] == one["number"]).all() for one in records)
    return [int(one["number"]) for one in records]


def test_records_come_in_order_and_once() -> None:
    with made(4) as queue:
        for number in range(3):
            queue.put(record(number))
        assert queue.waiting == 3
        assert numbers(queue.take()) == [0, 1, 2]
        assert queue.take() == [] and queue.waiting == 0


def test_records_have_the_fields_shapes_and_are_copies() -> None:
    with made(1) as queue:
        queue.put(record(1))
        taken = queue.take()[0]
        queue.put(record(2))
        assert taken["values"].shape == (100,) and taken["values"].dtype == np.float64
        assert taken["number"].shape == () and taken["number"].dtype == np.int64
        assert numbers([taken]) == [1]


def test_a_full_queue_says_so_and_keeps_what_it_has() -> None:
    with made(2) as queue:
        queue.put(record(0))
        queue.put(record(1))
        for _ in range(3):
            with pytest.raises(QueueFull, match="number, values is full with 2 records"):
                queue.put(record(9))
        assert queue.dropped == 3
        assert numbers(queue.take()) == [0, 1]
        queue.put(record(2))
        assert numbers(queue.take()) == [2] and queue.dropped == 3


def test_a_record_that_does_not_fit_is_refused_and_not_counted_as_dropped() -> None:
    with made(2) as queue:
        with pytest.raises(RobotError, match=r"`values` should be float64 \(100,\)"):
            queue.put({"number": np.asarray(0), "values": np.zeros(99)})
        assert queue.waiting == 0 and queue.dropped == 0


@given(capacity=st.integers(1, 5), puts=st.lists(st.integers(-1, 7), max_size=30))
@settings(max_examples=100)
def test_a_queue_is_a_list_of_limited_length(capacity: int, puts: list[int]) -> None:
    """-1 takes; other numbers put so many."""
    with made(capacity) as queue:
        there: deque[int] = deque()
        number = dropped = 0
        for n in puts:
            if n < 0:
                assert numbers(queue.take()) == list(there)
                there.clear()
            for _ in range(n):
                if len(there) < capacity:
                    queue.put(record(number))
                    there.append(number)
                else:
                    with pytest.raises(QueueFull):
                        queue.put(record(number))
                    dropped += 1
                number += 1
        assert (queue.waiting, queue.dropped) == (len(there), dropped)


def test_a_queue_that_is_gone_cannot_be_attached() -> None:
    with made(1) as queue:
        spec = queue.spec
    with pytest.raises(RobotError, match="is gone"):
        Queue.attach(spec)


def test_what_a_killed_consumer_had_not_taken_goes_to_the_next_one_whole() -> None:
    n, seen = 1500, Ring.create(SEEN, rate_hz=1, keep=4000)
    with made(16) as queue:
        producer = Worker("producer", put_all, (queue.spec, n))
        producer.start()
        try:
            for die_at in (0, 200, 600):
                consumer = Worker("consumer", take_all, Taking(queue.spec, seen.spec, die_at))
                consumer.start()
                wait_until(lambda: not consumer.is_alive)  # noqa: B023
                consumer.stop()
            consumer = Worker("consumer", take_all, Taking(queue.spec, seen.spec))
            consumer.start()
            wait_until(lambda: seen.count >= n)
            consumer.check()
        finally:
            producer.stop()
            consumer.stop()
        got = seen.last(n + 1).values["number"]
        # Who is killed in a take has taken nothing: no record is missing, and none came twice.
        assert np.array_equal(got, np.arange(n))
        assert queue.waiting == 0
    seen.unlink()


def wait_until(done) -> None:
    end_s = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end_s
        time.sleep(0.01)
