"""Strict maxima of score maps over position and scale (paper Sec. 3.6), and the scores around them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.detector.sampling import Sampling
from kornia_lift.detector.scale_space import ScaleSpaceConfig

# own level: the 3x3 neighbourhood, row by row; neighbouring levels: centre, left, right, up, down
OWN = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
_CROSS = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))


class Pixels(NamedTuple):
    """Pixels of a batch of score maps: index of the image, row, column; each of shape (M,)."""

    image: Tensor
    row: Tensor
    col: Tensor


def _run_max(x: Tensor, width: int, dim: int) -> Tensor:
    """Return the maximum of every ``width`` neighbours along an axis, which becomes ``width - 1`` shorter."""
    done = 1
    while done < width:  # doubling: the maximum of w pixels from two maxima of fewer, 3 operations for 7 pixels
        step = min(done, width - done)
        length = x.shape[dim] - step
        x = torch.maximum(x.narrow(dim, 0, length), x.narrow(dim, step, length))
        done += step
    return x


def max_filter(score: Tensor, radius: int) -> Tensor:
    """Return the maximum of the window of ``2 radius + 1`` pixels around each pixel; the outside counts as -inf.

    Shape:
        - Input, output: (..., H, W)

    """
    for dim in (-1, -2):
        pad = (radius, radius) if dim == -1 else (0, 0, radius, radius)
        score = _run_max(F.pad(score, pad, value=float("-inf")), 2 * radius + 1, dim)
    return score


def strict_maxima(score: Tensor, radius: int) -> Tensor:
    """Return which pixels exceed every other pixel of their window: plateaus have no position.

    Args:
        score: score maps, shape (B, H, W), larger than a window.
        radius: the window has a side of ``2 radius + 1`` pixels.

    Returns:
        Booleans of shape (B, H - 2 radius, W - 2 radius): for the pixels whose window lies in the map.

    """
    height, width = score.shape[-2] - 2 * radius, score.shape[-1] - 2 * radius
    centre = score[..., radius : radius + width]
    # the windows without their middle column or row: those before it and those after it
    run = _run_max(score, radius, -1)
    beside = torch.maximum(run[..., :width], run[..., radius + 1 :])
    run = _run_max(torch.maximum(beside, centre), radius, -2)
    others = torch.maximum(run[..., :height, :], run[..., radius + 1 :, :])
    inner = slice(radius, radius + height)
    return centre[..., inner, :] > torch.maximum(others, beside[..., inner, :])


def level_maxima(
    scores: list[Tensor], pooled: list[Tensor], i: int, config: ScaleSpaceConfig, sampling: Sampling, border: int
) -> Tensor:
    """Return which pixels of level ``i`` exceed their neighbourhood on their own level and on the neighbouring ones.

    Args:
        scores: score maps of all levels, each (B, h, w); level ``i`` is larger than its border and a window.
        pooled: their :func:`max_filter`; used only with ``config.scale_nms``.
        i: the level.
        config: defines the neighbourhood.
        sampling: maps pixels to the same location on another level.
        border: width of the frame without scores.

    Returns:
        Booleans of shape (B, h - 2m, w - 2m), m = ``border + config.nms_radius``.

    """
    score, margin = scores[i], border + config.nms_radius
    height, width = score.shape[-2:]
    maxima = strict_maxima(score[:, border : height - border, border : width - border], config.nms_radius)
    value = score[:, margin : height - margin, margin : width - margin]
    rows, cols = (torch.arange(margin, side - margin, device=score.device) for side in (height, width))
    for j in range(i - config.scale_nms, i + config.scale_nms + 1):
        if j != i:
            row = sampling.nearest(rows, height, pooled[j].shape[-2])
            col = sampling.nearest(cols, width, pooled[j].shape[-1])
            other = pooled[j].index_select(-2, row).index_select(-1, col)
            maxima = maxima & (value > other) & other.isfinite()
    return maxima


def all_pixels(maxima: Tensor, margin: int) -> Pixels:
    """List the marked pixels; ``margin`` is what :func:`level_maxima` leaves out on each side."""
    image, row, col = maxima.nonzero(as_tuple=True)
    return Pixels(image, row + margin, col + margin)


def strongest_pixels(maxima: Tensor, margin: int, score: Tensor, count: int) -> tuple[Pixels, Tensor]:
    """List equally many pixels of each image, the marked ones with the highest scores first.

    Args:
        maxima: see :func:`level_maxima`.
        margin: what it leaves out on each side.
        score: maps of the level, shape (B, h, w).
        count: number of pixels, or all pixels of a level that has fewer.

    Returns:
        The pixels, M in all, and which of them are marked, shape (M,).

    """
    batch, height, width = maxima.shape
    inner = score[:, margin : margin + height, margin : margin + width]
    value, index = inner.masked_fill(~maxima, float("-inf")).flatten(1).topk(min(count, height * width), dim=1)
    image = torch.arange(batch, device=score.device)[:, None].expand_as(index)
    at = Pixels(image.flatten(), (index // width + margin).flatten(), (index % width + margin).flatten())
    return at, (value > float("-inf")).flatten()


def read_own(score: Tensor, at: Pixels) -> Tensor:
    """Collect the 3x3 scores around M pixels of maps (B, H, W), none on the outermost row or column; shape (M, 9)."""
    offset = torch.arange(-1, 2, device=score.device)
    image, row, col = (index[:, None, None] for index in at)
    return score[image, row + offset[:, None], col + offset].flatten(1)


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
