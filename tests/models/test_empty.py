"""Networks without numbers: nothing is made of weights, and all else is as always."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dp_hub.config import build
from dp_hub.models.empty import without_weights
from dp_hub.policies.act_config import ActConfig
from dp_hub.policies.config import DiffusionConfig
from dp_hub.policies.kinds import make_policy

SHAPES = {
    "observation.environment_state": 18,
    "observation.state": 5,
    "observation.image": (96, 96, 3),
    "action": 2,
}
POLICIES = {
    "unet": (DiffusionConfig, {"denoiser": {"kind": "unet", "down_dims": [16, 32]}}),
    "transformer": (DiffusionConfig, {"denoiser": {"kind": "transformer", "n_cond_layers": 1}}),
    "batch norm": (
        DiffusionConfig,
        {"observations": ["observation.image"], "vision": {"norm": "batch"}},
    ),
    "act": (ActConfig, {"observations": ["observation.image", "observation.state"]}),
}


def policy_of(name):
    kind, values = POLICIES[name]
    return make_policy(build(kind, values, where="the test"), SHAPES)


@pytest.mark.parametrize("name", POLICIES)
def test_weights_are_empty_and_buffers_are_as_always(name):
    before = torch.get_rng_state()
    with without_weights():
        empty = policy_of(name)
    assert torch.equal(before, torch.get_rng_state())
    whole = policy_of(name)
    assert all(parameter.is_meta for parameter in empty.parameters())
    buffers, others = dict(empty.named_buffers()), dict(whole.named_buffers())
    assert buffers.keys() == others.keys() and buffers
    assert all(torch.equal(value, others[key]) for key, value in buffers.items())
    empty.load_state_dict(whole.state_dict(), assign=True)
    for (key, value), other in zip(whole.named_parameters(), empty.parameters(), strict=True):
        assert torch.equal(value, other), key


def test_layers_larger_than_any_memory_cost_nothing():
    with without_weights():
        layer = torch.nn.Linear(10**9, 10**9)
    assert layer.weight.shape == (10**9, 10**9)


def test_weights_are_drawn_again_afterwards():
    with without_weights():
        pass
    assert torch.nn.Linear(3, 3).weight.std() > 0


def test_torchs_compiler_is_not_imported_for_it():
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_empty import POLICIES, policy_of, without_weights\n"
        "for name in POLICIES:\n"
        "    with without_weights(): policy_of(name)\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
