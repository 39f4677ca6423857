"""Tiny networks with weights and data from formulas learn exactly as they did when first written.

The forward passes have independent computations of their own; this holds the gradients, the order
of parameters and AdamW to numbers, float64 and without any generator.
"""

import pytest
import torch

from dp_hub.models.mlp import MlpDenoiser
from dp_hub.models.steps import SinusoidalEmbedding
from dp_hub.models.transformer import TransformerDenoiser
from dp_hub.models.unet1d import ConditionalUnet1d

STEPS = 20


def wave(shape, phase, pace=0.7):
    """float64: sines of the index of each entry."""
    n = torch.Size(shape).numel()
    return torch.sin(pace * torch.arange(n, dtype=torch.float64) + phase).reshape(shape)


def with_formula_weights(model):
    model = model.double()
    for module in model.modules():
        if isinstance(module, SinusoidalEmbedding):  # float32 whatever the model is
            module.register_forward_hook(lambda *call: call[2].double())
    for k, (name, parameter) in enumerate(sorted(model.named_parameters())):
        small = wave(parameter.shape, phase=k) * 0.2
        is_norm = parameter.dim() == 1 and name.endswith("weight")
        parameter.data = 1 + small if is_norm else small
    return model


def losses(model, cond):
    """Mean squared errors of ``STEPS`` steps on one batch: 6 chunks of 8 steps, 2 wide."""
    sample, target = wave((6, 8, 2), 0.0), wave((6, 8, 2), 1.0, pace=0.3)
    timestep = torch.tensor([0, 1, 10, 40, 70, 99])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-3, betas=(0.95, 0.999), eps=1e-8, weight_decay=1e-2
    )
    seen = []
    for _ in range(STEPS):
        loss = (model(sample, timestep, cond) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    return seen


TRANSFORMER = dict(horizon=8, n_obs_steps=2, n_layer=2, n_head=2, n_emb=8, p_drop_attn=0.0)
UNET = dict(step_embed_dim=8, down_dims=(8, 16), kernel_size=3, n_groups=4)
NETWORKS = {
    "unet": (lambda: ConditionalUnet1d(2, 6, **UNET), (6, 2, 3)),
    "unet-inpainting": (lambda: ConditionalUnet1d(2, **UNET), None),
    "unet-local": (lambda: ConditionalUnet1d(2, local_cond_dim=3, **UNET), (6, 8, 3)),
    "transformer": (lambda: TransformerDenoiser(2, 3, **TRANSFORMER), (6, 2, 3)),
    "transformer-cond-layers": (
        lambda: TransformerDenoiser(2, 3, n_cond_layers=1, **TRANSFORMER),
        (6, 2, 3),
    ),
    "transformer-inpainting": (lambda: TransformerDenoiser(2, **TRANSFORMER), None),
    "mlp": (lambda: MlpDenoiser(2, 6, horizon=8, width=16, depth=2, step_embed_dim=8), (6, 2, 3)),
}
# The losses of steps 1, 2, 5, 10 and 20.
GOLDEN = {
    "unet": [0.625215, 0.51518, 0.393108, 0.249998, 0.06908],
    "unet-inpainting": [0.641759, 0.526067, 0.429551, 0.291504, 0.081308],
    "unet-local": [0.64598, 0.553058, 0.435787, 0.313862, 0.133008],
    "transformer": [0.853908, 0.713365, 0.556816, 0.481603, 0.388953],
    "transformer-cond-layers": [0.530254, 0.467625, 0.378563, 0.320605, 0.270118],
    "transformer-inpainting": [1.003358, 0.82989, 0.531667, 0.477753, 0.442919],
    "mlp": [0.652463, 0.55639, 0.383925, 0.237455, 0.069223],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_losses_of_twenty_steps(name):
    make, cond_shape = NETWORKS[name]
    cond = None if cond_shape is None else wave(cond_shape, 2.0, pace=1.1)
    seen = losses(with_formula_weights(make()), cond)
    assert [seen[k - 1] for k in (1, 2, 5, 10, 20)] == pytest.approx(GOLDEN[name], abs=1e-4)
