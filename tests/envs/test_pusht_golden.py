"""Our PushT against the original's: its start states, its recorded episodes, its rewards."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from dp_hub.envs.pusht.drawing import PushTDrawing
from dp_hub.envs.pusht.physics import (
    T_KEYPOINTS,
    PushTPhysics,
    coverage_of,
    keypoints_of,
    start_state,
)
from dp_hub.envs.pusht.vector import PushTVector

N_DEMOS = 206


class Demos(NamedTuple):
    group: zarr.Group
    state: np.ndarray
    action: np.ndarray
    bounds: list[tuple[int, int]]


@pytest.fixture(scope="module")
def demos(pusht_zip: Path) -> Demos:
    group = zarr.open_group(zarr.storage.ZipStore(pusht_zip, mode="r"), mode="r")
    ends = group["meta/episode_ends"][:].tolist()
    bounds = list(zip([0, *ends[:-1]], ends, strict=True))
    assert len(bounds) == N_DEMOS
    state, action = (group[f"data/{key}"][:].astype(np.float64) for key in ("state", "action"))
    return Demos(group, state, action, bounds)


class Replay(NamedTuple):
    states: np.ndarray  # before each action
    coverage: np.ndarray  # after each action


@pytest.fixture(scope="module")
def replay(demos: Demos) -> Replay:
    """All demonstrations again, from their seeds, by their actions in float64."""
    table = PushTPhysics()
    states, coverage = np.empty((len(demos.state), 5)), np.empty(len(demos.state))
    for seed, (start, stop) in enumerate(demos.bounds):
        table.reset(seed)
        for i in range(start, stop):
            states[i] = table.state()
            table.step(*demos.action[i])
            coverage[i] = table.coverage()
    return Replay(states, coverage)


def test_start_states_are_those_of_all_206_recorded_episodes(demos: Demos) -> None:
    table = PushTPhysics()
    for seed, (start, _) in enumerate(demos.bounds):
        table.reset(seed)
        assert np.abs(table.state() - demos.state[start]).max() < 1e-4, seed


def test_start_state_of_the_papers_first_test_seed_is_known() -> None:
    expected = [235, 124, 335, 128, -0.9049]
    assert start_state(100_000) == pytest.approx(expected, abs=1e-4)


def test_replay_of_every_demonstration_stays_within_a_thousandth_of_a_pixel(
    demos: Demos, replay: Replay
) -> None:
    assert len(replay.states) == 25_650
    assert np.abs(replay.states - demos.state).max() < 1e-3


def test_demonstrators_score_what_is_published(demos: Demos, replay: Replay) -> None:
    best = np.array([replay.coverage[start:stop].max() for start, stop in demos.bounds])
    assert np.clip(best / 0.95, 0, 1).mean() == pytest.approx(0.9466, abs=5e-5)
    assert (best > 0.95).sum() == 7


def test_rewards_equal_the_ones_lerobot_stores(
    shared_data: Path, demos: Demos, replay: Replay
) -> None:
    folder = shared_data / "samples" / "lerobot_v30_pusht" / "data" / "chunk-000"
    table = pq.read_table(folder / "file-000.parquet", columns=["next.reward"])
    stored = table["next.reward"].to_numpy()
    last = np.array([stop - 1 for _, stop in demos.bounds])
    ours = np.clip(replay.coverage / 0.95, 0, 1)
    ours[last] = ours[last - 1]  # LeRobot repeats the reward before for the last frame
    assert np.abs(ours - stored).max() < 1e-6


def test_keypoints_equal_the_recorded_ones_wherever_nothing_touches(demos: Demos) -> None:
    recorded = demos.group["data/keypoint"][:]
    free = demos.group["data/n_contacts"][:, 0] == 0
    ours = keypoints_of(*demos.state[:, 2:].T)
    error = np.abs(ours - recorded).max(axis=(1, 2))
    assert free.sum() == 13_755
    assert (error[free] < 2e-5).mean() > 0.985  # float32 rounds by 1.5e-5 px
    assert np.median(error) < 2e-5


def test_frames_equal_the_recorded_ones(demos: Demos) -> None:
    checked, equal = _compare_frames(demos, range(0, N_DEMOS, 8))
    assert checked == 3_317
    assert equal >= checked - 2  # a corner within 1e-5 px of a half rounds either way


@pytest.mark.slow
def test_all_frames_equal_the_recorded_ones(demos: Demos) -> None:
    checked, equal = _compare_frames(demos, range(N_DEMOS))
    assert checked == 25_650
    assert equal >= 25_640


def _compare_frames(demos: Demos, episodes: range) -> tuple[int, int]:
    drawing, table = PushTDrawing(), PushTPhysics()
    checked = equal = 0
    for seed in episodes:
        start, stop = demos.bounds[seed]
        recorded = demos.group["data/img"][start:stop].astype(np.uint8)
        table.reset(seed)
        for i in range(start, stop):
            differs = (drawing.frame(table, 96) != recorded[i - start]).any(axis=-1)
            assert differs.mean() <= 0.005, (seed, i)
            checked, equal = checked + 1, equal + (not differs.any())
            table.step(*demos.action[i])
    return checked, equal


def test_images_of_the_vector_are_the_recorded_ones_too(demos: Demos) -> None:
    tables = PushTVector(3, render_px=96)
    observation = tables.reset([0, 1, 2])
    starts = [start for start, _ in demos.bounds[:3]]
    for step in range(20):
        for i, start in enumerate(starts):
            recorded = demos.group["data/img"][start + step].astype(np.uint8)
            assert np.array_equal(observation["observation.image"][i], recorded), (i, step)
        observation, _, _ = tables.step(demos.action[[start + step for start in starts]])


# Computed with shapely 2.2 (intersection of the two unions of boxes over the goal's 6,300 px).
KNOWN_COVERAGE = {
    (256.0, 256.0, np.pi / 4): 1.0,
    (256.0, 256.0, 0.0): 0.3239667075666244,
    (260.0, 250.0, 0.9): 0.720379900910463,
    (200.0, 300.0, 2.5): 0.18458199620920113,
    (256.0, 256.0, np.pi / 4 + np.pi): 0.0,
    (280.0, 240.0, 0.6): 0.2817402346310692,
    (100.0, 100.0, 0.0): 0.0,
}


@pytest.mark.parametrize("pose", KNOWN_COVERAGE)
def test_coverage_of_known_poses(pose: tuple[float, float, float]) -> None:
    assert coverage_of(*pose) == pytest.approx(KNOWN_COVERAGE[pose], abs=1e-12)


def test_coverage_agrees_with_counting_points() -> None:
    rng = np.random.default_rng(7)
    points = rng.uniform((-60, 0), (60, 120), size=(400_000, 2))  # in the T's frame
    inside = points[(points[:, 1] < 30) | (np.abs(points[:, 0]) < 15)]
    for _ in range(20):
        x, y = rng.uniform(206, 306, 2)
        angle = rng.uniform(0, 2 * np.pi)
        world = _turned(inside, angle) + np.array([x, y])
        local = _turned(world - 256, -np.pi / 4)
        bar = (np.abs(local[:, 0]) < 60) & (local[:, 1] > 0) & (local[:, 1] < 30)
        stem = (np.abs(local[:, 0]) < 15) & (local[:, 1] >= 30) & (local[:, 1] < 120)
        assert coverage_of(x, y, angle) == pytest.approx((bar | stem).mean(), abs=0.006)


def _turned(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def test_keypoints_are_the_originals_farthest_points_of_the_drawn_t() -> None:
    drawing, table = PushTDrawing(fill="pygame"), PushTPhysics()
    shape = _pixels_of_the_t(drawing, table)
    rng = np.random.default_rng(0)
    chosen = [shape[rng.choice(len(shape))]]
    while len(chosen) < 9:
        distance = np.linalg.norm(shape[:, None] - np.array(chosen), axis=-1).min(axis=1)
        chosen.append(shape[distance.argmax()])
    assert np.array(chosen) + rng.uniform(0, 1, (9, 2)) == pytest.approx(T_KEYPOINTS, abs=1e-12)


def _pixels_of_the_t(drawing: PushTDrawing, table: PushTPhysics) -> np.ndarray:
    """Where the T's colours are, float64 (n, 2) in its own frame, row by row."""
    table.reset_to((20.0, 20.0, 256.0, 300.0, 0.0))
    image = drawing.frame(table, 512).astype(int)
    colours = [(119, 136, 153), (143, 163, 184)]
    is_t = np.any([(image == colour).all(axis=-1) for colour in colours], axis=0)
    rows, columns = np.nonzero(is_t)
    return np.stack([columns - 256.0, rows - 300.0], axis=1)
