"""The window rule against a slow transcription of its description, and committed numbers."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from dp_hub.errors import ConfigError, DataError
from dp_hub.sampling import create_indices, downsample_mask, validation_mask, window_table

GOLDEN = Path(__file__).parent / "golden_windows.json"


def described_indices(ends, length, mask, pad_before, pad_after):
    """The original's rule, as plain loops over episodes and windows."""
    pad_before = min(max(pad_before, 0), length - 1)
    pad_after = min(max(pad_after, 0), length - 1)
    rows = []
    for number, end in enumerate(ends):
        if not mask[number]:
            continue
        begin = ends[number - 1] if number else 0
        n = end - begin
        for first in range(-pad_before, n - length + pad_after + 1):
            inside_from, inside_to = max(first, 0), min(first + length, n)
            rows.append(
                (begin + inside_from, begin + inside_to, inside_from - first, inside_to - first)
            )
    return np.array(rows, np.int64).reshape(-1, 4)


@st.composite
def layouts(draw, min_length=1):
    lengths = draw(st.lists(st.integers(min_length, 30), min_size=1, max_size=12))
    mask = draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    horizon = draw(st.integers(1, 20))
    pads = st.integers(0, horizon - 1)
    return np.cumsum(lengths), np.array(mask), horizon, draw(pads), draw(pads)


@given(layouts(min_length=0), st.integers(-3, 30), st.integers(-3, 30))
def test_indices_are_the_described_ones_for_any_layout_and_any_pads(layout, before, after):
    ends, mask, horizon, _, _ = layout
    table = create_indices(ends, horizon, mask, before, after)
    assert table.dtype == np.int64
    np.testing.assert_array_equal(table, described_indices(ends, horizon, mask, before, after))


def test_indices_are_the_committed_ones():
    cases = json.loads(GOLDEN.read_text())
    assert len(cases) == 8
    for case in cases:
        table = create_indices(
            np.array(case["episode_ends"]),
            case["sequence_length"],
            np.array(case["episode_mask"]),
            case["pad_before"],
            case["pad_after"],
        )
        assert table.tolist() == case["indices"]


@given(layouts())
def test_window_frames_are_what_reading_by_the_original_indices_gives(layout):
    ends, mask, horizon, before, after = layout
    table = window_table(ends, horizon, pad_before=before, pad_after=after, episode_mask=mask)
    indices = described_indices(ends, horizon, mask, before, after)
    assert len(table) == len(indices)
    frames, is_pad = table.frames(np.arange(len(table))), table.is_pad(np.arange(len(table)))
    for row, (start, stop, first, last) in enumerate(indices):
        expected = [start] * first + list(range(start, stop)) + [stop - 1] * (horizon - last)
        assert frames[row].tolist() == expected
        real = [False] * horizon
        real[first:last] = [True] * (last - first)
        assert (~is_pad[row]).tolist() == real


@given(layouts())
def test_no_window_leaves_its_episode_and_masked_episodes_have_none(layout):
    ends, mask, horizon, before, after = layout
    table = window_table(ends, horizon, pad_before=before, pad_after=after, episode_mask=mask)
    frames = table.frames(np.arange(len(table)))
    episode = np.searchsorted(ends, frames, side="right")
    assert (episode == episode[:, :1]).all()
    assert mask[episode[:, 0]].all() if len(table) else True


def test_window_past_the_end_repeats_last_frame():
    table = window_table(np.array([5, 9]), 4, pad_before=0, pad_after=3, episode_mask=None)
    assert table.frames(np.array([4])).tolist() == [[4, 4, 4, 4]]
    assert table.is_pad(np.array([4])).tolist() == [[False, True, True, True]]
    assert table.frames(np.array([5])).tolist() == [[5, 6, 7, 8]]


def test_window_before_the_start_repeats_first_frame():
    table = window_table(np.array([5, 9]), 4, pad_before=1, pad_after=0)
    assert table.frames(np.array([0, 3])).tolist() == [[0, 0, 1, 2], [5, 5, 6, 7]]
    assert table.is_pad(np.array([0, 3]))[:, 0].all()


def test_an_episode_too_short_for_a_window_has_none():
    assert len(window_table(np.array([3]), 8, pad_before=1, pad_after=3)) == 0
    assert len(window_table(np.array([4]), 8, pad_before=1, pad_after=3)) == 1


@pytest.mark.parametrize(
    ("horizon", "before", "after", "words"),
    [
        (4, 4, 0, "pad_before is 4"),
        (4, 0, 9, "pad_after is 9"),
        (4, -1, 0, "pad_before is -1"),
        (0, 0, 0, "horizon is 0"),
    ],
)
def test_impossible_sizes_are_refused(horizon, before, after, words):
    with pytest.raises(ConfigError, match=words):
        window_table(np.array([10]), horizon, pad_before=before, pad_after=after)


@pytest.mark.parametrize("ends", [[5, 5], [5, 3], [0, 4], [-1]])
def test_episode_ends_that_do_not_increase_are_refused(ends):
    with pytest.raises(DataError, match="do not increase"):
        window_table(np.array(ends), 4, pad_before=0, pad_after=0)


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(DataError, match="episode mask is bool"):
        window_table(
            np.array([5]), 4, pad_before=0, pad_after=0, episode_mask=np.ones(2, dtype=bool)
        )


def test_a_million_windows_are_listed_in_a_moment():
    ends = np.cumsum(np.random.default_rng(0).integers(50, 250, 7_700))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        table = window_table(ends, 16, pad_before=1, pad_after=7)
        times.append(time.perf_counter() - began)
    assert len(table) == ends[-1] - 7 * len(ends) == 1_093_842
    assert min(times) < 0.1  # 0.01 s on a quiet core


def test_validation_episodes_of_pusht_are_the_originals():
    assert np.flatnonzero(validation_mask(206, 0.02, 42)).tolist() == [18, 90, 134, 157]


def test_ninety_episodes_of_pusht_have_the_originals_number_of_windows(pusht_zip):
    ends = zarr.open_group(zarr.storage.ZipStore(pusht_zip), mode="r")["meta/episode_ends"][:]
    train = downsample_mask(~validation_mask(len(ends), 0.02, 42), 90, 42)
    assert np.diff(ends, prepend=0)[train].sum() == 11_356
    table = window_table(ends, 16, pad_before=1, pad_after=7, episode_mask=train)
    assert len(table) == 10_726


def test_validation_takes_at_least_one_episode_and_never_all():
    assert validation_mask(10, 0.0, 0).sum() == 0
    assert validation_mask(10, 0.001, 0).sum() == 1
    assert validation_mask(10, 0.999, 0).sum() == 9
    assert validation_mask(7, 0.5, 0).sum() == round(3.5)


@pytest.mark.parametrize(("n", "ratio"), [(10, 1.0), (10, -0.1), (1, 0.5)])
def test_impossible_splits_are_refused(n, ratio):
    with pytest.raises(ConfigError):
        validation_mask(n, ratio, 0)


def test_downsampling_keeps_only_chosen_episodes_and_draws_again_from_the_same_seed():
    mask = validation_mask(50, 0.5, 1)
    kept = downsample_mask(mask, 7, 3)
    assert kept.sum() == 7 and not (kept & ~mask).any()
    np.testing.assert_array_equal(kept, downsample_mask(mask, 7, 3))
    np.testing.assert_array_equal(downsample_mask(mask, 100, 3), mask)
    np.testing.assert_array_equal(downsample_mask(mask, None), mask)
