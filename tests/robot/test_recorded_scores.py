"""Scores of recorded episodes: by colours in pictures, by the block's pose, by what was said."""

from pathlib import Path

import numpy as np
import pytest

from dp_hub.dataset.convert import convert
from dp_hub.dataset.features import plan_columns
from dp_hub.dataset.reader import Dataset, open_dataset
from dp_hub.dataset.writer import DatasetWriter
from dp_hub.envs.pusht.physics import GOAL_POSE, coverage_of
from dp_hub.errors import ConfigError, DataError
from dp_hub.replay.episode import Episode
from dp_hub.robot.scores.episodes import (
    find_block,
    parse_seeds,
    read_reference,
    score_episodes,
)
from dp_hub.robot.scores.pictures import (
    REAL_PUSHT,
    ColourRange,
    mask_of,
    overlap,
    read_range,
    to_hsv,
)

GRAY_T = ColourRange((95, 115), (40, 75), (130, 200))  # of the simulated T, light slate gray


def written(to: Path, episodes: list[Episode], *, robot_type: str | None = None) -> Dataset:
    columns = plan_columns(episodes[0].data)
    with DatasetWriter(to, columns, fps=10, robot_type=robot_type) as writer:
        for episode in episodes:
            writer.add_episode(episode)
        writer.finish()
    return open_dataset(to)


def states(last: tuple[float, float, float], frames: int = 4) -> np.ndarray:
    way = np.linspace((100.0, 100.0, 0.0), last, frames)
    return np.concatenate([np.zeros((frames, 2)), way], axis=1)


def test_hsv_is_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 64, 3), np.uint8)
    picture[0, :3] = [[0, 0, 0], [255, 255, 255], [255, 0, 0]]
    off = np.abs(to_hsv(picture).astype(int) - cv2.cvtColor(picture, cv2.COLOR_RGB2HSV).astype(int))
    off[..., 0] = np.minimum(off[..., 0], 180 - off[..., 0])  # hue is a circle
    assert off.max() <= 1 and (off > 0).mean() < 0.02


def test_hsv_of_plain_colours() -> None:
    picture = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]]], np.uint8)
    expected = [[0, 255, 255], [60, 255, 255], [120, 255, 255], [0, 0, 128]]
    assert to_hsv(picture)[0].tolist() == expected


def test_the_range_of_the_original_is_the_default_and_others_can_be_written() -> None:
    assert read_range("0-255,130-216,150-230") == REAL_PUSHT == ColourRange()
    assert read_range(str(GRAY_T)) == GRAY_T
    for wrong in ("", "0-255", "0-256,0-1,0-1", "1-2,9-3,0-1", "a-b,0-1,0-1", "1-2,1-2,1-2,1-2"):
        with pytest.raises(ConfigError, match="no range of colours"):
            read_range(wrong)


def test_a_range_of_hues_through_red_takes_both_ends() -> None:
    picture = np.array([[[255, 0, 20], [255, 20, 0], [0, 255, 0]]], np.uint8)
    mask = mask_of(picture, ColourRange((170, 10), (0, 255), (0, 255)))
    assert mask.tolist() == [[True, True, False]]


def test_overlap_is_intersection_over_union() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[1:3] = True, True
    assert overlap(a, b) == 4 / 12
    assert overlap(np.zeros_like(a), b) == 0.0
    with pytest.raises(DataError, match="no pixel of the reference"):
        overlap(a, np.zeros_like(a))
    with pytest.raises(DataError, match="of the same camera"):
        overlap(a, np.zeros((4, 5), bool))


def test_pusht_is_scored_by_its_blocks_pose(tmp_path: Path) -> None:
    near = (GOAL_POSE[0] + 20, GOAL_POSE[1], GOAL_POSE[2])
    episodes = [
        Episode({"observation.state": states(pose)}, metadata={"seed": 100_000 + number})
        for number, pose in enumerate([GOAL_POSE, near, (400.0, 100.0, 1.0)])
    ]
    dataset = written(tmp_path / "D", episodes, robot_type="pusht")
    assert find_block(dataset) == "observation.state"
    done, close, away = score_episodes(dataset, block="observation.state")
    assert done.iou == pytest.approx(1.0) and done.success and done.max_reward == 1.0
    covered = coverage_of(*near)
    assert close.iou == pytest.approx(covered / (2 - covered)) and not close.success
    assert away.iou == 0.0 and away.success is False
    assert [one.seed for one in (done, close, away)] == [100_000, 100_001, 100_002]
    [only] = score_episodes(dataset, block="observation.state", seeds=parse_seeds("100001"))
    assert only == close
    with pytest.raises(DataError, match="no episode with a seed"):
        score_episodes(dataset, block="observation.state", seeds=range(5))


def test_what_the_person_said_comes_before_what_was_measured(tmp_path: Path) -> None:
    said = [{"success": True}, {"success": False}, {}, {"success": 1}]
    episodes = [Episode({"action": np.zeros((3, 2))}, metadata=facts) for facts in said]
    dataset = written(tmp_path / "D", episodes)
    found = [one.success for one in score_episodes(dataset)]
    assert found == [True, False, None, True]
    with pytest.raises(DataError, match="nothing to score by"):
        score_episodes(dataset, success_key="solved")


def test_real_demonstrations_end_on_the_goal_in_pictures_as_in_poses(
    pusht_first5_zip: Path, tmp_path: Path
) -> None:
    convert("zarr", pusht_first5_zip, tmp_path / "D")
    dataset = open_dataset(tmp_path / "D")
    poses = score_episodes(dataset, block="observation.state")
    assert all(one.max_reward > 0.85 for one in poses)
    reference = read_reference(f"{tmp_path / 'D'}#0", None, GRAY_T)
    pictures = score_episodes(dataset, reference=reference, colours=GRAY_T)
    assert pictures[0].iou == 1.0
    # All end near the goal, some with the agent before the T, and begin elsewhere.
    starts = dataset.episodes.starts
    image = dataset.column("observation.image")
    begun = [overlap(mask_of(np.array(image[s]), GRAY_T), reference.mask) for s in starts]
    assert min(one.iou or 0.0 for one in pictures) > max(begun) + 0.2


def test_a_reference_may_be_the_file_of_a_picture(tmp_path: Path) -> None:
    from PIL import Image

    picture = np.full((16, 16, 3), 255, np.uint8)
    picture[4:12, 4:12] = (119, 136, 153)
    Image.fromarray(picture).save(tmp_path / "goal.png")
    reference = read_reference(str(tmp_path / "goal.png"), None, GRAY_T)
    moved = np.roll(picture, 4, axis=1)
    frames = np.stack([picture, moved])
    dataset = written(tmp_path / "D", [Episode({"img": frames})])
    [one] = score_episodes(dataset, reference=reference, colours=GRAY_T)
    assert one.iou == 32 / 96 and one.success is None
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_reference(str(tmp_path / "none.png"), None, GRAY_T)
    with pytest.raises(DataError, match="no pictures called"):
        score_episodes(dataset, reference=reference, feature="front")
