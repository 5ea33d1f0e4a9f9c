"""Strict maxima of score maps over position and scale (paper Sec. 3.6), and the scores around them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.detector.sampling import Sampling

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
    """Return the maximum of the window of ``2 radius + 1`` pixels around each pixel; the outside counts as -inf.

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


def exceeds_level(value: Tensor, at: Pixels, size: torch.Size, pooled: Tensor, sampling: Sampling) -> Tensor:
    """Say which scores exceed the filtered maximum of another level at the same location.

    Args:
        value: scores, shape (M,).
        at: their pixels in maps of ``size`` (rows, columns).
        size: of their own level.
        pooled: :func:`max_filter` of the other level, shape (B, H', W').
        sampling: which pixel of the other level that is.

    Returns:
        Booleans of shape (M,); false where the other level has no score.

    """
    row = sampling.nearest(at.row, size[0], pooled.shape[-2])
    col = sampling.nearest(at.col, size[1], pooled.shape[-1])
    other = pooled[at.image, row, col]
    return (value > other) & other.isfinite()


def read_own(score: Tensor, at: Pixels) -> Tensor:
    """Collect the 3x3 scores around M pixels of maps (B, H, W), none on the outermost row or column; shape (M, 9)."""
    return torch.stack([score[at.image, at.row + dy, at.col + dx] for dy, dx in OWN], 1)


def read_neighbourhood(score: Tensor, at: Pixels, finer: Tensor, coarser: Tensor, sampling: Sampling) -> Tensor:
    """Collect the scores around pixels: 9 of their own level, 5 of each neighbouring level.

    Args:
        score: maps of their own level, shape (B, H, W).
        at: M pixels, none of them on the outermost row or column.
        finer: maps of the next finer level.
        coarser: maps of the next coarser level.
        sampling: how the other levels are read.

    Returns:
        Scores of shape (M, 19).

    """
    height, width = score.shape[-2:]
    crosses = []
    for other in (finer, coarser):
        for dy, dx in _CROSS:
            row = sampling.to_other_level((at.row + dy).to(torch.float64), height, other.shape[-2])
            col = sampling.to_other_level((at.col + dx).to(torch.float64), width, other.shape[-1])
            crosses.append(sampling.read(other, at.image, row, col))
    return torch.cat([read_own(score, at), torch.stack(crosses, 1)], 1)
