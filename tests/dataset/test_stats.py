"""Statistics against numpy's, over episodes and over the whole."""

import numpy as np
import pytest

from dp_hub.dataset import stats


def test_matrix_stats_equal_numpys():
    values = np.random.default_rng(0).normal(size=(57, 6))
    found = dict(zip(stats.NAMES, stats.matrix_stats(values), strict=True))
    np.testing.assert_array_equal(found["min"], values.min(axis=0))
    np.testing.assert_allclose(found["mean"], values.mean(axis=0))
    np.testing.assert_allclose(found["std"], values.std(axis=0))
    for name, q in stats.QUANTILES.items():
        np.testing.assert_allclose(found[name], np.quantile(values, q, axis=0))


def test_values_that_are_not_finite_are_left_out():
    values = np.random.default_rng(0).normal(size=(20, 3))
    values[3, 1] = np.nan
    values[:, 2] = np.inf
    found = stats.matrix_stats(values)
    np.testing.assert_allclose(found[2, 1], np.delete(values[:, 1], 3).mean())
    assert np.isnan(found[:, 2]).all()


def test_merged_statistics_equal_those_of_the_whole():
    rng = np.random.default_rng(1)
    parts = [rng.normal(1e6, 3, size=(n, 4)) for n in (1, 7, 300, 2)]
    running = stats.Running(4)
    for part in parts:
        running.add(stats.matrix_stats(part), len(part))
    whole = np.concatenate(parts)
    assert running.count == len(whole)
    np.testing.assert_allclose(running.mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(running.std, whole.std(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(running.max, whole.max(axis=0))


@pytest.mark.parametrize("n_bytes", [0, 10**12])
def test_quantiles_are_right_sorted_or_counted(n_bytes):
    values = np.random.default_rng(2).normal(size=(5000, 3)).astype(np.float32)
    values[:, 2] = 4
    low, high = values.min(axis=0).astype(float), values.max(axis=0).astype(float)
    found = stats.column_quantiles(lambda: np.array_split(values, 7), low, high, n_bytes)
    expected = np.quantile(values, list(stats.QUANTILES.values()), axis=0)
    np.testing.assert_allclose(found, expected, atol=2 * (high - low).max() / 65_536)


def test_picture_statistics_equal_numpys_on_the_sample():
    pictures = np.random.default_rng(3).integers(0, 200, (30, 20, 24, 3)).astype(np.uint8)
    counts = stats.picture_counts(pictures, np.arange(30))
    found = dict(zip(stats.NAMES, stats.picture_stats(counts), strict=True))
    flat = pictures.reshape(-1, 3) / 255
    np.testing.assert_allclose(found["mean"], flat.mean(axis=0))
    np.testing.assert_allclose(found["std"], flat.std(axis=0))
    np.testing.assert_allclose(found["q10"], np.quantile(flat, 0.1, axis=0))
    np.testing.assert_allclose(found["max"], flat.max(axis=0))


@pytest.mark.parametrize(("length", "expected"), [(5, 5), (124, 100), (10_000, 1000)])
def test_as_many_frames_are_sampled_as_lerobot_takes(length, expected):
    frames = stats.sampled_frames(length)
    assert len(frames) == expected
    assert (frames[0], frames[-1]) == (0, length - 1)
