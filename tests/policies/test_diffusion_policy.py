"""DiffusionPolicy: losses, predictions, and what it says to observations that do not fit."""

import numpy as np
import pytest
import torch

from dp_hub.config import build
from dp_hub.errors import ConfigError, PolicyError
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.config import DiffusionConfig, FlowObjective, MlpConfig, UnetConfig
from dp_hub.policies.diffusion import make_policy, required_features

FEATURES = {"observation.environment_state": 18, "observation.state": 5, "action": 2}
MLP = MlpConfig(width=32, depth=1, step_embed_dim=16)
UNET = UnetConfig(step_embed_dim=16, down_dims=(8, 16), n_groups=4)


def fitted_normalizer():
    generator = np.random.default_rng(0)
    columns = {name: generator.uniform(0, 512, (50, dim)) for name, dim in FEATURES.items()}
    return Normalizer.fit(columns)


def tiny_policy(denoiser=MLP, objective=None, **options):
    torch.manual_seed(0)
    config = DiffusionConfig(denoiser=denoiser, objective=objective or FlowObjective(), **options)
    return make_policy(config, FEATURES, normalizer=fitted_normalizer())


def observations(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 512 * torch.rand(rows, 2, dim, generator=generator)
        for name, dim in FEATURES.items()
        if name != "action"
    }


def batch_of(rows, seed=0):
    generator = torch.Generator().manual_seed(seed + 1)
    action = 512 * torch.rand(rows, 16, 2, generator=generator)
    return observations(rows, seed) | {
        "action": action,
        "action_is_pad": torch.zeros(rows, 16, dtype=torch.bool),
    }


def diffusion(solver, steps):
    return {"kind": "diffusion", "solver": solver, "num_inference_steps": steps}


@pytest.mark.parametrize("denoiser", [MLP, UNET], ids=["mlp", "unet"])
@pytest.mark.parametrize(
    "objective",
    [{"kind": "flow_matching"}, diffusion("ddpm", 10), diffusion("dpmsolver++", 5)],
    ids=["flow", "ddpm", "dpmsolver++"],
)
def test_action_is_the_part_of_the_chunk_that_starts_at_the_last_observed_step(denoiser, objective):
    policy = tiny_policy(denoiser, objective)
    out = policy.predict_action(observations(3), generator=torch.Generator().manual_seed(0))
    assert out["action_pred"].shape == (3, 16, 2)
    assert torch.equal(out["action"], out["action_pred"][:, 1:9])
    assert out["action_pred"].dtype == torch.float32


def test_predictions_are_in_raw_units():
    policy = tiny_policy(objective=diffusion("ddim", 10))  # clips to [-1, 1] in normalised units
    chunk = policy.predict_action(observations(20))["action_pred"]
    low, high = policy.normalizer["action"].min, policy.normalizer["action"].max
    assert chunk.amax() > 50
    assert (chunk >= low - 1e-2).all() and (chunk <= high + 1e-2).all()


@pytest.mark.parametrize(
    "objective", [{"kind": "flow_matching"}, diffusion("ddpm", 10), diffusion("ddim", 10)]
)
def test_rows_with_their_own_generators_do_not_depend_on_the_batch(objective):
    policy = tiny_policy(objective=objective).eval()
    obs = observations(4)

    def generators(rows):
        return [torch.Generator().manual_seed(row) for row in rows]

    together = policy.predict_action(obs, generator=generators(range(4)))["action"]
    for row in range(4):
        one = {name: value[row : row + 1] for name, value in obs.items()}
        alone = policy.predict_action(one, generator=generators([row]))["action"]
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-2)
    assert (together[0] - together[1]).abs().max() > 1


def test_given_noise_replaces_the_first_draw():
    policy = tiny_policy().eval()
    noise = torch.randn(3, 16, 2)
    first = policy.predict_action(observations(3), noise=noise)["action"]
    assert torch.equal(first, policy.predict_action(observations(3), noise=noise)["action"])
    other = policy.predict_action(observations(3), noise=noise + 1)["action"]
    assert not torch.allclose(first, other)


def test_only_the_selected_numbers_matter():
    policy = tiny_policy().eval()  # observes observation.state[:2]
    noise, obs = torch.randn(1, 16, 2), observations(1)
    base = policy.predict_action(obs, noise=noise)["action"]
    unseen = obs["observation.state"].clone()
    unseen[..., 2:] += 100
    seen = obs["observation.state"].clone()
    seen[..., :2] += 100

    def act(state):
        return policy.predict_action(obs | {"observation.state": state}, noise=noise)["action"]

    assert torch.equal(act(unseen), base)
    assert not torch.allclose(act(seen), base)


def test_condition_is_each_observed_step_after_the_other():
    policy = tiny_policy()
    obs = observations(2)
    expected = [
        torch.cat(
            [
                policy.normalizer.normalize(name, obs[name][:, step])[:, :width]
                for name, width in (("observation.environment_state", 18), ("observation.state", 2))
            ],
            dim=-1,
        )
        for step in (0, 1)
    ]
    assert torch.equal(policy._condition(policy._encode(obs)), torch.stack(expected, dim=1))


def test_missing_observation_is_named():
    with pytest.raises(PolicyError, match=r"observes observation\.state, which was not given"):
        tiny_policy().predict_action({"observation.environment_state": torch.zeros(1, 2, 18)})


def test_misshapen_observation_is_shown_with_what_was_expected():
    obs = observations(2) | {"observation.state": torch.zeros(2, 5)}
    with pytest.raises(PolicyError, match=r"shape \(2, 5\), expected \(B, 2, 5\)"):
        tiny_policy().predict_action(obs)


def test_wrong_number_of_generators_is_an_error():
    with pytest.raises(PolicyError, match="1 generators for 3 rows"):
        tiny_policy().predict_action(observations(3), generator=[torch.Generator()])


def test_extra_observations_are_ignored_and_numpy_float64_is_taken():
    policy = tiny_policy().eval()
    obs = {name: value.double().numpy() for name, value in observations(2).items()}
    out = policy.predict_action(obs | {"reward": 3}, noise=torch.zeros(2, 16, 2))
    assert out["action"].dtype == torch.float32


def test_calling_the_policy_is_its_loss():
    policy, batch = tiny_policy(), batch_of(8)
    torch.manual_seed(5)
    loss = policy(batch)
    torch.manual_seed(5)
    assert torch.equal(loss, policy.compute_loss(batch))
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(loss, policy.compute_loss(batch, generator=generator))


def test_masked_loss_is_the_mean_over_real_steps_only():
    policy = tiny_policy(mask_padding=True)
    batch = batch_of(4)
    batch["action_is_pad"][:, 12:] = True

    def loss(batch):
        return policy.compute_loss(batch, generator=torch.Generator().manual_seed(0))

    captured = {}
    policy.denoiser.register_forward_hook(lambda *call: captured.update(out=call[2]))
    masked = loss(batch)
    generator = torch.Generator().manual_seed(0)
    clean = policy.normalizer.normalize("action", batch["action"])
    target = clean - torch.randn(clean.shape, generator=generator)
    expected = (captured["out"] - target)[:, :12].square().mean()
    torch.testing.assert_close(masked, expected)


def test_loss_of_a_tiny_network_falls():
    for objective in ({"kind": "flow_matching"}, diffusion("ddpm", 10)):
        policy, batch = tiny_policy(objective=objective), batch_of(64)
        optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
        losses = []
        for _ in range(150):
            optimizer.zero_grad()
            loss = policy(batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:20])


def test_paper_configuration_has_the_papers_size():
    with torch.device("meta"):
        policy = make_policy(DiffusionConfig(), FEATURES)
    assert sum(p.numel() for p in policy.denoiser.parameters()) == 65_783_298
    assert required_features(policy.config) == list(FEATURES)


def test_unknown_feature_is_a_policy_error():
    config = DiffusionConfig(observations=["observation.touch"], denoiser=MLP)
    with pytest.raises(PolicyError, match=r"observation\.touch"):
        make_policy(config, FEATURES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"horizn": 16}, "did you mean `horizon`"),
        ({"denoiser": {"kind": "mlp", "widht": 3}}, "did you mean `width`"),
        ({"denoiser": {"kind": "gnn"}}, "'gnn'"),
        ({"n_action_steps": 16}, "at most horizon - n_obs_steps \\+ 1 = 15"),
        ({"horizon": 10}, "multiple of 4, not 10"),
        ({"denoiser": {"kind": "unet", "n_groups": 7}}, "does not divide the width 256"),
        ({"denoiser": {"kind": "unet", "kernel_size": 4}}, "even kernel"),
        ({"objective": {"kind": "diffusion", "num_inference_steps": 200}}, "100 steps"),
        ({"observations": ["observation.state[2:1]"]}, "selects nothing"),
    ],
)
def test_impossible_configuration_says_why(values, message):
    with pytest.raises(ConfigError) as caught:
        build(DiffusionConfig, values, where="x.yaml")
    assert __import__("re").search(message, str(caught.value))
