"""Strict maxima of score maps over position and scale (paper Sec. 3.6), and the scores around them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.detector.scale_space import to_other_level

# own level: the 3x3 neighbourhood, row by row; neighbouring levels: centre, left, right, up, down
OWN = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
_CROSS = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))


class Pixels(NamedTuple):
    """Pixels of a batch of score maps: index of the image, row, column; each of shape (M,)."""

    image: Tensor
    row: Tensor
    col: Tensor

    def take(self, keep: Tensor | slice) -> Pixels:
        """Return some of the pixels, by a boolean mask, indices or a slice."""
        return Pixels(self.image[keep], self.row[keep], self.col[keep])


def max_filter(score: Tensor, radius: int) -> Tensor:
    """Return the maximum of the ``(2 radius + 1)``-square around each pixel; the outside counts as -inf.

    Shape:
        - Input, output: (..., H, W)

    """
    window = 2 * radius + 1
    for dim in (-1, -2):
        pad = (radius, radius) if dim == -1 else (0, 0, radius, radius)
        out = F.pad(score, pad, value=float("-inf"))
        # doubling: the maximum of w pixels from two maxima of fewer, 3 operations for 7 pixels
        width = 1
        while width < window:
            step = min(width, window - width)
            length = out.shape[dim] - step
            out = torch.maximum(out.narrow(dim, 0, length), out.narrow(dim, step, length))
            width += step
        score = out
    return score


def spatial_maxima(score: Tensor, pooled: Tensor, radius: int, border: int) -> Pixels:
    """Find the pixels that equal the maximum of their window, at least ``border + radius`` pixels inside the map.

    Args:
        score: score maps, shape (B, H, W).
        pooled: their :func:`max_filter`.
        radius: of the filter.
        border: width of the frame without scores.

    """
    inset = border + radius
    height, width = score.shape[-2:]
    if min(height, width) <= 2 * inset:
        none = torch.empty(0, dtype=torch.long, device=score.device)
        return Pixels(none, none, none)
    inner = (slice(None), slice(inset, height - inset), slice(inset, width - inset))
    image, row, col = (score[inner] == pooled[inner]).nonzero(as_tuple=True)
    return Pixels(image, row + inset, col + inset)


def is_unique(score: Tensor, at: Pixels, radius: int, chunk: int = 1 << 16) -> Tensor:
    """Say which window maxima exceed every other pixel of their window: plateaus have no position.

    Returns:
        Booleans of shape (M,).

    """
    offset = torch.arange(-radius, radius + 1, device=score.device)
    parts = []
    for start in range(0, len(at.row), chunk):  # an image without texture has a candidate at every pixel
        part = at.take(slice(start, start + chunk))
        rows = (part.row[:, None] + offset)[:, :, None]
        cols = (part.col[:, None] + offset)[:, None, :]
        window = score[part.image[:, None, None], rows, cols]
        parts.append((window == score[part.image, part.row, part.col][:, None, None]).sum((1, 2)) == 1)
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.bool, device=score.device)


def _nearest(at: Tensor, size: int, other: int, faithful: bool) -> Tensor:
    mapped = to_other_level(at.to(torch.float64), size, other, faithful)
    return mapped.round().long().clamp_(0, other - 1)


def exceeds_level(value: Tensor, at: Pixels, size: torch.Size, pooled: Tensor, faithful: bool) -> Tensor:
    """Say which scores exceed the filtered maximum of another level at the same place.

    Args:
        value: scores, shape (M,).
        at: their pixels in maps of ``size`` (rows, columns).
        size: of their own level.
        pooled: :func:`max_filter` of the other level, shape (B, H', W').
        faithful: map pixels as LIFT does.

    Returns:
        Booleans of shape (M,); false where the other level has no score.

    """
    row = _nearest(at.row, size[0], pooled.shape[-2], faithful)
    col = _nearest(at.col, size[1], pooled.shape[-1], faithful)
    other = pooled[at.image, row, col]
    return (value > other) & other.isfinite()


def _bilinear(score: Tensor, image: Tensor, row: Tensor, col: Tensor) -> Tensor:
    height, width = score.shape[-2:]
    row, col = row.clamp(0, height - 1), col.clamp(0, width - 1)
    top, left = row.floor().clamp(max=max(height - 2, 0)), col.floor().clamp(max=max(width - 2, 0))
    down, right = (row - top).to(score.dtype), (col - left).to(score.dtype)
    r0, c0 = top.long(), left.long()
    r1, c1 = (r0 + 1).clamp(max=height - 1), (c0 + 1).clamp(max=width - 1)
    upper = score[image, r0, c0] * (1 - right) + score[image, r0, c1] * right
    lower = score[image, r1, c0] * (1 - right) + score[image, r1, c1] * right
    return upper * (1 - down) + lower * down


def _read_level(score: Tensor, at: Pixels, size: torch.Size, faithful: bool) -> Tensor:
    """Read the cross around pixels of a level of ``size`` in another level; shape (M, 5)."""
    values = []
    for dy, dx in _CROSS:
        if faithful:
            row = _nearest(at.row + dy, size[0], score.shape[-2], True)
            col = _nearest(at.col + dx, size[1], score.shape[-1], True)
            values.append(score[at.image, row, col])
        else:
            row = to_other_level((at.row + dy).to(torch.float64), size[0], score.shape[-2], False)
            col = to_other_level((at.col + dx).to(torch.float64), size[1], score.shape[-1], False)
            values.append(_bilinear(score, at.image, row, col))
    return torch.stack(values, 1)


def read_neighbourhood(
    score: Tensor, at: Pixels, finer: Tensor | None, coarser: Tensor | None, faithful: bool
) -> Tensor:
    """Collect the scores around pixels: 9 of their own level, 5 of each neighbouring level where both are given.

    Args:
        score: maps of their own level, shape (B, H, W).
        at: M pixels, none of them on the outermost row or column.
        finer: maps of the next finer level.
        coarser: maps of the next coarser level.
        faithful: read the other levels at the nearest pixel instead of in between.

    Returns:
        Scores of shape (M, 9) or (M, 19).

    """
    own = torch.stack([score[at.image, at.row + dy, at.col + dx] for dy, dx in OWN], 1)
    if finer is None or coarser is None:
        return own
    size = score.shape[-2:]
    return torch.cat([own, _read_level(finer, at, size, faithful), _read_level(coarser, at, size, faithful)], 1)
