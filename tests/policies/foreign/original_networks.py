"""The original's networks, computed from a state dict alone, and random state dicts for them.

Written from their description (Chi et al. 2023, and the names in their checkpoints), without any
module of dp_hub: the converted policies are compared with these.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = dict[str, Tensor]


# --- random weights under the original's names -------------------------------------------------


class Maker:
    """Makes weights of the given shapes, small enough for a deep network."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.state: State = {}

    def weight(self, name: str, *shape: int) -> None:
        fan_in = math.prod(shape[1:]) or 1
        values = torch.randn(shape, generator=self.generator) / math.sqrt(fan_in)
        self.state[name] = values

    def affine(self, name: str, *shape: int) -> None:
        """A layer's weight and bias."""
        self.weight(f"{name}.weight", *shape)
        self.state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=self.generator)

    def norm(self, name: str, width: int) -> None:
        self.state[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=self.generator)
        self.state[f"{name}.bias"] = 0.1 * torch.randn(width, generator=self.generator)


def unet_state(
    input_dim: int,
    *,
    global_cond_dim: int = 0,
    local_cond_dim: int = 0,
    dims: Sequence[int] = (16, 32),
    step_dim: int = 8,
    kernel: int = 5,
    scale: bool = True,
    seed: int = 0,
) -> State:
    make = Maker(seed)
    cond_dim = step_dim + global_cond_dim

    def block(name: str, width_in: int, width_out: int) -> None:
        for number, width in enumerate((width_in, width_out)):
            make.affine(f"{name}.blocks.{number}.block.0", width_out, width, kernel)
            make.norm(f"{name}.blocks.{number}.block.1", width_out)
        make.affine(f"{name}.cond_encoder.1", (2 if scale else 1) * width_out, cond_dim)
        if width_in != width_out:
            make.affine(f"{name}.residual_conv", width_out, width_in, 1)

    make.affine("diffusion_step_encoder.1", 4 * step_dim, step_dim)
    make.affine("diffusion_step_encoder.3", step_dim, 4 * step_dim)
    for number in range(2 if local_cond_dim else 0):
        block(f"local_cond_encoder.{number}", local_cond_dim, dims[0])
    for number in range(2):
        block(f"mid_modules.{number}", dims[-1], dims[-1])
    pairs = list(zip((input_dim, *dims[:-1]), dims, strict=True))
    for number, (below, above) in enumerate(pairs[:0:-1]):
        block(f"up_modules.{number}.0", 2 * above, below)
        block(f"up_modules.{number}.1", below, below)
        make.affine(f"up_modules.{number}.2.conv", below, below, 4)
    for number, (below, above) in enumerate(pairs):
        block(f"down_modules.{number}.0", below, above)
        block(f"down_modules.{number}.1", above, above)
        if number < len(pairs) - 1:
            make.affine(f"down_modules.{number}.2.conv", above, above, 3)
    make.affine("final_conv.0.block.0", dims[0], dims[0], kernel)
    make.norm("final_conv.0.block.1", dims[0])
    make.affine("final_conv.1", input_dim, dims[0], 1)
    return make.state


def transformer_state(
    input_dim: int,
    *,
    horizon: int,
    n_obs_steps: int,
    cond_dim: int,
    n_layer: int = 2,
    n_head: int = 2,
    n_emb: int = 16,
    n_cond_layers: int = 0,
    causal: bool = True,
    seed: int = 0,
) -> State:
    network = transformer(
        input_dim, horizon, n_obs_steps, cond_dim, n_layer, n_head, n_emb, n_cond_layers, causal
    )
    generator = torch.Generator().manual_seed(seed)
    state = dict(network.state_dict())
    for name, value in state.items():
        if name not in ("mask", "memory_mask"):
            noise = torch.randn(value.shape, generator=generator)
            state[name] = (1.0 if "norm" in name and "weight" in name else 0.0) + 0.3 * noise
    return state


def encoder_state(key: str, *, n_keypoints: int = 32, grid: int = 3, seed: int = 0) -> State:
    """robomimic's picture encoder, ResNet18 with group norm, with everything registered twice."""
    make = Maker(seed)

    def residual(name: str, below: int, above: int, *, shrinks: bool) -> None:
        make.weight(f"{name}.conv1.weight", above, below, 3, 3)
        make.norm(f"{name}.bn1", above)
        make.weight(f"{name}.conv2.weight", above, above, 3, 3)
        make.norm(f"{name}.bn2", above)
        if shrinks:
            make.weight(f"{name}.downsample.0.weight", above, below, 1, 1)
            make.norm(f"{name}.downsample.1", above)

    make.weight("backbone.nets.0.weight", 64, 3, 7, 7)
    make.norm("backbone.nets.1", 64)
    for layer, (below, above) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)]):
        name = f"backbone.nets.{4 + layer}"
        residual(f"{name}.0", below, above, shrinks=layer > 0)
        residual(f"{name}.1", above, above, shrinks=False)
    across, down = np.meshgrid(np.linspace(-1.0, 1.0, grid), np.linspace(-1.0, 1.0, grid))
    make.state["pool.temperature"] = torch.ones(1)
    make.state["pool.pos_x"] = torch.from_numpy(across.reshape(1, -1)).float()
    make.state["pool.pos_y"] = torch.from_numpy(down.reshape(1, -1)).float()
    make.affine("pool.nets", n_keypoints, 512, 1, 1)
    twice = {
        name.replace("backbone.", "nets.0.", 1).replace("pool.", "nets.1.", 1): value
        for name, value in make.state.items()
    }
    make.affine("nets.3", 64, 2 * n_keypoints)
    state = make.state | twice
    return {f"obs_encoder.obs_nets.{key}.{name}": value for name, value in state.items()}


# --- forward passes ------------------------------------------------------------------------------


def embedded_step(timestep: Tensor, dim: int) -> Tensor:
    half = dim // 2
    rates = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
    angles = timestep.float()[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def unet(
    state: State, x: Tensor, timestep: Tensor, *, cond: Tensor | None, local: Tensor | None = None
) -> Tensor:
    """float (B, T, D) of a noisy (B, T, D), a step (B,), FiLM (B, C) and local (B, T, L)."""

    def layer(function, name: str, value: Tensor, **options) -> Tensor:
        return function(value, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def conv_block(name: str, value: Tensor) -> Tensor:
        kernel = state[f"{name}.block.0.weight"].shape[-1]
        value = layer(F.conv1d, f"{name}.block.0", value, padding=kernel // 2)
        weight, bias = state[f"{name}.block.1.weight"], state[f"{name}.block.1.bias"]
        return F.mish(F.group_norm(value, 8, weight, bias))

    def residual(name: str, value: Tensor) -> Tensor:
        out = conv_block(f"{name}.blocks.0", value)
        film = layer(F.linear, f"{name}.cond_encoder.1", F.mish(condition))[:, :, None]
        width = out.shape[1]
        scales = film.shape[1] == 2 * width
        out = film[:, :width] * out + film[:, width:] if scales else out + film
        out = conv_block(f"{name}.blocks.1", out)
        if f"{name}.residual_conv.weight" in state:
            value = layer(F.conv1d, f"{name}.residual_conv", value)
        return out + value

    def count(prefix: str) -> int:
        return len({name.split(".")[1] for name in state if name.startswith(f"{prefix}.")})

    step = embedded_step(timestep, state["diffusion_step_encoder.1.weight"].shape[1])
    step = F.mish(layer(F.linear, "diffusion_step_encoder.1", step))
    condition = layer(F.linear, "diffusion_step_encoder.3", step)
    if cond is not None:
        condition = torch.cat([condition, cond], dim=-1)
    value, skips = x.transpose(1, 2), []
    for level in range(count("down_modules")):
        value = residual(f"down_modules.{level}.0", value)
        if level == 0 and local is not None:
            value = value + residual("local_cond_encoder.0", local.transpose(1, 2))
        value = residual(f"down_modules.{level}.1", value)
        skips.append(value)
        if f"down_modules.{level}.2.conv.weight" in state:
            value = layer(F.conv1d, f"down_modules.{level}.2.conv", value, stride=2, padding=1)
    for number in range(2):
        value = residual(f"mid_modules.{number}", value)
    for level in range(count("up_modules")):
        value = torch.cat([value, skips.pop()], dim=1)
        value = residual(f"up_modules.{level}.1", residual(f"up_modules.{level}.0", value))
        name = f"up_modules.{level}.2.conv"
        value = layer(F.conv_transpose1d, name, value, stride=2, padding=1)
    value = layer(F.conv1d, "final_conv.1", conv_block("final_conv.0", value))
    return value.transpose(1, 2)


def transformer(
    input_dim: int,
    horizon: int,
    n_obs_steps: int,
    cond_dim: int,
    n_layer: int,
    n_head: int,
    n_emb: int,
    n_cond_layers: int,
    causal: bool,
) -> nn.Module:
    """torch's own layers under the original's names."""
    options = {"activation": "gelu", "batch_first": True, "norm_first": True, "dropout": 0.0}
    options |= {"dim_feedforward": 4 * n_emb}

    def encoder(n: int) -> nn.Module:
        one = nn.TransformerEncoderLayer(n_emb, n_head, **options)
        return nn.TransformerEncoder(one, n, enable_nested_tensor=False)

    network = nn.Module()
    n_tokens = horizon if cond_dim else horizon + 1
    network.input_emb = nn.Linear(input_dim, n_emb)
    network.pos_emb = nn.Parameter(torch.zeros(1, n_tokens, n_emb))
    network._dummy_variable = nn.Parameter()
    if cond_dim:
        network.cond_obs_emb = nn.Linear(cond_dim, n_emb)
        network.cond_pos_emb = nn.Parameter(torch.zeros(1, 1 + n_obs_steps, n_emb))
        network.encoder = (
            encoder(n_cond_layers)
            if n_cond_layers
            else nn.Sequential(nn.Linear(n_emb, 4 * n_emb), nn.Mish(), nn.Linear(4 * n_emb, n_emb))
        )
        one = nn.TransformerDecoderLayer(n_emb, n_head, **options)
        network.decoder = nn.TransformerDecoder(one, n_layer)
    else:
        network.encoder = encoder(n_layer)
    network.ln_f = nn.LayerNorm(n_emb)
    network.head = nn.Linear(n_emb, input_dim)
    if causal:
        hidden = torch.full((n_tokens, n_tokens), float("-inf"))
        network.register_buffer("mask", torch.triu(hidden, diagonal=1))
    if causal and cond_dim:
        t, s = torch.arange(horizon)[:, None], torch.arange(1 + n_obs_steps)[None]
        seen = torch.zeros(horizon, 1 + n_obs_steps)
        network.register_buffer("memory_mask", seen.masked_fill(t < s - 1, float("-inf")))
    return network.eval()


def run_transformer(network: nn.Module, x: Tensor, timestep: Tensor, cond: Tensor | None) -> Tensor:
    """float (B, T, D) of a noisy (B, T, D), a step (B,) and observations (B, To, Do)."""
    step = embedded_step(timestep, network.pos_emb.shape[-1])[:, None]
    mask = getattr(network, "mask", None)
    if cond is None:
        tokens = torch.cat([step, network.input_emb(x)], dim=1) + network.pos_emb
        out = network.encoder(tokens, mask=mask)[:, 1:]
    else:
        memory = torch.cat([step, network.cond_obs_emb(cond)], dim=1) + network.cond_pos_emb
        memory = network.encoder(memory)
        tokens = network.input_emb(x) + network.pos_emb
        seen = getattr(network, "memory_mask", None)
        out = network.decoder(tokens, memory, tgt_mask=mask, memory_mask=seen)
    return network.head(network.ln_f(out))


def see(state: State, key: str, pictures: Tensor) -> Tensor:
    """float (N, 64) of cropped, normalised pictures float (N, 3, h, w)."""
    prefix = f"obs_encoder.obs_nets.{key}."
    part = {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}

    def norm(name: str, value: Tensor) -> Tensor:
        groups = value.shape[1] // 16
        return F.group_norm(value, groups, part[f"{name}.weight"], part[f"{name}.bias"])

    def conv(name: str, value: Tensor, **options) -> Tensor:
        return F.conv2d(value, part[f"{name}.weight"], **options)

    x = F.relu(norm("nets.0.nets.1", conv("nets.0.nets.0", pictures, stride=2, padding=3)))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for layer in range(4, 8):
        for block in range(2):
            name = f"nets.0.nets.{layer}.{block}"
            stride = 2 if f"{name}.downsample.0.weight" in part else 1
            out = F.relu(norm(f"{name}.bn1", conv(f"{name}.conv1", x, stride=stride, padding=1)))
            out = norm(f"{name}.bn2", conv(f"{name}.conv2", out, padding=1))
            if stride == 2:
                x = norm(f"{name}.downsample.1", conv(f"{name}.downsample.0", x, stride=2))
            x = F.relu(out + x)
    maps = F.conv2d(x, part["nets.1.nets.weight"], part["nets.1.nets.bias"]).flatten(2)
    attention = (maps / part["nets.1.temperature"]).softmax(dim=-1)
    places = [(attention * part[f"nets.1.pos_{axis}"]).sum(-1) for axis in "xy"]
    features = torch.stack(places, dim=-1).flatten(1)
    # robomimic's ObservationEncoder puts a ReLU behind every network of an observation.
    return F.relu(F.linear(features, part["nets.3.weight"], part["nets.3.bias"]))
