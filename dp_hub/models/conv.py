"""Convolution over time as the paper's U-Net needs it on a CPU: many channels, few steps.

torch leaves convolutions on a CPU to oneDNN, which is made for pictures. With a thousand channels
and more its gradient of the weights takes three to six times as long as the convolution itself (and
its threads wait for each other by spinning, which is worse where cores are shared); with few
samples it spends most of its time laying out the weights anew for every call. There the same sums
are taken as one matrix product. And it multiplies with the zeros at the ends, which are a third of
all a kernel of five sees of four steps: there each tap of the kernel is a product of its own, with
the steps it meets only. Elsewhere, and on other devices, the layer is torch's own.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

MANY_WEIGHTS = 2**19
"""With more of them, oneDNN's gradient of the weights is slower than a product (Zen 4, Xeon)."""

WEIGHTS_PER_ROW = 2**17
"""With more weights than this per step of the result, a product is faster than oneDNN."""

MANY_TAP_WEIGHTS = 2**18
MANY_TAP_ROWS = 512
MOST_TAPS_MET = 0.9
"""With more weights, as many steps of the result (the weights have to be laid out anew, whatever
they are used for), and fewer of the taps on a step, products tap by tap are faster."""


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d` with zeros at the ends: the same weights, the same result but rounding."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.device.type != "cpu":
            return super()._conv_forward(input, weight, bias)
        assert bias is not None and self.groups == 1 and self.dilation == (1,), self
        if torch.is_autocast_enabled("cpu"):  # which does not look into a function of our own
            dtype = torch.get_autocast_dtype("cpu")
            input, weight, bias = input.to(dtype), weight.to(dtype), bias.to(dtype)
        return _Convolve.apply(input, weight, bias, self.stride[0], int(self.padding[0]))


class ConvTranspose1d(nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d`, which lengthens time: by a product where that is faster."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """float (B, O, S) of a float (B, C, T)."""
        weight, bias = self.weight, self.bias  # (C, O, K), (O,)
        many = weight.numel() > MANY_WEIGHTS or _few_rows(len(input) * input.shape[2], weight)
        if input.device.type != "cpu" or not many:
            return super().forward(input, output_size)
        assert output_size is None and bias is not None and self.groups == 1, self
        assert self.dilation == (1,) and self.output_padding == (0,), self
        stride, padding, kernel = self.stride[0], int(self.padding[0]), weight.shape[2]
        rows = input.transpose(1, 2).flatten(0, 1)  # (B * T, C)
        spread = (rows @ weight.flatten(1)).view(len(input), -1, *weight.shape[1:])
        length = (input.shape[2] - 1) * stride - 2 * padding + kernel
        return _overlap(spread, length, stride, padding) + bias.to(spread.dtype)[:, None]


class _Convolve(torch.autograd.Function):
    """(B, C, T) with weights (O, C, K) and a bias (O,) to (B, O, S); how is chosen by size."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        n_steps = (x.shape[2] + 2 * padding - weight.shape[2]) // stride + 1
        if not _few_rows(len(x) * n_steps, weight):
            if _tap_by_tap(x, weight, stride, padding):
                return _by_taps(x, weight, bias, padding)
            return torch.conv1d(x, weight, bias, stride, padding)
        rows = _windows(x, weight.shape[2], stride, padding)
        out = torch.addmm(bias, rows, weight.flatten(1).t())  # (B * S, O)
        return out.view(len(x), n_steps, -1).transpose(1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        few = _few_rows(grad.shape[0] * grad.shape[2], weight)
        many = few or weight.numel() > MANY_WEIGHTS
        wants_x, wants_weight, wants_bias, _, _ = ctx.needs_input_grad
        of_x, of_weight, of_bias = None, None, grad.sum((0, 2)) if wants_bias else None
        if not few and _tap_by_tap(x, weight, ctx.stride, ctx.padding):
            of_x = _by_taps_to_x(grad, weight, x.shape[2], ctx.padding) if wants_x else None
            of_weight = _by_taps_to_weight(grad, x, weight, ctx.padding) if wants_weight else None
            return of_x, of_weight, of_bias, None, None
        by_torch = [wants_x and not few, wants_weight and not many, False]
        if any(by_torch):
            sizes = [ctx.stride], [ctx.padding], [1], False, [0], 1, by_torch
            of_x, of_weight, _ = torch.ops.aten.convolution_backward(grad, x, weight, None, *sizes)
        rows = grad.transpose(1, 2).flatten(0, 1)  # (B * S, O)
        if wants_x and few:
            spread = (rows @ weight.flatten(1)).view(len(x), -1, *weight.shape[1:])
            of_x = _overlap(spread, x.shape[2], ctx.stride, ctx.padding)
        if wants_weight and many:
            windows = _windows(x, weight.shape[2], ctx.stride, ctx.padding)
            of_weight = (rows.t() @ windows).view_as(weight)
        return of_x, of_weight, of_bias, None, None


def _few_rows(n_rows: int, weight: Tensor) -> bool:
    return weight.numel() > WEIGHTS_PER_ROW * n_rows


def _tap_by_tap(x: Tensor, weight: Tensor, stride: int, padding: int) -> bool:
    n_steps = x.shape[2]
    n_out = n_steps + 2 * padding - weight.shape[2] + 1
    if stride != 1 or weight.numel() < MANY_TAP_WEIGHTS or len(x) * n_out < MANY_TAP_ROWS:
        return False
    met = sum(seen.stop - seen.start for seen, _ in _taps(n_steps, weight.shape[2], padding))
    return weight.shape[2] == 1 or met <= MOST_TAPS_MET * weight.shape[2] * n_out


def _taps(n_steps: int, kernel: int, padding: int) -> Iterator[tuple[slice, slice]]:
    """By tap of the kernel, which steps it meets, and of which steps of the result it is a part."""
    n_out = n_steps + 2 * padding - kernel + 1
    for tap in range(kernel):
        ahead = tap - padding  # the result at t has x at t + ahead
        first, stop = max(0, -ahead), max(0, -ahead, min(n_out, n_steps - ahead))
        yield slice(first + ahead, stop + ahead), slice(first, stop)


def _by_taps(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """(B, O, S) of (B, C, T); the sums are taken with time first."""
    steps = x.permute(2, 0, 1).contiguous()  # (T, B, C)
    kernel = weight.shape[2]
    n_out = len(steps) + 2 * padding - kernel + 1
    out = bias.expand(n_out, len(x), -1).contiguous()  # (S, B, O)
    per_tap = weight.permute(2, 0, 1).contiguous()  # (K, O, C)
    for one, (seen, part) in zip(per_tap, _taps(len(steps), kernel, padding), strict=True):
        out[part].flatten(0, 1).addmm_(steps[seen].flatten(0, 1), one.t())
    return out.permute(1, 2, 0).contiguous()  # what follows is slow on steps that come first


def _by_taps_to_x(grad: Tensor, weight: Tensor, n_steps: int, padding: int) -> Tensor:
    """The gradient (B, C, T) of x, of that of the result (B, O, S)."""
    steps = grad.permute(2, 0, 1).contiguous()  # (S, B, O)
    per_tap = weight.permute(2, 0, 1).contiguous()  # (K, O, C)
    of_x = grad.new_zeros(n_steps, len(grad), weight.shape[1])
    for one, (seen, part) in zip(per_tap, _taps(n_steps, len(per_tap), padding), strict=True):
        of_x[seen].flatten(0, 1).addmm_(steps[part].flatten(0, 1), one)
    return of_x.permute(1, 2, 0).contiguous()


def _by_taps_to_weight(grad: Tensor, x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """The gradient (O, C, K) of the weights."""
    ahead, behind = grad.permute(2, 0, 1).contiguous(), x.permute(2, 0, 1).contiguous()
    per_tap = grad.new_empty(weight.shape[2], *weight.shape[:2])  # (K, O, C)
    for one, (seen, part) in zip(per_tap, _taps(len(behind), len(per_tap), padding), strict=True):
        torch.mm(ahead[part].flatten(0, 1).t(), behind[seen].flatten(0, 1), out=one)
    return per_tap.permute(1, 2, 0).contiguous()


def _windows(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """What every step of the result sees, (B * S, C * K), of (B, C, T)."""
    seen = nn.functional.pad(x, (padding, padding)).unfold(2, kernel, stride)  # (B, C, S, K)
    return seen.transpose(1, 2).flatten(2).flatten(0, 1)


def _overlap(spread: Tensor, length: int, stride: int, padding: int) -> Tensor:
    """The sum of overlapping windows (B, S, C, K) where they belong, (B, C, T)."""
    batch, n_steps, channels, kernel = spread.shape
    total = spread.new_zeros(batch, length + 2 * padding, channels)
    for tap in range(kernel):
        total[:, tap : tap + stride * (n_steps - 1) + 1 : stride] += spread[..., tap]
    return total[:, padding : padding + length].transpose(1, 2)
