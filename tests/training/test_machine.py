"""What depends on the machine."""

import copy
import os
import signal

import pytest
import torch
from pydantic import TypeAdapter

from dp_hub.policies.kinds import PolicyConfig, make_policy
from dp_hub.training.machine import (
    compile_networks,
    cpu_threads,
    faster_precision,
    stop_on_signals,
)


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

    policy = Network(torch.nn.Linear(4, 1), torch.nn.BatchNorm1d(1), torch.nn.Dropout(0.5))
    batch, state = {"x": torch.randn(8, 4)}, copy.deepcopy(policy.state_dict())
    before = torch.get_rng_state()
    assert faster_precision(policy, batch, torch.device("cpu")) in ("no", "bf16")
    assert torch.equal(torch.get_rng_state(), before)
    assert policy[0].weight.grad is None
    assert all(torch.equal(value, state[name]) for name, value in policy.state_dict().items())


def test_first_signal_is_a_request_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as request:
        assert request.received is None
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # a launcher repeats it at once
        assert request.received == "SIGINT"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"denoiser": {"kind": "mlp", "width": 8}}, {"denoiser"}),
        ({"observations": ["observation.image"]}, {"encoder", "denoiser"}),
        ({"kind": "act", "hidden_dim": 16, "n_heads": 2, "feedforward_dim": 16}, None),
    ],
)
def test_compiling_reaches_what_is_called_and_renames_nothing(values, parts):
    common = {"kind": "diffusion", "observations": ["observation.state"]}
    config = TypeAdapter(PolicyConfig).validate_python(common | values)
    policy = make_policy(
        config, {"observation.state": 2, "observation.image": (32, 32, 3), "action": 2}
    )
    names = list(policy.state_dict())
    compile_networks(policy, torch.device("cpu"))
    compiled = {name for name, one in policy.named_modules() if one._compiled_call_impl}
    if parts is None:  # its network is called by verbs of its own
        assert compiled and all(name.startswith("network.") for name in compiled)
    else:
        assert compiled == parts
    assert list(policy.state_dict()) == names
    assert copy.deepcopy(policy).state_dict().keys() == set(names)
