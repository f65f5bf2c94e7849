"""A small kernel over time for every channel, as a sum of shifted frames, in few passes over memory."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CACHE_VALUES = 1 << 17  # of one operand, so that all passes over a part of the batch meet it in a processor's cache


def weighted_shifts(values: Tensor, kernel: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """y_t = m_t (b + sum over o of w_o m_(t+o) x_(t+o)) with zeros beyond both ends.

    What torch's convolution computes with one group per channel; on a processor two to four times faster, because a
    kernel of a few taps is bound by memory, and this keeps a part of the batch in the cache until it is done.

    Args:
        values: (batch, time, channels) x, any floating type.
        kernel: (channels, size) w of the same type, size odd; the middle is o = 0.
        bias: (channels,) b.
        mask: (batch, time) bool m.

    Returns:
        (batch, time, channels).
    """
    return _WeightedShifts.apply(values, kernel, bias, mask)


class _WeightedShifts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, kernel: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
        """As `weighted_shifts`."""
        ctx.save_for_backward(values, kernel, mask)
        taps, middle = kernel.t().contiguous().unbind(), kernel.shape[1] // 2
        result = torch.empty_like(values)
        factor = mask.unsqueeze(-1).to(values.dtype)
        for part in _parts(values):
            source, target = values[part] * factor[part], result[part]
            torch.addcmul(bias, source, taps[middle], out=target)
            for offset, here, there in _shifts(middle, values.shape[1]):
                target[:, here].addcmul_(source[:, there], taps[middle + offset])
            target.mul_(factor[part])
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Gradients of values, kernel and bias; the shifts go the other way."""
        values, kernel, mask = ctx.saved_tensors
        of_values, of_kernel, of_bias = ctx.needs_input_grad[:3]
        taps, middle = kernel.t().contiguous().unbind(), kernel.shape[1] // 2
        exact = torch.promote_types(values.dtype, torch.float32)  # a sum over all frames needs more than 8 bits
        kernel_sums = torch.zeros_like(kernel.t(), dtype=exact).contiguous()
        bias_sum = torch.zeros_like(kernel[:, 0], dtype=exact)
        result = torch.empty_like(values)
        factor = mask.unsqueeze(-1).to(values.dtype)
        for part in _parts(values):
            source, above, below = values[part] * factor[part], gradient[part] * factor[part], result[part]
            torch.mul(above, taps[middle], out=below)
            if of_bias:
                bias_sum += above.sum((0, 1), dtype=exact)
            if of_kernel:
                kernel_sums[middle] += (above * source).sum((0, 1), dtype=exact)
            for offset, here, there in _shifts(middle, values.shape[1]):
                if of_values:
                    below[:, there].addcmul_(above[:, here], taps[middle + offset])
                if of_kernel:
                    kernel_sums[middle + offset] += (above[:, here] * source[:, there]).sum((0, 1), dtype=exact)
            below.mul_(factor[part])
        sums = kernel_sums.t().to(kernel.dtype), bias_sum.to(kernel.dtype)
        wanted = zip((of_values, of_kernel, of_bias), (result, *sums), strict=True)
        return *(each if needed else None for needed, each in wanted), None


def _parts(values: Tensor) -> Iterator[slice]:
    """Slices of the batch that fit the cache; a GPU, or a compiler that fuses the passes, takes the batch at once."""
    videos = len(values)
    whole = values.is_cuda or torch.compiler.is_compiling()
    step = videos if whole else max(1, CACHE_VALUES // max(1, values.shape[1] * values.shape[2]))
    for begin in range(0, videos, max(1, step)):
        yield slice(begin, begin + step)


def _shifts(reach: int, time: int) -> Iterator[tuple[int, slice, slice]]:
    """(offset, frames t, frames t + offset) for every offset but 0 that some frame has a neighbour at."""
    for offset in range(1, min(reach, time - 1) + 1):
        yield offset, slice(0, time - offset), slice(offset, time)
        yield -offset, slice(offset, time), slice(0, time - offset)
