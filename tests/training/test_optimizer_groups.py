"""Groups of weights: their decay, their learning rate; gradients measured, clipped, kept finite."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from dp_hub.config import build
from dp_hub.policies.config import DiffusionConfig
from dp_hub.policies.diffusion import make_policy
from dp_hub.training.checkpoints import load_optimizer, optimizer_tensors
from dp_hub.training.config import OptimizerConfig
from dp_hub.training.optimizer import (
    clip_gradient,
    leave_out_if_broken,
    make_optimizer,
    parameter_groups,
    set_rate,
)

CPU = torch.device("cpu")
TRANSFORMER = {
    "kind": "transformer",
    "n_layer": 1,
    "n_head": 2,
    "n_emb": 16,
}
SEES = {"observations": ["observation.image", "observation.state"], "n_obs_steps": 2}
FEATURES = {"observation.image": (32, 32, 3), "observation.state": 2, "action": 2}


def policy(**values):
    return make_policy(build(DiffusionConfig, values, where="the test"), FEATURES)


def named_groups(one, **settings):
    """Of every group: its settings, and the names of its weights."""
    names = {id(parameter): name for name, parameter in one.named_parameters()}
    groups = parameter_groups(one, OptimizerConfig(**settings))
    return {
        (group["weight_decay"], group["lr_factor"]): {names[id(p)] for p in group["params"]}
        for group in groups
    }


def rates(optimizer):
    return {round(group["lr"], 9) for group in optimizer.param_groups}


def test_network_that_does_not_say_decays_as_a_whole_and_in_its_own_order():
    one = policy(observations=["observation.state"], denoiser={"kind": "mlp", "width": 8})
    [group] = parameter_groups(one, OptimizerConfig(weight_decay=0.1))
    assert [id(p) for p in group["params"]] == [id(p) for p in one.parameters()]
    assert (group["weight_decay"], group["lr_factor"]) == (0.1, 1.0)


def test_transformer_decays_its_linear_weights_only():
    one = policy(observations=["observation.state"], denoiser=TRANSFORMER)
    groups = named_groups(one, weight_decay=1e-3)
    assert set(groups) == {(1e-3, 1.0), (0.0, 1.0)}
    decayed, spared = groups[1e-3, 1.0], groups[0.0, 1.0]
    assert len(decayed) + len(spared) == len(list(one.parameters()))
    assert "denoiser.decoder.layers.0.self_attn.in_proj_weight" in decayed
    assert all(name.endswith("weight") for name in decayed)
    assert "denoiser.pos_emb" in spared and "denoiser.ln_f.weight" in spared
    assert all("norm" not in name and "bias" not in name for name in decayed)


def test_encoder_of_pictures_has_its_own_decay_and_rate():
    one = policy(**SEES, denoiser=TRANSFORMER)
    groups = named_groups(one, weight_decay=1e-3, encoder_weight_decay=1e-6, encoder_lr_factor=0.1)
    assert set(groups) == {(1e-6, 0.1), (1e-3, 1.0), (0.0, 1.0)}
    assert {name.split(".")[0] for name in groups[1e-6, 0.1]} == {"encoder"}
    assert len(groups[1e-6, 0.1]) == len(list(one.encoder.parameters())) > 20
    same = named_groups(one, weight_decay=1e-3)
    assert set(same) == {(1e-3, 1.0), (0.0, 1.0)}


def test_rate_is_multiplied_with_each_groups_factor_and_after_a_checkpoint_too():
    one = policy(**SEES, denoiser=TRANSFORMER)
    settings = OptimizerConfig(encoder_lr_factor=0.1)
    optimizer = make_optimizer(one, settings, CPU)
    set_rate(optimizer, 3e-4)
    assert rates(optimizer) == {3e-4, 3e-5}
    tensors, groups = optimizer_tensors(optimizer)
    other = make_optimizer(copy.deepcopy(one), settings, CPU)
    load_optimizer(other, tensors, groups)
    set_rate(other, 1e-3)
    assert rates(other) == {1e-3, 1e-4}


def test_frozen_weights_are_left_to_themselves():
    one = policy(observations=["observation.state"], denoiser={"kind": "mlp", "width": 8})
    first = next(one.parameters()).requires_grad_(False)
    [group] = parameter_groups(one, OptimizerConfig())
    assert all(parameter is not first for parameter in group["params"])
    assert len(group["params"]) == len(list(one.parameters())) - 1


def test_norm_is_that_of_the_whole_gradient_and_clipping_brings_it_down():
    accelerator = Accelerator(cpu=True)
    model = nn.Linear(3, 2)
    model.weight.grad, model.bias.grad = torch.full((2, 3), 2.0), torch.full((2,), 1.0)
    assert clip_gradient(accelerator, model, None).item() == pytest.approx(26**0.5)
    assert model.weight.grad.max() == 2.0
    assert clip_gradient(accelerator, model, 1.0).item() == pytest.approx(26**0.5)
    assert clip_gradient(accelerator, model, None).item() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_step_with_a_broken_gradient_changes_nothing(fused, value):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    twin = copy.deepcopy(model)
    optimizers = [torch.optim.AdamW(one.parameters(), lr=0.1, fused=fused) for one in (model, twin)]
    for good in (True, False, True):
        batch = torch.randn(4, 3)
        for one, optimizer in zip((model, twin), optimizers, strict=True):
            if not good and one is twin:
                continue
            one(batch if good else batch * value).square().mean().backward()
            norm = torch.stack([p.grad.norm() for p in one.parameters()]).norm()
            leave_out_if_broken(optimizer, norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    assert torch.equal(model.weight, twin.weight) and model.weight.isfinite().all()
    states = [optimizer.state_dict()["state"] for optimizer in optimizers]
    assert all(torch.equal(states[0][0][key], states[1][0][key]) for key in states[0][0])
    assert states[0][0]["step"] == 2
