"""What a policy is told of the plan in force when it is asked."""

import numpy as np
import pytest

from dp_hub.robot.acting.overlap import rtc_weights
from dp_hub.robot.acting.rules import Rules
from dp_hub.robot.acting.schedule import Chunk, Pacing
from dp_hub.robot.acting.scheduler import Scheduler

TO, TP = 2, 10


def test_the_weights_are_the_papers():
    # Black, Galliker and Levine 2025, eq. 5: H = 8, d = 2, s = 3.
    share = np.array([1, 1, 3 / 4, 2 / 4, 1 / 4, 0, 0, 0])
    expected = share * (np.exp(share) - 1) / (np.e - 1)
    np.testing.assert_allclose(rtc_weights(8, settled=2, overlap=5), expected)


@pytest.mark.parametrize(("settled", "overlap"), [(0, 0), (0, 8), (8, 8), (9, 3), (3, 3)])
def test_the_weights_fall_from_one_to_nothing(settled, overlap):
    weights = rtc_weights(8, settled=settled, overlap=overlap)
    assert (np.diff(weights) <= 0).all()
    assert (weights[: min(settled, overlap)] == 1).all()
    assert (weights[overlap:] == 0).all()
    assert ((weights >= 0) & (weights <= 1)).all()


def chunk_of(observed_s):
    return Chunk(observed_s, np.arange(TP)[:, None] + 100.0 * observed_s, TO)


def scheduler_of(**rules):
    return Scheduler(Rules(**rules), Pacing(0.1, 4))


def test_before_there_is_a_plan_nothing_is_told():
    scheduler = scheduler_of()
    assert scheduler.overlap(0.0, latency_s=0.1, horizon=TP, n_obs_steps=TO) is None
    scheduler.accept(chunk_of(0.0), now_s=0.0)
    assert scheduler.overlap(9.0, latency_s=0.1, horizon=TP, n_obs_steps=TO) is None


def test_what_is_carried_out_until_the_answer_is_settled():
    scheduler = scheduler_of()
    scheduler.accept(chunk_of(0.0), now_s=0.0)  # 1 at 0.0 to 9 at 0.8
    told = scheduler.overlap(0.4, latency_s=0.15, horizon=TP, n_obs_steps=TO)
    # The new chunk begins a step before its newest observation: at 0.3.
    np.testing.assert_allclose(told.actions[:, 0], [4, 5, 6, 7, 8, 9])
    assert told.actions.dtype == told.weights.dtype == np.float32
    expected = rtc_weights(TP, settled=3, overlap=6)[:6]  # those of 0.3, 0.4 and 0.5
    np.testing.assert_allclose(told.weights, expected, rtol=1e-6)


def test_what_was_carried_out_by_an_older_plan_is_told_as_it_was():
    scheduler = scheduler_of()
    scheduler.accept(chunk_of(0.0), now_s=0.0)
    scheduler.accept(chunk_of(0.4), now_s=0.5)  # from 0.5 on
    told = scheduler.overlap(0.5, latency_s=0.05, horizon=TP, n_obs_steps=TO)
    np.testing.assert_allclose(told.actions[:3, 0], [5, 42, 43])  # of 0.4, 0.5 and 0.6


def test_steps_before_the_first_plan_have_no_weight():
    scheduler = scheduler_of()
    scheduler.accept(chunk_of(0.0), now_s=0.0)
    told = scheduler.overlap(0.0, latency_s=0.2, horizon=TP, n_obs_steps=TO)
    assert told.weights[0] == 0
    assert told.weights[1] == 1


def test_by_arrival_a_chunk_is_laid_where_it_will_be_carried_out():
    scheduler = scheduler_of(timing="arrival")
    scheduler.accept(chunk_of(0.0), now_s=0.2)  # 1 at 0.2 to 9 at 1.0
    told = scheduler.overlap(0.6, latency_s=0.2, horizon=TP, n_obs_steps=TO)
    np.testing.assert_allclose(told.actions[:, 0], [6, 7, 8, 9])  # from 0.7 on
    assert told.weights.tolist() == pytest.approx(rtc_weights(TP, settled=1, overlap=4)[:4])
