"""The original's normalisation rules, worked out in numpy, and what a policy needs of them."""

import math

import numpy as np
import pytest
import torch
import zarr
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.torch import load, save

from dp_hub.errors import DataError
from dp_hub.models.normalizer import FeatureNormalizer, Normalizer, fit_normalizer

FINITE = st.floats(-1e4, 1e4, width=32)
TABLES = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=FINITE)


def limits_by_hand(array, range_eps=1e-4):
    """The rule of the paper's code, dimension by dimension."""
    scale, offset = [], []
    for values in array.T:
        low, high = values.min(), values.max()
        if high - low < range_eps:
            scale.append(np.float32(1))
            offset.append(-low)
        else:
            scale.append(np.float32(2) / (high - low))
            offset.append(np.float32(-1) - scale[-1] * low)
    return np.array(scale), np.array(offset)


def test_limits_of_known_numbers():
    fitted = FeatureNormalizer.fit(np.array([[0.0, 10.0, 3.0], [4.0, 30.0, 3.0]]))
    assert fitted.scale.tolist() == [0.5, pytest.approx(0.1), 1.0]
    assert fitted.offset.tolist() == [-1.0, -2.0, -3.0]
    assert fitted(torch.tensor([[2.0, 30.0, 3.0]])).tolist() == [[0.0, 1.0, 0.0]]


@given(TABLES)
def test_limits_are_the_originals_for_any_numbers(array):
    fitted = FeatureNormalizer.fit(array)
    scale, offset = limits_by_hand(array)
    np.testing.assert_array_equal(fitted.scale.numpy(), scale)
    np.testing.assert_array_equal(fitted.offset.numpy(), offset)


def test_clipped_deviations_are_acts():
    rows = np.array([[0.0, 0.5, 3.0], [4.0, 0.501, 3.0]])  # deviations 2.83, 0.0007 and 0
    fitted = FeatureNormalizer.fit(rows, "gaussian_clipped")
    assert fitted.scale.tolist() == pytest.approx([1 / math.sqrt(8), 100, 100])
    low, high = fitted(torch.from_numpy(rows)).tolist()
    assert low == pytest.approx([-math.sqrt(0.5), -0.05, 0], abs=1e-3)
    assert high == pytest.approx([math.sqrt(0.5), 0.05, 0], abs=1e-3)


def test_limits_of_real_demonstrations(pusht_zip):
    group = zarr.open_group(zarr.storage.ZipStore(pusht_zip), mode="r")
    action = group["data/action"][:]
    fitted = FeatureNormalizer.fit(action)
    scale, offset = limits_by_hand(action)
    np.testing.assert_array_equal(fitted.scale.numpy(), scale)
    np.testing.assert_array_equal(fitted.offset.numpy(), offset)
    assert fitted.min.tolist() == [12.0, 25.0] and fitted.max.tolist() == [511.0, 511.0]
    np.testing.assert_allclose(fitted.mean.numpy(), action.mean(0, np.float64), rtol=1e-6)
    np.testing.assert_allclose(fitted.std.numpy(), action.std(0, np.float64, ddof=1), rtol=1e-6)
    normal = fitted(torch.from_numpy(action))
    assert normal.amin(0).tolist() == pytest.approx([-1.0, -1.0], abs=1e-6)
    assert normal.amax(0).tolist() == pytest.approx([1.0, 1.0], abs=1e-6)


def test_a_range_below_the_threshold_is_constant_and_maps_to_zero():
    array = np.array([[7.0, 7.0], [7.00009, 7.0002]])
    fitted = FeatureNormalizer.fit(array)
    assert fitted.scale[0] == 1.0 and fitted.scale[1] > 5_000
    assert fitted(torch.tensor([[7.0, 7.0]])).tolist() == [[0.0, pytest.approx(-1.0, abs=0.1)]]
    wider = FeatureNormalizer.fit(array, range_eps=1e-2)
    assert wider.scale.tolist() == [1.0, 1.0]


def test_limits_without_offset_divide_by_the_largest_absolute_value():
    fitted = FeatureNormalizer.fit(np.array([[-4.0, 0.0], [2.0, 0.0]]), fit_offset=False)
    assert fitted.scale.tolist() == [0.25, 1.0]
    assert fitted.offset.tolist() == [0.0, 0.0]


@example(np.float32([[-1.0], [1.0], [9e-24], [9e-24], [9e-24]]))
@given(TABLES)
def test_gaussian_is_the_originals_for_any_numbers(array):
    fitted = FeatureNormalizer.fit(array, "gaussian")
    wide = array.astype(np.float64)
    std = wide.std(axis=0, ddof=1) if len(array) > 1 else np.zeros(array.shape[1])
    clear = np.abs(std - 1e-4) > 1e-9  # at the threshold rounding decides
    scale = 1 / np.where(std < 1e-4, 1.0, std)
    np.testing.assert_allclose(fitted.scale.numpy()[clear], scale[clear], rtol=1e-5)
    offset = -wide.mean(axis=0) * scale
    # Where values cancel out, their sum is what float64 leaves of it, in whatever order.
    rounding = len(wide) * np.finfo(np.float64).eps * np.abs(wide).max(axis=0) * scale + 1e-30
    wrong = np.abs(fitted.offset.numpy() - offset) - 1e-5 * np.abs(offset)
    assert (wrong <= rounding)[clear].all()


def test_gaussian_gives_zero_mean_and_unit_deviation():
    array = np.random.default_rng(0).normal(300.0, 40.0, (5_000, 3)).astype(np.float32)
    normal = FeatureNormalizer.fit(array, "gaussian")(torch.from_numpy(array))
    np.testing.assert_allclose(normal.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(normal.std(0), 1, atol=1e-5)
    kept = FeatureNormalizer.fit(array, "gaussian", fit_offset=False)
    assert kept.offset.tolist() == [0.0, 0.0, 0.0]


def test_identity_changes_nothing_and_still_keeps_the_statistics():
    fitted = FeatureNormalizer.fit(np.array([[1.0], [5.0]]), "identity")
    x = torch.tensor([[3.0]])
    assert torch.equal(fitted(x), x) and fitted.max.tolist() == [5.0]


@given(TABLES, st.sampled_from(["limits", "gaussian", "identity"]))
def test_what_is_normalised_comes_back(array, mode):
    fitted = FeatureNormalizer.fit(array, mode)
    back = fitted.inverse(fitted(torch.from_numpy(array)))
    reach = np.abs(array).max() + 1.0
    np.testing.assert_allclose(back.numpy(), array, atol=2e-6 * reach)


@given(TABLES)
def test_limits_never_leave_the_unit_range_on_their_own_data(array):
    fitted = FeatureNormalizer.fit(array)
    extent = (fitted.max - fitted.min).clamp(min=1e-4)
    rounding = 1e-6 * (1 + fitted.min.abs() / extent).max()
    assert fitted(torch.from_numpy(array)).abs().max() <= 1 + rounding


def test_normalising_takes_any_leading_shape_and_gives_float32():
    fitted = FeatureNormalizer.fit(np.array([[0.0, 0.0], [1.0, 2.0]]))
    out = fitted(torch.ones(3, 4, 2, dtype=torch.float64))
    assert out.shape == (3, 4, 2) and out.dtype == torch.float32


def test_numbers_survive_the_policys_file():
    rng = np.random.default_rng(0)
    columns = {"observation.state": rng.random((9, 5)), "action": rng.random((9, 2))}
    fitted = Normalizer.fit(columns)
    loaded = Normalizer.empty({"observation.state": 5, "action": 2})
    x = torch.rand(4, 2)
    assert torch.equal(loaded.normalize("action", x), x)
    assert "features.observation__state.scale" in fitted.state_dict()
    loaded.load_state_dict(load(save(fitted.state_dict())), strict=True)
    assert torch.equal(loaded.normalize("action", x), fitted.normalize("action", x))
    assert "action" in loaded and "reward" not in loaded
    back = loaded.unnormalize("action", loaded.normalize("action", x))
    torch.testing.assert_close(back, x)


def test_buffers_are_no_parameters_and_move_with_the_policy():
    fitted = Normalizer.fit({"action": np.array([[0.0], [2.0]])})
    assert not list(fitted.parameters())
    assert fitted.double()["action"].scale.dtype == torch.float64


def test_only_the_frames_of_the_training_split_count():
    columns = {
        "action": np.array([[0.0], [1.0], [50.0]]),
        "next.reward": np.array([0.0, 2.0, 9.0]),
        "other": np.array([[np.nan]]),
    }
    mask = np.array([True, True, False])
    fitted = fit_normalizer(
        columns, ["action", "next.reward"], frame_mask=mask, modes={"next.reward": "identity"}
    )
    assert fitted["action"].max.tolist() == [1.0]
    assert fitted["next.reward"].scale.tolist() == [1.0]
    assert fitted["next.reward"].max.tolist() == [2.0]
    assert fit_normalizer(columns, ["action"])["action"].max.tolist() == [50.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: FeatureNormalizer.fit(np.zeros((0, 3))), "shape is"),
        (lambda: FeatureNormalizer.fit(np.zeros(3)), "shape is"),
        (lambda: FeatureNormalizer.fit(np.array([[0.0], [np.nan]])), "the first is row 1"),
        (lambda: Normalizer.fit({"action": np.array([[np.inf]])}), "cannot normalise action"),
        (lambda: Normalizer.empty({"a.b": 1, "a__b": 1}), "differ only"),
        (lambda: fit_normalizer({"action": np.zeros((3, 1))}, ["state"]), "there are: action"),
        (
            lambda: fit_normalizer(
                {"action": np.zeros((3, 1))}, ["action"], frame_mask=np.ones(2, bool)
            ),
            "has 3 frames",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(call, words):
    with pytest.raises(DataError, match=words):
        call()


def test_an_unknown_mode_is_refused():
    with pytest.raises(
        ValueError, match="'minmax' is none of limits, gaussian, gaussian_clipped, identity"
    ):
        FeatureNormalizer.fit(np.zeros((2, 1)), "minmax")
