"""The convolution layer against torch's own, on both sides of every choice it makes."""

import copy

import pytest
import torch

from dp_hub.models import conv
from dp_hub.models.conv import Conv1d, ConvTranspose1d

# (batch, channels in, out, steps, kernel, stride, padding): few rows; tap by tap; many weights;
# none of them.
FEW_ROWS = (1, 320, 330, 4, 5, 1, 2)
BY_TAPS = (130, 512, 256, 4, 5, 1, 2)
MANY_WEIGHTS = (20, 512, 1024, 8, 3, 2, 1)
NEITHER = (20, 32, 48, 16, 5, 1, 2)
KINDS = [FEW_ROWS, BY_TAPS, MANY_WEIGHTS, NEITHER]
LAYERS = [
    *KINDS,
    (64, 512, 600, 8, 5, 1, 2),
    (30, 512, 600, 4, 5, 1, 2),  # too few rows for taps
    (180, 512, 600, 3, 1, 1, 0),
    (520, 400, 300, 5, 5, 1, 0),  # every step meets every tap
    (80, 400, 300, 3, 5, 1, 4),  # more of the result than of the source
    (260, 300, 200, 2, 7, 1, 3),  # outer taps meet nothing
    (1, 600, 700, 9, 3, 2, 1),  # the U-Net's halving of time, an odd number of steps
    (2, 1024, 1024, 8, 3, 2, 1),
    (1, 700, 600, 1, 5, 1, 2),  # fewer steps than the kernel is wide
    (1, 1200, 600, 4, 1, 1, 0),
]


def pair(channels_in, channels_out, kernel, stride, padding):
    torch.manual_seed(0)
    options = dict(stride=stride, padding=padding)
    ours = Conv1d(channels_in, channels_out, kernel, **options)
    theirs = torch.nn.Conv1d(channels_in, channels_out, kernel, **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def forward_and_gradients(layer, x, dtype=None):
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        out = layer(x)
    (out.float() * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return [out.detach(), x.grad, layer.weight.grad, layer.bias.grad]


def errors(ours, theirs):
    return [
        ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()
        for a, b in zip(ours, theirs, strict=True)
    ]


@pytest.mark.parametrize("layer", LAYERS)
def test_results_and_gradients_are_torchs(layer):
    batch, channels, out, steps, kernel, stride, padding = layer
    ours, theirs = pair(channels, out, kernel, stride, padding)
    x = torch.randn(batch, channels, steps)
    exact = forward_and_gradients(copy.deepcopy(theirs).double(), x.double())
    ours_off = errors(forward_and_gradients(ours, x), exact)
    theirs_off = errors(forward_and_gradients(theirs, x), exact)
    assert all(a <= 2 * b + 1e-6 for a, b in zip(ours_off, theirs_off, strict=True)), ours_off
    assert max(theirs_off) < 1e-4


def test_the_cases_above_are_on_both_sides_of_every_choice():
    def choices(batch, channels, out, steps, kernel, stride, padding):
        weight = torch.empty(out, channels, kernel, device="meta")
        x = torch.empty(batch, channels, steps, device="meta")
        taps = conv._tap_by_tap(x, weight, stride, padding)
        rows = batch * ((steps + 2 * padding - kernel) // stride + 1)
        return conv._few_rows(rows, weight), taps, weight.numel() > conv.MANY_WEIGHTS

    assert choices(*FEW_ROWS)[0]
    assert choices(*BY_TAPS)[:2] == (False, True)
    assert choices(*MANY_WEIGHTS) == (False, False, True)
    assert choices(*NEITHER) == (False, False, False)


@pytest.mark.parametrize("layer", KINDS)
def test_autocast_gives_bf16_results_and_float32_gradients(layer):
    batch, channels, out, steps, kernel, stride, padding = layer
    ours, theirs = pair(channels, out, kernel, stride, padding)
    x = torch.randn(batch, channels, steps)
    results = forward_and_gradients(ours, x, torch.bfloat16)
    assert [value.dtype for value in results] == [torch.bfloat16] + 3 * [torch.float32]
    assert max(errors(results, forward_and_gradients(theirs, x))) < 0.02
    assert max(errors(results, forward_and_gradients(theirs, x))) > 1e-4  # bf16 it was


@pytest.mark.parametrize("layer", KINDS)
def test_only_the_gradients_asked_for_are_made(layer):
    batch, channels, out, steps, kernel, stride, padding = layer
    ours, _ = pair(channels, out, kernel, stride, padding)
    x = torch.randn(batch, channels, steps)
    ours(x).sum().backward()  # a first layer: nobody wants the gradient of the data
    assert ours.weight.grad is not None and ours.bias.grad is not None
    frozen = copy.deepcopy(ours).requires_grad_(False)
    x.requires_grad_()
    frozen(x).sum().backward()
    assert x.grad is not None and frozen.weight.grad is None


def test_a_step_of_a_batch_does_not_depend_on_its_neighbours():
    ours, _ = pair(512, 520, 5, 1, 2)
    x = torch.randn(3, 512, 4)
    rows = torch.cat([ours(row[None]) for row in x])
    torch.testing.assert_close(rows, ours(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 6, 40])
@pytest.mark.parametrize(("channels", "out"), [(32, 32), (256, 500), (1024, 512)])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_lengthening_time_is_torchs(batch, channels, out, dtype):
    torch.manual_seed(0)
    ours = ConvTranspose1d(channels, out, 4, stride=2, padding=1)
    theirs = torch.nn.ConvTranspose1d(channels, out, 4, stride=2, padding=1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(batch, channels, 4)
    results = forward_and_gradients(ours, x, dtype)
    assert results[0].shape == (batch, out, 8)
    assert results[0].dtype == (dtype or torch.float32)
    limit = 1e-5 if dtype is None else 0.02
    assert max(errors(results, forward_and_gradients(theirs, x))) < limit


def test_lengthening_time_is_tested_on_both_sides_of_its_choice():
    def by_product(batch, channels, out):
        weight = torch.empty(channels, out, 4, device="meta")
        return conv._few_rows(batch * 4, weight) or weight.numel() > conv.MANY_WEIGHTS

    assert by_product(1, 1024, 512) and by_product(40, 1024, 512)
    assert not by_product(40, 256, 500) and not by_product(1, 32, 32)
