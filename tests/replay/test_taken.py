"""Pictures by number: the right ones, read once, a few at a time."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dp_hub.dataset.video import encode_clip
from dp_hub.errors import DataError
from dp_hub.replay.clip import VideoClip
from dp_hub.replay.timeline.taken import Taken


class Counting:
    """A lazy array that remembers which rows were read."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim
        self.read: list[int] = []
        self.largest = 0

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, part: slice) -> np.ndarray:
        rows = range(*part.indices(len(self)))
        self.read += rows
        self.largest = max(self.largest, len(rows))
        return self._values[part]


class Picking(Counting):
    """One that can give single rows too."""

    def take(self, numbers: np.ndarray, axis: int) -> np.ndarray:
        assert axis == 0
        assert (np.diff(numbers) > 0).all()
        self.read += numbers.tolist()
        return self._values[numbers]


PICTURES = np.arange(300 * 2 * 3 * 3, dtype=np.uint32).astype(np.uint8).reshape(300, 2, 3, 3)


@settings(max_examples=60)
@given(
    numbers=st.lists(st.integers(0, 299), min_size=1, max_size=80),
    start=st.integers(0, 90),
    stop=st.integers(0, 90),
    step=st.integers(1, 4),
    kind=st.sampled_from([np.asarray, Counting, Picking]),
)
@example(numbers=[0, 2, 7], start=0, stop=3, step=1, kind=Counting)  # 0 and 2 are read as 3 rows
def test_a_slice_is_the_slice_of_what_was_picked(
    numbers: list[int], start: int, stop: int, step: int, kind: Any
) -> None:
    taken = Taken(kind(PICTURES), np.array(numbers))
    expected = PICTURES[numbers]
    assert taken.shape == expected.shape and taken.dtype == np.uint8 and taken.ndim == 4
    assert len(taken) == len(numbers)
    assert np.array_equal(taken[start:stop:step], expected[start:stop:step])
    assert np.array_equal(np.asarray(taken), expected)


def test_only_what_is_needed_is_read_and_a_little_at_a_time() -> None:
    source = Counting(PICTURES)
    taken = Taken(source, np.repeat(np.arange(0, 300, 2), 2))
    for first in range(0, 300, 32):
        taken[first : first + 32]
    assert source.largest <= 32
    assert len(source.read) == len(set(source.read)) <= 300

    threes = Counting(PICTURES)  # slices begin within the threes
    taken = Taken(threes, np.repeat(np.arange(300), 3))
    slices = [taken[first : first + 32] for first in range(0, 900, 32)]
    assert np.array_equal(np.concatenate(slices), np.repeat(PICTURES, 3, axis=0))
    assert threes.read == list(range(300))

    far = Counting(PICTURES)
    assert Taken(far, np.arange(0, 300, 50))[:].shape == (6, 2, 3, 3)
    assert far.read == list(range(0, 300, 50))

    picking = Picking(PICTURES)
    Taken(picking, np.array([4, 4, 6, 9]))[:]
    assert picking.read == [4, 6, 9]


@pytest.fixture(scope="module")
def clip() -> VideoClip:
    """90 frames, each of its own gray."""
    grays = np.arange(90, dtype=np.uint8) * 2 + 20
    pictures = np.broadcast_to(grays[:, None, None, None], (90, 64, 64, 3))
    return encode_clip(np.ascontiguousarray(pictures), rate=Fraction(30), codec="h264")


def frames_of(clip: VideoClip) -> np.ndarray:
    return np.stack(list(clip.frames()))


def test_frames_of_a_video_are_those_of_a_plain_decoder(clip: VideoClip) -> None:
    frames = frames_of(clip)
    numbers = np.array([0, 0, 1, 3, 3, 4, 80, 80, 89, 5, 89])  # a jump ahead, and two back
    taken = Taken(clip, numbers)
    assert np.array_equal(taken[:], frames[numbers])
    assert np.array_equal(taken[2:5], frames[numbers[2:5]])
    assert np.array_equal(taken[:], frames[numbers])


def test_a_video_read_in_blocks_is_decoded_once(
    clip: VideoClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    plain = VideoClip.frames

    def counted(self: VideoClip) -> Any:
        opened.append(self.first)
        return plain(self)

    frames = frames_of(clip)
    monkeypatch.setattr(VideoClip, "frames", counted)
    numbers = np.sort(np.concatenate([np.arange(0, 90, 2), np.arange(0, 90, 6)]))
    taken = Taken(clip, numbers)
    blocks = [taken[first : first + 16] for first in range(0, len(numbers), 16)]
    assert np.array_equal(np.concatenate(blocks), frames[numbers])
    assert opened == [0]


def test_a_part_of_a_video_counts_from_its_own_first_frame(clip: VideoClip) -> None:
    part = clip.part(30, 40)
    numbers = np.array([2, 4, 39])
    assert np.array_equal(Taken(part, numbers)[:], frames_of(clip)[30 + numbers])


def test_a_video_that_is_cut_short_is_said(clip: VideoClip, tmp_path: Path) -> None:
    assert isinstance(clip.source, bytes)
    longer = VideoClip(clip.source, 0, 200, clip.size, clip.rate, clip.codec)
    taken = Taken(longer, np.arange(0, 200, 2))
    with pytest.raises(DataError, match="has no frame 90"):
        taken[:]
    with pytest.raises(DataError):
        taken[80:90]
