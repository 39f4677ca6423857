"""The average of the weights follows the original's schedule."""

import pytest
import torch
from torch import nn

from dp_hub.training.ema import Ema, EmaConfig, ema_decay


@pytest.mark.parametrize(
    ("update", "decay"),
    # What the original's EMAModel gives with power 0.75; updates counted from 0.
    [
        (0, 0.0),
        (1, 0.0),
        (2, 0.4054),
        (3, 0.5613),
        (10, 0.8222),
        (100, 0.9684),
        (1_000, 0.9944),
        (10_000, 0.9990),
    ],
)
def test_decay_is_the_originals(update, decay):
    assert ema_decay(update, EmaConfig()) == pytest.approx(decay, abs=6e-5)


def test_decay_reaches_its_upper_bound_after_some_216_000_updates():
    assert ema_decay(215_000, EmaConfig()) < 0.9999
    assert ema_decay(216_000, EmaConfig()) == 0.9999


def test_updates_before_update_after_step_copy():
    config = EmaConfig(update_after_step=10)
    assert [ema_decay(n, config) for n in (5, 11)] == [0, 0]
    assert ema_decay(12, config) == ema_decay(2, EmaConfig())


def test_average_equals_the_recurrence_written_out():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    ema = Ema(model, EmaConfig())
    expected = model.weight.detach().clone()
    for update in range(6):
        with torch.no_grad():
            model.weight += torch.randn(2, 3)
        ema.update(model)
        decay = ema_decay(update, EmaConfig())
        expected = expected * decay + model.weight.detach() * (1 - decay)
        torch.testing.assert_close(ema.model.weight, expected)
    assert not torch.allclose(ema.model.weight, model.weight)


def test_buffers_are_copied_and_the_model_is_left_alone():
    model = nn.BatchNorm1d(2)
    ema = Ema(model, EmaConfig())
    model(torch.randn(8, 2) + 5)
    before = model.weight.detach().clone()
    ema.update(model)
    assert torch.equal(ema.model.running_mean, model.running_mean)
    assert torch.equal(model.weight, before) and model.weight.requires_grad and model.training
    assert not ema.model.training and not ema.model.weight.requires_grad


def test_continuing_keeps_the_counter():
    model = nn.Linear(2, 2)
    first, second = Ema(model, EmaConfig()), Ema(nn.Linear(2, 2), EmaConfig())
    for _ in range(50):
        first.update(model)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        model.weight += 1
    first.update(model)
    second.update(model)
    assert second.step == 51
    assert torch.equal(first.model.weight, second.model.weight)
