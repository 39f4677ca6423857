"""The configurations of the published PushT rows have the published sizes and hyperparameters."""

from pathlib import Path

import pytest
import torch

from dp_hub.config import build, read_yaml
from dp_hub.policies.config import DiffusionConfig
from dp_hub.policies.diffusion import make_policy
from dp_hub.training.config import TrainConfig

CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "configs"
FEATURES = {
    "observation.environment_state": 18,
    "observation.image": (96, 96, 3),
    "observation.state": 5,
    "action": 2,
}
EYES = 11_197_088
# Sources: the original's workspace files and the model it prints; /Tp, steps, batch, betas, decay.
PUBLISHED = {
    "pusht_state": (65_783_298, 16, 210_000, 256, (0.95, 0.999), 1e-6, 500),
    "pusht_state_inpainting": (65_245_718, 16, 210_000, 256, (0.95, 0.999), 1e-6, 500),
    "pusht_state_transformer": (8_965_122, 16, 336_000, 256, (0.9, 0.95), 0.1, 1000),
    "pusht_image": (251_511_938 + EYES, 16, 512_400, 64, (0.95, 0.999), 1e-6, 500),
    "pusht_image_transformer": (8_975_362 + EYES, 10, None, 64, (0.9, 0.95), 1e-3, 1000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_and_hyperparameters_are_the_published_ones(name):
    size, horizon, steps, batch, betas, decay, warmup = PUBLISHED[name]
    path = CONFIGS / f"{name}.yaml"
    config = build(TrainConfig, read_yaml(path), where=path.name)
    with torch.device("meta"):
        policy = make_policy(config.policy, FEATURES)
    assert sum(one.numel() for one in policy.parameters()) == size
    optimizer = config.optimizer
    assert (config.policy.horizon, config.steps, config.batch_size) == (horizon, steps, batch)
    assert (optimizer.lr, optimizer.betas, optimizer.weight_decay) == (1e-4, betas, decay)
    assert (optimizer.warmup_steps, optimizer.max_grad_norm) == (warmup, None)
    objective = config.policy.objective
    assert (objective.prediction, objective.solver, objective.train_steps) == (
        "epsilon",
        "ddpm",
        100,
    )
    assert (config.split.max_train_episodes, config.split.val_ratio) == (90, 0.02)
    assert (config.ema.power, config.ema.max_decay) == (0.75, 0.9999)
    assert config.rollout.seed == 200_000  # checkpoints are chosen on other seeds than reported


def test_real_pusht_network_has_its_size():
    features = {"observation.images.a": (240, 320, 3), "observation.images.b": (240, 320, 3)}
    values = {
        "observations": [*features, "observation.state"],
        "vision": {"crop": [216, 288]},
        "denoiser": {"kind": "unet", "step_embed_dim": 128},
    }
    config = build(DiffusionConfig, values, where="the test")
    with torch.device("meta"):
        policy = make_policy(config, features | {"observation.state": 2, "action": 2})
    assert sum(one.numel() for one in policy.denoiser.parameters()) == 66_708_354
    assert sum(one.numel() for one in policy.encoder.parameters()) == 2 * EYES


def test_kitchen_transformer_has_its_size():
    values = {
        "observations": ["observation.state"],
        "n_obs_steps": 4,
        "denoiser": {"kind": "transformer", "n_emb": 768, "p_drop_attn": 0.1},
    }
    config = build(DiffusionConfig, values, where="the test")
    with torch.device("meta"):
        policy = make_policy(config, {"observation.state": 60, "action": 9})
    assert sum(one.numel() for one in policy.parameters()) == 80_415_753
