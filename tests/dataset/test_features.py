"""Which key becomes which feature, and that values get there and back unchanged."""

import numpy as np
import pytest

from dp_hub.dataset.features import Column, plan_columns
from dp_hub.errors import DataError

PUSHT = {
    "action": np.zeros((4, 2), np.float32),
    "state": np.zeros((4, 5), np.float32),
    "keypoint": np.zeros((4, 9, 2), np.float32),
    "n_contacts": np.zeros((4, 1), np.float32),
    "img": np.full((4, 96, 96, 3), 7, np.float32),
}


def plan(values, **options):
    (column,) = plan_columns({"x": np.asarray(values)}, **options)
    return column


def there_and_back(values, **options):
    values = np.asarray(values)
    column = plan(values, **options)
    again = Column.from_provenance("x", column.provenance(), column.info())
    back = again.to_source(column.to_stored(values, episode=0))
    assert (back.dtype, back.shape) == (values.dtype, values.shape)
    np.testing.assert_array_equal(back, values)
    return column


def test_original_keys_get_lerobot_names():
    names = {c.key: (c.feature, c.dtype, c.shape) for c in plan_columns(PUSHT)}
    assert names == {
        "action": ("action", "float32", (2,)),
        "state": ("observation.state", "float32", (5,)),
        "keypoint": ("observation.environment_state", "float32", (18,)),
        "n_contacts": ("n_contacts", "float32", (1,)),
        "img": ("observation.image", "image", (96, 96, 3)),
    }


def test_camera_keys_become_observation_images():
    picture = np.zeros((2, 32, 32, 3), np.uint8)
    names = [c.feature for c in plan_columns({"camera0_rgb": picture, "obs/wrist": picture})]
    assert names == ["observation.images.camera0_rgb", "observation.images.obs.wrist"]


def test_map_and_drop_are_followed():
    columns = plan_columns(PUSHT, mapping={"state": "observation.pose"}, drop=["img", "keypoint"])
    assert [c.feature for c in columns] == ["action", "observation.pose", "n_contacts"]


@pytest.mark.parametrize("name", ["timestamp", "index", "task"])
def test_key_named_like_an_index_column_moves_aside(name):
    (column,) = plan_columns({name: np.zeros((3, 1))})
    assert column.feature == f"source.{name}"
    with pytest.raises(DataError, match="every dataset has its own"):
        plan_columns({"x": np.zeros((3, 1))}, mapping={"x": name})


def test_two_keys_for_one_feature_are_refused():
    with pytest.raises(DataError, match="a and b would both become state"):
        plan_columns(
            {"a": np.zeros((2, 1)), "b": np.zeros((2, 1))}, mapping={"a": "state", "b": "state"}
        )


def test_unknown_map_key_is_refused_with_the_nearest():
    with pytest.raises(DataError) as caught:
        plan_columns(PUSHT, mapping={"stat": "observation.state"})
    assert "did you mean `state`?" in caught.value.hint


@pytest.mark.parametrize(
    "values",
    [
        np.arange(6, dtype=np.float64).reshape(3, 2),
        np.arange(3, dtype=np.int16),
        np.array([[True], [False]]),
        np.arange(36, dtype=np.float32).reshape(2, 9, 2),
        np.arange(6, dtype=np.float16).reshape(3, 2),
        np.arange(8, dtype=np.uint64).reshape(1, 8),
    ],
)
def test_numbers_of_any_type_and_shape_come_back(values):
    assert there_and_back(values).dtype == values.dtype.name


def test_big_endian_numbers_are_stored_with_the_same_values():
    values = np.arange(6, dtype=">f4").reshape(3, 2)
    column = plan(values)
    np.testing.assert_array_equal(column.to_stored(values, episode=0), values)


def test_whole_float_pictures_become_uint8_and_come_back_as_floats():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (3, 16, 20, 3)).astype(np.float32)
    column = there_and_back(values)
    assert (column.dtype, column.shape) == ("image", (16, 20, 3))
    assert column.note == "float32 0..255 to uint8"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pictures_in_255ths_become_uint8_and_come_back(dtype):
    values = np.arange(256).repeat(3).reshape(1, 16, 16, 3).astype(dtype) / dtype(255)
    assert there_and_back(values).note.endswith("k/255 to uint8")


def test_fractional_pictures_are_refused():
    with pytest.raises(DataError, match=r"neither whole numbers 0\.\.255 nor multiples"):
        plan(np.full((2, 16, 16, 3), 0.1234, np.float32))


def test_picture_that_stops_being_whole_names_episode_and_frame():
    values = np.full((3, 16, 16, 3), 5, np.float32)
    column = plan(values)
    values[2, 0, 0, 0] = 5.5
    with pytest.raises(DataError, match="x of episode 8, frame 2"):
        column.to_stored(values, episode=8)


def test_channels_first_pictures_are_turned_and_come_back():
    values = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 20)).astype(np.uint8)
    column = there_and_back(values)
    assert (column.shape, column.note) == ((16, 20, 3), "channels last")
    np.testing.assert_array_equal(column.to_stored(values, episode=0), values.transpose(0, 2, 3, 1))


def test_four_channel_pictures_are_refused():
    with pytest.raises(DataError, match="neither 1 nor 3 channels"):
        plan(np.zeros((2, 32, 32, 4), np.uint8))


def test_auto_takes_webp_up_to_128_px_and_video_beyond():
    assert plan(np.zeros((1, 128, 96, 3), np.uint8)).encoding == "webp"
    assert plan(np.zeros((1, 130, 96, 3), np.uint8)).encoding == "h264"
    assert plan(np.zeros((1, 130, 96, 3), np.uint8), images="png").encoding == "png"
    assert plan(np.zeros((1, 64, 64, 1), np.uint8), images="webp").encoding == "png"


def test_odd_sized_video_is_refused():
    with pytest.raises(DataError, match="even height and width"):
        plan(np.zeros((1, 131, 96, 3), np.uint8), images="video")


def test_auto_stores_odd_sized_pictures_without_loss_rather_than_refuse_them():
    assert plan(np.zeros((1, 131, 96, 3), np.uint8)).encoding == "webp"


def test_texts_are_refused():
    with pytest.raises(DataError, match="a dataset stores numbers"):
        plan(np.array(["a", "b"]))
