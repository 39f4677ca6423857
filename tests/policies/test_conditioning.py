"""Global, local and inpainting conditioning, with every denoiser that takes them."""

import numpy as np
import pytest
import torch

from dp_hub.config import build
from dp_hub.errors import ConfigError, PolicyError
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.config import DiffusionConfig
from dp_hub.policies.diffusion import make_policy
from dp_hub.policies.observing import ObservationEncoder
from dp_hub.policies.selection import parse_selection

FEATURES = {"observation.state": 5, "observation.image": (64, 72, 3), "action": 2}
DENOISERS = {
    "unet": {"kind": "unet", "step_embed_dim": 16, "down_dims": [8, 16], "n_groups": 4},
    "transformer": {"kind": "transformer", "n_layer": 2, "n_head": 2, "n_emb": 16},
    "mlp": {"kind": "mlp", "width": 32, "depth": 1, "step_embed_dim": 16},
}
STATE, IMAGE = "observation.state[:2]", "observation.image"
VALID = [
    ("unet", "global"),
    ("unet", "local"),
    ("unet", "inpainting"),
    ("transformer", "global"),
    ("transformer", "inpainting"),
    ("mlp", "global"),
    ("mlp", "inpainting"),
]


def policy_of(denoiser, conditioning, *, observations=(STATE,), objective=None, **options):
    torch.manual_seed(0)
    values = {
        "observations": list(observations),
        "denoiser": DENOISERS[denoiser],
        "conditioning": conditioning,
        "objective": objective or {"kind": "diffusion", "solver": "ddim", "num_inference_steps": 4},
        "horizon": 8,
        "n_action_steps": 4,
        "vision": {"crop": [56, 56], "feature_dim": 6, "n_keypoints": 4},
        **options,
    }
    config = build(DiffusionConfig, values, where="the test")
    columns = {
        name: np.random.default_rng(0).uniform(0, 512, (50, FEATURES[name]))
        for name in ("observation.state", "action")
    }
    return make_policy(config, FEATURES, normalizer=Normalizer.fit(columns)).eval()


def batch_of(policy, rows=3):
    generator = torch.Generator().manual_seed(1)
    steps = policy.config.n_trained_obs_steps
    batch = {
        "action": 512 * torch.rand(rows, 8, 2, generator=generator),
        "action_is_pad": torch.zeros(rows, 8, dtype=torch.bool),
    }
    for name in policy.encoder.names:
        if name == IMAGE:
            shape = (rows, steps, 64, 72, 3)
            batch[name] = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        else:
            batch[name] = 512 * torch.rand(rows, steps, 5, generator=generator)
    return batch


def observed(policy, batch):
    return {name: batch[name][:, :2] for name in policy.encoder.names}


@pytest.mark.parametrize(("denoiser", "conditioning"), VALID)
def test_every_combination_learns_and_predicts(denoiser, conditioning):
    policy = policy_of(denoiser, conditioning)
    batch = batch_of(policy)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        loss = policy.compute_loss(batch, generator=torch.Generator().manual_seed(step % 3))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    out = policy.predict_action(observed(policy, batch), generator=torch.Generator().manual_seed(0))
    assert out["action_pred"].shape == (3, 8, 2)
    assert torch.equal(out["action"], out["action_pred"][:, 1:5])


@pytest.mark.parametrize(("denoiser", "conditioning"), VALID)
def test_eyes_learn_from_the_error_of_the_actions(denoiser, conditioning):
    policy = policy_of(denoiser, conditioning, observations=(IMAGE, STATE)).train()
    if denoiser == "mlp":  # its blocks begin as the identity, but its entry sees everything
        torch.nn.init.normal_(policy.denoiser.leave.weight)
    policy.compute_loss(batch_of(policy, rows=2)).backward()
    first = policy.encoder.cameras["observation__image"].backbone.conv1.weight
    assert first.grad is not None and first.grad.abs().max() > 0


@pytest.mark.parametrize(("denoiser", "conditioning"), VALID)
def test_actions_depend_on_what_is_observed(denoiser, conditioning):
    policy = policy_of(denoiser, conditioning)
    if denoiser == "mlp":  # its blocks begin as the identity, but its entry sees everything
        torch.nn.init.normal_(policy.denoiser.leave.weight)
    obs = observed(policy, batch_of(policy))
    width = 2 + (policy.encoder.out_dim if conditioning == "inpainting" else 0)
    noise = torch.randn(3, 8, width, generator=torch.Generator().manual_seed(0))
    one = policy.predict_action(obs, noise=noise)["action_pred"]
    obs["observation.state"] = obs["observation.state"] + 100.0
    assert not torch.allclose(one, policy.predict_action(obs, noise=noise)["action_pred"])


def test_inpainting_gives_the_network_the_observations_at_every_step():
    policy = policy_of("unet", "inpainting")
    seen = []
    plain = policy.denoiser.denoise

    def watch(sample, step, cond=None):
        seen.append(sample[:, :2, 2:].clone())
        assert cond is None
        return plain(sample, step)

    policy.denoiser.denoise = watch
    obs = observed(policy, batch_of(policy))
    policy.predict_action(obs)
    truth = policy.normalizer.normalize("observation.state", obs["observation.state"])[..., :2]
    assert len(seen) == 4
    assert all(torch.equal(part, truth) for part in seen)


def test_inpainting_does_not_learn_what_it_is_told_but_the_mean_is_over_all():
    policy = policy_of("unet", "inpainting")
    batch = batch_of(policy)
    target = []

    def nothing(sample, timestep, cond=None):
        return torch.zeros_like(sample)

    real = policy.objective.corrupt

    def watch(clean, noise, *, generator):
        example = real(clean, noise, generator=generator)
        target.append(example.target)
        return example

    policy.denoiser.forward, policy.objective.corrupt = nothing, watch
    loss = policy.compute_loss(batch)
    error = target[0].square()
    error[:, :2, 2:] = 0
    torch.testing.assert_close(loss, error.mean())


def test_local_conditioning_tells_nothing_beyond_the_observed_steps():
    policy = policy_of("unet", "local")
    obs = observed(policy, batch_of(policy))
    seen = policy._encode(obs)
    cond = policy._condition(seen)
    assert cond.shape == (3, 8, 2)
    assert torch.equal(cond[:, :2], seen) and not cond[:, 2:].any()


def test_padding_is_left_out_of_the_loss_of_inpainting_too():
    policy = policy_of("unet", "inpainting", mask_padding=True)
    batch = batch_of(policy)
    batch["action_is_pad"][:, 5:] = True
    loss = policy.compute_loss(batch, generator=torch.Generator().manual_seed(0))
    batch["action"][:, 5:] = 0.0
    noise_free = policy.compute_loss(batch, generator=torch.Generator().manual_seed(0))
    assert loss != noise_free  # the network sees padded actions beside real ones
    batch["action_is_pad"][:] = True
    assert policy.compute_loss(batch) == 0.0


@pytest.mark.parametrize("denoiser", ["transformer", "mlp"])
def test_local_conditioning_of_another_network_is_refused(denoiser):
    with pytest.raises(ConfigError, match="only the unet takes conditioning `local`"):
        policy_of(denoiser, "local")


class TestPictures:
    def test_two_cameras_have_their_own_weights_or_share_them(self):
        features = {"observation.images.a": (32, 32, 3), "observation.images.b": (32, 32, 3)}
        selections = [parse_selection(name) for name in features]
        sizes = {}
        for share in (False, True):
            config = build(DiffusionConfig, {"vision": {"share_weights": share}}, where="the test")
            encoder = ObservationEncoder(selections, features, vision=config.vision)
            sizes[share] = sum(one.numel() for one in encoder.parameters())
            assert encoder.out_dim == 128
        assert sizes == {False: 2 * 11_197_088, True: 11_197_088}

    def test_shared_cameras_of_different_sizes_are_refused_unless_resized(self):
        features = {"observation.images.a": (32, 32, 3), "observation.images.b": (32, 64, 3)}
        selections = [parse_selection(name) for name in features]
        values = {"share_weights": True}
        config = build(DiffusionConfig, {"vision": values}, where="the test")
        with pytest.raises(PolicyError, match="pictures of different sizes"):
            ObservationEncoder(selections, features, vision=config.vision)
        values = {"share_weights": True, "resize": [32, 48], "crop": [28, 40]}
        config = build(DiffusionConfig, {"vision": values}, where="the test")
        torch.manual_seed(0)
        encoder = ObservationEncoder(selections, features, vision=config.vision).eval()
        generator = torch.Generator().manual_seed(1)
        batch = {
            name: torch.randint(0, 256, (2, 1, *shape), dtype=torch.uint8, generator=generator)
            for name, shape in features.items()
        }
        with torch.no_grad():
            seen = encoder(batch)
            [camera] = encoder.cameras.values()
            one_by_one = [camera(pictures[:, 0]) for pictures in batch.values()]
        assert seen.shape == (2, 1, 128)
        torch.testing.assert_close(seen[:, 0], torch.cat(one_by_one, dim=-1))
        assert not torch.equal(seen[..., :64], seen[..., 64:])

    def test_features_stand_in_the_order_of_the_configuration(self):
        policy = policy_of("unet", "global", observations=(IMAGE, STATE))
        obs = observed(policy, batch_of(policy))
        seen = policy._encode(obs)
        truth = policy.normalizer.normalize("observation.state", obs["observation.state"])[..., :2]
        assert seen.shape == (3, 2, 8)
        assert torch.equal(seen[..., 6:], truth)

    def test_crops_are_random_only_while_training(self):
        policy = policy_of("unet", "global", observations=(IMAGE,))
        obs = observed(policy, batch_of(policy))
        with torch.no_grad():
            assert torch.equal(policy._encode(obs), policy._encode(obs))
            policy.train()
            assert not torch.equal(policy._encode(obs), policy._encode(obs))

    def test_pictures_of_another_size_or_type_are_explained(self):
        policy = policy_of("unet", "global", observations=(IMAGE,))
        with pytest.raises(PolicyError, match=r"expected \(B, 2, 64, 72, 3\)"):
            policy.predict_action({IMAGE: torch.zeros(1, 2, 3, 64, 72, dtype=torch.uint8)})
        with pytest.raises(PolicyError, match=r"expected torch.uint8: pictures of 0 to 255"):
            policy.predict_action({IMAGE: torch.zeros(1, 2, 64, 72, 3)})

    def test_a_slice_of_a_picture_is_refused(self):
        with pytest.raises(PolicyError, match="is a picture of 64 x 72 x 3"):
            policy_of("unet", "global", observations=("observation.image[:2]",))
