r"""The descriptor network with its second convolution in the frequency domain.

The batch is the innermost axis of all arrays, so that every step is a product of a constant matrix from the left with
all patches at once, and no array is ever transposed:

1. the first convolution, row by row, over seven shifted copies of the row; tanh, pooling, and the Fourier transform
   along x follow while the row is in the cache;
2. for each of the 15 frequencies along x: the transform along y, the products over the channels, the inverse transform
   along y;
3. the inverse transform along x, row by row, with tanh and pooling;
4. the third convolution as one product.

The valid part of a convolution of 29x29 maps by a 6x6 filter is not touched by the wrap-around of a transform of length
29. The 42.5 M multiplications of the second convolution become 9.8 M. Results differ from the plain path by rounding.

The products may run in bfloat16; tanh and pooling stay in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 64  # patches computed together: enough to fill the products, few enough for the cache
ROWS = 2  # rows of pooled pixels per step of the first convolution

_SIDE1, _SIDE2, _SIDE3 = 29, 24, 8  # maps after the first pool, after the second convolution, after the second pool
_HALF = _SIDE1 // 2 + 1  # frequencies along x of a real signal
_TAPS1, _TAPS3 = 7, 5  # sides of the first and third filters


@dataclass(frozen=True)
class DescriptorPlan:
    """The constant matrices of :func:`describe`; ``re``, ``im`` alternate innermost among the frequencies.

    Attributes:
        first: weights of the first convolution, (32, 49), and its bias, (32, 1); doubled for the sigmoid.
        along_x: Fourier transform along x, (2 * 15, 29).
        along_y: complex Fourier transform along y, (2 * 29, 2 * 29).
        product: weights of the second convolution, per frequency (15, 29, 2 * 64, 2 * 32).
        constant: bias of the second convolution, added to frequency 0, (64, 1).
        back_y: inverse transform along y, (2 * 24, 2 * 29).
        back_x: inverse transform along x, (24, 2 * 15).
        third: weights of the third convolution, (128, 25 * 64), and its bias, (128, 1).
        local: Gaussian means along one side of a map, corrected at the borders: (29, 29) and (8, 8).
    """

    first: tuple[Tensor, Tensor]
    along_x: Tensor
    along_y: Tensor
    product: Tensor
    constant: Tensor
    back_y: Tensor
    back_x: Tensor
    third: tuple[Tensor, Tensor]
    local: tuple[Tensor, Tensor]


def plan_descriptor(
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    w3: Tensor,
    b3: Tensor,
    window: Tensor,
    dtype: torch.dtype = torch.float32,
) -> DescriptorPlan:
    """Prepare the matrices.

    Args:
        w1: weights of the three convolutions, with biases ``b1``...: (32, 1, 7, 7), (64, 32, 6, 6), (128, 64, 5, 5).
        b1: shape (32,).
        w2: see ``w1``.
        b2: shape (64,).
        w3: see ``w1``.
        b3: shape (128,).
        window: the window of the subtractive normalisation, shape (5,).
        dtype: dtype of the products.

    """
    n = _SIDE1
    index = torch.arange(n, dtype=torch.float64)
    phase = 2 * math.pi / n * (index[:, None] * index)
    cos, sin = torch.cos(phase), torch.sin(phase)
    forward = torch.stack([cos, -sin], 1)  # n frequencies, re|im, n positions
    # e^(-i phase) (re + i im): ky, re|im, re|im, y
    along_y = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    # e^(+i phase) (re + i im), the rows of the valid part: re|im, y, ky, re|im
    back_y = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], 0)[:, :_SIDE2]
    # frequencies 1...14 stand for their conjugates too
    weight = torch.full((_HALF,), 2.0, dtype=torch.float64)
    weight[0] = 1.0
    back_x = weight[:, None] * torch.stack([cos, -sin], -1)[:_SIDE2, :_HALF]  # x, kx, re|im

    # correlation: the conjugate of the filter's transform; rows y, columns x of the filter, frequencies ky, kx
    spectrum = torch.fft.fft2(w2.double(), s=(n, n))[..., :_HALF].conj().permute(3, 2, 0, 1)  # kx, ky, out, in
    re, im = spectrum.real, spectrum.imag
    product = torch.stack([torch.stack([re, -im], 3), torch.stack([im, re], 3)], 2)  # kx, ky, re|im, out, re|im, in
    # tanh(a) = 2 sigmoid(2 a) - 1: pooled values arrive halved, sums arrive doubled
    return DescriptorPlan(
        first=((2 * w1).flatten(1).to(dtype), (2 * b1)[:, None]),
        along_x=(2 * forward[:_HALF]).reshape(2 * _HALF, n).to(dtype),
        along_y=along_y.reshape(2 * n, 2 * n).to(dtype),
        product=product.reshape(_HALF, n, 2 * len(w2), 2 * w2.shape[1]).to(dtype),
        constant=(b2.double() * n * n)[:, None].to(dtype),
        back_y=(2 * back_y / n**2).reshape(2 * _SIDE2, 2 * n).to(dtype),
        back_x=back_x.reshape(_SIDE2, 2 * _HALF).to(dtype),
        third=((4 * w3).permute(0, 3, 2, 1).flatten(1).to(dtype), (2 * b3)[:, None]),
        local=(_local_mean(window, _SIDE1).to(dtype), _local_mean(window, _SIDE3).to(dtype)),
    )


def _local_mean(window: Tensor, side: int) -> Tensor:
    """Return the matrix (side, side) of the window at every position, divided by the part of it inside the map."""
    half = len(window) // 2
    band = torch.zeros(side, side + 2 * half, dtype=window.dtype, device=window.device)
    for position in range(side):
        band[position, position : position + len(window)] = window
    band = band[:, half : half + side]
    return band / band.sum(1, keepdim=True)


def describe(z: Tensor, plan: DescriptorPlan) -> Tensor:
    """Run the network on normalised patches.

    Args:
        z: patches minus mean, over standard deviation, float32, shape (B, 1, 64, 64).
        plan: from :func:`plan_descriptor`.

    Returns:
        Descriptors, not normalised, shape (B, 128).

    """
    block, dtype = min(len(z), BLOCK), plan.along_x.dtype
    memory = [z.new_empty(2 * _HALF * size * block, dtype=dtype) for size in (_SIDE1 * 32, _SIDE2 * 64)]
    parts = []
    for part in z[:, 0].split(BLOCK):
        spectrum, mean = _first_block(part.permute(1, 2, 0).to(dtype).contiguous(), plan, memory[0])
        parts.append(_third_block(_second_block(spectrum, mean, plan, memory[1]), plan))
    return torch.cat(parts)


def _first_block(z: Tensor, plan: DescriptorPlan, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Return half the pooled maps, transformed along x, (30, 29, 32 B), and their mean over channels (29, 29 B)."""
    batch, n = z.shape[-1], _SIDE1
    weight, bias = plan.first
    channels = len(weight)
    # row y, shift, parity of x, x / 2: neighbours that are pooled lie in separate, contiguous planes
    shifted = z.as_strided((64, _TAPS1, 2, n, batch), (64 * batch, batch, batch, 2 * batch, 1)).contiguous()
    step = 2 * n * batch
    spectrum = memory[: 2 * _HALF * n * channels * batch].view(2 * _HALF, n, channels * batch)
    mean = z.new_empty(n, n, batch)  # x, y
    # memory that stays in the cache from row to row
    responses = z.new_empty(2 * ROWS, channels, step)
    pooled = z.new_empty(n, channels, batch)
    for top in range(0, n, ROWS):
        rows = min(ROWS, n - top)
        # the 49 rows of a window are consecutive rows of `shifted`; the windows of neighbours overlap
        windows = shifted.as_strided(
            (2 * rows, _TAPS1**2, step), (_TAPS1 * step, step, 1), shifted.storage_offset() + 2 * top * _TAPS1 * step
        )
        out = torch.bmm(weight.expand(2 * rows, -1, -1), windows, out=responses[: 2 * rows])
        out = out.float().add_(bias).sigmoid_().sub_(0.5).view(rows, 2, channels, 2, n, batch)
        energy = _sum_of_squares([out[:, i, :, j] for i in (0, 1) for j in (0, 1)])
        for row in range(rows):
            torch.sqrt(energy[row].transpose(0, 1), out=pooled)
            torch.mm(plan.along_x, pooled.view(n, -1), out=spectrum[:, top + row])
            mean[:, top + row] = pooled.mean(1)  # torch 2.5 does not fill a strided `out` of bfloat16
    return spectrum, mean.view(n, n * batch)


def _sum_of_squares(parts: list[Tensor]) -> Tensor:
    out = parts[0] * parts[0]
    for part in parts[1:]:
        out.addcmul_(part, part)
    return out


def _second_block(spectrum: Tensor, mean: Tensor, plan: DescriptorPlan, memory: Tensor) -> Tensor:
    """Return half the pooled maps after the second convolution, (8 x, 8 y, 64, B)."""
    n, side, batch = _SIDE1, _SIDE3, mean.shape[1] // _SIDE1
    local = plan.local[0]
    # the local mean is one map for all channels: subtracted where it is cheap, after the transform along x
    blurred = (plan.along_x @ (local @ mean)).view(2 * _HALF, n, batch)
    blurred = torch.bmm(local.expand(2 * _HALF, n, n), blurred).view(_HALF, 2, n, 1, batch)
    spectrum = spectrum.view(_HALF, 2, n, -1, batch)
    outputs = plan.product.shape[2] // 2
    columns = memory[: _HALF * 2 * _SIDE2 * outputs * batch].view(_HALF, 2 * _SIDE2, outputs * batch)
    for kx in range(_HALF):
        column = spectrum[kx].sub_(blurred[kx]).view(2 * n, -1)
        column = (plan.along_y @ column).view(n, -1, batch)  # ky, re|im and channel, batch
        column = torch.bmm(plan.product[kx], column)
        if kx == 0:
            column[0, :outputs] += plan.constant
        torch.mm(plan.back_y, column.view(2 * n, -1), out=columns[kx])
    columns = columns.view(2 * _HALF, _SIDE2, outputs * batch)
    maps = spectrum.new_empty(side, side, outputs, batch)
    pool = _SIDE2 // side
    for row in range(side):
        part = columns[:, pool * row : pool * (row + 1)].reshape(2 * _HALF, -1)
        out = (plan.back_x @ part).float().sigmoid_().sub_(0.5).view(side, pool, pool, outputs, batch)
        torch.sqrt(_sum_of_squares([out[:, i, j] for i in range(pool) for j in range(pool)]), out=maps[:, row])
    return maps


def _third_block(maps: Tensor, plan: DescriptorPlan) -> Tensor:
    """Return the descriptors, (B, 128)."""
    side, channels, batch = _SIDE3, maps.shape[2], maps.shape[3]
    local, (weight, bias) = plan.local[1], plan.third
    mean = (local @ maps.mean(2).view(side, -1)).view(side, side, batch)
    maps = maps - torch.bmm(local.expand(side, side, side), mean)[:, :, None]
    last, row = side - _TAPS3 + 1, channels * batch
    windows = maps.as_strided(
        (_TAPS3, _TAPS3, channels, last, last, batch), (side * row, row, batch, side * row, row, 1)
    )
    out = torch.mm(weight, windows.reshape(weight.shape[1], -1)).float().add_(bias).sigmoid_().sub_(0.5)
    out = 2 * _sum_of_squares(list(out.view(-1, last**2, batch).unbind(1))).sqrt_()
    return out.t()
