"""Numbers of training itself."""

import pytest
import torch
from accelerate import Accelerator

from dp_hub.training.meters import NotFiniteError, StepMeter, peak_memory_gb

CPU = torch.device("cpu")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_numbers_are_those_since_the_last_look():
    clock, accelerator = Clock(), Accelerator(cpu=True)
    meter = StepMeter(CPU, 64, elapsed_s=100.0, clock=clock)
    for loss, norm in ((3.0, 2.0), (1.0, 4.0)):
        with meter.waiting():
            clock.now += 0.5
        meter.add_loss(torch.tensor(loss))
        meter.add_gradient(torch.tensor(norm))
    numbers = meter.take(accelerator, elapsed_s=104.0)
    memory = numbers.pop("train/memory_gb")
    assert numbers == {
        "train/loss": 2.0,
        "train/grad_norm": 3.0,
        "train/elapsed_s": 104.0,
        "train/windows_per_s": 32.0,
        "train/data_wait_share": 0.25,
    }
    assert memory == peak_memory_gb(CPU) and 0.05 < memory < 100
    meter.add_loss(torch.tensor(7.0))
    meter.add_gradient(torch.tensor(5.0))
    again = meter.take(accelerator, elapsed_s=105.0)
    assert (again["train/loss"], again["train/windows_per_s"]) == (7.0, 64.0)
    assert again["train/data_wait_share"] == 0.0


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_broken_numbers_are_counted_and_raised_at_the_next_look(broken):
    accelerator = Accelerator(cpu=True)
    meter = StepMeter(CPU, 64)
    for norm in (1.0, broken, 1.0, broken):
        meter.add_loss(torch.tensor(1.0))
        meter.add_gradient(torch.tensor(norm))
    with pytest.raises(NotFiniteError) as caught:
        meter.take(accelerator, elapsed_s=1.0)
    assert (caught.value.steps, caught.value.broken) == (4, 2)
    meter.add_loss(torch.tensor(broken))
    meter.add_gradient(torch.tensor(1.0))
    with pytest.raises(NotFiniteError):
        meter.take(accelerator, elapsed_s=2.0)


def test_look_before_the_first_step_divides_by_nothing():
    numbers = StepMeter(CPU, 64).take(Accelerator(cpu=True), elapsed_s=0.0)
    assert numbers["train/loss"] == 0.0 and "train/windows_per_s" not in numbers
