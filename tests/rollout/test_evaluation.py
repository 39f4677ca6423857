import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from rollout_helpers import NoisyPusher, Replayer

from dp_hub.envs.pusht.physics import PushTPhysics
from dp_hub.errors import PolicyError
from dp_hub.policies.selection import Shape
from dp_hub.rollout.evaluation import evaluate


def test_scores_do_not_depend_on_the_batch() -> None:
    tables = [
        [row.as_dict() for row in evaluate(NoisyPusher(), episodes=7, batch_size=size).episodes]
        for size in (1, 3, 7)
    ]
    assert tables[0] == tables[1] == tables[2]
    assert len({row["max_reward"] for row in tables[0]}) > 3


def test_the_same_call_gives_the_same_scores_and_another_seed_others() -> None:
    one, two = (evaluate(NoisyPusher(), episodes=4) for _ in range(2))
    other = evaluate(NoisyPusher(), episodes=4, seed=5)
    assert one.reward == two.reward
    assert np.array_equal(one.episodes[3].actions, two.episodes[3].actions)
    assert one.mean_max_reward != other.mean_max_reward
    assert [result.seed for result in other.episodes] == [5, 6, 7, 8]


@pytest.fixture(scope="module")
def recorded(pusht_zip: Path) -> list[np.ndarray]:
    """The actions of all 206 demonstrations, each float64 (T, 2)."""
    group = zarr.open_group(zarr.storage.ZipStore(pusht_zip, mode="r"), mode="r")
    ends = group["meta/episode_ends"][:].tolist()
    return np.split(group["data/action"][:].astype(np.float64), ends[:-1])


def test_recorded_actions_score_what_stepping_by_hand_gives(recorded: list[np.ndarray]) -> None:
    evaluation = evaluate(Replayer(recorded), episodes=8, seed=40, max_steps=120)
    for result in evaluation.episodes:
        table = PushTPhysics()
        table.reset(result.seed)
        rewards = []
        for step in range(120):
            table.step(*recorded[result.seed][min(step, len(recorded[result.seed]) - 1)])
            rewards.append(min(table.coverage() / 0.95, 1.0))
            if rewards[-1] == 1.0:
                break
        assert (result.max_reward, result.final_reward) == (max(rewards), rewards[-1])
        assert result.steps == len(rewards)


def test_a_demonstration_that_succeeded_is_a_success(recorded: list[np.ndarray]) -> None:
    result = evaluate(Replayer(recorded), episodes=1, seed=51).episodes[0]
    assert result.success and result.max_reward == 1.0
    assert result.steps == 73  # it stops there, in the middle of a chunk


def test_finished_episodes_cost_no_inference() -> None:
    policy = NoisyPusher()
    evaluation = evaluate(policy, episodes=6, batch_size=6, max_steps=24)
    assert [len(asked["observation.state"]) for asked in policy.asked] == [6, 6, 6]
    policy = NoisyPusher()
    evaluation = evaluate(policy, episodes=5, batch_size=2, max_steps=16)
    assert [len(asked["observation.state"]) for asked in policy.asked] == [2, 2, 2, 2, 1, 1]
    assert evaluation.cost.rows == 10
    assert evaluation.cost.calls == 6


def test_the_history_is_the_last_steps_padded_with_the_first() -> None:
    policy = NoisyPusher()
    result = evaluate(policy, episodes=1, max_steps=24).episodes[0]
    first, second = (asked["observation.state"] for asked in policy.asked[:2])
    assert first.shape == (1, 2, 5) and first.dtype == torch.float32
    assert torch.equal(first[0, 0], first[0, 1])
    assert not torch.equal(second[0, 0], second[0, 1])
    assert [plan.step for plan in result.plans] == [0, 8, 16]
    # index 1 of a chunk, the newest observed step, is the first that is executed
    assert result.actions[8] == pytest.approx(result.plans[1].chunk[1])


def test_the_next_group_starts_with_a_fresh_history() -> None:
    policy = NoisyPusher()
    evaluate(policy, episodes=2, batch_size=1, max_steps=8)
    start = policy.asked[1]["observation.state"]
    assert torch.equal(start[0, 0], start[0, 1])


def test_images_are_drawn_for_a_policy_that_looks_at_them() -> None:
    policy = NoisyPusher(["observation.image", "observation.state[:2]"])
    evaluate(policy, episodes=2, max_steps=8)
    assert set(policy.asked[0]) == {"observation.image", "observation.state"}
    image = policy.asked[0]["observation.image"]
    assert image.dtype == torch.uint8 and image.shape == (2, 2, 96, 96, 3)


def test_an_observation_the_environment_does_not_give_is_named() -> None:
    with pytest.raises(PolicyError, match=r"observation\.images\.wrist.*\n.*\n?.*observation"):
        evaluate(NoisyPusher(["observation.images.wrist"]))
    with pytest.raises(PolicyError, match="no environment is called 'kitchen'"):
        evaluate(NoisyPusher(), env="kitchen")


def test_actions_that_are_not_numbers_are_an_error_with_the_seed() -> None:
    class Broken(NoisyPusher):
        def predict_action(self, obs, *, generator):  # type: ignore[no-untyped-def]
            answer = super().predict_action(obs, generator=generator)
            return {name: value * float("nan") for name, value in answer.items()}

    with pytest.raises(PolicyError, match="seed 100000 are not finite"):
        evaluate(Broken(), episodes=1)


def test_the_table_is_plain_json_with_settings_and_versions() -> None:
    values = evaluate(NoisyPusher(), episodes=3, max_steps=8).as_dict()
    again = json.loads(json.dumps(values, allow_nan=False))
    assert again == values
    assert [row["seed"] for row in values["episodes"]] == [100_000, 100_001, 100_002]
    assert values["metrics"]["success_rate"]["method"] == "Wilson score"
    assert values["config"] == {
        "seed": 100_000,
        "episodes": 3,
        "batch_size": 3,
        "max_steps": 8,
        "n_action_steps": 8,
        "latency_steps": 0,
        "ensemble": None,
    }
    assert {"dp_hub", "torch", "pymunk"} <= set(values["versions"])
    assert values["cost"]["env_steps"] == 24


class AgentFollower(NoisyPusher):
    """Observes the features it is made with, and stays where the agent is."""

    def __init__(self, features: dict[str, Shape]) -> None:
        super().__init__([name for name in features if name != "action"])
        self.features = features

    def predict_action(
        self, obs: dict[str, torch.Tensor], *, generator: Sequence[torch.Generator]
    ) -> dict[str, torch.Tensor]:
        self.asked.append(obs)
        chunk = obs["observation.state"][:, -1:, :2].expand(-1, 16, 2)
        return {"action": chunk[:, 1:9], "action_pred": chunk}


def test_policy_of_lerobots_pusht_is_given_the_agents_position_only() -> None:
    narrow = AgentFollower({"observation.state": 2, "action": 2})
    whole = AgentFollower({"observation.state": 5, "action": 2})
    one, other = (evaluate(policy, episodes=2, max_steps=20) for policy in (narrow, whole))
    assert len(narrow.asked) == len(whole.asked) == 3
    for seen, all_of_it in zip(narrow.asked, whole.asked, strict=True):
        assert seen["observation.state"].shape == (2, 2, 2)
        assert torch.equal(seen["observation.state"], all_of_it["observation.state"][..., :2])
    assert one.config["only_first"] == {"observation.state": 2}
    assert "only_first" not in other.config
    assert one.reward == other.reward


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"observation.state": 3}, "observes 3 numbers as `observation.state`, pusht gives 5"),
        ({"observation.state": 6}, "observes 6 numbers"),
        ({"observation.environment_state": 16}, "16 numbers .* pusht gives 18 numbers"),
        ({"observation.image": (64, 64, 3)}, "pictures of 64 x 64 x 3 .* gives pictures of 96"),
    ],
)
def test_other_forms_of_the_task_are_refused_before_it_starts(
    features: dict[str, Shape], message: str
) -> None:
    policy = AgentFollower({**features, "action": 2})
    with pytest.raises(PolicyError, match=message):
        evaluate(policy, episodes=1)
    assert policy.asked == []
