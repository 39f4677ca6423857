"""ACT's network: sizes derived by hand, a forward pass worked out in numpy, masks, divergence."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from dp_hub.models.act import ActNetwork, Observed, Style
from dp_hub.models.detr import sinusoid, sinusoid_2d

TINY = {
    "horizon": 3,
    "state_dim": 4,
    "environment_dim": 5,
    "map_channels": 6,
    "hidden_dim": 8,
    "feedforward_dim": 12,
    "n_heads": 2,
    "n_encoder_layers": 2,
    "n_style_layers": 1,
    "latent_dim": 3,
}


def tiny_network(**options):
    torch.manual_seed(0)
    return ActNetwork(2, **TINY | options)


def seen(rows=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"state": (rows, 4), "environment": (rows, 5)}
    vectors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    maps = [torch.randn(rows, 6, 2, 3, generator=generator) for _ in range(2)]
    return Observed(**vectors, maps=maps)


def n_weights(module):
    return sum(parameter.numel() for parameter in module.parameters())


# Numbers of parameters, from the dimensions alone.


def linear(n_in, n_out):
    return n_in * n_out + n_out


def attention(dim):
    return 4 * linear(dim, dim)  # query, key, value, output


def inner(dim, ff):
    return linear(dim, ff) + linear(ff, dim)


def encoder_layer(dim, ff):
    return attention(dim) + inner(dim, ff) + 2 * 2 * dim  # two norms of a scale and a shift


def decoder_layer(dim, ff):
    return 2 * attention(dim) + inner(dim, ff) + 3 * 2 * dim


def weights_by_hand(*, action, state, env, maps, horizon, dim, ff, enc, style, dec, latent):
    layers = (enc + style) * encoder_layer(dim, ff) + dec * decoder_layer(dim, ff) + 2 * dim
    style_tokens = dim + linear(action, dim) + (linear(state, dim) if state else 0)
    style_out = linear(dim, 2 * latent) + linear(latent, dim)
    tokens = sum(linear(width, dim) + dim for width in (state, env) if width) + dim
    pictures = linear(maps, dim) if maps else 0
    return (
        layers + style_tokens + style_out + tokens + pictures + horizon * dim + linear(dim, action)
    )


def test_papers_network_has_the_size_the_original_prints():
    """The original prints 83.92M for two arms (14 numbers) at a chunk of 100.

    Counted there besides are ResNet18's convolutions (its norms are frozen) and a head for padding.
    """
    with torch.device("meta"):
        network = ActNetwork(14, horizon=100, state_dim=14, map_channels=512, n_decoder_layers=7)
    convolutions = 11_176_512 - 9_600
    padding_head = 512 + 1
    assert n_weights(network) == 72_755_662
    assert n_weights(network) + convolutions + padding_head == 83_923_087
    by_hand = weights_by_hand(
        action=14, state=14, env=0, maps=512, horizon=100, dim=512, ff=3200, enc=4, style=4, dec=7,
        latent=32,
    )  # fmt: skip
    assert n_weights(network) == by_hand


@pytest.mark.parametrize("state", [0, 4])
@pytest.mark.parametrize("env", [0, 5])
@pytest.mark.parametrize("maps", [0, 6])
def test_size_is_that_of_the_parts_there_are(state, env, maps):
    network = tiny_network(state_dim=state, environment_dim=env, map_channels=maps)
    assert n_weights(network) == weights_by_hand(
        action=2, state=state, env=env, maps=maps, horizon=3, dim=8, ff=12, enc=2, style=1, dec=1,
        latent=3,
    )  # fmt: skip


def test_shapes_with_everything_and_with_little():
    network = tiny_network().eval()
    style = network.encode_style(torch.zeros(2, 3, 2), torch.zeros(2, 3).bool(), torch.zeros(2, 4))
    assert style.mu.shape == style.logvar.shape == (2, 3)
    assert network.decode(style.mu, seen()).shape == (2, 3, 2)
    bare = tiny_network(state_dim=0, map_channels=0)
    style = bare.encode_style(torch.zeros(2, 3, 2), torch.zeros(2, 3).bool())
    assert bare.decode(style.mu, Observed(environment=torch.zeros(2, 5))).shape == (2, 3, 2)


def test_every_weight_learns():
    network = tiny_network(n_decoder_layers=3)
    for parameter in network.parameters():  # away from zero biases and unit norms
        torch.nn.init.normal_(parameter, std=0.5)
    style = network.encode_style(torch.randn(2, 3, 2), torch.zeros(2, 3).bool(), torch.randn(2, 4))
    network.decode(style.sample(torch.randn(2, 3)), seen()).square().sum().backward()
    names = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert names == []


# Masks.


def test_padded_actions_do_not_reach_the_style():
    network = tiny_network().eval()
    actions, state = torch.randn(2, 3, 2), torch.randn(2, 4)
    padding = torch.tensor([[False, False, True], [False, True, True]])
    base = network.encode_style(actions, padding, state)
    other = torch.where(padding[:, :, None], 1e3 * torch.ones(2, 3, 2), actions)
    torch.testing.assert_close(network.encode_style(other, padding, state), base)
    real = torch.where(padding[:, :, None], actions, actions + 1)
    assert not torch.allclose(network.encode_style(real, padding, state).mu, base.mu, atol=1e-3)


def test_a_row_with_padding_is_the_row_cut_short():
    network = tiny_network().eval()
    actions, state = torch.randn(1, 3, 2), torch.randn(1, 4)
    padded = network.encode_style(actions, torch.tensor([[False, False, True]]), state)
    short = network.encode_style(actions[:, :2], torch.zeros(1, 2).bool(), state)
    torch.testing.assert_close(padded, short)


def test_every_observation_and_the_style_reach_the_actions():
    network, given = tiny_network().eval(), seen()
    base = network.decode(torch.zeros(2, 3), given)
    moved = {
        "state": given.state + 1,
        "environment": given.environment + 1,
        "maps": [given.maps[0], given.maps[1] + torch.randn(2, 6, 2, 3)],
    }
    for name, value in moved.items():
        out = network.decode(torch.zeros(2, 3), given._replace(**{name: value}))
        assert not torch.allclose(out, base, atol=1e-3), name
    assert not torch.allclose(network.decode(torch.ones(2, 3), given), base, atol=1e-3)


# One forward pass, worked out in numpy from the paper and DETR's appendix.


def np_weights(network):
    return {name: value.double().numpy() for name, value in network.state_dict().items()}


def np_linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def np_norm(w, name, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def np_attention(w, name, q, k, v, n_heads=2):
    dim = q.shape[-1]
    parts = zip((q, k, v), np.split(w[f"{name}.in_proj_weight"], 3), strict=True)
    biases = np.split(w[f"{name}.in_proj_bias"], 3)
    q, k, v = (x @ m.T + b for (x, m), b in zip(parts, biases, strict=True))
    out = np.zeros((len(q), dim))
    width = dim // n_heads
    for head in range(n_heads):
        part = slice(head * width, (head + 1) * width)
        scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(width))
        out[:, part] = scores / scores.sum(1, keepdims=True) @ v[:, part]
    return np_linear(w, f"{name}.out_proj", out)


def np_inner(w, name, x):
    hidden = np.maximum(np_linear(w, f"{name}.linear1", x), 0)
    return np_linear(w, f"{name}.linear2", hidden)


def np_encoder(w, name, x, positions, n_layers):
    for layer in range(n_layers):
        one = f"{name}.layers.{layer}"
        attended = np_attention(w, f"{one}.self_attn", x + positions, x + positions, x)
        x = np_norm(w, f"{one}.norm1", x + attended)
        x = np_norm(w, f"{one}.norm2", x + np_inner(w, one, x))
    return x


def np_decoder(w, name, memory, positions, queries):
    one = f"{name}.layers.0"
    x = np.zeros_like(queries)
    attended = np_attention(w, f"{one}.self_attn", x + queries, x + queries, x)
    x = np_norm(w, f"{one}.norm1", x + attended)
    keys = memory + positions
    attended = np_attention(w, f"{one}.multihead_attn", x + queries, keys, memory)
    x = np_norm(w, f"{one}.norm2", x + attended)
    x = np_norm(w, f"{one}.norm3", x + np_inner(w, one, x))
    return np_norm(w, f"{name}.norm", x)


def np_angles(position, dim):
    row = np.zeros(dim)
    for i in range(dim):
        angle = position / 10000 ** (2 * (i // 2) / dim)
        row[i] = math.cos(angle) if i % 2 else math.sin(angle)
    return row


def np_map_positions(height, width, dim):
    turn = 2 * math.pi
    return np.array(
        [
            np.concatenate(
                [
                    np_angles(turn * (y + 1) / height, dim // 2),
                    np_angles(turn * (x + 1) / width, dim // 2),
                ]
            )
            for y in range(height)
            for x in range(width)
        ]
    )


def lively_network():
    """Tiny, with random biases and norms too, so that each of them matters."""
    network = tiny_network().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return network


def test_style_is_that_of_an_independent_computation():
    network = lively_network()
    w, actions, state = np_weights(network), torch.randn(2, 3, 2), torch.randn(2, 4)
    style = network.encode_style(actions, torch.zeros(2, 3).bool(), state)
    for row in range(2):
        tokens = [
            w["cls_embed.weight"],
            np_linear(w, "encoder_joint_proj", state[row : row + 1].double().numpy()),
            np_linear(w, "encoder_action_proj", actions[row].double().numpy()),
        ]
        positions = np.array([np_angles(position, 8) for position in range(5)])
        out = np_encoder(w, "encoder", np.concatenate(tokens), positions, 1)
        expected = np_linear(w, "latent_proj", out[0])
        got = torch.cat([style.mu[row], style.logvar[row]]).detach().numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_actions_are_those_of_an_independent_computation():
    network, given = lively_network(), seen()
    w, style = np_weights(network), torch.randn(2, 3)
    out = network.decode(style, given).detach().numpy()
    for row in range(2):
        vectors = [
            np_linear(w, "latent_out_proj", style[row].double().numpy()),
            np_linear(w, "input_proj_robot_state", given.state[row].double().numpy()),
            np_linear(w, "input_proj_env_state", given.environment[row].double().numpy()),
        ]
        tokens, positions = [np.array(vectors)], [w["additional_pos_embed.weight"]]
        matrix, bias = w["input_proj.weight"][:, :, 0, 0], w["input_proj.bias"]
        for one in given.maps:
            pixels = one[row].double().numpy().reshape(6, -1).T  # (h * w, channels)
            tokens.append(pixels @ matrix.T + bias)
            positions.append(np_map_positions(2, 3, 8))
        places = np.concatenate(positions)
        memory = np_encoder(w, "transformer.encoder", np.concatenate(tokens), places, 2)
        queries = w["query_embed.weight"]
        state = np_decoder(w, "transformer.decoder", memory, places, queries)
        expected = np_linear(w, "action_head", state)
        np.testing.assert_allclose(out[row], expected, rtol=1e-4, atol=1e-5)


def test_positions_of_known_places():
    rows = sinusoid(torch.arange(2), 4)
    expected = [[0, 1, 0, 1], [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)]]
    torch.testing.assert_close(rows, torch.tensor(expected))
    grid = sinusoid_2d(2, 3, 8, device=torch.device("cpu")).numpy()
    np.testing.assert_allclose(grid, np_map_positions(2, 3, 8), atol=1e-5)


# The style's distribution.


def test_divergence_is_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    mu, logvar = torch.randn(2, 5, 3, generator=generator)
    each = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(Style(mu, logvar).divergence(), each.sum(dim=1).mean())
    assert Style(torch.zeros(2, 3), torch.zeros(2, 3)).divergence() == 0


def test_samples_have_the_mean_and_deviation_told():
    noise = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))
    style = Style(torch.full((1, 1), 3.0), torch.full((1, 1), math.log(4.0)))
    sample = style.sample(noise)
    assert sample.mean().item() == pytest.approx(3, abs=0.02)
    assert sample.std().item() == pytest.approx(2, abs=0.02)


def test_dropout_acts_in_training_only():
    network, given = tiny_network(), seen()
    style = torch.zeros(2, 3)
    assert not torch.equal(network.decode(style, given), network.decode(style, given))
    network.eval()
    assert torch.equal(network.decode(style, given), network.decode(style, given))
