import numpy as np
import pytest

from dp_hub.envs.pusht.env import PushTEnv
from dp_hub.envs.pusht.vector import PushTVector


def test_tables_do_not_depend_on_the_tables_beside_them() -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(100, 400, (40, 3, 2))
    together = PushTVector(3)
    together.reset([7, 8, 9])
    alone = [PushTEnv() for _ in range(3)]
    for i, env in enumerate(alone):
        env.reset(seed=7 + i)
    for step in range(40):
        observation, reward, terminated = together.step(actions[step])
        for i, env in enumerate(alone):
            state, one_reward, one_terminated, *_ = env.step(actions[step, i])
            assert np.array_equal(observation["observation.state"][i], state)
            assert (reward[i], terminated[i]) == (one_reward, one_terminated)


def test_inactive_tables_stay_as_they_are() -> None:
    tables = PushTVector(2)
    before = tables.reset([1, 2])
    actions = np.full((2, 2), 300.0)
    after, _, _ = tables.step(actions, np.array([True, False]))
    changed = (after["observation.state"] != before["observation.state"]).any(axis=1)
    assert changed.tolist() == [True, False]
    assert tables.n_steps.tolist() == [1, 0]


def test_truncated_after_max_steps() -> None:
    tables = PushTVector(1, max_steps=2)
    tables.reset([0])
    tables.step(np.zeros((1, 2)))
    assert not tables.truncated()[0]
    tables.step(np.zeros((1, 2)))
    assert tables.truncated()[0]


def test_an_observation_is_not_changed_by_later_steps() -> None:
    tables = PushTVector(1, render_px=48)
    first = tables.reset([5])
    kept = {name: values.copy() for name, values in first.items()}
    for _ in range(5):
        tables.step(np.array([[256.0, 256.0]]))
    assert set(kept) == {
        "observation.state",
        "observation.environment_state",
        "observation.image",
    }
    for name, values in kept.items():
        assert np.array_equal(first[name], values)


def test_as_many_seeds_as_tables_are_needed() -> None:
    with pytest.raises(ValueError, match="3 seeds for 2 tables"):
        PushTVector(2).reset([1, 2, 3])
