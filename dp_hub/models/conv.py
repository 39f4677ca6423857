"""Convolution over time as the paper's U-Net needs it on a CPU: many channels, few steps.

torch leaves convolutions on a CPU to oneDNN, which is made for pictures. With a thousand channels
and more its gradient of the weights takes three to six times as long as the convolution itself (and
its threads wait for each other by spinning, which is worse where cores are shared); with few
samples it spends most of its time laying out the weights anew for every call. There the same sums
are taken as one matrix product. Elsewhere, and on other devices, the layer is torch's own.
"""

from typing import Any

import torch
from torch import Tensor, nn

MANY_WEIGHTS = 2**20
"""With more of them, oneDNN's gradient of the weights is slower than a product (AMD Zen 4)."""

WEIGHTS_PER_ROW = 2**17
"""With more weights than this per step of the result, a product is faster than oneDNN."""


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
        by_torch = [wants_x and not few, wants_weight and not many, False]
        of_x, of_weight, of_bias = None, None, grad.sum((0, 2)) if wants_bias else None
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
