"""What is counted of answers, and how it is told."""

import json

import numpy as np
import pytest

from dp_hub.robot.acting.lateness import EDGES_MS, Lateness
from dp_hub.robot.acting.rules import Rules
from dp_hub.robot.acting.schedule import Chunk, Pacing
from dp_hub.robot.acting.scheduler import Scheduler


def rollout(latencies_s, **rules):
    """Asked every 0.4 s, however late the answer before was."""
    scheduler = Scheduler(Rules(**rules), Pacing(0.1, 4))
    for k, latency_s in enumerate(latencies_s):
        observed_s = 0.4 * k
        chunk = Chunk(observed_s, np.zeros((10, 2)), 2)
        scheduler.accept(chunk, now_s=observed_s + latency_s)
    return scheduler.lateness


def test_nothing_that_is_dropped_late_or_merged_goes_uncounted():
    # In time (of 0.1: an action is past), 0.25 s after 0.9 with three old actions, all past.
    told = rollout([0.05, 0.1, 0.35, 0.95])
    assert told.answers == 4
    assert told.dropped == 0 + 1 + 3 + 9
    assert told.late == 2
    assert told.late_sum_s == pytest.approx((1.15 - 0.9) + (2.15 - 1.6))
    assert told.late_most_s == pytest.approx(0.55)
    assert told.useless == 1
    assert told.extended == 3
    assert told.latency_most_s == pytest.approx(0.95)
    assert told.latency_sum_s == pytest.approx(1.45)


def test_holds_are_counted_where_late_answers_let_the_robot_hold():
    assert rollout([0.0, 0.3, 0.0], late="hold").held == 1
    assert rollout([0.0, 0.3, 0.0], late="extend").held == 0


def test_merged_targets_are_counted():
    assert rollout([0.0, 0.0], merge="blend").merged == 5
    assert rollout([0.0, 0.0, 0.0], merge="ensemble").merged == 5 + 5
    assert rollout([0.0, 0.0]).merged == 0


def test_each_latency_is_in_its_bin():
    told = rollout([0.0, 0.01, 0.011, 0.2, 5.0])
    expected = dict.fromkeys([*EDGES_MS, None], 0) | {10: 2, 20: 1, 200: 1, None: 1}
    assert told.histogram == tuple(expected.values())
    assert told.quantile_ms(0.5) == 20
    assert told.quantile_ms(1.0) == 5000


def test_one_line_tells_what_there_is_to_know():
    assert Lateness().line() == "no answers"
    assert rollout([0.05, 0.1]).line() == (
        "2 answers, 75 ms after their observation on average (95 % within 100 ms, longest 100 ms); "
        "1 past actions dropped"
    )
    told = rollout([0.05, 0.1, 0.35, 0.95]).line()
    assert "2 answers late, by at most 550 ms" in told
    assert "3 old actions went on" in told
    assert "1 answers all past" in told


def test_json_holds_all_of_it():
    told = rollout([0.05, 0.35])
    back = json.loads(json.dumps(told.to_json()))
    assert back["histogram"] == list(told.histogram)
    assert back["edges_ms"] == list(EDGES_MS)
    assert back["answers"] == 2
