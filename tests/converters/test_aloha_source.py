"""Episodes of ALOHA and ACT become datasets, with the colours that were recorded."""

import cv2
import numpy as np
import pytest
from dp_hub_converters.aloha import Aloha
from hdf5_written import jpeg, moving, write_aloha, write_robomimic

from dp_hub.dataset.convert import convert
from dp_hub.dataset.reader import open_dataset
from dp_hub.errors import DataError

HIGH = "observations/images/cam_high"


def recorded(picture):
    """A JPEG as ACT's recorders make it: RGB given to OpenCV, which takes it for BGR."""
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def error(one, other):
    return np.abs(one.astype(int) - other.astype(int)).mean()


def test_episodes_come_in_the_order_of_their_numbers_with_all_their_numbers(tmp_path):
    written = {
        number: write_aloha(tmp_path / f"a/episode_{number}.hdf5", 4 + number, seed=number)
        for number in (10, 2, 1)
    }
    done = convert("aloha", tmp_path / "a", tmp_path / "ds", fps=50)
    assert (done.written.n_episodes, done.written.n_frames) == (3, 25)
    dataset = open_dataset(tmp_path / "ds")
    assert dataset.episodes.lengths.tolist() == [5, 6, 14]
    names = {
        "action": "action",
        "observations/qpos": "observation.state",
        "observations/qvel": "observation.velocity",
    }
    for key, feature in names.items():
        expected = np.concatenate([written[number][key] for number in (1, 2, 10)])
        np.testing.assert_array_equal(dataset.column(feature), expected)
    assert dataset.features["action"].names[-1] == "right_gripper"
    assert "observation.images.cam_low" in dataset.features


def test_compressed_pictures_of_the_recorders_have_their_true_colours_as_bgr(tmp_path):
    write_aloha(tmp_path / "episode_0.hdf5", encode=recorded)
    [episode] = Aloha(image_encoding="bgr").episodes(tmp_path / "episode_0.hdf5")
    pictures = episode.data[HIGH]
    assert (pictures.shape, pictures.dtype) == ((6, 24, 32, 3), np.uint8)
    truth = moving(6)
    assert error(pictures[:], truth) < 8
    [swapped] = Aloha(image_encoding="rgb").episodes(tmp_path / "episode_0.hdf5")
    assert error(swapped.data[HIGH][:], truth) > 60
    np.testing.assert_array_equal(swapped.data[HIGH][2:5], pictures[2:5][..., ::-1])


def test_pictures_encoded_in_the_right_order_have_their_true_colours_as_rgb(tmp_path):
    write_aloha(tmp_path / "episode_0.hdf5", encode=jpeg)
    [episode] = Aloha(image_encoding="rgb").episodes(tmp_path / "episode_0.hdf5")
    assert error(episode.data[HIGH][:], moving(6)) < 8


def test_the_order_of_colours_is_never_guessed(tmp_path):
    write_aloha(tmp_path / "episode_0.hdf5", encode=jpeg)
    source = Aloha().describe(tmp_path)
    assert source.dtypes[HIGH] == "uint8"
    assert any("image_encoding" in note for note in source.notes)
    with pytest.raises(DataError, match="are compressed") as told:
        convert("aloha", tmp_path / "episode_0.hdf5", tmp_path / "ds", fps=50)
    assert "image_encoding=bgr" in told.value.hint
    assert not (tmp_path / "ds").exists()
    drop = [HIGH, "observations/images/cam_low"]
    done = convert("aloha", tmp_path / "episode_0.hdf5", tmp_path / "ds", fps=50, drop=drop)
    assert done.written.n_frames == 6


def test_the_rate_must_be_given_unless_the_file_states_it(tmp_path):
    write_aloha(tmp_path / "a/episode_0.hdf5")
    with pytest.raises(DataError, match="does not say its frames per second") as told:
        convert("aloha", tmp_path / "a", tmp_path / "ds")
    assert "50 Hz" in told.value.hint
    write_aloha(tmp_path / "b/episode_0.hdf5", attrs={"sim": True, "fps": 30})
    assert convert("aloha", tmp_path / "b", tmp_path / "ds").written.fps == 30


@pytest.mark.parametrize("shift", [1, -2])
def test_actions_are_shifted_when_asked_for(tmp_path, shift):
    action = write_aloha(tmp_path / "episode_0.hdf5", attrs={"sim": False})["action"]
    assert any("action_shift=1" in note for note in Aloha().describe(tmp_path).notes)
    [episode] = Aloha(action_shift=shift).episodes(tmp_path)
    got = episode.data["action"]
    for step in range(len(action)):
        np.testing.assert_array_equal(got[step], action[min(max(step - shift, 0), 5)])
    assert episode.metadata["sim"] is False


def test_pictures_stored_as_bgr_are_turned_when_told(tmp_path):
    write_aloha(tmp_path / "episode_0.hdf5")
    [episode] = Aloha(image_encoding="bgr").episodes(tmp_path)
    np.testing.assert_array_equal(episode.data[HIGH][1:3], moving(6)[1:3][..., ::-1])


def test_episodes_with_other_cameras_are_named(tmp_path):
    write_aloha(tmp_path / "episode_0.hdf5")
    write_aloha(tmp_path / "episode_1.hdf5", cameras=("cam_high",))
    with pytest.raises(DataError, match=r"episode_1.hdf5 has no observations/images/cam_low"):
        convert("aloha", tmp_path, tmp_path / "ds", fps=50)
    done = convert("aloha", tmp_path, tmp_path / "ds", fps=50, drop=["observations/images/cam_low"])
    assert done.written.n_episodes == 2


def test_only_files_of_this_layout_are_recognised(tmp_path):
    write_aloha(tmp_path / "a/episode_0.hdf5")
    write_robomimic(tmp_path / "r/demo.hdf5", (0,))
    (tmp_path / "t").mkdir()
    (tmp_path / "t/episode_0.hdf5").write_bytes(b"no")
    assert [Aloha().recognises(tmp_path / n) for n in ("a", "r", "t", "none")] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_files_that_cannot_be_read_or_differ_are_left_out_when_asked(tmp_path, workers):
    folder = tmp_path / "a"
    written = {n: write_aloha(folder / f"episode_{n}.hdf5", seed=n) for n in range(5)}
    whole = (folder / "episode_1.hdf5").read_bytes()
    (folder / "episode_1.hdf5").write_bytes(whole[: len(whole) // 2])
    (folder / "episode_2.hdf5").write_bytes(b"")
    write_aloha(folder / "episode_3.hdf5", cameras=("cam_high",))
    with pytest.raises(DataError, match=r"episode_1.hdf5 is cut short"):
        convert("aloha", folder, tmp_path / "ds", fps=50)
    done = convert("aloha", folder, tmp_path / "ds", fps=50, skip_bad=True, workers=workers)
    assert [one.number for one in done.bad] == [1, 2, 3]
    for one, reason in zip(done.bad, ("is cut short", "0 bytes", "has no obs"), strict=True):
        assert f"episode_{one.number}.hdf5" in one.reason and reason in one.reason
        assert one.label == f"episode {one.number}"
    kept = np.concatenate([written[n]["action"] for n in (0, 4)])
    np.testing.assert_array_equal(open_dataset(tmp_path / "ds").column("action"), kept)


def test_nothing_is_made_of_files_that_are_all_bad(tmp_path):
    (tmp_path / "a").mkdir()
    for n in range(2):
        (tmp_path / f"a/episode_{n}.hdf5").write_bytes(b"no")
    with pytest.raises(DataError, match=r"episode_0.hdf5 is not an HDF5 file"):
        convert("aloha", tmp_path / "a", tmp_path / "ds", fps=50, skip_bad=True)
    assert not (tmp_path / "ds").exists()
