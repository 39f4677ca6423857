"""What is in the episodes: each fault is recorded, written as a whole dataset, and found."""

import numpy as np
import pytest
from checks_helpers import (
    FPS,
    LENGTHS,
    TASKS,
    as_others_write,
    edit_json,
    examined,
    healthy_episodes,
    ids,
    make_episode,
    write_episodes,
)

from dp_hub.dataset.checks import check
from dp_hub.dataset.checks.fix import fix
from dp_hub.errors import DataError


def finding(report, id):
    return next(f for f in report.findings if f.id == id)


def written(tmp_path, episodes, **options):
    return as_others_write(write_episodes(tmp_path / "ds", episodes, **options))


def nan_state(episodes):
    episodes[2]["state"][7, 1] = np.nan
    episodes[4]["state"][3, 0] = np.inf


def dead_joint(episodes):
    for data in episodes:
        data["state"][:, 2] = 0.25


def frozen_state(episodes):
    episodes[3]["state"][10:25] = episodes[3]["state"][10]


def spike(episodes):
    episodes[1]["state"][12, 0] += 90


def jump(episodes):
    # One broken reading of a sensor that otherwise hardly moves, to another level.
    for data in episodes:
        data["state"][:, 2] *= 0.001
    episodes[5]["state"][20:, 2] += 40


def wraps(episodes):
    for i, data in enumerate(episodes):
        turn = np.linspace(0, 9, len(data["state"])) + i
        data["state"][:, 2] = np.mod(turn, 2 * np.pi)


def saturated(episodes):
    # Pushed against its limits: the ends of a swing are cut off.
    for data in episodes:
        data["action"][:, 0] = np.clip(data["action"][:, 0], -60, 60)


def copied(episodes):
    episodes[4] = {key: value.copy() for key, value in episodes[1].items()}


def nearly_copied(episodes):
    rng = np.random.default_rng(0)
    episodes[4] = {key: value.copy() for key, value in episodes[1].items()}
    episodes[4]["state"] += rng.normal(size=episodes[4]["state"].shape).astype(np.float32) * 0.01


def idle_start(episodes):
    for key in ("state", "action"):
        still = np.repeat(episodes[3][key][:1], 40, axis=0)
        episodes[3][key] = np.concatenate([still, episodes[3][key]])
    rng = np.random.default_rng(1)
    moving = rng.integers(40, 200, (40, 16, 16, 3)).astype(np.uint8)
    episodes[3]["img"] = np.concatenate([moving, episodes[3]["img"]])


def other_lag(episodes):
    data = episodes[2]
    data["action"] = np.roll(data["action"], -9, axis=0)
    for key in data:
        data[key] = data[key][:-9].copy()


def velocities(episodes):
    rng = np.random.default_rng(2)
    for data in episodes:
        data["action"] = rng.uniform(-1, 1, data["action"].shape).astype(np.float32)


def black(episodes):
    episodes[0]["img"][11] = 2
    episodes[5]["img"][30:33] = 0


def flat(episodes):
    episodes[1]["img"][4] = (200, 90, 30)


def frozen_camera(episodes):
    episodes[2]["img"][5:20] = episodes[2]["img"][5]


def second_camera(episodes):
    for data in episodes:
        data["wrist"] = data["img"].copy()


def short_episode(episodes):
    for key in episodes[3]:
        episodes[3][key] = episodes[3][key][:13]


def tiny_episode(episodes):
    for key in episodes[3]:
        episodes[3][key] = episodes[3][key][:4]


CASES = {
    "NaN": (nan_state, "NUM-001", {2, 4}),
    "dead joint": (dead_joint, "NUM-002", set()),
    "frozen state": (frozen_state, "NUM-003", {3}),
    "spike": (spike, "NUM-005", {1}),
    "wraps": (wraps, "NUM-007", {0, 1, 2, 3, 4, 5}),
    "saturation": (saturated, "NUM-008", set()),
    "copy": (copied, "EPI-004", {4}),
    "near copy": (nearly_copied, "EPI-005", {4}),
    "idle": (idle_start, "EPI-006", {3}),
    "other lag": (other_lag, "EPI-007", {2}),
    "velocities": (velocities, "EPI-008", set()),
    "short": (short_episode, "EPI-001", {3}),
    "tiny": (tiny_episode, "EPI-002", {3}),
    "black": (black, "IMAGE-003", {0, 5}),
    "flat": (flat, "IMAGE-004", {1}),
    "frozen camera": (frozen_camera, "IMAGE-005", {2}),
    "one camera twice": (second_camera, "IMAGE-006", set()),
}


@pytest.mark.parametrize("name", CASES)
def test_a_fault_of_the_recording_is_found_with_its_episodes(tmp_path, name):
    spoil, id, episodes = CASES[name]
    recorded = healthy_episodes()
    spoil(recorded)
    report = examined(written(tmp_path, recorded))
    assert id in ids(report), [(f.id, f.what) for f in report.findings]
    seen = finding(report, id)
    assert set(seen.episodes) == episodes
    assert seen.remedy and seen.what
    fails = ids(report, "fail")
    assert fails == ({id} if seen.severity == "fail" else set())


def test_a_step_of_many_deviations_is_found(tmp_path):
    """A value that leaves a thousand quiet readings and stays away for good is no spike."""
    rng = np.random.default_rng(3)
    episodes = [make_episode(i, 200) for i in range(4)]
    for data in episodes:
        data["state"][:, 2] = rng.normal(size=200) * 1e-3
    episodes[2]["state"][195:, 2] = 5.0
    report = examined(written(tmp_path, episodes))
    assert finding(report, "NUM-006").episodes == (2,)


def test_a_dimension_that_rests_in_one_episode_only_is_found(tmp_path):
    episodes = [make_episode(i, 40) for i in range(12)]
    episodes[7]["state"][:, 2] = 0.1
    report = examined(written(tmp_path, episodes))
    assert finding(report, "NUM-004").episodes == (7,)


def test_an_episode_of_odd_length_is_found(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [make_episode(i, int(rng.integers(100, 130))) for i in range(12)]
    episodes[5] = make_episode(5, 20)
    report = examined(written(tmp_path, episodes))
    assert finding(report, "EPI-003").episodes == (5,)


def test_horizon_and_observed_steps_decide_what_is_short(tmp_path):
    root = written(tmp_path, healthy_episodes())
    assert "EPI-001" not in ids(check(root))
    report = check(root, horizon=32, n_obs=2)
    short = tuple(i for i, n in enumerate(LENGTHS) if n < 34)
    assert finding(report, "EPI-001").episodes == short


def test_degrees_and_rotations_are_judged_by_their_names(tmp_path):
    rng = np.random.default_rng(4)
    episodes = healthy_episodes()
    for i, data in enumerate(episodes):
        n = len(data["state"])
        q = rng.normal(size=(1, 4)) + np.linspace(0, 0.5, n)[:, None]
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        q[5] *= -1 if i == 1 else 1
        q[9] *= 1.2 if i == 2 else 1
        data["quat"] = q
        angle = np.linspace(0, 1, n) + i
        turn = np.zeros((n, 9))
        turn[:, 0] = turn[:, 4] = np.cos(angle)
        turn[:, 3], turn[:, 1], turn[:, 8] = np.sin(angle), -np.sin(angle), 1
        turn[4] *= 1.1 if i == 3 else 1
        data["rotmat"] = turn
        data["joints"] = 90 + 40 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    names = {"quat": "observation.quat", "rotmat": "observation.rotmat"}
    names["joints"] = "observation.joint_angles"
    report = examined(written(tmp_path, episodes, mapping=names))
    assert finding(report, "NUM-010").episodes == (2,)
    assert finding(report, "NUM-011").episodes == (1,)
    assert finding(report, "NUM-012").episodes == (3,)
    assert "observation.joint_angles" in finding(report, "NUM-009").what


def test_a_gripper_may_leap_and_rest_at_its_ends(tmp_path):
    episodes = healthy_episodes()
    for data in episodes:
        n = len(data["action"])
        closed = (np.arange(n) // 2 % 2).astype(np.float32)
        data["action"] = np.concatenate([data["action"], closed[:, None]], axis=1)
        data["state"][:, 2] = closed
    report = examined(written(tmp_path, episodes))
    assert not ids(report) & {"NUM-005", "NUM-006", "NUM-008"}


def test_one_task_among_many_and_the_same_task_twice_in_the_table(tmp_path):
    episodes = [make_episode(i, 30) for i in range(12)]
    root = written(tmp_path, episodes, tasks=[*[TASKS[0]] * 11, TASKS[1]])
    assert finding(examined(root), "TEXT-002").severity == "info"
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = root / "meta/tasks.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index("task")
    pq.write_table(table.set_column(at, "task", pa.array([TASKS[0]] * 2)), path)
    assert "TASK-006" in ids(examined(root))


def test_an_open_recording_is_named_and_its_leftovers_do_not_fail_it(tmp_path):
    root = write_episodes(tmp_path / "ds", healthy_episodes())
    (root / "meta/checksums.json").unlink(missing_ok=True)
    edit_json(root, "meta/dp_hub.json", lambda v: v.update(state="open", fingerprint=None))
    (root / "data/chunk-000/file-001.parquet").write_bytes(b"half a file")
    report = examined(root)
    assert not ids(report, "fail") and not ids(report, "warn")
    assert {"STRUCT-018", "STRUCT-017"} <= ids(report, "info")
    with pytest.raises(DataError, match="still being recorded"):
        fix(root, tmp_path / "new", report)


def test_lag_wraps_and_steps_are_measured(tmp_path):
    facts = examined(written(tmp_path, healthy_episodes())).facts
    assert facts["action_leads_frames"] == 2
    assert facts["episodes_with_that_lag"] == len(LENGTHS)
    assert facts["angle_wraps"] == 0
    assert facts["shortest_episode"] == min(LENGTHS)
    assert FPS == 10
