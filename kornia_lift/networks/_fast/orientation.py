"""The orientation network as products of constant matrices with all patches at once.

The batch is the innermost axis of all arrays. A convolution that is pooled by 2x2 afterwards computes the four
neighbours as four groups of channels, with filters shifted by one pixel: the maximum is then taken between contiguous
arrays, without looking at single pixels. The few output channels become four times as many, which makes the product
more efficient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kornia_lift.networks.layers import ghh

BLOCK = 64  # patches computed together
_ROWS = 5  # pooled rows per step of the first convolution: their four neighbours stay in the cache
_TAPS = 5, 5, 3


@dataclass(frozen=True)
class OrientationPlan:
    """Weights in the order of the products.

    Attributes:
        first: the first convolution for 2x2 neighbours, (4 * 10, 6 * 6); columns y, x.
        second: the second, (4 * 20, 6 * 6 * 10); columns y, x, channel.
        third: the third, (50, 3 * 3 * 20).
        biases: biases of the three, (C, 1) each.
    """

    first: Tensor
    second: Tensor
    third: Tensor
    biases: tuple[Tensor, Tensor, Tensor]


def plan_orientation(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor) -> OrientationPlan:
    """Prepare the weights; arguments are weights and biases of the three convolutions."""
    return OrientationPlan(
        first=_for_neighbours(w1),
        second=_for_neighbours(w2),
        third=w3.permute(0, 2, 3, 1).flatten(1),
        biases=(b1[:, None], b2[:, None], b3[:, None]),
    )


def _for_neighbours(weight: Tensor) -> Tensor:
    out, channels, taps, _ = weight.shape
    shifted = weight.new_zeros(2, 2, out, taps + 1, taps + 1, channels)
    for y in (0, 1):
        for x in (0, 1):
            shifted[y, x, :, y : y + taps, x : x + taps] = weight.permute(0, 2, 3, 1)
    return shifted.view(4 * out, -1)


def vector(z: Tensor, plan: OrientationPlan, layers: tuple[Tensor, Tensor, Tensor, Tensor], pool3: bool) -> Tensor:
    """Run the network on normalised patches, in eval mode.

    Args:
        z: patches, float32, shape (B, 1, 64, 64).
        plan: the convolutions.
        layers: weights and biases of the two fully-connected layers.
        pool3: pool after the third convolution.

    Returns:
        The two outputs, (B, 2).

    """
    w1, b1, w2, b2 = layers
    parts = []
    for part in z[:, 0].split(BLOCK):
        maps = _third(_second(_first(part.permute(1, 2, 0).contiguous(), plan), plan), plan, pool3)
        hidden = ghh(torch.addmm(b1[:, None], w1, maps)[None])[0]
        parts.append(ghh(torch.addmm(b2[:, None], w2, hidden)[None])[0].t())
    return torch.cat(parts)


def _windows(shifted: Tensor, taps: int, step: int, first: int, count: int) -> Tensor:
    """View ``taps`` consecutive rows at every ``step``-th row of (rows, K, N) as (count, taps * K, N); they overlap."""
    _, rows, width = shifted.shape
    start = shifted.storage_offset() + first * step * rows * width
    return shifted.as_strided((count, taps * rows, width), (step * rows * width, width, 1), start)


def _maximum(four: Tensor) -> Tensor:
    """Maximum over axis 1 of (rows, 4, C, N)."""
    upper = torch.maximum(four[:, 0], four[:, 1])
    return torch.maximum(upper, torch.maximum(four[:, 2], four[:, 3]), out=upper)


def _first(z: Tensor, plan: OrientationPlan) -> Tensor:
    """Return the maps after the first pool, (30 y, 10, 30 x, B)."""
    side, batch = z.shape[0], z.shape[-1]
    taps, half, channels = _TAPS[0] + 1, (side - _TAPS[0] + 1) // 2, len(plan.biases[0])
    row = side * batch
    shifted = z.as_strided((side, taps, half, batch), (row, batch, 2 * batch, 1))
    shifted = shifted.contiguous().view(side, taps, half * batch)
    out = z.new_empty(half, channels, half * batch)
    responses = z.new_empty(_ROWS, 4 * channels, half * batch)
    for top in range(0, half, _ROWS):
        count = min(_ROWS, half - top)
        windows = _windows(shifted, taps, 2, top, count)
        torch.bmm(plan.first.expand(count, -1, -1), windows, out=responses[:count])
        best = _maximum(responses[:count].unflatten(1, (4, channels)))
        torch.add(best, plan.biases[0], out=out[top : top + count]).relu_()
    return out.view(half, channels, half, batch)


def _second(maps: Tensor, plan: OrientationPlan) -> Tensor:
    """Return the maps after the second pool, (13 y, 20, 13 x, B)."""
    side, inputs, _, batch = maps.shape
    taps, half, channels = _TAPS[1] + 1, (side - _TAPS[1] + 1) // 2, len(plan.biases[1])
    row, plane = inputs * side * batch, side * batch
    shifted = maps.as_strided((side, taps, inputs, half, batch), (row, batch, plane, 2 * batch, 1))
    windows = _windows(shifted.contiguous().view(side, taps * inputs, half * batch), taps, 2, 0, half)
    out = torch.bmm(plan.second.expand(half, -1, -1), windows).unflatten(1, (4, channels))
    return _maximum(out).add_(plan.biases[1]).relu_().view(half, channels, half, batch)


def _third(maps: Tensor, plan: OrientationPlan, pool: bool) -> Tensor:
    """Return the inputs of the first fully-connected layer, (50 * 25 or 50 * 121, B)."""
    side, inputs, _, batch = maps.shape
    taps, channels = _TAPS[2], len(plan.biases[2])
    last = side - taps + 1
    last -= last % 2 if pool else 0  # what fills no window of the pool is not computed
    row, plane = inputs * side * batch, side * batch
    shifted = maps.as_strided((side, taps, inputs, last, batch), (row, batch, plane, batch, 1))
    windows = _windows(shifted.contiguous().view(side, taps * inputs, last * batch), taps, 1, 0, last)
    out = torch.bmm(plan.third.expand(last, -1, -1), windows)
    if pool:
        pairs = out.view(last // 2, 2, channels, last // 2, 2, batch)
        rows = torch.maximum(pairs[:, 0], pairs[:, 1])
        out = torch.maximum(rows[:, :, :, 0], rows[:, :, :, 1]).flatten(2)
        last //= 2
    out = out.add_(plan.biases[2]).relu_()
    return out.view(last, channels, last, batch).transpose(0, 1).reshape(-1, batch)
