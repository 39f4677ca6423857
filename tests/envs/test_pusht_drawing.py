import numpy as np
import pytest

from dp_hub.envs.pusht.drawing import PushTDrawing
from dp_hub.envs.pusht.physics import PushTPhysics
from dp_hub.envs.pusht.resize import resize


@pytest.mark.parametrize("px", [96, 84, 128, 256, 384, 512])
def test_resize_equals_opencv_on_noise(px: int) -> None:
    cv2 = pytest.importorskip("cv2")
    noise = np.random.default_rng(px).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    assert np.array_equal(resize(noise, px), cv2.resize(noise, (px, px)))


def test_resize_of_known_taps() -> None:
    # 512 -> 96 reads pixels 2 and 3 of the first 16, weighted 1707 and 341 of 2048
    image = np.zeros((512, 512, 1), dtype=np.uint8)
    image[:, 2], image[:, 3] = 60, 240
    assert resize(image, 96)[5, 0, 0] == 90


@pytest.mark.parametrize("px", [96, 100, 256])
def test_a_frame_is_the_whole_table_resized(px: int) -> None:
    drawing, table = PushTDrawing(), PushTPhysics()
    rng = np.random.default_rng(2)
    for seed in range(6):
        table.reset(seed)
        for _ in range(5):
            table.step(*rng.uniform(0, 512, 2))
        full = drawing.frame(table, 512)
        assert np.array_equal(drawing.frame(table, px), resize(full, px))


def test_frames_leave_no_trace_on_the_next() -> None:
    one, fresh = PushTDrawing(), PushTDrawing()
    table = PushTPhysics()
    for state in ([256, 30, 20, 30, 0.3], [2, 510, 480, 470, 2.0], [300, 300, 256, 200, 4.0]):
        table.reset_to(state, legacy=False)
        one.frame(table, 96)
    table.reset(3)
    assert np.array_equal(one.frame(table, 512), fresh.frame(table, 512))


@pytest.mark.parametrize("pose", [(-40.0, 250.0, 1.0), (500.0, 500.0, 0.2), (700.0, -300.0, 0.0)])
def test_a_t_over_the_edge_is_cut_there(pose: tuple[float, float, float]) -> None:
    table = PushTPhysics()
    table.set_state((256.0, 256.0, *pose), legacy=False)
    image = PushTDrawing().frame(table, 512)
    assert image.shape == (512, 512, 3)
    # the wall stays on top, and nothing wraps round to the other side
    assert (image[100:400, 5] == 211).all() and (image[100:400, 506] == 211).all()
    opposite = image[:, 450:500] if pose[0] < 256 else image[:, 12:60]
    is_t = (opposite == (119, 136, 153)).all(axis=-1)
    assert not is_t.any()


def test_the_two_fills_differ_only_at_slanted_edges() -> None:
    table = PushTPhysics()
    table.reset(0)
    recorded = PushTDrawing().frame(table, 96)
    installed = PushTDrawing(fill="pygame").frame(table, 96)
    assert (recorded != installed).any(axis=-1).mean() < 0.006
