"""Rings: what readers get is whole, in order, and counted, whatever the writer does meanwhile."""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ring_writers import FIELDS, Writing, check, write

from dp_hub.errors import RobotError
from dp_hub.robot.fields import Field
from dp_hub.robot.shared import ring as ring_module
from dp_hub.robot.shared.ring import Ring, RingSpec, Samples
from dp_hub.robot.worker import Worker

STATE = (Field("state", (3,)),)


@contextmanager
def made(
    fields: tuple[Field, ...] = STATE, *, rate_hz: float = 10, read_s: float = 0.2, keep: int = 4
) -> Iterator[Ring]:
    ring = Ring.create(fields, rate_hz=rate_hz, read_s=read_s, keep=keep)
    try:
        yield ring
    finally:
        ring.close()
        ring.unlink()


def put(ring: Ring, number: int) -> None:
    ring.put(number / 8, {"state": np.full(3, number)}, put_s=number / 8 + 1)


def assert_are(samples: Samples, numbers: range) -> None:
    wanted = np.array(numbers, np.int64)
    assert samples.numbers.dtype == np.int64 and len(samples) == len(wanted)
    assert np.array_equal(samples.numbers, wanted)
    assert np.array_equal(samples.times_s, wanted / 8)
    assert np.array_equal(samples.put_s, wanted / 8 + 1)
    assert np.array_equal(samples.values["state"], np.repeat(wanted[:, None], 3, 1))


def test_slots_come_from_the_rate_the_time_to_read_and_what_to_keep() -> None:
    with made(rate_hz=125, read_s=0.2, keep=16) as ring:
        assert ring.spec.slots == 16 + math.ceil(125 * 0.2 * 1.5) + 1
        assert ring.spec.keep == 16


def test_an_empty_ring_gives_no_samples_of_the_right_shapes() -> None:
    with made() as ring:
        for samples in (ring.last(3), ring.since(0), ring.since(9)):
            assert_are(samples, range(0))
            assert samples.values["state"].shape == (0, 3) and samples.lost == 0
        assert ring.count == 0


@given(
    n=st.integers(0, 40), k=st.integers(0, 50), since=st.integers(0, 50), keep=st.integers(1, 12)
)
@settings(max_examples=100)
def test_last_and_since_are_those_of_a_list_that_forgets(
    n: int, k: int, since: int, keep: int
) -> None:
    with made(keep=keep) as ring:
        for number in range(n):
            put(ring, number)
        oldest = max(0, n - (ring.spec.slots - 1))
        assert ring.spec.slots - 1 >= keep
        last = ring.last(k)
        assert_are(last, range(max(oldest, n - k), n))
        assert last.lost == min(k, n) - len(last)
        found = ring.since(since)
        assert_are(found, range(max(oldest, since), n))
        assert found.lost == max(0, min(oldest, n) - since)


@given(
    puts=st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=12),
    k=st.integers(1, 8),
)
@settings(max_examples=100)
def test_samples_put_at_any_moment_of_a_read_are_never_mixed_into_it(
    puts: list[tuple[int, bool]], k: int
) -> None:
    """Some, and half of one more where that is said.

    The moments at which another process's stores could come between are the fences.
    """
    with made() as ring, at_fences(ring, puts):
        for number in range(8):
            put(ring, number)
        for found in (ring.last(k), ring.since(2)):
            first = int(found.numbers[0])
            assert_are(found, range(first, first + len(found)))
            assert len(found) >= 1


@contextmanager
def at_fences(ring: Ring, puts: list[tuple[int, bool]]) -> Iterator[None]:
    left, busy = list(puts), False

    def fence() -> None:
        nonlocal busy
        if not busy and ring.count >= 8 and left:
            busy = True
            n, and_a_half = left.pop()
            for _ in range(n):
                put(ring, ring.count)
            if and_a_half:
                put_half(ring)
            busy = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring_module, "fence", fence)
        yield


def put_half(ring: Ring) -> None:
    """What a writer has stored that is in the middle of a sample."""
    with pytest.MonkeyPatch.context() as patch:

        def store(place: int, given: list[np.ndarray]) -> None:
            ring._values.arrays["state"][place, :2] = given[0][:2]
            raise InterruptedError

        patch.setattr(ring._values, "store", store)
        with pytest.raises(InterruptedError):
            put(ring, ring.count)


def test_a_read_at_any_moment_of_a_put_gives_what_was_there_before() -> None:
    seen = []
    with made() as ring, pytest.MonkeyPatch.context() as patch:
        busy = False

        def fence() -> None:
            nonlocal busy
            if not busy:
                busy = True
                n = ring.count
                oldest = max(0, n - (ring.spec.slots - 1))
                assert_are(ring.last(99), range(oldest, n))
                assert_are(ring.since(0), range(oldest, n))
                seen.append(n)
                busy = False

        patch.setattr(ring_module, "fence", fence)
        for number in range(30):
            put(ring, number)
    assert len(seen) == 90  # three moments of each put


def test_a_late_reader_is_told_how_many_it_has_missed() -> None:
    with made() as ring:
        for number in range(100):
            put(ring, number)
        found = ring.since(3)
        assert found.lost == 100 - (ring.spec.slots - 1) - 3
        assert ring.since(int(found.numbers[-1]) + 1).lost == 0


def test_samples_are_copies() -> None:
    with made() as ring:
        put(ring, 0)
        before = ring.last(1)
        for number in range(1, 30):
            put(ring, number)
        assert_are(before, range(1))
    assert before.values["state"].flags.owndata or before.values["state"].base is not None
    assert_are(before, range(1))  # also when the ring is gone


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", "bool"])
def test_every_dtype_comes_back_as_it_was_put(dtype: str) -> None:
    rng = np.random.default_rng(0)
    fields = (Field("a", (4, 5), dtype), Field("one", (), dtype))
    with made(fields) as ring:
        given = rng.integers(0, 2 if dtype == "bool" else 100, (20, 4, 5)).astype(dtype)
        for number, value in enumerate(given):
            ring.put(float(number), {"a": value, "one": value[0, 0]})
        found = ring.last(3)
        assert found.values["a"].dtype == dtype and found.values["one"].shape == (3,)
        assert np.array_equal(found.values["a"], given[-3:])
        assert np.array_equal(found.values["one"], given[-3:, 0, 0])


@pytest.mark.parametrize("time_s", [1.0, 0.5, math.nan, math.inf])
def test_a_time_that_is_not_later_is_refused_and_changes_nothing(time_s: float) -> None:
    with made() as ring:
        ring.put(1.0, {"state": np.zeros(3)})
        with pytest.raises(RobotError, match=r"not later than the one before, at 1\.0"):
            ring.put(time_s, {"state": np.ones(3)})
        assert ring.count == 1 and not ring.last(1).values["state"].any()


@pytest.mark.parametrize("time_s", [math.nan, math.inf, -math.inf])
def test_a_first_time_that_is_none_is_refused(time_s: float) -> None:
    with made() as ring:
        with pytest.raises(RobotError, match="not later"):
            ring.put(time_s, {"state": np.zeros(3)})
        put(ring, 0)
        assert_are(ring.last(1), range(1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "`state` is missing; there were no values"),
        ({"stat": np.zeros(3)}, "`state` is missing; there were stat"),
        ({"state": np.zeros(4)}, r"should be float64 \(3,\), not float64 \(4,\)"),
        ({"state": 1.0}, r"should be float64 \(3,\), not float64 \(\)"),
        ({"state": np.zeros(3, complex)}, r"not complex128 \(3,\)"),
    ],
)
def test_values_that_do_not_fit_are_refused_and_change_nothing(values, message: str) -> None:
    with made() as ring:
        put(ring, 0)
        with pytest.raises(RobotError, match=message):
            ring.put(9.0, values)
        put(ring, 1)
        assert_are(ring.last(9), range(2))


def test_a_floating_picture_is_not_cut_to_bytes() -> None:
    fields = (Field("picture", (2, 2, 3), "uint8"),)
    with made(fields) as ring, pytest.raises(RobotError, match="should be uint8"):
        ring.put(0.0, {"picture": np.full((2, 2, 3), 0.5)})


def test_a_ring_that_is_gone_cannot_be_attached() -> None:
    with made() as ring:
        spec = ring.spec
        other = Ring.attach(spec)
        put(ring, 0)
    assert_are(other.last(1), range(1))  # who has it, keeps it
    other.close()
    with pytest.raises(RobotError, match=f"shared memory {spec.segment} is gone"):
        Ring.attach(spec)


def test_more_than_there_is_room_for_is_refused_before_memory_is_taken() -> None:
    huge = (Field("picture", (100_000, 100_000, 3), "uint8"),)
    with pytest.raises(RobotError, match=r"no room in shared memory .* MB are free") as caught:
        Ring.create(huge, rate_hz=1000)
    assert "--shm-size" in str(caught.value)


@contextmanager
def slow_ring() -> Iterator[Ring]:
    """Few slots, so that a writer at full speed overwrites what is read all the time."""
    with made(FIELDS, rate_hz=1, keep=2) as ring:
        assert ring.spec.slots == 4
        yield ring


@contextmanager
def writing(spec: RingSpec, **options: object) -> Iterator[Worker[Writing]]:
    worker = Worker("writer", write, Writing(spec, **options))  # type: ignore[arg-type]
    worker.start()
    try:
        if "die_at" not in options:  # it may be dead before it has said so
            worker.wait_ready(20)
        yield worker
    finally:
        worker.stop()


def read_for(ring: Ring, seconds: float, *, to_check: int = 0, to_lose: int = 0) -> tuple[int, int]:
    """How many samples were whole, all of them, and how many were lost while they were read."""
    checked = lost = 0
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s or checked < to_check or lost < to_lose:
        assert time.monotonic() < end_s + 60, (checked, lost)
        found = ring.last(3)
        lost += found.lost
        for number, time_s, at in zip(found.numbers, found.times_s, range(3), strict=False):
            check(int(number), time_s, {name: one[at] for name, one in found.values.items()})
            checked += 1
        assert all(b - a == 1 for a, b in pairwise(found.numbers.tolist()))
    return checked, lost


def test_reads_under_a_writer_at_full_speed_are_whole() -> None:
    with slow_ring() as ring, writing(ring.spec) as worker:
        # Where nothing is overwritten while it is read, nothing is tested.
        checked, lost = read_for(ring, 3, to_check=500, to_lose=50)
        worker.check()
        assert checked >= 500 and lost >= 50 and ring.count > 500


def test_a_writer_killed_in_the_middle_of_a_put_leaves_whole_samples() -> None:
    with slow_ring() as ring:
        for die_at in (0, 1, 7, 40):
            with writing(ring.spec, die_at=die_at) as worker:
                while worker.is_alive:
                    time.sleep(0.01)
                with pytest.raises(RobotError, match="writer was killed by SIGKILL"):
                    worker.check()
            # The torn one is not counted, and its slot is that of none of the last three.
            assert ring.count == die_at
            left = ring.last(3)
            assert left.numbers.tolist() == list(range(max(0, die_at - 3), die_at))
            assert read_for(ring, 0.05)[1] == 0
        with writing(ring.spec):
            assert read_for(ring, 0.0, to_check=30)[0]
        assert ring.count > 40


def test_writers_killed_at_any_moment_and_followed_by_others_leave_whole_samples() -> None:
    with slow_ring() as ring:
        counts = [0]
        for n in range(6):
            with writing(ring.spec) as worker:
                read_for(ring, 0.1 + n / 97, to_check=1)
                os.kill(worker.pid, signal.SIGKILL)
                assert read_for(ring, 0.0, to_check=30)[0]
            counts.append(ring.count)
        assert all(b > a for a, b in pairwise(counts))
