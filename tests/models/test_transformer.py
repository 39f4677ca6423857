"""TransformerDenoiser against the paper's sizes, its masks and an independent computation."""

import math

import pytest
import torch

from dp_hub.models.decay import weight_decay_groups
from dp_hub.models.transformer import TransformerDenoiser


def n_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


PUSHT = dict(input_dim=2, obs_dim=20, horizon=16, n_obs_steps=2)
PUSHT_IMAGE = dict(input_dim=2, obs_dim=66, horizon=10, n_obs_steps=2)
KITCHEN = dict(input_dim=9, obs_dim=60, horizon=16, n_obs_steps=4, n_emb=768)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (PUSHT, 8_965_122),
        (PUSHT_IMAGE | {"n_cond_layers": 4}, 11_608_834),
        (PUSHT_IMAGE, 8_975_362),
        (KITCHEN, 80_415_753),
    ],
    ids=["pusht", "pusht-image-4-cond-layers", "pusht-image", "kitchen"],
)
def test_the_papers_configurations_have_its_number_of_parameters(sizes, expected):
    with torch.device("meta"):
        assert n_parameters(TransformerDenoiser(**sizes)) == expected


def small(obs_dim=5, **changes):
    """Float64 with weights large enough that every path matters, and without dropout."""
    sizes = dict(horizon=6, n_obs_steps=3, n_layer=2, n_head=2, n_emb=8, p_drop_attn=0.0)
    model = TransformerDenoiser(3, obs_dim, **(sizes | changes)).double()
    rng = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
        parameter.data += 0.3 * noise
    return model


def inputs(obs_dim=5):
    rng = torch.Generator().manual_seed(1)
    sample = torch.randn(4, 6, 3, generator=rng, dtype=torch.float64)
    cond = torch.randn(4, 3, obs_dim, generator=rng, dtype=torch.float64) if obs_dim else None
    return sample, torch.tensor([0, 1, 50, 99]), cond


def changed_steps(before, after):
    """bool (T,): at which steps two outputs (B, T, D) differ."""
    return ((before - after).abs().amax(dim=(0, 2)) > 1e-9).tolist()


@pytest.mark.parametrize("obs_dim", [5, 0], ids=["decoder", "encoder"])
@pytest.mark.parametrize("training", [True, False])
def test_an_action_changes_only_itself_and_later_ones(obs_dim, training):
    model = small(obs_dim).train(training)
    sample, timestep, cond = inputs(obs_dim)
    before = model(sample, timestep, cond)
    for t in range(6):
        other = sample.clone()
        other[:, t] += 1
        after = model(other, timestep, cond)
        assert changed_steps(before, after) == [step >= t for step in range(6)]


def test_an_observation_changes_only_actions_from_its_own_step_on():
    model = small()
    sample, timestep, cond = inputs()
    before = model(sample, timestep, cond)
    for s in range(3):
        other = cond.clone()
        other[:, s] += 1
        after = model(sample, timestep, other)
        assert changed_steps(before, after) == [step >= s for step in range(6)]


@pytest.mark.parametrize("obs_dim", [5, 0], ids=["decoder", "encoder"])
def test_the_diffusion_step_changes_every_action(obs_dim):
    model = small(obs_dim)
    sample, timestep, cond = inputs(obs_dim)
    assert all(changed_steps(model(sample, timestep, cond), model(sample, timestep + 1, cond)))


@pytest.mark.parametrize("obs_dim", [5, 0], ids=["decoder", "encoder"])
def test_without_causality_everything_changes_everything(obs_dim):
    model = small(obs_dim, causal_attn=False)
    sample, timestep, cond = inputs(obs_dim)
    before = model(sample, timestep, cond)
    other = sample.clone()
    other[:, 5] += 1
    assert all(changed_steps(before, model(other, timestep, cond)))
    if cond is not None:
        late = cond.clone()
        late[:, 2] += 1
        assert all(changed_steps(before, model(sample, timestep, late)))


# The same network written once more from the paper's description, on named weights: attention as
# loops over heads and softmax over allowed places, without any of torch's layers.


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(w, name, x):
    centred = x - x.mean(-1, keepdim=True)
    x = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def attention(w, name, queries, keys, allowed, heads):
    width = queries.shape[-1]
    q, k, v = (
        x @ part.T + bias
        for x, part, bias in zip(
            (queries, keys, keys),
            w[f"{name}.in_proj_weight"].split(width),
            w[f"{name}.in_proj_bias"].split(width),
            strict=True,
        )
    )
    per_head = []
    for h in range(heads):
        own = slice(h * width // heads, (h + 1) * width // heads)
        weights = torch.exp(q[..., own] @ k[..., own].mT / math.sqrt(width // heads)) * allowed
        per_head.append(weights / weights.sum(-1, keepdim=True) @ v[..., own])
    return linear(w, f"{name}.out_proj", torch.cat(per_head, -1))


def feed_forward(w, name, x):
    x = linear(w, f"{name}.linear1", x)
    return linear(w, f"{name}.linear2", x * 0.5 * (1 + torch.erf(x / math.sqrt(2))))


def encoder_layer(w, name, x, allowed, heads):
    normed = layer_norm(w, f"{name}.norm1", x)
    x = x + attention(w, f"{name}.self_attn", normed, normed, allowed, heads)
    return x + feed_forward(w, name, layer_norm(w, f"{name}.norm2", x))


def decoder_layer(w, name, x, memory, allowed, allowed_memory, heads):
    normed = layer_norm(w, f"{name}.norm1", x)
    x = x + attention(w, f"{name}.self_attn", normed, normed, allowed, heads)
    normed = layer_norm(w, f"{name}.norm2", x)
    x = x + attention(w, f"{name}.multihead_attn", normed, memory, allowed_memory, heads)
    return x + feed_forward(w, name, layer_norm(w, f"{name}.norm3", x))


def embedded(timestep, dim):
    rows = []
    for step in timestep.tolist():
        angles = [step * math.exp(-math.log(10000) * i / (dim // 2 - 1)) for i in range(dim // 2)]
        rows.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    return torch.tensor(rows, dtype=torch.float64)[:, None]


def reference_decoder(w, sample, timestep, cond, *, layers, cond_layers, heads):
    horizon = sample.shape[1]
    step = embedded(timestep, w["ln_f.bias"].numel())
    memory = torch.cat([step, linear(w, "cond_obs_emb", cond)], 1) + w["cond_pos_emb"]
    if cond_layers:
        for i in range(cond_layers):
            memory = encoder_layer(w, f"encoder.layers.{i}", memory, 1, heads)
    else:
        memory = linear(w, "encoder.0", memory)
        memory = linear(w, "encoder.2", memory * torch.tanh(torch.log1p(torch.exp(memory))))
    x = linear(w, "input_emb", sample) + w["pos_emb"]
    allowed = torch.tensor([[float(s <= t) for s in range(horizon)] for t in range(horizon)])
    tokens = memory.shape[1]
    seen = torch.tensor([[float(t >= s - 1) for s in range(tokens)] for t in range(horizon)])
    for i in range(layers):
        x = decoder_layer(w, f"decoder.layers.{i}", x, memory, allowed, seen, heads)
    return linear(w, "head", layer_norm(w, "ln_f", x))


def reference_encoder(w, sample, timestep, *, layers, heads):
    step = embedded(timestep, w["ln_f.bias"].numel())
    x = torch.cat([step, linear(w, "input_emb", sample)], 1) + w["pos_emb"]
    n = x.shape[1]
    allowed = torch.tensor([[float(s <= t) for s in range(n)] for t in range(n)])
    for i in range(layers):
        x = encoder_layer(w, f"encoder.layers.{i}", x, allowed, heads)
    return linear(w, "head", layer_norm(w, "ln_f", x[:, 1:]))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cond_layers", [0, 2])
def test_the_decoder_equals_an_independent_computation(cond_layers, training):
    model = small(n_cond_layers=cond_layers).train(training)
    sample, timestep, cond = inputs()
    w = model.state_dict()
    expected = reference_decoder(
        w, sample, timestep, cond, layers=2, cond_layers=cond_layers, heads=2
    )
    # The step embedding itself is float32. Without gradients torch takes other kernels.
    with torch.set_grad_enabled(training):
        out = model(sample, timestep, cond)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.1


@pytest.mark.parametrize("training", [True, False])
def test_the_encoder_equals_an_independent_computation(training):
    model = small(0).train(training)
    sample, timestep, _ = inputs()
    expected = reference_encoder(model.state_dict(), sample, timestep, layers=2, heads=2)
    with torch.set_grad_enabled(training):
        out = model(sample, timestep)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.1


@pytest.mark.parametrize("obs_dim", [5, 0], ids=["decoder", "encoder"])
def test_forward_equals_denoise_with_the_embedded_step(obs_dim):
    model = small(obs_dim)
    sample, timestep, cond = inputs(obs_dim)
    step = model.embed_step(timestep)
    assert step.shape == (4, 8)
    assert torch.equal(model(sample, timestep, cond), model.denoise(sample, step, cond))


def test_dropout_acts_in_training_only():
    model = small(p_drop_emb=0.5)
    assert not torch.equal(model(*inputs()), model(*inputs()))
    model.eval()
    assert torch.equal(model(*inputs()), model(*inputs()))


def test_weights_start_as_the_original_starts_them():
    torch.manual_seed(0)
    model = TransformerDenoiser(2, 20, horizon=16, n_obs_steps=2, n_layer=1, n_cond_layers=1)
    for name, value in model.named_parameters():
        if "norm" in name or name.startswith("ln_f"):
            assert (value == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias"):
            assert (value == 0).all(), name
        else:
            assert value.std().item() == pytest.approx(0.02, rel=0.1), name
            assert value.mean().abs() < 0.003, name


def test_the_state_has_the_originals_names_and_no_masks():
    layer = [
        f"{part}.{kind}"
        for part in ("linear1", "linear2", "norm1", "norm2", "self_attn.out_proj")
        for kind in ("weight", "bias")
    ] + ["self_attn.in_proj_weight", "self_attn.in_proj_bias"]
    cross = ["multihead_attn.in_proj_weight", "multihead_attn.in_proj_bias"]
    cross += [f"{p}.{k}" for p in ("multihead_attn.out_proj", "norm3") for k in ("weight", "bias")]
    ends = [f"{p}.{k}" for p in ("input_emb", "ln_f", "head") for k in ("weight", "bias")]
    cond = ["cond_pos_emb", "cond_obs_emb.weight", "cond_obs_emb.bias"]
    mlp = [f"encoder.{i}.{k}" for i in (0, 2) for k in ("weight", "bias")]
    decoder = [f"decoder.layers.{i}.{name}" for i in (0, 1) for name in layer + cross]
    encoder = [f"encoder.layers.{i}.{name}" for i in (0, 1) for name in layer]
    assert set(small().state_dict()) == {"pos_emb", *ends, *cond, *mlp, *decoder}
    assert set(small(0).state_dict()) == {"pos_emb", *ends, *encoder}
    with_layers = small(n_cond_layers=2).state_dict()
    assert set(with_layers) == {"pos_emb", *ends, *cond, *encoder, *decoder}


def test_only_the_weights_of_linear_layers_and_attention_decay():
    model = small(n_cond_layers=1)
    decayed, others = weight_decay_groups(model)
    assert sorted(decayed + others) == sorted(name for name, _ in model.named_parameters())
    matrices = {"in_proj_weight", "out_proj.weight", "linear1.weight", "linear2.weight"}
    matrices |= {"input_emb.weight", "cond_obs_emb.weight", "head.weight"}
    assert len(decayed) == 3 + 1 * 4 + 2 * 6
    assert all(any(name.endswith(end) for end in matrices) for name in decayed)
    assert {"pos_emb", "cond_pos_emb", "ln_f.weight", "head.bias"} <= set(others)
    assert not any("norm" in name or name.endswith("bias") for name in decayed)
    assert [name for name, _ in model.named_parameters() if model.decays(name)] == decayed


def test_decay_groups_of_other_modules_spare_embeddings_and_norms():
    module = torch.nn.Sequential(
        torch.nn.Embedding(4, 2), torch.nn.Linear(2, 2), torch.nn.LayerNorm(2)
    )
    assert weight_decay_groups(module) == (
        ["1.weight"],
        ["0.weight", "1.bias", "2.weight", "2.bias"],
    )
    assert weight_decay_groups(torch.nn.Linear(2, 2)) == (["weight"], ["bias"])
