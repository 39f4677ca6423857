from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw
from rollout_helpers import NoisyPusher

from dp_hub.envs.pusht.drawing import PushTDrawing
from dp_hub.errors import DataError
from dp_hub.rollout.evaluation import Evaluation, evaluate
from dp_hub.rollout.files import replacing, write_json
from dp_hub.rollout.picture import contact_sheet
from dp_hub.rollout.scenes import draw_plan, episode_picture, replay
from dp_hub.rollout.video import episode_frames, write_video


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(NoisyPusher(), episodes=5, max_steps=16)


def test_replay_ends_where_the_episode_did(evaluation: Evaluation) -> None:
    result = evaluation.episodes[2]
    tables = list(replay(result))
    assert len(tables) == result.steps + 1
    assert min(tables[-1].coverage() / 0.95, 1.0) == result.final_reward


def test_sheet_grows_by_rows_of_four(evaluation: Evaluation) -> None:
    four = contact_sheet(evaluation, title="four", tiles=4)
    five = contact_sheet(evaluation, title="five", tiles=12)
    assert five.width == four.width
    assert five.height > 1.5 * four.height


def test_legend_fits_above_a_single_episode(evaluation: Evaluation) -> None:
    sheet = np.asarray(contact_sheet(evaluation, title="one", tiles=1))
    legend = sheet[58:78]
    assert (legend != legend[0, 0]).any()
    assert (legend[:, -8:] == legend[0, 0]).all()


def test_picture_of_an_episode_shows_the_agents_way(evaluation: Evaluation) -> None:
    result = evaluation.episodes[0]
    picture = np.asarray(episode_picture(result, PushTDrawing(), 512)).astype(int)
    *_, last = replay(result)
    plain = PushTDrawing().frame(last, 512).astype(int)
    changed = np.abs(picture - plain).max(axis=-1) > 60
    first = next(iter(replay(result)))
    x, y = round(first.agent_x), round(first.agent_y)
    assert changed[y - 18 : y + 19, x - 18 : x + 19].any()  # the ring where it began
    assert 500 < changed.sum() < 40_000


def test_video_has_a_frame_per_step_and_holds_the_end(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    path = write_video(evaluation, tmp_path / "sub" / "show.mp4", tiles=3)
    with av.open(str(path)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 17 + 15
    assert frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0
    moved = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)]
    assert min(moved[:15]) > 0.05 > max(moved[18:])
    assert [item.name for item in path.parent.iterdir()] == ["show.mp4"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_json({"a": 1}, tmp_path / "scores.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"a": float("nan")}, path)
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"), replacing(tmp_path / "file" / "x.json"):
        pass


def test_the_part_of_a_plan_that_will_be_executed_is_drawn_larger() -> None:
    image = Image.new("RGB", (400, 100), "white")
    plan = np.stack([np.linspace(50, 350, 4), np.full(4, 50.0)], axis=1)
    draw_plan(ImageDraw.Draw(image), plan, 2)
    drawn = (np.asarray(image) != 255).any(axis=-1)
    heights = [int(drawn[:, x].sum()) for x in (50, 150, 250, 350)]
    assert heights[0] == heights[1] > heights[2] == heights[3] > 4


def test_a_video_shows_where_the_agent_is_told_to_go(evaluation: Evaluation) -> None:
    result = evaluation.episodes[0]
    frames = list(episode_frames(result, PushTDrawing(), first_executed=1, n_executed=8))
    x, y = (result.actions[3] / 2).round().astype(int)  # tiles are half the table's size
    x, y = np.clip((x, y), 6, 249)
    ring = np.asarray(frames[3])[y - 6 : y + 7, x - 6 : x + 7].sum(axis=-1)
    assert ring.min() < 200  # dark ink
