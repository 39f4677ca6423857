"""Ticks come at absolute deadlines, whatever happened before."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp_hub.robot.clock import MonotonicClock, Tick, VirtualClock, ticks


def test_ticks_are_at_the_start_and_every_period_after_it() -> None:
    clock = VirtualClock(5.0)
    seen = list(itertools.islice(ticks(0.5, clock), 4))
    assert seen == [Tick(k, 5.0 + k * 0.5, 0.0, 0) for k in range(4)]


def test_the_first_tick_waits_for_a_start_that_is_to_come() -> None:
    clock = VirtualClock(5.0)
    assert next(ticks(0.5, clock, start_s=7.25)) == Tick(0, 7.25, 0.0, 0)
    assert clock.now_s() == 7.25


def test_a_start_that_is_past_counts_what_has_gone_by() -> None:
    clock = VirtualClock(5.25)
    assert next(ticks(0.5, clock, start_s=4.0)) == Tick(3, 5.5, 0.0, 3)


def test_work_shorter_than_a_period_moves_no_deadline() -> None:
    clock = VirtualClock()
    for tick in itertools.islice(ticks(0.25, clock), 100):
        assert (tick.due_s, tick.late_s, tick.missed) == (tick.number * 0.25, 0.0, 0)
        clock.advance(0.2)


def test_a_stall_is_followed_by_no_burst() -> None:
    clock = VirtualClock()
    loop = ticks(1.0, clock)
    next(loop)
    clock.advance(3.5)  # deadlines 1, 2 and 3 go by
    assert next(loop) == Tick(4, 4.0, 0.0, 3)
    assert next(loop) == Tick(5, 5.0, 0.0, 0)


def test_a_deadline_that_is_just_now_is_not_past() -> None:
    clock = VirtualClock()
    loop = ticks(1.0, clock)
    next(loop)
    clock.advance(2.0)
    assert next(loop) == Tick(2, 2.0, 0.0, 1)


def test_a_clock_that_wakes_late_is_told_as_lateness() -> None:
    class Late(VirtualClock):
        def sleep_until(self, t_s: float, *, spin_s: float = 0.0) -> None:
            super().sleep_until(t_s + 0.125)

    seen = list(itertools.islice(ticks(1.0, Late()), 3))
    assert seen == [Tick(k, float(k), 0.125, 0) for k in range(3)]


def test_waking_a_period_late_skips_what_went_by_before_the_loop_came_back() -> None:
    clock = VirtualClock()
    loop = ticks(1.0, clock)
    next(loop)
    wake = clock.sleep_until
    clock.sleep_until = lambda t_s, *, spin_s=0.0: wake(t_s + 2.5)  # type: ignore[method-assign]
    assert next(loop) == Tick(1, 1.0, 2.5, 0)
    clock.sleep_until = wake  # type: ignore[method-assign]
    assert next(loop) == Tick(4, 4.0, 0.0, 2)


@given(
    period_s=st.floats(1e-4, 10.0),
    start_s=st.floats(0, 1e7),
    work=st.lists(st.floats(0, 50), min_size=1, max_size=50),
)
def test_deadlines_are_on_the_grid_in_order_and_none_is_uncounted(
    period_s: float, start_s: float, work: list[float]
) -> None:
    clock = VirtualClock(start_s)
    loop = ticks(period_s, clock)
    last = -1
    for periods in work:
        before_s = clock.now_s()
        tick = next(loop)
        assert tick.due_s == start_s + tick.number * period_s
        assert tick.number == last + 1 + tick.missed
        assert tick.late_s == 0.0 and clock.now_s() == tick.due_s >= before_s
        if tick.missed:  # the one before was past
            assert start_s + (tick.number - 1) * period_s < before_s
        last = tick.number
        clock.advance(periods * period_s)


def test_virtual_time_does_not_go_back() -> None:
    clock = VirtualClock(3.0)
    clock.sleep_until(1.0)
    assert clock.now_s() == 3.0


@pytest.mark.parametrize("spin_s", [0.0, 0.002])
def test_the_machine_s_clock_never_wakes_early(spin_s: float) -> None:
    clock = MonotonicClock()
    start_s = clock.now_s() + 0.01
    seen = list(itertools.islice(ticks(0.005, clock, start_s=start_s, spin_s=spin_s), 40))
    assert time.monotonic() >= seen[-1].due_s
    assert min(tick.late_s for tick in seen) >= 0
    # However busy the machine is, deadlines stay on the grid of the start.
    assert all(tick.due_s == start_s + tick.number * 0.005 for tick in seen)
    assert seen[-1].number == 39 + sum(tick.missed for tick in seen)


def test_a_time_that_is_past_is_not_waited_for() -> None:
    clock = MonotonicClock()
    before_s = time.monotonic()
    clock.sleep_until(before_s - 100)
    assert time.monotonic() - before_s < 1
