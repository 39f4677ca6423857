"""Videos taken over packet by packet: which frames are measured, and which damage is seen."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from dp_hub.dataset import stats as st
from dp_hub.dataset.copied import look_through
from dp_hub.dataset.packets import NotCopyableError, clips_sha256
from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip, rgb_of, rgb_rows_of

SIZE = (96, 64)
ENCODERS = {
    "h264": ("libx264", {"bf": "0"}),
    "hevc": ("libx265", {"x265-params": "bframes=0:log-level=none"}),
    "av1": ("libsvtav1", {"preset": "12", "svtav1-params": "pred-struct=1"}),
    "vp9": ("libvpx-vp9", {"lag-in-frames": "0", "deadline": "realtime", "cpu-used": "8"}),
}


def pictures(n, size=SIZE):
    """Each of a shade of its own, with a texture."""
    shades = np.linspace(20, 230, n).astype(np.uint8)
    texture = np.random.default_rng(0).integers(0, 24, (*size, 3), np.uint8)
    return shades[:, None, None, None] + texture


def write(path, n, *, gop, codec="h264"):
    encoder, options = ENCODERS[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=10, options=options)
        stream.height, stream.width = SIZE
        stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", gop
        for picture in pictures(n):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return VideoClip(path, 0, n, SIZE, Fraction(10), codec)


def counted(clip, numbers):
    return st.picture_counts(clip[:], np.array(numbers))


def packets(path):
    with av.open(str(path)) as container:
        return [(p.pos, p.size, p.is_keyframe) for p in container.demux(video=0) if p.size]


def test_how_many_frames_are_looked_at():
    assert [len(st.key_samples(n)) for n in (1, 5, 16, 300, 2500, 40_000)] == [
        1, 5, 16, 17, 50, 200,
    ]  # fmt: skip
    for length in (1, 2, 15, 17, 31, 33, 100, 301, 1999):
        numbers = st.key_samples(length)
        assert (numbers[0], numbers[-1]) == (0, length - 1)
        assert (np.diff(numbers) > 0).all()


@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize("threads", [1, 3])
def test_dense_key_frames_stand_in_for_the_frames_just_behind_them(tmp_path, codec, threads):
    clip = write(tmp_path / "v.mp4", 121, gop=2, codec=codec)
    keys = [i for i, (_, _, key) in enumerate(packets(clip.source)) if key]
    assert len(keys) >= 60
    expected = [max(k for k in keys if k <= n) for n in st.key_samples(121)]
    found = look_through([clip], threads=threads)
    assert found.n_sampled == 16
    assert np.array_equal(found.histogram, counted(clip, expected))
    assert found.sha256 == clips_sha256([clip])


@pytest.mark.parametrize("codec", ENCODERS)
def test_between_far_key_frames_the_frames_themselves_are_decoded(tmp_path, codec):
    clip = write(tmp_path / "v.mp4", 100, gop=40, codec=codec)
    keys = [i for i, (_, _, key) in enumerate(packets(clip.source)) if key]
    expected = []
    for n in st.key_samples(100).tolist():
        key = max(k for k in keys if k <= n)
        expected.append(key if n - key < 99 / 15 / 2 else n)
    assert len(set(expected)) == 16 and len(set(expected) - set(keys)) >= 10
    found = look_through([clip], threads=2)
    assert np.array_equal(found.histogram, counted(clip, expected))


def test_a_part_of_a_video_and_an_episode_of_several_clips_are_measured_alike(tmp_path):
    clip = write(tmp_path / "v.mp4", 120, gop=2)
    whole = look_through([clip.part(20, 80)])
    parts = look_through([clip.part(20, 30), clip.part(50, 50)])
    assert np.array_equal(whole.histogram, parts.histogram)
    assert whole.sha256 == parts.sha256
    assert np.array_equal(look_through([clip.part(20, 8)]).histogram,
                          counted(clip, range(20, 28)))  # fmt: skip


@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize("frame", [40, 77])
def test_a_packet_that_is_not_whole_is_found_wherever_it_is(tmp_path, frame, codec):
    clip = write(tmp_path / "v.mp4", 120, gop=2, codec=codec)
    pos, size, _ = packets(clip.source)[frame]
    data = bytearray(clip.source.read_bytes())
    data[pos : pos + size] = bytes(size)
    clip.source.write_bytes(data)
    with pytest.raises(DataError, match=f"damaged at frame {frame}"):
        look_through([clip])


def test_a_key_frame_that_cannot_be_decoded_is_found_and_a_lost_end_too(tmp_path):
    clip = write(tmp_path / "v.mp4", 120, gop=2, codec="vp9")
    pos, size, key = packets(clip.source)[40]
    assert key and 40 in st.key_samples(120)
    data = bytearray(clip.source.read_bytes())
    data[pos + 1 : pos + size] = b"\xff" * (size - 1)
    clip.source.write_bytes(data)
    with pytest.raises(DataError, match="cannot be decoded"):
        look_through([clip])
    more = VideoClip(clip.source, 0, 130, SIZE, clip.rate, "vp9")
    with pytest.raises((NotCopyableError, DataError)):
        look_through([more])


def test_a_changed_packet_changes_the_hash(tmp_path):
    clip = write(tmp_path / "v.mp4", 120, gop=2)
    before = look_through([clip]).sha256
    pos, size, key = packets(clip.source)[61]
    assert not key
    data = bytearray(clip.source.read_bytes())
    data[pos + size - 1] ^= 1
    clip.source.write_bytes(data)
    assert look_through([clip]).sha256 != before


@pytest.mark.parametrize("size", [(480, 640), (98, 66), (64, 48), (100, 34)])
@pytest.mark.parametrize("step", [1, 4, 5, 7, 20])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv444p", "yuv422p"])
def test_rows_are_those_of_the_whole_picture(size, step, pix_fmt):
    reformatter = VideoReformatter()
    n = 0
    for seed, matrix in enumerate((1, 2, 5)):
        noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
        frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format=pix_fmt)
        frame.colorspace = matrix
        rows = rgb_rows_of(frame, reformatter, step)
        assert np.array_equal(rows, rgb_of(frame, reformatter)[::step])
        n += 1
    assert n == 3
