"""ConditionalUnet1d against the paper's sizes and an independent computation."""

import math

import pytest
import torch
import torch.nn.functional as F

from dp_hub.errors import ConfigError
from dp_hub.models.unet1d import ConditionalUnet1d


def n_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_state_configuration_has_the_papers_number_of_parameters():
    with torch.device("meta"):
        assert n_parameters(ConditionalUnet1d(2, 40)) == 65_783_298


def test_inpainting_configuration_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert n_parameters(ConditionalUnet1d(22)) == 65_245_718


def test_image_configuration_has_the_papers_number_of_parameters():
    with torch.device("meta"):
        model = ConditionalUnet1d(2, 132, step_embed_dim=128, down_dims=(512, 1024, 2048))
    assert n_parameters(model) == 251_511_938


def test_real_robot_configuration_has_the_papers_number_of_parameters():
    # Two cameras of 64 features and a position in the plane, observed twice.
    with torch.device("meta"):
        model = ConditionalUnet1d(2, 2 * (2 * 64 + 2), step_embed_dim=128)
    assert n_parameters(model) == 66_708_354


def test_a_local_condition_adds_two_residual_blocks():
    def one_block(channels_in, channels, cond_dim):
        convolutions = 5 * channels * (channels_in + channels) + 2 * channels
        norms, film = 4 * channels, 2 * channels * (cond_dim + 1)
        return convolutions + norms + film + channels * (channels_in + 1)

    with torch.device("meta"):
        without, local = ConditionalUnet1d(2), ConditionalUnet1d(2, local_cond_dim=20)
    assert n_parameters(without) == 65_209_858
    added = n_parameters(local) - n_parameters(without)
    assert added == 2 * one_block(20, 256, 256) == 983_552
    extra = set(local.state_dict()) - set(without.state_dict())
    assert {name.split(".")[0] for name in extra} == {"local_cond_encoder"}


# The same network written once more from the paper's description, straight line, on named weights.


def conv_block(w, name, x, kernel, groups):
    x = F.conv1d(x, w[f"{name}.block.0.weight"], w[f"{name}.block.0.bias"], padding=kernel // 2)
    batch, channels, length = x.shape
    grouped = x.reshape(batch, groups, -1)
    mean = grouped.mean(-1, keepdim=True)
    variance = ((grouped - mean) ** 2).mean(-1, keepdim=True)
    x = ((grouped - mean) / torch.sqrt(variance + 1e-5)).reshape(batch, channels, length)
    x = x * w[f"{name}.block.1.weight"][:, None] + w[f"{name}.block.1.bias"][:, None]
    return x * torch.tanh(torch.log1p(torch.exp(x)))


def residual_block(w, name, x, cond, kernel, groups, scaled):
    out = conv_block(w, f"{name}.blocks.0", x, kernel, groups)
    cond = cond * torch.tanh(torch.log1p(torch.exp(cond)))
    film = cond @ w[f"{name}.cond_encoder.1.weight"].T + w[f"{name}.cond_encoder.1.bias"]
    channels = out.shape[1]
    if scaled:
        out = film[:, :channels, None] * out + film[:, channels:, None]
    else:
        out = out + film[:, :, None]
    out = conv_block(w, f"{name}.blocks.1", out, kernel, groups)
    if f"{name}.residual_conv.weight" in w:
        x = torch.einsum("oc,bct->bot", w[f"{name}.residual_conv.weight"][:, :, 0], x)
        x = x + w[f"{name}.residual_conv.bias"][:, None]
    return out + x


def embed_step(w, timestep, dim):
    rows = []
    for step in timestep.tolist():
        angles = [step * math.exp(-math.log(10000) * i / (dim // 2 - 1)) for i in range(dim // 2)]
        rows.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    x = torch.tensor(rows, dtype=torch.float64)
    name = "diffusion_step_encoder"
    x = x @ w[f"{name}.1.weight"].T + w[f"{name}.1.bias"]
    x = x * torch.tanh(torch.log1p(torch.exp(x)))
    return x @ w[f"{name}.3.weight"].T + w[f"{name}.3.bias"]


def reference_unet(w, sample, timestep, cond, *, dim, levels, kernel, groups, scaled, local=False):
    features = embed_step(w, timestep, dim)
    if cond is not None and not local:
        features = torch.cat([features, cond], -1)
    x, skips = sample.transpose(1, 2), []
    for level in range(levels):
        for k in (0, 1):
            name = f"down_modules.{level}.{k}"
            x = residual_block(w, name, x, features, kernel, groups, scaled)
            if local and level == 0 and k == 0:
                along, name = cond.transpose(1, 2), "local_cond_encoder.0"
                x = x + residual_block(w, name, along, features, kernel, groups, scaled)
        skips.append(x)
        if level < levels - 1:
            name = f"down_modules.{level}.2"
            x = F.conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=2, padding=1)
    for k in (0, 1):
        x = residual_block(w, f"mid_modules.{k}", x, features, kernel, groups, scaled)
    for level in range(levels - 1):
        x = torch.cat([x, skips[-1 - level]], 1)
        for k in (0, 1):
            name = f"up_modules.{level}.{k}"
            x = residual_block(w, name, x, features, kernel, groups, scaled)
        name = f"up_modules.{level}.2"
        x = F.conv_transpose1d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=2, padding=1)
    x = conv_block(w, "final_conv.0", x, kernel, groups)
    x = F.conv1d(x, w["final_conv.1.weight"], w["final_conv.1.bias"])
    return x.transpose(1, 2)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("cond_dim", [0, 6])
def test_forward_equals_an_independent_computation(scaled, cond_dim):
    torch.manual_seed(0)
    dims = (8, 16, 24)
    model = ConditionalUnet1d(
        3,
        cond_dim,
        step_embed_dim=12,
        down_dims=dims,
        kernel_size=5,
        n_groups=4,
        cond_predict_scale=scaled,
    ).double()
    # The step embedding itself is float32; the comparison is then exact to its rounding.
    model.diffusion_step_encoder[0].register_forward_hook(lambda *call: call[2].double())
    sample = torch.randn(5, 16, 3, dtype=torch.float64)
    timestep = torch.tensor([0, 1, 7, 50, 99])
    cond = torch.randn(5, cond_dim, dtype=torch.float64) if cond_dim else None
    expected = reference_unet(
        model.state_dict(),
        sample,
        timestep,
        cond,
        dim=12,
        levels=len(dims),
        kernel=5,
        groups=4,
        scaled=scaled,
    )
    torch.testing.assert_close(model(sample, timestep, cond), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.05


def small_local(**changes):
    torch.manual_seed(0)
    sizes = dict(step_embed_dim=12, down_dims=(8, 16, 24), n_groups=4)
    return ConditionalUnet1d(3, local_cond_dim=6, **(sizes | changes)).double()


@pytest.mark.parametrize("scaled", [True, False])
def test_a_local_condition_equals_an_independent_computation(scaled):
    model = small_local(cond_predict_scale=scaled)
    model.diffusion_step_encoder[0].register_forward_hook(lambda *call: call[2].double())
    sample = torch.randn(4, 16, 3, dtype=torch.float64)
    cond = torch.randn(4, 16, 6, dtype=torch.float64)
    timestep = torch.tensor([0, 7, 50, 99])
    sizes = dict(dim=12, levels=3, kernel=5, groups=4, scaled=scaled)
    expected = reference_unet(model.state_dict(), sample, timestep, cond, local=True, **sizes)
    out = model(sample, timestep, cond)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert (out - model(sample, timestep, cond + 1)).abs().max() > 0.01


def test_of_the_local_blocks_only_the_first_counts_and_learns():
    model = small_local().float()
    sample, cond, step = torch.randn(2, 8, 3), torch.randn(2, 8, 6), torch.tensor([3, 4])
    before = model(sample, step, cond)
    before.square().sum().backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None]
    frozen = [name for name, value in model.named_parameters() if not value.requires_grad]
    assert silent == frozen and len(frozen) == 12
    assert all(name.startswith("local_cond_encoder.1.") for name in frozen)
    for parameter in model.local_cond_encoder[1].parameters():
        torch.nn.init.normal_(parameter)
    assert torch.equal(model(sample, step, cond), before)


def test_a_global_condition_of_several_steps_is_the_same_as_its_numbers_in_a_row():
    torch.manual_seed(0)
    model = ConditionalUnet1d(2, 6, step_embed_dim=8, down_dims=(8, 16))
    sample, step, cond = torch.randn(4, 8, 2), torch.arange(4), torch.randn(4, 2, 3)
    assert torch.equal(model(sample, step, cond), model(sample, step, cond.flatten(1)))


def test_a_global_and_a_local_condition_at_once_are_refused():
    with pytest.raises(ConfigError, match=r"\(40 wide\) takes no local one \(20 wide\)"):
        ConditionalUnet1d(2, 40, local_cond_dim=20)
