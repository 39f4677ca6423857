"""ActPolicy: its loss, its predictions, and what it says to observations that do not fit."""

import re

import numpy as np
import pytest
import torch

from dp_hub.config import build
from dp_hub.errors import ConfigError, PolicyError
from dp_hub.models.act import Observed
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies.act import make_policy
from dp_hub.policies.act_config import ActConfig

FEATURES = {"observation.environment_state": 18, "observation.state": 5, "action": 2}
TINY = {
    "horizon": 12,
    "n_action_steps": 8,
    "hidden_dim": 16,
    "feedforward_dim": 32,
    "n_heads": 2,
    "n_encoder_layers": 1,
    "n_style_layers": 1,
    "latent_dim": 4,
}
# Of the network below after each step of AdamW, lr 3e-3; float32 on a CPU.
LOSSES = [
    3.13114, 2.63553, 2.22186, 1.88110, 1.60331, 1.37816, 1.19509, 1.04542, 0.92178, 0.81926,
    0.73490, 0.66693, 0.61426, 0.57587, 0.55039, 0.53586, 0.52972, 0.52914, 0.53168, 0.53557,
]  # fmt: skip


def fitted_normalizer():
    generator = np.random.default_rng(0)
    columns = {name: generator.uniform(0, 512, (50, dim)) for name, dim in FEATURES.items()}
    return Normalizer.fit(columns, "gaussian_clipped")


def tiny_policy(**options):
    torch.manual_seed(0)
    return make_policy(ActConfig(**TINY | options), FEATURES, normalizer=fitted_normalizer())


def observations(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 512 * torch.rand(rows, 1, dim, generator=generator)
        for name, dim in FEATURES.items()
        if name != "action"
    }


def batch_of(rows, seed=0, n_padded=0):
    generator = torch.Generator().manual_seed(seed + 1)
    padding = torch.zeros(rows, 12, dtype=torch.bool)
    padding[:, 12 - n_padded :] = n_padded > 0
    action = 512 * torch.rand(rows, 12, 2, generator=generator)
    return observations(rows, seed) | {"action": action, "action_is_pad": padding}


def loss_of(policy, batch):
    return policy.compute_loss(batch, generator=torch.Generator().manual_seed(0))


def test_action_is_the_start_of_the_chunk():
    out = tiny_policy().eval().predict_action(observations(3))
    assert out["action_pred"].shape == (3, 12, 2)
    assert torch.equal(out["action"], out["action_pred"][:, :8])
    assert out["action_pred"].dtype == torch.float32


def test_predictions_are_in_raw_units():
    policy, obs = tiny_policy().eval(), observations(4)
    vectors = {name: policy.normalizer.normalize(name, value)[:, 0] for name, value in obs.items()}
    seen = Observed(vectors["observation.state"][:, :2], vectors["observation.environment_state"])
    chunk = policy.network.decode(torch.zeros(4, 4), seen)
    action = policy.normalizer["action"]
    expected = chunk * action.std + action.mean
    got = policy.predict_action(obs)["action_pred"]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-3)
    assert action.mean.min() > 200


def test_predictions_are_the_same_every_time_and_whatever_is_drawn():
    policy, obs = tiny_policy().eval(), observations(3)
    base = policy.predict_action(obs)["action_pred"]
    assert torch.equal(policy.predict_action(obs)["action_pred"], base)
    one = torch.Generator().manual_seed(3)
    state = one.get_state()
    assert torch.equal(policy.predict_action(obs, generator=one)["action_pred"], base)
    assert torch.equal(one.get_state(), state)
    each = [torch.Generator().manual_seed(row) for row in range(3)]
    assert torch.equal(policy.predict_action(obs, generator=each)["action_pred"], base)
    noise = torch.randn(3, 12, 2)
    assert torch.equal(policy.predict_action(obs, noise=noise)["action_pred"], base)


def test_a_row_does_not_depend_on_the_rows_beside_it_or_on_calls_before():
    policy, obs = tiny_policy().eval(), observations(4)
    together = policy.predict_action(obs)["action"]
    for row in range(4):
        alone = policy.predict_action({name: x[row : row + 1] for name, x in obs.items()})["action"]
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-2)
    assert (together[0] - together[1]).abs().max() > 1


def test_only_the_selected_numbers_matter():
    policy, obs = tiny_policy().eval(), observations(1)  # observes observation.state[:2]
    base = policy.predict_action(obs)["action"]
    unseen, seen = (obs["observation.state"].clone() for _ in range(2))
    unseen[..., 2:] += 100
    seen[..., :2] += 100
    assert torch.equal(policy.predict_action(obs | {"observation.state": unseen})["action"], base)
    moved = policy.predict_action(obs | {"observation.state": seen})["action"]
    assert not torch.allclose(moved, base)


def test_style_is_drawn_from_the_state_and_not_from_the_environment():
    policy, batch = tiny_policy().eval(), batch_of(2)
    styles = []
    encode = policy.network.encode_style
    policy.network.encode_style = lambda *args: styles.append(encode(*args)) or styles[-1]
    for name in (None, "observation.environment_state", "observation.state", "action"):
        loss_of(policy, batch if name is None else batch | {name: batch[name] + 300})
    assert torch.equal(styles[1].mu, styles[0].mu)
    for other in styles[2:]:
        assert not torch.allclose(other.mu, styles[0].mu, atol=1e-3)


@pytest.mark.parametrize("environment", [(), ("observation.environment_state",)])
def test_one_kind_of_observation_is_enough(environment):
    policy = tiny_policy(observations=["observation.environment_state"], environment=environment)
    assert policy(batch_of(2)).isfinite()
    assert policy.predict_action(observations(2))["action"].shape == (2, 8, 2)


# What is learned.


def test_loss_is_the_mean_absolute_error_and_the_weighted_divergence():
    captured = {}
    for kl_weight in (0.0, 10.0):
        policy, batch = tiny_policy(kl_weight=kl_weight).eval(), batch_of(4)
        policy.network.action_head.register_forward_hook(lambda *call: captured.update(out=call[2]))
        policy.network.latent_proj.register_forward_hook(lambda *call: captured.update(kl=call[2]))
        loss = loss_of(policy, batch)
        clean = policy.normalizer.normalize("action", batch["action"])
        error = (captured["out"] - clean).abs().mean()
        mu, logvar = captured["kl"].chunk(2, dim=-1)
        divergence = (-0.5 * (1 + logvar - mu**2 - logvar.exp())).sum(1).mean()
        torch.testing.assert_close(loss, error + kl_weight * divergence)


def test_padded_steps_are_no_error_but_count_in_the_originals_mean():
    batch = batch_of(4, n_padded=3)
    whole = loss_of(tiny_policy(kl_weight=0).eval(), batch)
    real = loss_of(tiny_policy(kl_weight=0, count_padding=False).eval(), batch)
    torch.testing.assert_close(whole, real * 9 / 12)
    nonsense = batch["action"].clone()
    nonsense[:, 9:] = -1e6
    for counting, expected in ((True, whole), (False, real)):
        policy = tiny_policy(kl_weight=0, count_padding=counting).eval()
        torch.testing.assert_close(loss_of(policy, batch | {"action": nonsense}), expected)


def test_a_batch_of_padding_alone_is_no_division_by_zero():
    policy = tiny_policy(count_padding=False)
    assert policy(batch_of(2, n_padded=12)).isfinite()


def test_calling_the_policy_is_its_loss():
    policy, batch = tiny_policy().eval(), batch_of(8)
    torch.manual_seed(5)
    loss = policy(batch)
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(loss, policy.compute_loss(batch, generator=generator))
    assert loss.dtype == torch.float32 and loss.ndim == 0


def fixed_policy_and_batch():
    """Weights and data from numpy, whose generator stays the same; without dropout."""
    generator = np.random.default_rng(7)
    policy = tiny_policy(dropout=0.0)
    for parameter in policy.parameters():
        value = 0.2 * generator.standard_normal(tuple(parameter.shape))
        parameter.data = torch.from_numpy(value).float()
    shapes = {"observation.environment_state": (16, 1, 18), "observation.state": (16, 1, 5)}
    shapes["action"] = (16, 12, 2)
    batch = {
        name: torch.from_numpy(generator.uniform(0, 512, shape)).float()
        for name, shape in shapes.items()
    }
    return policy, batch | {"action_is_pad": torch.arange(12) >= torch.arange(16)[:, None]}


def test_losses_of_a_fixed_network_over_20_steps_are_known():
    policy, batch = fixed_policy_and_batch()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    noise = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = policy.compute_loss(batch, generator=noise)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(LOSSES, rel=1e-3)


def test_a_toy_dataset_is_learned_by_heart():
    policy, batch = tiny_policy(dropout=0.0, hidden_dim=32), batch_of(16)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    losses = []
    for _ in range(400):
        optimizer.zero_grad()
        loss = policy(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.4 * np.mean(losses[5:15])
    predicted = policy.eval().predict_action(batch)["action_pred"]
    untrained = tiny_policy(hidden_dim=32).eval().predict_action(batch)["action_pred"]
    error, before = ((chunk - batch["action"]).abs().mean() for chunk in (predicted, untrained))
    assert error < 0.4 * before


# What does not fit.


def test_missing_observation_is_named():
    with pytest.raises(PolicyError, match=r"observes observation\.state, which was not given"):
        tiny_policy().predict_action({"observation.environment_state": torch.zeros(1, 1, 18)})


def test_misshapen_observation_is_shown_with_what_was_expected():
    obs = observations(2) | {"observation.state": torch.zeros(2, 2, 5)}
    with pytest.raises(PolicyError, match=r"shape \(2, 2, 5\), expected \(B, 1, 5\)"):
        tiny_policy().predict_action(obs)


def test_generators_and_noise_are_checked_though_nothing_is_drawn():
    with pytest.raises(PolicyError, match="1 generators for 3 rows"):
        tiny_policy().predict_action(observations(3), generator=[torch.Generator()])
    with pytest.raises(PolicyError, match=r"noise has shape \(3, 2\), expected \(3, 12, 2\)"):
        tiny_policy().predict_action(observations(3), noise=torch.zeros(3, 2))


def test_extra_observations_are_ignored_and_numpy_float64_is_taken():
    obs = {name: value.double().numpy() for name, value in observations(2).items()}
    out = tiny_policy().predict_action(obs | {"reward": 3})
    assert out["action"].dtype == torch.float32


def test_unknown_feature_is_a_policy_error():
    config = ActConfig(**TINY, observations=["observation.touch"])
    with pytest.raises(PolicyError, match=r"observation\.touch"):
        make_policy(config, FEATURES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"horizn": 16}, "did you mean `horizon`"),
        ({"horizon": 50}, "at most horizon = 50"),
        ({"n_obs_steps": 2}, "should be 1"),
        ({"n_heads": 3}, "does not divide hidden_dim, 512"),
        ({"hidden_dim": 36}, "does not divide hidden_dim, 36"),
        ({"hidden_dim": 6, "n_heads": 1}, "multiple of 4"),
        ({"dropout": 1}, "less than 1"),
        ({"kl_weight": -1}, "greater than or equal to 0"),
        ({"observations": ["observation.state[2:1]"]}, "selects nothing"),
    ],
)
def test_impossible_configuration_says_why(values, message):
    with pytest.raises(ConfigError) as caught:
        build(ActConfig, values, where="x.yaml")
    assert re.search(message, str(caught.value))
