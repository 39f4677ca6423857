"""Videos that are encoded again: raw frames where they mean the same, RGB where they do not."""

from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest

from dp_hub.dataset.features import plan_columns
from dp_hub.dataset.preparing import Preparer
from dp_hub.dataset.video import exact_rate
from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip
from dp_hub.replay.episode import Episode
from dp_hub.replay.timeline.taken import Taken


def moving(n):
    """Coloured bars that move 2 px a frame."""
    frames = np.full((n, 48, 64, 3), (40, 90, 140), np.uint8)
    for i in range(n):
        frames[i, :, 2 * i % 56 :][:, :8] = (220, 200, 60)
        frames[i, 10:20, (60 - i) % 50 :][:, :10] = (200, 20, 30)
    return frames


def clip_of(folder, *, matrix=0, pixels="yuv420p"):
    """A video as other programs write it; ``matrix`` 1 is BT.709, 0 says nothing."""
    path = folder / f"{matrix}_{pixels}.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        if matrix:
            stream.codec_context.colorspace = matrix
        for picture in moving(30):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(
                stream.encode(frame.reformat(format=pixels, dst_colorspace=matrix or None))
            )
        container.mux(stream.encode(None))
    return VideoClip(path, 0, 30, (48, 64), exact_rate(10), "other")


def prepared(values, columns):
    with ThreadPoolExecutor(1) as pool:
        preparer = Preparer(columns, fps=10, pool=pool, ahead=2)
        return preparer.prepare(Episode({"cam": values}), 0)


@pytest.mark.parametrize(
    ("kind", "plain"),
    [({}, True), ({"matrix": 1}, False), ({"pixels": "yuv444p"}, False)],
)
def test_a_clip_that_is_encoded_again_shows_what_it_showed(tmp_path, kind, plain):
    clip = clip_of(tmp_path, **kind)
    assert clip.is_plain() == plain
    columns = plan_columns({"cam": clip}, images="video")
    stored = prepared(clip, columns)
    [feature] = stored.clips
    [again] = stored.clips[feature]
    error = np.square(clip[:].astype(float) - again[:]).mean()
    assert 10 * np.log10(255**2 / error) > 27
    shift = clip[:].mean((0, 1, 2)) - again[:].mean((0, 1, 2))
    assert np.abs(shift).max() < 1.5, shift


def test_statistics_and_samples_are_those_of_the_pictures(tmp_path):
    clip = clip_of(tmp_path)
    columns = plan_columns({"cam": clip}, images="video")
    raw, pictures = prepared(clip, columns), prepared(clip[:], columns)
    [feature] = raw.clips
    assert np.array_equal(raw.histograms[feature], pictures.histograms[feature])
    assert np.array_equal(raw.stats, pictures.stats)
    assert raw.samples[feature].keys() == pictures.samples[feature].keys()
    assert len(raw.samples[feature]) == 3
    for number, sample in raw.samples[feature].items():
        assert np.array_equal(sample, pictures.samples[feature][number])


def test_raw_frames_are_encoded_to_the_same_bytes_every_time(tmp_path):
    clip = clip_of(tmp_path)
    columns = plan_columns({"cam": clip}, images="video")
    assert prepared(clip, columns).sha256 == prepared(clip, columns).sha256


def test_a_clip_of_another_size_than_the_first_is_refused(tmp_path):
    clip = clip_of(tmp_path)
    [column] = plan_columns({"cam": clip}, images="video")
    other = VideoClip(clip.source, 0, 30, (24, 64), clip.rate, clip.codec)
    with pytest.raises(DataError, match="is 48x64, not 24x64"):
        list(other.raw_frames())
    with pytest.raises(DataError, match="in episode 0 it is"):
        prepared(other, [column])


@pytest.mark.parametrize("kind", [{}, {"matrix": 1}])
def test_frames_of_a_video_in_another_number_are_those_frames(tmp_path, kind):
    clip = clip_of(tmp_path, **kind)
    numbers = np.array([0, 0, 0, 1, 3, 4, 4, *range(10, 25), 29, 29])
    taken = Taken(clip, numbers)
    assert taken.is_plain() == (not kind)
    assert not Taken(clip, numbers[::-1]).is_plain()
    columns = plan_columns({"cam": taken}, images="video")
    stored, pictures = prepared(taken, columns), prepared(clip[:][numbers], columns)
    [feature] = stored.clips
    assert np.array_equal(stored.histograms[feature], pictures.histograms[feature])
    [again] = stored.clips[feature]
    error = np.square(clip[:][numbers].astype(float) - again[:]).mean(axis=(1, 2, 3))
    assert len(error) == len(numbers)
    assert 10 * np.log10(255**2 / error.max()) > 26


def test_a_frame_shown_again_is_encoded_alike_however_many_clips_and_threads(tmp_path, monkeypatch):
    monkeypatch.setattr("dp_hub.dataset.video._CLIP_FRAMES", 2)
    clip = clip_of(tmp_path)
    taken = Taken(clip, np.repeat(np.arange(30), 3))
    columns = plan_columns({"cam": taken}, images="video")
    hashes = set()
    for threads in (1, 3):
        with ThreadPoolExecutor(threads) as pool:
            preparer = Preparer(columns, fps=10, pool=pool, ahead=2 * threads)
            stored = preparer.prepare(Episode({"cam": taken}), 0)
        [clips] = stored.clips.values()
        assert len(clips) == 45
        hashes.add(stored.sha256)
    assert len(hashes) == 1
