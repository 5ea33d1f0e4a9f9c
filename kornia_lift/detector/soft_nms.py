"""LF-Net's path from score maps to keypoints: soft suppression, merging over scales, strict maxima, sub-pixel shift."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.detector import extrema

WINDOW = 15  # of the soft suppression, pixels
NMS_STRENGTH = 3.0
MERGE_STRENGTH = 100.0


def soft_nms(logits: Tensor, window: int = WINDOW, strength: float = NMS_STRENGTH) -> Tensor:
    r"""Soften all but the maxima of windows over position and scale.

    .. math:: e(p) = \exp(a (L(p) - M(p))), \quad P(p) = e(p) / (\sum_{q \in W(p)} e(q) + 10^{-6})

    M is the maximum of all scales in the window around p. Every term of the sum is relative to the maximum of its own
    window, so this is not exactly a softmax.

    Args:
        logits: L, the scales as channels, shape (B, S, H, W); one scale at a time where S is 1.
        window: odd side of the windows, pixels; the outside of the image does not count.
        strength: a.

    Returns:
        P in [0, 1], shape (B, S, H, W), float32 at least.

    """
    x = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # rows, then columns: torch reads every pixel of a window
    largest = x.amax(1, keepdim=True)
    for size in ((window, 1), (1, window)):
        largest = F.max_pool2d(largest, size, 1, (size[0] // 2, size[1] // 2))
    e = torch.exp(strength * (x - largest))
    total = e.sum(1, keepdim=True)
    for size in ((window, 1), (1, window)):
        total = F.avg_pool2d(total, size, 1, (size[0] // 2, size[1] // 2)) * float(window)
    return e / (total + 1e-6)


def merge_scales(maps: Tensor, scales: Sequence[float], strength: float = MERGE_STRENGTH) -> tuple[Tensor, Tensor]:
    r"""Merge score maps over scales: score and scale of every pixel as means of weight :math:`w_n \sim e^{100 P_n}`.

    Args:
        maps: P of every scale, shape (B, S, H, W).
        scales: the scales.
        strength: factor in the softmax; where all scores are small the scale tends to the mean of the scales.

    Returns:
        Scores (B, H, W) and scales (B, H, W).

    """
    weight = torch.softmax(strength * maps, 1)
    # factor by factor: a tensor of them would have to be copied to the device, which would wait for it
    scale = sum(w * s for w, s in zip(weight.unbind(1), scales, strict=True))
    return (weight * maps).sum(1), torch.as_tensor(scale)


def strict_maxima(score: Tensor, radius: int = 2) -> Tensor:
    """Return which pixels exceed all others of their window and 0; plateaus have no maximum.

    Args:
        score: shape (B, H, W); beyond the image it counts as 0.
        radius: the window has a side of ``2 radius + 1`` pixels.

    Returns:
        Booleans of shape (B, H, W).

    """
    return extrema.strict_maxima(F.pad(score.detach().clamp(min=0), (radius,) * 4), radius)


def sample_squares(
    maps: Tensor, image: Tensor, xy: Tensor, half: Tensor, size: int, theta: Tensor | None = None
) -> Tensor:
    """Sample squares of maps bilinearly, the first and the last samples on their sides.

    Args:
        maps: shape (B, H, W).
        image: index of the map of each square, shape (M,).
        xy: centres in pixels, shape (M, 2).
        half: half sides in pixels, shape (M,).
        size: samples along a side.
        theta: angles in radians, clockwise on screen (y down), shape (M,); upright by default.

    Returns:
        Samples of shape (M, size, size); 0 where one of the four pixels around is outside.

    """
    height, width = maps.shape[-2:]
    unit = torch.linspace(-1, 1, size, dtype=xy.dtype, device=xy.device)
    u, v = unit[None, None, :] * half[:, None, None], unit[None, :, None] * half[:, None, None]
    if theta is not None:
        cosine, sine = theta.cos()[:, None, None], theta.sin()[:, None, None]
        u, v = u * cosine - v * sine, u * sine + v * cosine
    x, y = xy[:, 0, None, None] + u, xy[:, 1, None, None] + v
    x, y = torch.broadcast_tensors(x, y)
    left, top = x.detach().floor(), y.detach().floor()
    inside = (left >= 0) & (left + 1 <= width - 1) & (top >= 0) & (top + 1 <= height - 1)
    right, down = x - left, y - top
    column, row = left.long().clamp(0, max(width - 2, 0)), top.long().clamp(0, max(height - 2, 0))
    n, column2, row2 = image[:, None, None], (column + 1).clamp(max=width - 1), (row + 1).clamp(max=height - 1)
    upper = maps[n, row, column] * (1 - right) + maps[n, row, column2] * right
    lower = maps[n, row2, column] * (1 - right) + maps[n, row2, column2] * right
    return torch.where(inside, upper * (1 - down) + lower * down, 0)


def soft_argmax(patches: Tensor, strength: float = 1.0) -> Tensor:
    """Return the mean position, (x, y) in [-1, 1], of patches weighted by the softmax of their values.

    Args:
        patches: shape (M, n, n).
        strength: factor of the values before the softmax.

    Returns:
        Positions of shape (M, 2).

    """
    side = patches.shape[-1]
    weight = torch.softmax(strength * patches.flatten(1), 1).unflatten(1, (side, side))
    unit = torch.linspace(-1, 1, side, dtype=patches.dtype, device=patches.device)
    return torch.stack([(weight.sum(1) * unit).sum(1), (weight.sum(2) * unit).sum(1)], 1)
