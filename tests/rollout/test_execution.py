"""How chunks become actions: horizon, delay and temporal ensembling."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rollout_helpers import NoisyPusher

from dp_hub.errors import PolicyError
from dp_hub.rollout.evaluation import evaluate
from dp_hub.rollout.execution import Execution, Plan, action_at, ensembled

CONFIG = SimpleNamespace(horizon=16, n_obs_steps=2, n_action_steps=8)


def states_of(policy: NoisyPusher) -> list[torch.Tensor]:
    return [asked["observation.state"] for asked in policy.asked]


def test_ensembling_weighs_older_predictions_more_as_act_does() -> None:
    predictions = np.array([[10.0, 0.0], [20.0, 1.0], [40.0, 5.0]], np.float32)
    weights = np.array([1.0, np.exp(-0.5), np.exp(-1.0)])
    expected = (weights[:, None] * predictions).sum(axis=0) / weights.sum()
    assert ensembled(predictions, 0.5) == pytest.approx(expected)
    assert ensembled(predictions, 0.0) == pytest.approx([70 / 3, 2.0])
    assert ensembled(predictions[:1], 3.0) == pytest.approx([10.0, 0.0])


def test_ensembling_takes_every_chunk_that_covers_the_step() -> None:
    rng = np.random.default_rng(0)
    plans = [Plan(step, rng.normal(size=(6, 2))) for step in range(9)]
    # Asked at step 8 with the first executed action at index 1: chunks of steps 4 to 8 reach it.
    covering = [plans[step].chunk[1 + 8 - step] for step in range(4, 9)]
    weights = np.exp(-0.01 * np.arange(5))
    expected = np.average(covering, axis=0, weights=weights)
    assert action_at(8, plans, 1, 0.01) == pytest.approx(expected)


def test_an_ensembled_episode_executes_the_average_of_its_plans() -> None:
    policy = NoisyPusher()
    result = evaluate(policy, episodes=1, max_steps=20, execution=Execution(ensemble=0.1)).episodes[
        0
    ]
    assert [plan.step for plan in result.plans] == list(range(20))
    covering = np.stack([result.plans[step].chunk[1 + 18 - step] for step in range(4, 19)])
    expected = np.average(covering, axis=0, weights=np.exp(-0.1 * np.arange(15)))
    assert result.actions[18] == pytest.approx(expected)


@pytest.mark.parametrize("ensemble", [None, 0.01])
def test_a_late_policy_sees_old_observations_and_its_first_actions_are_past(
    ensemble: float | None,
) -> None:
    fresh, late = NoisyPusher(), NoisyPusher()
    steps = 1 if ensemble is not None else 4
    on_time = Execution(n_action_steps=1)
    result = evaluate(fresh, episodes=1, max_steps=12, execution=on_time).episodes[0]
    delayed = Execution(None if ensemble is not None else 4, latency_steps=3, ensemble=ensemble)
    other = evaluate(late, episodes=1, max_steps=12, execution=delayed).episodes[0]
    first = states_of(fresh)[0][0, 1]  # the start state, the same for both
    asked = states_of(late)
    assert len(asked) == 12 // steps
    assert torch.equal(asked[0][0], torch.stack([first, first]))
    if ensemble is None:
        assert torch.equal(asked[0][0, 1], first)
        for plan in other.plans:  # index To - 1 + 3 is the first that can still be executed
            assert other.actions[plan.step] == pytest.approx(plan.chunk[4])
            assert other.actions[plan.step + 3] == pytest.approx(plan.chunk[7])
    assert result.actions[0] != pytest.approx(other.actions[0])


def test_what_a_late_policy_sees_is_what_a_prompt_one_saw_as_many_steps_before() -> None:
    class Recorder(NoisyPusher):
        """Walks a fixed way whatever it sees, so that the table's states are always the same."""

        def predict_action(self, obs, *, generator):  # type: ignore[no-untyped-def]
            self.asked.append({name: value.clone() for name, value in obs.items()})
            chunk = torch.full((len(generator), 16, 2), 256.0)
            return {"action": chunk[:, 1:9], "action_pred": chunk}

    prompt, late = Recorder(), Recorder()
    evaluate(prompt, episodes=2, max_steps=10, execution=Execution(1))
    evaluate(late, episodes=2, max_steps=10, execution=Execution(1, latency_steps=3))
    for step in range(3, 10):
        assert torch.equal(states_of(late)[step], states_of(prompt)[step - 3])
    assert not torch.equal(states_of(prompt)[0], states_of(prompt)[5])


def test_the_execution_horizon_is_how_often_the_policy_is_asked() -> None:
    policy = NoisyPusher()
    result = evaluate(policy, episodes=1, max_steps=12, execution=Execution(3)).episodes[0]
    assert [plan.step for plan in result.plans] == [0, 3, 6, 9]
    for plan in result.plans:
        assert result.actions[plan.step + 2] == pytest.approx(plan.chunk[3])


def test_settings_are_filled_in_from_the_policy_and_recorded() -> None:
    assert Execution().for_policy(CONFIG) == Execution(8)
    assert Execution(latency_steps=7).for_policy(CONFIG) == Execution(8, 7)
    assert Execution(ensemble=0.01).for_policy(CONFIG) == Execution(1, 0, 0.01)
    config = evaluate(
        NoisyPusher(), episodes=1, max_steps=2, execution=Execution(latency_steps=2, ensemble=0.5)
    ).as_dict()["config"]
    assert (config["n_action_steps"], config["latency_steps"], config["ensemble"]) == (1, 2, 0.5)


@pytest.mark.parametrize(
    ("execution", "reason"),
    [
        (Execution(16), r"16 steps cannot be executed: .* leave 15"),
        (Execution(latency_steps=8), r"8 steps cannot be executed 8 steps late: .* leave 7"),
        (Execution(1, latency_steps=20), r"20 steps late: .* leave 0"),
        (Execution(latency_steps=-1), "cannot be negative"),
        (Execution(4, ensemble=0.01), "ensembling asks at every step"),
        (Execution(ensemble=float("nan")), "ensemble is nan"),
    ],
)
def test_settings_that_cannot_be_are_refused(execution: Execution, reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        execution.for_policy(CONFIG)
