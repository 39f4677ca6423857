"""The picture encoder: sizes and names of the originals, and each part worked out by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from dp_hub.errors import ConfigError, DataError, PolicyError
from dp_hub.models.resnet import BasicBlock, ResNet18
from dp_hub.models.vision import (
    SpatialSoftmax,
    VisionEncoder,
    center_crop,
    load_torchvision,
    random_crop,
)


def n_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def pictures(n, height, width, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, height, width, 3), generator=rng, dtype=torch.uint8)


def test_the_encoder_has_robomimics_number_of_parameters():
    with torch.device("meta"):
        assert n_parameters(ResNet18("group")) == 11_176_512
        assert n_parameters(ResNet18("batch")) == 11_176_512
        assert n_parameters(VisionEncoder((96, 96), crop_hw=(84, 84))) == 11_197_088
        assert n_parameters(VisionEncoder((96, 96), pool="average")) == 11_176_512


def torchvision_shapes(norm):
    """Names and shapes of torchvision's resnet18 without ``fc``, from its rule."""
    shapes = {}

    def conv(name, out, into, kernel):
        shapes[f"{name}.weight"] = (out, into, kernel, kernel)

    def batch_norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            if norm == "batch" or part in ("weight", "bias"):
                shapes[f"{name}.{part}"] = (channels,)
        if norm == "batch":
            shapes[f"{name}.num_batches_tracked"] = ()

    conv("conv1", 64, 3, 7)
    batch_norm("bn1", 64)
    for stage in (1, 2, 3, 4):
        out = 64 * 2 ** (stage - 1)
        for block in (0, 1):
            name, into = f"layer{stage}.{block}", out // 2 if block == 0 and stage > 1 else out
            conv(f"{name}.conv1", out, into, 3)
            batch_norm(f"{name}.bn1", out)
            conv(f"{name}.conv2", out, out, 3)
            batch_norm(f"{name}.bn2", out)
            if into != out:
                conv(f"{name}.downsample.0", out, into, 1)
                batch_norm(f"{name}.downsample.1", out)
    return shapes


@pytest.mark.parametrize(("norm", "entries"), [("group", 60), ("batch", 120)])
def test_weights_have_torchvisions_names_and_shapes(norm, entries):
    with torch.device("meta"):
        state = ResNet18(norm).state_dict()
    expected = torchvision_shapes(norm)
    assert {name: tuple(value.shape) for name, value in state.items()} == expected
    assert len(expected) == entries


def normed(x, w, name, norm, eps=1e-5):
    """Group or (evaluated) batch norm, from its definition."""
    if norm == "batch":
        mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        x = (x - mean[:, None, None]) / torch.sqrt(variance + eps)[:, None, None]
    else:
        n, channels, height, width = x.shape
        grouped = x.reshape(n, channels // 16, -1)
        centred = grouped - grouped.mean(-1, keepdim=True)
        variance = (centred**2).mean(-1, keepdim=True)
        x = (centred / torch.sqrt(variance + eps)).reshape(n, channels, height, width)
    return x * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]


def reference_block(w, x, stride, norm):
    out = F.conv2d(x, w["conv1.weight"], stride=stride, padding=1)
    out = F.conv2d(normed(out, w, "bn1", norm).clamp(min=0), w["conv2.weight"], padding=1)
    out = normed(out, w, "bn2", norm)
    if "downsample.0.weight" in w:
        shrunk = torch.einsum(
            "oi,nihw->nohw", w["downsample.0.weight"][:, :, 0, 0], x[..., ::stride, ::stride]
        )
        x = normed(shrunk, w, "downsample.1", norm)
    return (out + x).clamp(min=0)


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize(("channels_in", "stride"), [(32, 1), (16, 2)])
def test_a_residual_block_equals_an_independent_computation(norm, channels_in, stride):
    torch.manual_seed(0)
    block = BasicBlock(channels_in, 32, stride, norm).double().eval()
    for name, value in block.state_dict().items():
        if value.is_floating_point() and "conv" not in name:
            value.uniform_(0.5, 1.5)
    x = torch.randn(2, channels_in, 9, 7, dtype=torch.float64)
    before = x.clone()
    expected = reference_block(block.state_dict(), x, stride, norm)
    torch.testing.assert_close(block(x), expected)
    assert torch.equal(x, before)
    assert expected.std() > 0.1


def test_spatial_softmax_is_the_expected_place_of_each_keypoint():
    torch.manual_seed(0)
    layer = SpatialSoftmax(5, 3)
    x = torch.randn(2, 5, 4, 7) * 3
    weight = layer.nets.weight.detach().numpy()[:, :, 0, 0]
    maps = np.einsum("kc,nchw->nkhw", weight, x.numpy())
    maps += layer.nets.bias.detach().numpy()[:, None, None]
    shares = np.exp(maps) / np.exp(maps).sum(axis=(2, 3), keepdims=True)
    expected = np.zeros((2, 3, 2))
    for row in range(4):
        for column in range(7):
            place = np.array([-1 + 2 * column / 6, -1 + 2 * row / 3])
            expected += shares[:, :, row, column, None] * place
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.3


def test_a_spike_is_found_where_it_is():
    layer = SpatialSoftmax(1, 1)
    torch.nn.init.constant_(layer.nets.weight, 1.0)
    torch.nn.init.zeros_(layer.nets.bias)
    x = torch.zeros(1, 1, 3, 5)
    x[0, 0, 2, 1] = 100.0  # last row, second of five columns
    assert layer(x)[0, 0].tolist() == pytest.approx([-0.5, 1.0])


def coordinates(n, height, width):
    """(N, 2, H, W) pictures whose pixels are their own row and column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns]).expand(n, -1, -1, -1).to(torch.uint8)


def test_random_crops_are_windows_at_every_place_the_last_included():
    torch.manual_seed(0)
    crops = random_crop(coordinates(600, 6, 9), (4, 6))
    assert crops.shape == (600, 2, 4, 6)
    corners = crops[:, :, 0, 0]
    rest = crops.int() - corners[:, :, None, None].int()
    assert torch.equal(rest, coordinates(600, 4, 6).int())
    seen = {tuple(corner) for corner in corners.tolist()}
    assert seen == {(top, left) for top in range(3) for left in range(4)}


def test_random_crops_follow_torchs_generator():
    source = pictures(8, 20, 20).permute(0, 3, 1, 2)
    torch.manual_seed(3)
    first, second = random_crop(source, (9, 9)), random_crop(source, (9, 9))
    torch.manual_seed(3)
    assert torch.equal(random_crop(source, (9, 9)), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("full", "part", "corner"),
    [((96, 96), (84, 84), (6, 6)), ((84, 84), (76, 76), (4, 4)), ((240, 7), (216, 4), (12, 2))],
)
def test_the_middle_is_cropped_as_torchvision_does(full, part, corner):
    crop = center_crop(coordinates(1, *full), part)
    assert crop.shape[-2:] == part and tuple(crop[0, :, 0, 0].tolist()) == corner


def test_training_crops_at_random_and_evaluation_in_the_middle():
    encoder = VisionEncoder((20, 24), crop_hw=(10, 12))
    source = pictures(16, 20, 24)
    torch.manual_seed(0)
    assert not torch.equal(encoder.prepare(source), encoder.prepare(source))
    encoder.eval()
    seen = encoder.prepare(source)
    assert torch.equal(seen, encoder.prepare(source))
    middle = source[:, 5:15, 6:18].permute(0, 3, 1, 2)
    torch.testing.assert_close(seen, middle / 255 * 2 - 1)
    whole = VisionEncoder((20, 24)).prepare(source)
    torch.testing.assert_close(whole, source.permute(0, 3, 1, 2) / 255 * 2 - 1)


def test_imagenets_normalisation():
    encoder = VisionEncoder((4, 4), normalization="imagenet")
    pixel = torch.tensor([124, 0, 255], dtype=torch.uint8).expand(1, 4, 4, 3)
    expected = [(124 / 255 - 0.485) / 0.229, -0.456 / 0.224, (1 - 0.406) / 0.225]
    assert encoder.prepare(pixel)[0, :, 2, 1].tolist() == pytest.approx(expected, abs=1e-5)


def test_pixels_are_scaled_by_a_given_mean_and_deviation():
    scale = {"mean": (0.5, 0.25, 0.0), "std": (0.5, 0.25, 2.0)}
    encoder = VisionEncoder((4, 4), normalization=scale)
    seen = encoder.prepare(torch.full((1, 4, 4, 3), 255, dtype=torch.uint8))
    assert seen[0, :, 0, 0].tolist() == pytest.approx([1.0, 3.0, 0.5])


def test_features_go_through_a_relu_as_in_robomimic_unless_told_not_to():
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with_relu = VisionEncoder((64, 64)).eval()
    without = VisionEncoder((64, 64), output_relu=False).eval()
    without.load_state_dict(with_relu.state_dict())
    features = without(pictures)
    assert (features < 0).any()
    assert torch.equal(with_relu(pictures), features.clamp(min=0))


def test_resizing_averages_what_falls_into_a_pixel_and_comes_before_the_crop():
    encoder = VisionEncoder((64, 64), resize_hw=(8, 8), crop_hw=(4, 6)).eval()
    stripes = (torch.arange(64) % 2 * 200).to(torch.uint8)[None, None, :, None]
    seen = encoder.prepare(stripes.expand(2, 64, 64, 3))
    assert seen.shape == (2, 3, 4, 6)
    torch.testing.assert_close(seen, torch.full_like(seen, 100 / 255 * 2 - 1), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("size", "options", "out_dim"),
    [
        ((84, 84), {"crop_hw": (76, 76)}, 64),
        ((96, 96), {"crop_hw": (84, 84), "feature_dim": 10, "n_keypoints": 8}, 10),
        ((240, 240), {"crop_hw": (216, 216), "resize_hw": (240, 240)}, 64),
        ((50, 71), {"pool": "average", "norm": "batch", "normalization": "imagenet"}, 512),
    ],
)
def test_every_size_gives_features_and_gradients(size, options, out_dim):
    torch.manual_seed(0)
    encoder = VisionEncoder(size, **options)
    out = encoder(pictures(2, *size))
    assert encoder.out_dim == out_dim and out.shape == (2, out_dim) and out.dtype == torch.float32
    out.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if name != "pool.0.nets.bias":  # a softmax does not see what is added to all places
            assert parameter.grad.abs().max() > 1e-5, name


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="84 x 84 pixels does not fit into pictures of 64 x 96"):
        VisionEncoder((64, 96), crop_hw=(84, 84))
    with pytest.raises(ConfigError, match="does not fit into pictures of 48 x 48"):
        VisionEncoder((96, 96), resize_hw=(48, 48), crop_hw=(84, 84))
    encoder = VisionEncoder((16, 16))
    with pytest.raises(
        PolicyError, match=r"\(1, 16, 20, 3\), expected torch\.uint8 \(N, 16, 16, 3"
    ):
        encoder(pictures(1, 16, 20))
    with pytest.raises(PolicyError, match=r"pictures are torch\.float32"):
        encoder(pictures(1, 16, 16).float())


@pytest.fixture(scope="module")
def torchvision_weights():
    torch.manual_seed(5)
    weights = {
        name: torch.rand(shape) * 0.1 if shape else torch.tensor(7)
        for name, shape in torchvision_shapes("batch").items()
    }
    return weights | {"fc.weight": torch.rand(1000, 512), "fc.bias": torch.rand(1000)}


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_torchvisions_weights_are_taken_over(torchvision_weights, norm, tmp_path):
    save_file(torchvision_weights, tmp_path / "resnet18.safetensors")
    encoder = VisionEncoder((32, 32), norm=norm)
    load_torchvision(encoder, tmp_path / "resnet18.safetensors")
    state = encoder.backbone.state_dict()
    assert len(state) == (60 if norm == "group" else 120)
    assert all(torch.equal(value, torchvision_weights[name]) for name, value in state.items())


def test_weights_of_another_network_are_refused_by_name(torchvision_weights, tmp_path):
    path = tmp_path / "weights.safetensors"
    encoder = VisionEncoder((32, 32), norm="batch")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}

    def refused(weights, words):
        save_file(weights, path)
        with pytest.raises(DataError, match=words):
            load_torchvision(encoder, path)

    without = torchvision_weights.copy()
    del without["layer3.1.bn2.running_var"]
    refused(without, r"lacks 1 weights, first layer3\.1\.bn2\.running_var")
    extra = torchvision_weights | {"layer1.2.conv1.weight": torch.rand(64, 64, 3, 3)}
    refused(extra, r"does not have, first layer1\.2\.conv1\.weight")
    narrow = torchvision_weights | {"layer2.0.conv1.weight": torch.rand(128, 64, 1, 1)}
    refused(narrow, r"layer2\.0\.conv1\.weight in .* is \(128, 64, 1, 1\), not \(128, 64, 3, 3\)")
    path.write_bytes(b"no safetensors")
    with pytest.raises(DataError, match="cannot read the weights in"):
        load_torchvision(encoder, path)
    with pytest.raises(DataError, match="cannot read the weights in"):
        load_torchvision(encoder, tmp_path / "nowhere.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
