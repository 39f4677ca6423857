"""Learning rate and the end of a run."""

import pytest
import torch

from dp_hub.training.schedule import Budget, Stopwatch, cosine_factor


def test_cosine_equals_diffusers():
    from diffusers.optimization import get_scheduler

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=13, num_training_steps=100)
    for step in range(101):
        ours = cosine_factor(step, warmup_steps=13, total_steps=100)
        assert ours == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12), step
        optimizer.step()
        scheduler.step()


def test_learning_rate_stays_zero_past_the_end():
    assert cosine_factor(150, warmup_steps=0, total_steps=100) == 0
    assert cosine_factor(199, warmup_steps=0, total_steps=100) == 0


def test_used_time_drives_the_schedule_when_it_is_further_than_the_steps():
    half = cosine_factor(50, warmup_steps=0, total_steps=100)
    assert cosine_factor(10, warmup_steps=0, total_steps=100, share=0.5) == half
    assert cosine_factor(50, warmup_steps=0, total_steps=100, share=0.1) == half
    assert cosine_factor(9, warmup_steps=0, total_steps=None, share=0.5) == pytest.approx(0.5)
    assert cosine_factor(5, warmup_steps=10, total_steps=None, share=0.5) == 0.5


def test_run_ends_at_the_first_limit():
    budget = Budget(steps=100, seconds=60)
    assert budget.progress(50, 6.0) == 0.5
    assert budget.progress(10, 60.0) == 1
    assert budget.progress(100, 0.0) == 1
    assert Budget(steps=None, seconds=60).progress(10**9, 30.0) == 0.5
    assert Budget(steps=100, seconds=None).progress(50, 1e9) == 0.5


def test_stopwatch_leaves_pauses_out_and_continues():
    now = [100.0]
    watch = Stopwatch(7.0, clock=lambda: now[0])
    now[0] += 5
    with watch.paused():
        now[0] += 1000
    now[0] += 1
    assert watch.elapsed_s == 13.0
