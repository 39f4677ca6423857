import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import dp_hub.envs  # noqa: F401
from dp_hub.envs.pusht.env import OBS_TYPES, PushTEnv
from dp_hub.envs.pusht.physics import PushTPhysics
from dp_hub.envs.pusht.vector import PushTVector


@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_gymnasiums_checker_finds_nothing(obs_type: str) -> None:
    env = gymnasium.make("dp_hub/PushT-v0", obs_type=obs_type, render_mode="rgb_array")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env.unwrapped)
    # Actions are pixels, as in the demonstrations; the checker would like [-1, 1].
    unexpected = [w for w in caught if "symmetric and normalized" not in str(w.message)]
    assert not unexpected, [str(w.message) for w in unexpected]


def test_an_episode_is_cut_at_300_steps() -> None:
    env = gymnasium.make("dp_hub/PushT-v0")
    env.reset(seed=3)
    ends = [env.step(np.array([20.0, 20.0]))[2:4] for _ in range(300)]
    assert ends[-1] == (False, True)
    assert not any(truncated for _, truncated in ends[:-1])


def test_reset_with_a_seed_gives_the_originals_state_again_and_again() -> None:
    env = PushTEnv()
    first, _ = env.reset(seed=100_000)
    env.step(np.array([300.0, 300.0]))
    again, _ = env.reset(seed=100_000)
    table = PushTPhysics()
    table.reset(100_000)
    assert np.array_equal(first, again)
    assert np.array_equal(first, table.state())


def test_resets_without_a_seed_differ_but_follow_from_the_first_seed() -> None:
    def starts() -> list[np.ndarray]:
        env = PushTEnv()
        env.reset(seed=5)
        return [env.reset()[0] for _ in range(3)]

    one, two = starts(), starts()
    assert np.array_equal(one, two)
    assert not np.array_equal(one[0], one[1])


def test_a_recorded_state_comes_back_only_without_the_legacy_order() -> None:
    state = np.array([100.0, 400.0, 220.0, 250.0, 1.2])
    env = PushTEnv()
    exact, _ = env.reset(options={"reset_to_state": state, "legacy": False})
    moved, _ = env.reset(options={"reset_to_state": state})
    assert exact == pytest.approx(state, abs=1e-9)
    assert np.linalg.norm(moved[2:4] - state[2:4]) > 20


def test_unknown_reset_option_and_obs_type_are_named() -> None:
    with pytest.raises(ValueError, match="state_to_reset"):
        PushTEnv().reset(options={"state_to_reset": [0] * 5})
    with pytest.raises(ValueError, match=r"obs_type is 'image'.*pixels_agent_pos"):
        PushTEnv(obs_type="image")  # type: ignore[arg-type]


def test_success_ends_the_episode_with_full_reward() -> None:
    env = PushTEnv()
    goal = [20.0, 20.0, 256.0, 256.0, np.pi / 4]
    env.reset(options={"reset_to_state": goal, "legacy": False})
    _, reward, terminated, truncated, info = env.step(np.array([20.0, 20.0]))
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["is_success"] and info["coverage"] > 0.99


def test_info_holds_what_the_originals_does() -> None:
    env = PushTEnv()
    _, info = env.reset(seed=0)
    assert info["n_contacts"] == 0
    infos = [env.step(action)[4] for action in _towards_the_block(env)]
    assert max(info["n_contacts"] for info in infos) in (1, 2)
    last = infos[-1]
    assert last["pos_agent"] == pytest.approx(env.physics.state()[:2])
    assert last["block_pose"][:2] == pytest.approx(env.physics.state()[2:4])
    assert last["goal_pose"] == pytest.approx([256, 256, np.pi / 4])
    assert np.linalg.norm(infos[0]["vel_agent"]) > 1


def _towards_the_block(env: PushTEnv) -> Any:
    for _ in range(25):
        x, y, block_x, block_y, angle = env.physics.state()
        centre = np.array([block_x - 45 * np.sin(angle), block_y + 45 * np.cos(angle)])
        agent = np.array([x, y])
        yield agent + (centre - agent) * min(1.0, 20 / np.linalg.norm(centre - agent))


def test_counting_contacts_changes_no_state() -> None:
    plain, counting = PushTPhysics(), PushTPhysics(count_contacts=True)
    rng = np.random.default_rng(1)
    for table in (plain, counting):
        table.reset(11)
    touched = 0
    for _ in range(60):
        target = plain.state()[2:4] + rng.uniform(-60, 60, 2)
        for table in (plain, counting):
            table.step(*target)
        assert np.array_equal(plain.state(), counting.state())
        touched += counting.contact_points
    assert touched > 20
    assert plain.contact_points == 0


def test_observation_image_has_no_action_mark_and_render_has() -> None:
    env = PushTEnv(obs_type="pixels", render_mode="rgb_array")
    env.reset(seed=4)
    image, *_ = env.step(np.array([400.0, 100.0]))
    shown = env.render()
    assert shown is not None and shown.shape == image.shape
    changed = (shown != image).any(axis=-1)
    assert (shown[changed] == (255, 0, 0)).all()
    assert 10 <= changed.sum() <= 17  # a cross of 9 x 9 pixels centred on the action
    rows, columns = np.nonzero((shown == (255, 0, 0)).all(axis=-1))
    assert (rows.mean(), columns.mean()) == (18, 75)


def test_keypoint_observation_is_nine_points_of_the_t_then_the_agent() -> None:
    env = PushTEnv(obs_type="keypoints")
    observation, info = env.reset(seed=8)
    tables = PushTVector(1)
    expected = tables.reset([8])
    assert np.array_equal(observation[:18], expected["observation.environment_state"][0])
    assert np.array_equal(observation[18:], info["pos_agent"])


def test_human_mode_opens_a_window_and_closes_it() -> None:
    import pygame

    env = PushTEnv(render_mode="human")
    env.reset(seed=0)
    env.step(np.array([256.0, 256.0]))
    window = pygame.display.get_surface()
    assert window is not None and window.get_size() == (512, 512)
    assert tuple(window.get_at((256, 256)))[:3] == (255, 0, 0)  # the action's mark
    env.close()
    assert not pygame.display.get_init()
