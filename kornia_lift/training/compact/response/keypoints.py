"""The keypoints that are chosen in pairs of crops, refined, and their distances between the two crops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kornia_lift.detector.refinement import make_safe, newton_step
from kornia_lift.training.compact.response.levels import LevelGrid, nearest_level
from kornia_lift.training.warped.homographies import warp_points, zooms

FARTHEST = 2.0  # pixels of the level: a peak farther away is another keypoint
SEARCH = 2  # pixels of the level around the expected position
NEAR = 3.0  # pixels of the crop


class ChosenKeypoints(NamedTuple):
    """Keypoints of crops, in slots.

    Args:
        xy: sub-pixel positions in the crop, differentiable, shape (N, K, 2).
        level: shape (N, K).
        valid: which slots hold a keypoint, shape (N, K).
        pixel: index of the pixel in the levels one behind the other, shape (N, K).

    """

    xy: Tensor
    level: Tensor
    valid: Tensor
    pixel: Tensor


class _Flat:
    """The maps of all levels one behind the other."""

    def __init__(self, grid: LevelGrid, maps: Sequence[Tensor]) -> None:
        self.values = torch.cat([each.flatten(1) for each in maps], 1)
        sides = torch.tensor(grid.sides)
        self.sides = sides.to(self.values.device)
        self.begin = (sides.square().cumsum(0) - sides.square()).to(self.values.device)

    def read(self, level: Tensor, row: Tensor, column: Tensor, reach: int) -> Tensor:
        """Read the square of ``2 reach + 1`` pixels around pixels (N, K), row by row; shape (N, K, squares)."""
        at = torch.arange(-reach, reach + 1, device=level.device)
        side = self.sides[level][..., None, None]
        index = self.begin[level][..., None, None] + (row[..., None, None] + at[:, None]) * side
        index = (index + column[..., None, None] + at).flatten(1)
        return self.values.gather(1, index).view(*level.shape, -1)

    def locate(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Level, row and column of flat indices."""
        level = torch.searchsorted(self.begin, index, right=True) - 1
        rest, side = index - self.begin[level], self.sides[level]
        return level, torch.div(rest, side, rounding_mode="floor"), rest % side


def choose_keypoints(
    grid: LevelGrid,
    scores: Sequence[Tensor],
    maxima: Sequence[Tensor],
    common: Sequence[Tensor],
    limit: Tensor,
    most: int,
) -> ChosenKeypoints:
    """Choose the maxima of every crop that reach its limit, at most ``most``.

    Args:
        grid: the levels.
        scores: per level, shape (N, 1, side, side).
        maxima: per level, booleans.
        common: per level, 1 where a keypoint may be chosen: at least two pixels from the border.
        limit: least score, shape (N,).
        most: number of slots.

    """
    flat = _Flat(grid, scores)
    with torch.no_grad():
        allowed = torch.cat([(m & (c > 0)).flatten(1) for m, c in zip(maxima, common, strict=True)], 1)
        best = flat.values.masked_fill(~allowed, -math.inf).topk(min(most, allowed.shape[1]), dim=1)
        valid = best.values >= limit[:, None]
        centre = (grid.sides[0] + 1) * (grid.sides[0] // 2)  # where empty slots read
        index = best.indices.masked_fill(~valid, centre)
        level, row, column = flat.locate(index)
    xy, trusted = _refined(flat, level, row, column)
    return ChosenKeypoints(_to_crop(grid, flat, level, xy), level, valid & trusted, index)


def _refined(flat: _Flat, level: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Sub-pixel positions x, y (N, K, 2) on the levels, and whether they stay within a pixel."""
    around = flat.read(level, row, column, 1).flatten(0, 1)
    with torch.no_grad():
        trusted = (newton_step(around)[0].abs() < 1).all(1)
    step = newton_step(make_safe(around, trusted))[0][:, :2]
    position = torch.stack([column, row], -1) + step.view(*level.shape, 2)
    return position, trusted.view(level.shape)


def _to_crop(grid: LevelGrid, flat: _Flat, level: Tensor, xy: Tensor) -> Tensor:
    return (xy + 0.5) * (grid.size / flat.sides[level])[..., None] - 0.5


def distances_of_pairs(
    grid: LevelGrid, scores: Sequence[Tensor], common: Sequence[Tensor], chosen: ChosenKeypoints, to_second: Tensor
) -> Tensor:
    """Mean distance of chosen keypoints of the first crops from the peaks that the second crops have there.

    In pixels of the level; its gradient moves the peaks of both.

    Args:
        grid: the levels.
        scores: per level, of the first crops and then of the second ones, (2 N, 1, side, side).
        common: per level, 1 where a keypoint may be chosen.
        chosen: of all crops.
        to_second: homographies, shape (N, 3, 3).

    """
    half = len(to_second)
    first = ChosenKeypoints(*(part[:half] for part in chosen))
    flat, allowed = (_Flat(grid, [each[half:] for each in maps]) for maps in (scores, common))
    expected, zoom = warp_points(to_second, first.xy), zooms(to_second, first.xy)
    with torch.no_grad():
        nearest, near = nearest_level(grid, first.level + grid.per_octave * zoom.log2())
        level, valid = nearest.round().long(), first.valid & near
    side = flat.sides[level]
    at = (expected + 0.5) * (side / grid.size)[..., None] - 0.5
    with torch.no_grad():
        least = SEARCH + 1
        column, row = at.round().long().unbind(-1)
        valid = valid & (torch.minimum(column, row) >= least) & (torch.maximum(column, row) < side - least)
        column, row = (torch.minimum(v.clamp(min=least), side - 1 - least) for v in (column, row))
        best = flat.read(level, row, column, SEARCH).argmax(-1)
        width = 2 * SEARCH + 1
        row = row + torch.div(best, width, rounding_mode="floor") - SEARCH
        column = column + best % width - SEARCH
        valid = valid & (allowed.read(level, row, column, 0)[..., 0] > 0)
        around = flat.read(level, row, column, 1)
        valid = valid & (around.argmax(-1) == 4)
    found, trusted = _refined(flat, level, row, column)
    square = (at - found).square().sum(-1)
    weight = (valid & trusted & (square < FARTHEST**2)).to(square)
    # smooth at 0
    return (((square + 0.01).sqrt() - 0.1) * weight).sum() / weight.sum().clamp(min=1)


@torch.no_grad()
def found_again(grid: LevelGrid, chosen: ChosenKeypoints, to_second: Tensor) -> dict[str, float]:
    """Share of the chosen keypoints of the first crops that the second ones have chosen too.

    Returns:
        ``repeated``: within a pixel and a level of the other keypoint; ``repeated_3px``: within 3 pixels of the crop,
        at any size; ``error_px``: mean distance, in pixels of the level, of those within 3 of them.

    """
    half = len(to_second)
    first, second = (ChosenKeypoints(*(part[side] for part in chosen)) for side in (slice(half), slice(half, None)))
    expected, zoom = warp_points(to_second, first.xy), zooms(to_second, first.xy)
    level = first.level + grid.per_octave * zoom.log2()
    seen = first.valid & nearest_level(grid, level)[1]
    apart = torch.cdist(expected, second.xy).masked_fill(~second.valid[:, None], math.inf)
    in_level = apart * 2.0 ** (-second.level / grid.per_octave)[:, None]
    in_level = in_level.masked_fill((level[:, :, None] - second.level[:, None]).abs() > 1.01, math.inf)
    nearest = in_level.amin(2)[seen]
    if not len(nearest):
        return {"repeated": 0.0, "repeated_3px": 0.0, "error_px": NEAR}
    near = nearest[nearest < NEAR]
    return {
        "repeated": float((nearest < 1).float().mean()),
        "repeated_3px": float((apart.amin(2)[seen] < NEAR).float().mean()),
        "error_px": float(near.mean()) if len(near) else NEAR,
    }
