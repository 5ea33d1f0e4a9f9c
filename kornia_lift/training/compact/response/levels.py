"""Keypoints of pairs of crops in a scale space: how likely each pixel of each level is one, and is found again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.detector.extrema import max_filter
from kornia_lift.detector.scale_space import SCORE_BORDER
from kornia_lift.training.warped.homographies import sample_pixels, warp_points, zooms
from kornia_lift.training.warped.maxima import spread_gaussian, window_sum

AGREE, APART = 0.5, 1.5  # levels: scales that differ by less agree fully, by more not at all
BEYOND = 1.0  # levels: things finer than the finest level or coarser than the coarsest by less are found there


@dataclass(frozen=True)
class LevelGrid:
    """The levels of square crops.

    Args:
        size: side of the crops in pixels.
        count: number of levels.
        per_octave: levels per doubling of the scale.

    Convention:
        A level is the whole crop resized: its pixel u is at (u + .5) size / side - .5 of the crop.

    """

    size: int
    count: int = 5
    per_octave: int = 2

    @cached_property
    def sides(self) -> tuple[int, ...]:
        """Sides of the levels in pixels, finest first."""
        return tuple(round(self.size * 2 ** (-n / self.per_octave)) for n in range(self.count))

    def levels(self, crops: Tensor) -> list[Tensor]:
        """Resize crops (B, 1, S, S) to all levels, with antialiasing."""
        return [
            crops
            if side == self.size
            else F.interpolate(crops, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
            for side in self.sides
        ]

    def positions(self, level: int, like: Tensor) -> Tensor:
        """Positions in the crop of the pixels of a level, row by row, shape (side * side, 2)."""
        side = self.sides[level]
        at = (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) * (self.size / side) - 0.5
        y, x = torch.meshgrid(at, at, indexing="ij")
        return torch.stack([x, y], -1).view(-1, 2)

    def scorable(self, inside: Tensor) -> list[Tensor]:
        """Per level 1 where the pixels around lie in the image and in the crop, (B, 1, side, side)."""
        found = []
        for side in self.sides:
            mask = (F.interpolate(inside, size=(side, side), mode="bilinear", antialias=True) > 0.999).to(inside)
            kept = 1 - max_filter(1 - mask, SCORE_BORDER)
            frame = torch.zeros_like(kept)
            frame[..., SCORE_BORDER:-SCORE_BORDER, SCORE_BORDER:-SCORE_BORDER] = 1
            found.append(kept * frame)
        return found


@dataclass(frozen=True)
class Landing:
    """Where the pixels of all levels of one crop lie in the scale space of the other.

    Args:
        position: per level, positions in the other crop, shape (N, side, side, 2).
        level: per level, the level of the other crop on which the same thing has the same size, (N, side, side).

    """

    position: list[Tensor]
    level: list[Tensor]


def land(grid: LevelGrid, matrix: Tensor) -> Landing:
    """Map the pixels of all levels by homographies (N, 3, 3)."""
    position, level = [], []
    for n, side in enumerate(grid.sides):
        pixels = grid.positions(n, matrix)
        xy, zoom = warp_points(matrix, pixels), zooms(matrix, pixels)
        position.append(xy.view(-1, side, side, 2))
        level.append((n + grid.per_octave * zoom.log2()).view(-1, side, side))
    return Landing(position, level)


def read_landing(
    grid: LevelGrid, maps: Sequence[Tensor], landing: Landing, n: int, kernel: tuple[float, float]
) -> Tensor:
    """Read the maps of all levels of a crop where the pixels of level ``n`` of the other crop lie.

    Args:
        grid: the levels.
        maps: per level, shape (N, 1, side, side).
        landing: where the pixels lie.
        n: the level of the other crop.
        kernel: levels as far away as the first count fully, and from the second on not at all.

    Returns:
        Sum over the levels, shape (N, 1, side, side).

    """
    near, far = kernel
    total = torch.zeros_like(maps[n])
    for other, side in enumerate(grid.sides):
        weight = ((far - (landing.level[n] - other).abs()) / (far - near)).clamp(0, 1)
        position = (landing.position[n] + 0.5) * (side / grid.size) - 0.5
        total = total + weight[:, None] * sample_pixels(maps[other], position)
    return total


def nearest_level(grid: LevelGrid, level: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest position between the levels, and whether it is near enough.

    Most keypoints are on the finest level. Where the other crop shows such a keypoint even a little smaller, it is
    finer than all levels there, and is found on the finest one.
    """
    nearest = level.clamp(0, grid.count - 1)
    return nearest, (level - nearest).abs() <= BEYOND


def seen_by_other(grid: LevelGrid, scorable: Sequence[Tensor], landing: Landing) -> list[Tensor]:
    """Per level 1 where the other crop can score the same thing at about the same size, (N, 1, side, side)."""
    levels, near = zip(*(nearest_level(grid, level) for level in landing.level), strict=True)
    there = Landing(landing.position, list(levels))
    return [
        (read_landing(grid, scorable, there, n, (0.0, 1.0)) > 0.999).to(scorable[n]) * near[n][:, None]
        for n in range(grid.count)
    ]


def scale_space_maxima(scores: Sequence[Tensor], radius: int) -> list[Tensor]:
    """Where a maximum of a level exceeds those around it on any level; booleans of the shapes of the scores.

    A level reaches ``radius`` of its pixels, as far as its keypoints suppress others.
    """
    maxima = [score == max_filter(score, radius) for score in scores]
    around = [  # not of the scores: the slope of a wide peak suppresses nothing
        max_filter(score.masked_fill(~best, -math.inf), radius) for score, best in zip(scores, maxima, strict=True)
    ]
    found = []
    for n, (score, best) in enumerate(zip(scores, maxima, strict=True)):
        for other, stronger in enumerate(around):
            if other != n:
                best = best & (score >= F.interpolate(stronger, size=score.shape[-2:], mode="nearest"))
        found.append(best)
    return found


def budget_threshold(
    scores: Sequence[Tensor], maxima: Sequence[Tensor], scorable: Sequence[Tensor], budget: Tensor, per_image: int = 1
) -> Tensor:
    """Score that the best maxima of an image reach, shape (N,); that of the worst where there are too few.

    Args:
        scores: score maps of the levels, (N, 1, side, side) each.
        maxima: per level, booleans.
        scorable: per level, 0 where a maximum does not count.
        budget: number of maxima of each crop, shape (N,); the crops of an image share theirs, so that textured crops
            get more of them than smooth ones.
        per_image: crops of an image, which follow each other.

    """
    candidates = torch.cat(
        [
            score.detach().masked_fill(~best | (mask == 0), -math.inf).flatten(1)
            for score, best, mask in zip(scores, maxima, scorable, strict=True)
        ],
        1,
    )
    of_image = candidates.view(len(budget) // per_image, -1)
    wanted = budget.view(-1, per_image).sum(1)
    best = of_image.topk(min(int(wanted.max()), of_image.shape[1]), dim=1).values
    count = best.isfinite().sum(1)
    last = torch.minimum(wanted, count).clamp(min=1) - 1
    return best.gather(1, last[:, None])[:, 0].nan_to_num(neginf=0.0).repeat_interleave(per_image)


def moving_threshold(
    scores: Sequence[Tensor],
    maxima: Sequence[Tensor],
    scorable: Sequence[Tensor],
    limit: Tensor,
    width: Tensor,
    per_image: int,
) -> Tensor:
    """Give the threshold its gradient: it is the score of a keypoint, and moves with it.

    Without it the gradient rewards raising all scores, which changes no keypoint and wastes a part of each step.

    Args:
        scores: score maps of the levels, (N, 1, side, side) each.
        maxima: per level, booleans.
        scorable: per level, 0 where a maximum does not count.
        limit: see :func:`budget_threshold`, shape (N,).
        width: standard deviation of the scores around the threshold whose mean gradient it gets.
        per_image: crops of an image, which share a threshold.

    Returns:
        The values of ``limit``, with a gradient.

    """
    weighted, total = torch.zeros_like(limit), torch.zeros_like(limit)
    for score, best, mask in zip(scores, maxima, scorable, strict=True):
        distance = (score.detach() - limit.view(-1, 1, 1, 1)) / width
        weight = best * mask * torch.exp(-0.5 * distance.square())
        weighted = weighted + (weight * score).flatten(1).sum(1)
        total = total + weight.flatten(1).sum(1)
    of_image = weighted.view(-1, per_image).sum(1) / total.view(-1, per_image).sum(1).clamp(min=1e-6)
    return limit + (of_image - of_image.detach()).repeat_interleave(per_image)


def keypoint_probabilities(
    scores: Sequence[Tensor], threshold: Tensor, scorable: Sequence[Tensor], radius: int
) -> list[Tensor]:
    r"""Probability that a pixel of a level becomes a keypoint.

    .. math:: p_l(x) = \frac{e^{s_l(x)}}{\sum_k \sum_{|y-x| \le r_k} e^{s_k(y)}} \cdot \sigma(s_l(x) - t)

    It wins against all pixels of all levels that would suppress it, and it is among the best of the crop.

    Args:
        scores: score maps s of the levels, (N, 1, side, side) each.
        threshold: t, shape (N,).
        scorable: weights of the pixels, 0 where they cannot be chosen.
        radius: of the suppression, in pixels of the stronger one's level.

    """
    above = [score - threshold.view(-1, 1, 1, 1) for score in scores]
    # float32 holds exp(88), and sums over windows of exp(75): three times as far above the threshold as the median is
    # below it
    powers = [a.clamp(-60, 75).exp() for a in above]
    sums = [window_sum(power, radius) for power in powers]
    found = []
    for n, (a, power, mask) in enumerate(zip(above, powers, scorable, strict=True)):
        size = a.shape[-2:]
        total = sums[n]
        for other, around in enumerate(sums):
            if other != n:
                total = total + F.interpolate(around, size=size, mode="bilinear", align_corners=False)
        found.append(power / total * torch.sigmoid(a) * mask)
    return found


def expected_repeatability(
    grid: LevelGrid,
    probabilities: Sequence[Tensor],
    others: Sequence[Tensor],
    landing: Landing,
    seen: Sequence[Tensor],
    tolerance: float,
    worth: Sequence[Tensor] | None = None,
) -> Tensor:
    """Share of the expected keypoints of one crop that the other has too, at the same position and size.

    Args:
        grid: the levels.
        probabilities: of the pixels of the levels of one crop.
        others: of the other crop.
        landing: where the pixels of the first lie in the second.
        seen: per level, weight of the pixels that the second crop can score.
        tolerance: standard deviation of the position, in pixels of the level of the other keypoint.
        worth: per level, factor of what a keypoint there counts when it is found again. Default: 1.

    Returns:
        A scalar in [0, 1], over the whole batch.

    """
    near = [spread_gaussian(spread_gaussian(p, tolerance, -1), tolerance, -2).clamp(max=1) for p in others]
    found, total = torch.zeros((), device=near[0].device), torch.zeros((), device=near[0].device)
    for n in range(grid.count):
        again = read_landing(grid, near, landing, n, (AGREE, APART)).clamp(max=1)
        weight = probabilities[n] * seen[n]
        again = again if worth is None else again * worth[n]
        found, total = found + (weight * again).sum(), total + weight.sum()
    return found / total.clamp(min=1e-6)
