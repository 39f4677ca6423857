"""The scripted demonstrator brings the T home, moves like a hand, and does the same again."""

import numpy as np
import pytest

from dp_hub.envs.pusht.demonstration import Demonstration, demonstrate
from dp_hub.envs.pusht.expert import Expert, ExpertConfig
from dp_hub.envs.pusht.expert_search import PushSearch, Scene, distance
from dp_hub.envs.pusht.physics import PushTPhysics, keypoints_of

SEEDS = range(2000, 2006)


@pytest.fixture(scope="module")
def demos() -> list[Demonstration]:
    return [demonstrate(seed) for seed in SEEDS]


def test_every_episode_succeeds(demos):
    assert len(demos) == 6
    assert all(demo.success for demo in demos), [demo.coverage for demo in demos]


def test_the_t_is_brought_well_inside_the_goal(demos):
    """So that a learner that misses by a little still succeeds."""
    assert np.mean([demo.coverage for demo in demos]) > 0.965


def test_replaying_the_stored_actions_gives_the_stored_states_exactly(demos):
    for demo in demos:
        table = PushTPhysics()
        table.reset(demo.seed)
        best = 0.0
        for state, action in zip(demo.arrays["state"], demo.arrays["action"], strict=True):
            np.testing.assert_array_equal(table.state().astype(np.float32), state)
            table.step(float(action[0]), float(action[1]))
            best = max(best, table.coverage())
        assert best == demo.coverage


def test_keypoints_are_those_of_the_state(demos):
    for demo in demos:
        state = demo.arrays["state"].astype(np.float64)
        keypoints = keypoints_of(state[:, 2], state[:, 3], state[:, 4])
        np.testing.assert_allclose(demo.arrays["keypoint"], keypoints, atol=1e-3)


def test_the_same_seed_plays_the_same_episode(demos):
    again = demonstrate(demos[0].seed)
    for key, value in demos[0].arrays.items():
        np.testing.assert_array_equal(again.arrays[key], value)


def test_the_hand_moves_as_fast_and_as_smoothly_as_a_persons(demos):
    """The people's: step mean 10.2, p95 26.9, p99 40.4 px; change mean 5.4, p95 17.0."""
    steps, changes = [], []
    for demo in demos:
        moves = np.diff(demo.arrays["action"], axis=0)
        steps.append(np.hypot(*moves.T))
        changes.append(np.hypot(*np.diff(moves, axis=0).T))
    step, change = np.concatenate(steps), np.concatenate(changes)
    assert 0.7 * 10.2 < step.mean() < 1.3 * 10.2
    assert np.percentile(step, 95) < 26.9
    assert step.max() < 40.4
    assert change.mean() < 5.4 * 1.3
    assert np.percentile(change, 95) < 17.0


def test_the_first_target_is_near_the_agent(demos):
    for demo in demos:
        assert np.hypot(*(demo.arrays["action"][0] - demo.arrays["state"][0, :2])) < 10


def test_nothing_moves_before_the_agent_has_walked_to_the_t():
    """Seed 2000's agent starts away from the T."""
    demo = demonstrate(2000)
    pose, agent = demo.arrays["state"][:, 2:], demo.arrays["state"][:, :2]
    first = int(np.argmax((np.abs(pose - pose[0]) > 1e-3).any(1)))
    assert first > 5
    walked = np.hypot(*np.diff(agent[: first + 1], axis=0).T).sum()
    assert walked > 30


def test_other_draws_choose_other_pushes():
    """From one state, episodes with generators of their own do not all do the same."""
    table = PushTPhysics()
    table.reset(2003)
    agent, pose = np.array((table.agent_x, table.agent_y)), table.block_pose()
    plans = {
        Expert(ExpertConfig(), rng=np.random.default_rng(k))
        .plan(agent, agent, pose)
        .shove.tobytes()
        for k in range(12)
    }
    assert 2 <= len(plans) <= 10


def test_without_temperature_the_choice_is_always_the_best():
    table = PushTPhysics()
    table.reset(2003)
    agent, pose = np.array((table.agent_x, table.agent_y)), table.block_pose()
    config = ExpertConfig(temperature=0.0)
    plans = {
        Expert(config, rng=np.random.default_rng(k)).plan(agent, agent, pose).shove.tobytes()
        for k in range(5)
    }
    assert len(plans) == 1


def test_an_episode_that_runs_out_of_steps_is_no_success():
    demo = demonstrate(2000, ExpertConfig(max_steps=10))
    assert not demo.success
    assert len(demo.arrays["action"]) == 10


def test_the_search_ranks_pushes_that_bring_the_t_nearer_first():
    pose = (180.0, 300.0, 1.0)
    scene = Scene(pose, here=np.array((0.0, -150.0)), push_speed=12.0, walk_speed=22.0)
    search = PushSearch(tilt_rad=0.4, run_up_px=18.0, aim=0.985)
    pushes = search.best(scene, tries=60, refine=4)
    assert [push.pace for push in pushes] == sorted(push.pace for push in pushes)
    assert pushes[0].pace < 3
    assert distance(np.array([pose]))[0] == scene.distance_px


def test_images_are_recorded_when_asked_for():
    demo = demonstrate(2000, ExpertConfig(max_steps=3), images=True)
    assert demo.arrays["img"].shape == (3, 96, 96, 3)
    assert demo.arrays["img"].dtype == np.uint8
