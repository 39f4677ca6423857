"""What depends on the machine."""

import os
import signal

import torch

from dp_hub.training.machine import cpu_threads, faster_precision, stop_on_signals


def test_all_cores_are_used_unless_a_person_said_otherwise():
    def threads(**environ):
        return cpu_threads(environ, cores=8, local_processes=2)

    launched = {"ACCELERATE_MIXED_PRECISION": "no"}
    assert threads() == 4
    assert threads(OMP_NUM_THREADS="1") == 1
    assert threads(OMP_NUM_THREADS="3", **launched) == 3
    assert threads(OMP_NUM_THREADS="1", **launched) == 4  # the launcher's doing
    assert cpu_threads({}, cores=1, local_processes=4) == 1


def test_trying_precisions_leaves_no_trace():
    class Network(torch.nn.Sequential):
        def forward(self, batch):
            return super().forward(batch["x"]).mean()

    policy = Network(torch.nn.Linear(4, 1), torch.nn.Dropout(0.5))
    batch, weights = {"x": torch.randn(8, 4)}, policy[0].weight.clone()
    before = torch.get_rng_state()
    assert faster_precision(policy, batch, torch.device("cpu")) in ("no", "bf16")
    assert torch.equal(torch.get_rng_state(), before)
    assert policy[0].weight.grad is None
    assert torch.equal(policy[0].weight, weights)


def test_first_signal_is_a_request_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as request:
        assert request.received is None
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # a launcher repeats it at once
        assert request.received == "SIGINT"
    assert signal.getsignal(signal.SIGINT) is before
