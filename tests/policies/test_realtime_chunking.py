"""Chunks that go on from planned actions: they agree with them, and stay what the policy does.

The policies here have learned in a second that there are two ways to act, up or down.
"""

from functools import cache

import numpy as np
import pytest
import torch

from dp_hub.errors import PolicyError
from dp_hub.models.normalizer import Normalizer
from dp_hub.policies import act, diffusion
from dp_hub.policies.act_config import ActConfig
from dp_hub.policies.config import DiffusionConfig, MlpConfig
from dp_hub.policies.realtime_chunking import Prefix
from dp_hub.robot.acting.overlap import rtc_weights

TP, ROWS = 8, 32
FEATURES = {"observation.state": 1, "action": 2}
MLP = MlpConfig(width=96, depth=2, step_embed_dim=16)

FLOW = {"kind": "flow_matching", "num_inference_steps": 8}


def diffusing(prediction, solver="ddpm", steps=50):
    return {
        "kind": "diffusion",
        "train_steps": 50,
        "prediction": prediction,
        "solver": solver,
        "num_inference_steps": steps,
    }


KINDS = {
    "flow": FLOW,
    "epsilon-ddpm": diffusing("epsilon", "ddpm", 25),
    "epsilon-ddim": diffusing("epsilon", "ddim", 10),
    "sample-ddim": diffusing("sample", "ddim", 10),
    "v-ddpm": diffusing("v", "ddpm", 25),
    "epsilon-dpmsolver++": diffusing("epsilon", "dpmsolver++", 10),
    "v-dpmsolver++": diffusing("v", "dpmsolver++", 10),
}


def ways(signs):
    """Chunks float32 (B, Tp, 2) in raw units, between 0 and 512: one goes up or down in a line."""
    line = torch.linspace(0.2, 1.0, TP)
    both = torch.stack([line, line.flip(0)], dim=-1)
    return 256 + 250 * signs[:, None, None] * both


def observations(rows=ROWS):
    return {"observation.state": torch.zeros(rows, 2, 1)}


@cache
def weights_of(learns, conditioning="global"):
    """Trained weights of the kind of policy that learns the noise, the chunk, or the velocity."""
    policy = make(FLOW if learns == "flow" else diffusing(learns), conditioning)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    steps = TP if conditioning == "inpainting" else 2
    for _ in range(400):
        signs = torch.randint(2, (64,), generator=generator) * 2.0 - 1
        state = torch.rand(64, steps, 1, generator=generator) - 0.5
        loss = policy({"observation.state": state, "action": ways(signs)}, generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy.state_dict()


def make(objective, conditioning="global"):
    torch.manual_seed(0)
    columns = {
        "observation.state": np.array([[-0.5], [0.5]]),
        "action": np.array([[0.0, 0.0], [512.0, 512.0]]),
    }
    config = DiffusionConfig(
        observations=("observation.state",),
        horizon=TP,
        n_action_steps=4,
        denoiser=MLP,
        conditioning=conditioning,
        objective=objective,
    )
    return diffusion.make_policy(config, FEATURES, normalizer=Normalizer.fit(columns))


def trained(kind, conditioning="global"):
    objective = KINDS[kind]
    learns = "flow" if kind == "flow" else objective["prediction"]
    policy = make(objective, conditioning)
    policy.load_state_dict(weights_of(learns, conditioning))
    return policy.eval()


def noise(policy, rows=ROWS):
    width = policy.action_dim + (policy.encoder.out_dim if policy._inpaints else 0)
    return torch.randn(rows, TP, width, generator=torch.Generator().manual_seed(1))


def predicted(policy, prefix=None, rows=ROWS, seed=2):
    """float32 (B, Tp, Da), from the same noise whatever the prefix."""
    generator = torch.Generator().manual_seed(seed)
    start = noise(policy, rows)
    out = policy.predict_action(observations(rows), generator=generator, noise=start, prefix=prefix)
    return out["action_pred"]


def going_up(settled=3, overlap=6, rows=ROWS, **options):
    """The plan was to go up, and ``settled`` steps of it cannot be changed any more."""
    planned = ways(torch.ones(rows))[:, :overlap]
    weights = rtc_weights(TP, settled=settled, overlap=overlap)[:overlap]
    return Prefix(planned, torch.from_numpy(weights).float(), **options)


@pytest.mark.parametrize("how", ["guidance", "inpaint"])
@pytest.mark.parametrize("kind", KINDS)
def test_settled_steps_agree_with_the_plan(kind, how):
    policy = trained(kind)
    planned = ways(torch.ones(ROWS))
    apart, close = (
        (one - planned)[:, :3].abs().mean()
        for one in (predicted(policy), predicted(policy, going_up(how=how)))
    )
    assert apart > 40  # many of them go down
    assert close < 0.2 * apart


@pytest.mark.parametrize("kind", KINDS)
def test_guided_chunks_go_on_from_the_settled_steps(kind):
    # Chunks of the policy, not only chunks with other values in them: the rest goes up as well.
    policy = trained(kind)
    free, drawn = predicted(policy), predicted(policy, going_up())
    down = free[:, -1, 0] < 256
    assert down.sum() >= 4
    assert (drawn[down, -1, 0] > 256).float().mean() > 0.6
    assert (drawn[~down, -1, 0] > 256).float().mean() > 0.9


@pytest.mark.parametrize("how", ["guidance", "inpaint"])
@pytest.mark.parametrize("kind", ["flow", "epsilon-ddpm", "v-dpmsolver++"])
def test_what_has_no_weight_is_not_forced(kind, how):
    policy = trained(kind)
    planned = 512 * torch.rand(ROWS, TP, 2, generator=torch.Generator().manual_seed(3))
    ignored = predicted(policy, Prefix(planned, torch.zeros(TP), how))
    torch.testing.assert_close(ignored, predicted(policy), rtol=0, atol=1e-2)
    # Nor does it matter what is planned there, where other steps are settled.
    settled = torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0])
    other = torch.where(settled[:, None] > 0, planned, 512 - planned)
    one, same = (predicted(policy, Prefix(plan, settled, how)) for plan in (planned, other))
    torch.testing.assert_close(one, same, rtol=0, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_prefix_predictions_are_bit_equal(kind):
    policy = trained(kind)
    plain = policy.predict_action(
        observations(), generator=torch.Generator().manual_seed(2), noise=noise(policy)
    )
    predicted(policy, going_up())  # leaves nothing behind
    assert torch.equal(predicted(policy, None), plain["action_pred"])


def test_guidance_leaves_no_gradients_and_no_graph():
    policy = trained("epsilon-ddim")
    chunk = predicted(policy, going_up())
    assert not chunk.requires_grad
    assert chunk.is_inference()
    assert all(weight.grad is None for weight in policy.parameters())


def test_guidance_works_inside_inference_mode_too():
    policy = trained("flow")
    expected = predicted(policy, going_up())
    with torch.inference_mode():
        assert torch.equal(predicted(policy, going_up()), expected)


@pytest.mark.parametrize("how", ["guidance", "inpaint"])
def test_the_settled_steps_of_a_policy_that_inpaints_its_observations_agree_too(how):
    policy = trained("epsilon-ddim", "inpainting")
    planned = ways(torch.ones(ROWS))
    free, drawn = predicted(policy), predicted(policy, going_up(how=how))
    apart, close = ((one - planned)[:, :3].abs().mean() for one in (free, drawn))
    assert close < 0.2 * apart


def test_inpainting_puts_settled_actions_of_the_data_where_they_are_planned():
    policy = trained("epsilon-ddpm")
    planned = ways(torch.ones(ROWS))
    drawn = predicted(policy, going_up(how="inpaint"))
    torch.testing.assert_close(drawn[:, :3], planned[:, :3], rtol=0, atol=0.5)


def test_a_larger_beta_is_nearer_to_the_plan():
    policy, planned = trained("flow"), ways(torch.ones(ROWS))[:, :3]
    weak, strong = (predicted(policy, going_up(beta=beta)) for beta in (0.2, 8.0))
    assert (strong[:, :3] - planned).abs().mean() < (weak[:, :3] - planned).abs().mean()


def test_rows_with_their_own_generators_do_not_depend_on_the_rows_beside_them():
    policy = trained("epsilon-ddpm")

    def drawn(rows, prefix):
        generators = [torch.Generator().manual_seed(row) for row in rows]
        obs = observations(len(rows))
        return policy.predict_action(obs, generator=generators, prefix=prefix)["action_pred"]

    together, alone = drawn([0, 1, 2], going_up(rows=3)), drawn([1], going_up(rows=1))
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("actions", "weights", "message"),
    [
        ((3, 4, 2), (4,), r"shape \(3, 4, 2\), expected \(2, n, 2\)"),
        ((2, 4, 3), (4,), r"shape \(2, 4, 3\), expected \(2, n, 2\)"),
        ((4, 2), (4,), r"shape \(4, 2\), expected"),
        ((2, 9, 2), (9,), "with n from 1 to 8"),
        ((2, 4, 2), (5,), r"4 planned actions have weights of shape \(5,\)"),
    ],
)
def test_a_prefix_that_does_not_fit_is_refused(actions, weights, message):
    prefix = Prefix(torch.zeros(actions), torch.zeros(weights))
    with pytest.raises(PolicyError, match=message):
        predicted(make(FLOW), prefix, rows=2)


def test_weights_are_shares():
    with pytest.raises(PolicyError, match="each from 0 to 1"):
        predicted(make(FLOW), Prefix(torch.zeros(2, 1, 2), torch.tensor([1.5])), rows=2)


def test_act_refuses_and_says_why():
    config = ActConfig(
        observations=("observation.state",),
        horizon=TP,
        n_action_steps=4,
        hidden_dim=32,
        feedforward_dim=32,
        n_heads=4,
    )
    policy = act.make_policy(config, FEATURES).eval()
    prefix = Prefix(torch.zeros(1, 4, 2), torch.ones(4))
    with pytest.raises(PolicyError, match=r"in one go.*(?s:.*)merge: blend"):
        policy.predict_action({"observation.state": torch.zeros(1, 1, 1)}, prefix=prefix)
