"""A policy loaded in bf16: the same actions but rounding, for every kind of denoiser."""

import pytest
import torch

from dp_hub.errors import PolicyError
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.act_config import ActConfig
from dp_hub.policies.config import (
    DiffusionConfig,
    DiffusionObjective,
    MlpConfig,
    TransformerConfig,
    UnetConfig,
)
from dp_hub.policies.kinds import make_policy
from dp_hub.policies.saving import load_policy, save_policy

FEATURES = {"observation.state": 4, "action": 2}
DENOISERS = {
    "unet": UnetConfig(step_embed_dim=16, down_dims=(16, 32), n_groups=4),
    "transformer": TransformerConfig(n_layer=2, n_head=2, n_emb=16),
    "mlp": MlpConfig(width=32, depth=2, step_embed_dim=16),
}


def saved(config, folder):
    torch.manual_seed(0)
    policy = make_policy(config, FEATURES, normalizer=Normalizer.empty(FEATURES))
    for parameter in policy.parameters():
        if parameter.std() == 0:  # what starts as zero would hide what it multiplies
            torch.nn.init.normal_(parameter, std=0.2)
    return save_policy(policy, folder)


def diffusion(name, solver="ddim", conditioning="global", prediction="sample"):
    return DiffusionConfig(
        observations=("observation.state",),
        denoiser=DENOISERS[name],
        conditioning=conditioning,
        objective=DiffusionObjective(prediction=prediction, solver=solver, num_inference_steps=5),
    )


def chunk(policy):
    generator = torch.Generator().manual_seed(1)
    obs = {"observation.state": torch.randn(3, 2, 4, generator=generator)}
    return policy.predict_action(obs, generator=generator)["action_pred"]


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize("conditioning", ["global", "inpainting"])
def test_bf16_gives_the_same_actions_but_rounding(name, conditioning, tmp_path):
    folder = saved(diffusion(name, conditioning=conditioning), tmp_path / "p")
    exact, rounded = chunk(load_policy(folder)), chunk(load_policy(folder, precision="bf16"))
    assert rounded.dtype == torch.float32
    difference = (exact - rounded).abs().max() / exact.abs().max()
    assert 1e-6 < difference < 0.05


def test_only_the_denoisers_matrices_are_rounded(tmp_path):
    policy = load_policy(saved(diffusion("unet"), tmp_path / "p"), precision="bf16")
    weights = policy.state_dict()
    rounded = {name for name, value in weights.items() if value.dtype == torch.bfloat16}
    inside = {name for name, value in weights.items() if name.startswith("denoiser.")}
    assert rounded == {name for name in inside if weights[name].dim() > 1}
    assert 0 < len(rounded) < len(inside) < len(weights)


@pytest.mark.parametrize("solver", ["ddpm", "dpmsolver++"])
def test_solvers_go_on_in_float32(solver, tmp_path):
    config = diffusion("unet", solver, prediction="epsilon")
    policy = load_policy(saved(config, tmp_path / "p"), precision="bf16")
    drawn = chunk(policy)
    assert drawn.isfinite().all()
    assert not torch.equal(drawn, drawn.bfloat16().float())


def test_act_has_no_denoiser_to_round(tmp_path):
    config = ActConfig(observations=("observation.state",), hidden_dim=16, feedforward_dim=16)
    folder = saved(config, tmp_path / "p")
    with pytest.raises(PolicyError, match="precision bf16 is for diffusion policies, not for act"):
        load_policy(folder, precision="bf16")
