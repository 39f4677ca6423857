"""Pictures turned, cut and made smaller, against numpy and Pillow doing it on their own."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip
from dp_hub.replay.mapping.picture_edits import EditedPictures, PictureEdit, first_of


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def edited(pictures, **edit):
    view = EditedPictures(pictures, PictureEdit(**edit), "/cam")
    assert view.shape == view[:].shape and view.dtype == np.uint8 and len(view) == len(pictures)
    return view[:]


SIMPLE = {
    "bgr": ({"colour": "bgr"}, lambda p: p[..., ::-1]),
    "turned 90": ({"rotate": 90}, lambda p: p.transpose(0, 2, 1, 3)[:, :, ::-1]),
    "turned 180": ({"rotate": 180}, lambda p: p[:, ::-1, ::-1]),
    "turned 270": ({"rotate": 270}, lambda p: p.transpose(0, 2, 1, 3)[:, ::-1]),
    "upside down": ({"flip": "vertical"}, lambda p: p[:, ::-1]),
    "mirrored": ({"flip": "horizontal"}, lambda p: p[:, :, ::-1]),
    "cut": ({"crop": (1, 2, 10, 5)}, lambda p: p[:, 1:11, 2:7]),
    "the size it has": ({"resize": (24, 36)}, lambda p: p),
    "turned, then cut": (
        {"rotate": 90, "crop": (0, 0, 3, 24)}, lambda p: p[:, ::-1].transpose(0, 2, 1, 3)[:, :3]),
}  # fmt: skip


@pytest.mark.parametrize("name", SIMPLE)
def test_edits_without_resizing_move_pixels_only(name):
    edit, expected = SIMPLE[name]
    pictures = noise(5, 24, 36, 3)
    np.testing.assert_array_equal(edited(pictures, **edit), expected(pictures))


@pytest.mark.parametrize("colour", ["rgba", "bgra"])
def test_a_fourth_channel_is_left_out(colour):
    pictures = noise(2, 9, 9, 4)
    expected = pictures[..., [0, 1, 2] if colour == "rgba" else [2, 1, 0]]
    np.testing.assert_array_equal(edited(pictures, colour=colour), expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_whole_blocks_become_their_mean(channels):
    pictures = noise(3, 24, 36, channels)
    mean = pictures.reshape(3, 8, 3, 9, 4, channels).astype(float).mean(axis=(2, 4))
    assert np.abs(edited(pictures, resize=(8, 9)) - mean).max() <= 0.51


def test_blocks_are_what_opencv_calls_area():
    cv2 = pytest.importorskip("cv2")
    pictures = noise(2, 48, 64, 3)
    area = [cv2.resize(p, (32, 24), interpolation=cv2.INTER_AREA) for p in pictures]
    assert np.abs(edited(pictures, resize=(24, 32)).astype(int) - np.stack(area)).max() <= 1


@pytest.mark.parametrize("size", [(10, 17), (23, 35), (30, 40)])
def test_other_sizes_are_pillows_lanczos(size):
    pictures = noise(2, 24, 36, 3)
    expected = [Image.fromarray(p).resize(size[::-1], Image.Resampling.LANCZOS) for p in pictures]
    np.testing.assert_array_equal(edited(pictures, resize=size), np.stack(expected))


def test_fine_stripes_become_grey_and_no_coarse_ones():
    stripes = np.zeros((1, 100, 100, 3), np.uint8)
    stripes[:, :, ::2] = 255
    small = edited(stripes, resize=(30, 30)).astype(int)
    assert np.abs(small - 127).max() < 30  # every third pixel alone would be 0 or 255


def test_slices_are_parts_of_the_whole():
    view = EditedPictures(noise(70, 8, 10, 3), PictureEdit(resize=(4, 5)), "/cam")
    whole = np.asarray(view)
    for part in (slice(3, 40), slice(None, None, 3), slice(60, 99), slice(5, 5), slice(-4, None)):
        np.testing.assert_array_equal(view[part], whole[part])
    np.testing.assert_array_equal(first_of(view, 33)[:], whole[:33])


def clip(count=50, size=(32, 48)):
    from dp_hub.dataset.video import encode_clip

    steps = np.linspace(20, 230, count).astype(np.uint8)
    pictures = np.broadcast_to(steps[:, None, None, None], (count, *size, 3)).copy()
    return encode_clip(pictures, rate=Fraction(10), codec="h264")


class Counting:
    """A `VideoClip.frames` that counts how many frames were decoded."""

    def __init__(self, monkeypatch):
        self.decoded = 0
        frames = VideoClip.frames

        def counted(clip):
            for frame in frames(clip):
                self.decoded += 1
                yield frame

        monkeypatch.setattr(VideoClip, "frames", counted)


def test_a_video_looked_at_in_blocks_is_decoded_once(monkeypatch):
    video = clip()
    whole = video[:]
    counting = Counting(monkeypatch)
    view = EditedPictures(video, PictureEdit(flip="horizontal"), "/cam")
    blocks = [view[start : start + 7] for start in range(0, 50, 7)]
    np.testing.assert_array_equal(np.concatenate(blocks), whole[:, :, ::-1])
    assert counting.decoded == 50
    np.testing.assert_array_equal(view[10:12], whole[10:12, :, ::-1])


def test_the_first_frames_of_a_video_stay_a_video():
    part = first_of(clip(), 20)
    assert isinstance(part, VideoClip) and len(part) == 20


WRONG = [
    (noise(2, 8, 8), {"flip": "vertical"}, "/cam holds uint8 (8, 8), not pictures"),
    (noise(2, 8, 8, 3).astype(float), {"rotate": 90}, "/cam holds float64 (8, 8, 3), not"),
    (noise(2, 8, 8, 1), {"colour": "bgr"}, "/cam has 1 channels, `colour: bgr` 3"),
    (noise(2, 8, 12, 3), {"crop": (0, 5, 8, 8)}, "ends at row 8 and column 13"),
    (noise(2, 8, 12, 3), {"rotate": 90, "crop": (0, 0, 8, 12)}, "/cam is 12x8; the crop"),
]


@pytest.mark.parametrize(("pictures", "edit", "message"), WRONG)
def test_what_does_not_fit_is_told_before_anything_is_read(pictures, edit, message):
    with pytest.raises(DataError) as caught:
        EditedPictures(pictures, PictureEdit(**edit), "/cam")
    assert message in caught.value.message
