"""Keypoints of pairs of crops: how likely each pixel is one, which are found again, how precisely."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.detector.extrema import Pixels, max_filter, read_own
from kornia_lift.detector.refinement import newton_step
from kornia_lift.training.warped.homographies import sample_pixels, warp_points


def local_maxima(score: Tensor, radius: int = 3) -> Tensor:
    """Where a score map (N, 1, H, W) attains the maximum of its (2 radius + 1)^2 window; boolean."""
    return score == max_filter(score, radius)


def keypoint_probability(score: Tensor, threshold: Tensor, inside: Tensor, radius: int = 4) -> Tensor:
    r"""Probability that a pixel becomes a keypoint: it wins its window, and it is among the best of the image.

    .. math:: p(x) = \frac{e^{s(x)}}{\sum_{|y-x|\le r} e^{s(y)}} \cdot \sigma(s(x) - t)

    Args:
        score: score maps s, shape (N, 1, H, W).
        threshold: t, shape (N,): the score that the budget of keypoints leaves just outside.
        inside: weight of each pixel, 0 where it cannot be chosen, shape (N, 1, H, W).
        radius: r of the soft non-maximum suppression. Two keypoints are more than r apart, so that with a tolerance
            below r / 2 none of the other image can serve both: the expected repeatability counts one-to-one.

    Returns:
        p, shape (N, 1, H, W).

    """
    # float64 holds exp of 600: a plain sum over the window, five times faster than a logsumexp of each window. Relative
    # to the threshold, since scores far below it do not matter, however high the best one is
    above = score - threshold.view(-1, 1, 1, 1)
    exponential = above.double().clamp(-60, 600).exp()
    wins = (exponential / window_sum(exponential, radius)).to(score.dtype)
    return wins * torch.sigmoid(above) * inside


def window_sum(x: Tensor, radius: int) -> Tensor:
    """Sum over square windows, first along rows, then along columns; the outside counts as 0."""
    window = 2 * radius + 1
    rows = F.avg_pool2d(x, (1, window), 1, (0, radius), divisor_override=1)
    return F.avg_pool2d(rows, (window, 1), 1, (radius, 0), divisor_override=1)


def budget_threshold(score: Tensor, inside: Tensor, num_images: int, budget: int) -> Tensor:
    """Score of the ``budget``-th best local maximum of each image, over all of its crops; shape (N,)."""
    candidates = score.detach().masked_fill(~local_maxima(score.detach()) | (inside == 0), -1e4)
    per_image = candidates.view(num_images, -1)
    best = per_image.topk(min(budget, per_image.shape[1]), dim=1).values[:, -1]
    return best.repeat_interleave(len(score) // num_images)


def expected_repeatability(
    probability: Tensor,
    other: Tensor,
    to_other: Tensor,
    visible: Tensor,
    tolerance: float = 0.7,
    worth: Tensor | None = None,
) -> Tensor:
    r"""Share of the expected keypoints of one image that are found again in the other.

    .. math:: R = \frac{\sum_x p_1(x) v(x) \sum_y k(|y - W x|) p_2(y)}{\sum_x p_1(x) v(x)}

    with k a Gaussian of height 1 that says how far a keypoint may lie from where it should be.

    Args:
        probability: p1, shape (N, 1, H, W).
        other: p2, shape (N, 1, H, W).
        to_other: positions in the other image of the pixels of this one, shape (N, H, W, 2).
        visible: v, shape (N, 1, H, W).
        tolerance: standard deviation of k in pixels.
        worth: factor of what a keypoint there counts when it is found again, shape (N, 1, H, W). Default: 1.

    Returns:
        R over the whole batch, a scalar in [0, 1].

    """
    found = spread_gaussian(spread_gaussian(other, tolerance, -1), tolerance, -2).clamp(max=1)
    again = sample_pixels(found, to_other)
    again = again if worth is None else again * worth
    weight = probability * visible
    return (weight * again).sum() / weight.sum().clamp(min=1e-6)


def spread_gaussian(x: Tensor, tolerance: float, dim: int) -> Tensor:
    """Correlate with a Gaussian of height 1 along one dimension; the outside counts as 0."""
    reach = math.ceil(3 * tolerance)
    padded = F.pad(x, (reach, reach) if dim == -1 else (0, 0, reach, reach))
    # a sum of few shifted copies: the backward pass of a convolution with one channel is five times slower
    out = x
    for shift in range(1, reach + 1):
        weight = math.exp(-0.5 * (shift / tolerance) ** 2)
        before = padded.narrow(dim, reach - shift, x.shape[dim])
        after = padded.narrow(dim, reach + shift, x.shape[dim])
        out = out + weight * (before + after)
    return out


def chosen_maxima(score: Tensor, mask: Tensor, limit: Tensor) -> Pixels:
    """Return the local maxima of score maps (N, 1, H, W) within ``mask`` that reach ``limit``, shape (N,)."""
    chosen = local_maxima(score) & (mask > 0) & (score >= limit.view(-1, 1, 1, 1))
    at = Pixels(*chosen[:, 0, 1:-1, 1:-1].nonzero(as_tuple=True))
    return Pixels(at.image, at.row + 1, at.col + 1)


def mutual_nearest(one: Tensor, two: Tensor, to_second: Tensor) -> tuple[Tensor, Tensor]:
    """Pair positions of two crops that are each other's nearest, in pixels of the second crop.

    Args:
        one: positions in the first crop, shape (N, 2), N > 0.
        two: those in the second, shape (M, 2), M > 0.
        to_second: homography, shape (3, 3).

    Returns:
        The first positions, moved, and the second ones, both of shape (K, 2), differentiable.

    """
    moved = warp_points(to_second, one)
    with torch.no_grad():
        apart = torch.cdist(moved, two)
        nearest = apart.argmin(1)
        mutual = apart.argmin(0)[nearest] == torch.arange(len(one), device=nearest.device)
    return moved[mutual], two[nearest[mutual]]


@torch.no_grad()
def repeated_maxima(
    scores: tuple[Tensor, Tensor], common: list[Tensor], to_second: Tensor, num_images: int, budget: int
) -> dict[str, float]:
    """Share of the chosen maxima that are found again, one-to-one and at sub-pixel positions.

    Args:
        scores: score maps of both crops, each of shape (N, 1, H, W).
        common: where a maximum may be chosen, each of shape (N, 1, H, W).
        to_second: map from the pixels of the first crops to those of the second, shape (N, 3, 3).
        num_images: images of the batch.
        budget: maxima chosen per image.

    Returns:
        ``repeated_1px``: mutual nearest neighbours within 1 px, as a share of the chosen maxima of the crop that has
        fewer; ``error_px``: mean distance of those within 3 px.

    """
    sides = []
    for score, mask in zip(scores, common, strict=True):
        at = chosen_maxima(score, mask, budget_threshold(score, mask, num_images, budget))
        step, _ = newton_step(read_own(score[:, 0], at))
        xy = torch.stack([at.col, at.row], 1) + step[:, :2].nan_to_num().clamp(-1, 1)
        sides.append((at.image, xy))
    near, fewest, distances = 0, 0, []
    for n in range(len(to_second)):
        one, two = (xy[image == n] for image, xy in sides)
        fewest += min(len(one), len(two))
        if not len(one) or not len(two):
            continue
        moved, found_again = mutual_nearest(one, two, to_second[n])
        found = (moved - found_again).norm(dim=1)
        near += int((found < 1).sum())
        distances.append(found[found < 3])
    every = torch.cat(distances) if distances else to_second.new_zeros(0)
    return {"repeated_1px": near / max(fewest, 1), "error_px": float(every.mean()) if len(every) else 3.0}
