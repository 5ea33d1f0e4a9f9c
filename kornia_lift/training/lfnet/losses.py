"""LF-Net's losses between the maps and the descriptors of two views (Ono et al., NeurIPS 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.detector.soft_nms import strict_maxima

TARGET_WINDOW, TARGET_SIGMA = 15, 0.5
MAX_SCALE = math.sqrt(2.0)
LARGEST_POOL = 64  # of hard negatives


def target_map(score: Tensor, count: int = 512) -> Tensor:
    """Paint the score that a view should have: a sharp Gaussian at every keypoint of the other view.

    Args:
        score: score of the other view, warped, 0 where it is not visible; shape (B, H, W).
        count: keypoints of an image at most, those of highest score.

    Returns:
        Targets in [0, 1] without gradient, shape (B, H, W).

    """
    value = torch.where(strict_maxima(score), score.detach(), 0).flatten(1)
    best = value.topk(min(count, value.shape[1]), dim=1)
    impulses = torch.zeros_like(value).scatter(1, best.indices, (best.values > 0).to(value.dtype))
    at = torch.arange(TARGET_WINDOW, dtype=score.dtype, device=score.device) - TARGET_WINDOW // 2
    bell = torch.exp(-at.square() / (2 * TARGET_SIGMA**2))
    kernel = (bell[:, None] * bell)[None, None]  # its maximum is 1, not its sum
    painted = F.conv2d(impulses.unflatten(1, score.shape[1:])[:, None], kernel, padding=TARGET_WINDOW // 2)
    return painted[:, 0].clamp(max=1)


def masked_mean(values: Tensor, visible: Tensor) -> Tensor:
    """Mean over the visible pixels of each image, then over images; an image without any contributes 0.

    Args:
        values: shape (B, ...).
        visible: booleans of the same shape.

    """
    total = torch.where(visible, values, 0).flatten(1).sum(1)
    return (total / visible.flatten(1).sum(1).clamp(min=1)).mean()


def score_loss(score: Tensor, target: Tensor, visible: Tensor) -> Tensor:
    """Mean squared distance of a score from its target over visible pixels, all (B, H, W)."""
    return masked_mean((score - target).square(), visible)


def inplane_rotation(rotation: Tensor) -> Tensor:
    """Rotation about the optical axis: z of the rotation vectors of R (B, 3, 3), radians, shape (B,)."""
    cosine = ((rotation.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)
    angle = torch.acos(cosine)
    z = (rotation[:, 1, 0] - rotation[:, 0, 1]) / 2
    return torch.where(angle > 1e-6, z * angle / angle.sin().clamp(min=1e-12), z)


def orientation_loss(mine: Tensor, other: Tensor, rotation: Tensor, visible: Tensor) -> Tensor:
    """Squared distance of orientations from what the other view and the in-plane rotation predict.

    Gradients reach both views.

    Args:
        mine: unit vectors (cosine, sine) of this view, shape (B, 2, H, W).
        other: those of the other view, fetched where the pixels lie, shape (B, 2, H, W).
        rotation: in-plane rotation from the other view to this one, radians, of the whole view (B,) or of every pixel
            (B, H, W).
        visible: shape (B, H, W).

    """
    angle = rotation[:, None, None] if rotation.dim() == 1 else rotation
    cosine, sine = angle.cos(), angle.sin()
    x, y = other.unbind(1)
    expected = torch.stack([x * cosine - y * sine, x * sine + y * cosine], 1)
    return masked_mean((mine - expected).square().sum(1), visible)


def scale_loss(scale: Tensor, expected: Tensor, visible: Tensor) -> Tensor:
    """Squared distance of logarithms of scales over visible pixels, all (B, H, W)."""
    return masked_mean((scale.log() - expected.clamp(min=1e-6).log()).square(), visible)


def pool_size(iteration: int, start: int = LARGEST_POOL, rate: float = 0.81, least: int = 5) -> int:
    """Size of the pool of hard negatives, of which one is drawn: it shrinks by ``rate`` per 1000 iterations.

    The authors' code has a rate of 0.9 and counts each iteration twice, once for each of its two optimisers.
    """
    return max(least, int(start * rate ** (iteration / 1000)))


def draw_negatives(
    first: Tensor,
    second: Tensor,
    positions: Tensor,
    pool: int | Tensor,
    share: Tensor,
    apart: float = 32.0,
    image: Tensor | None = None,
) -> Tensor:
    """Draw for every anchor one of the nearest descriptors that belong to other locations of its image.

    Args:
        first: descriptors of anchors, shape (N, D).
        second: those of their positives in the other view, shape (N, D).
        positions: of the positives, pixels, shape (N, 2).
        pool: number of nearest descriptors of which one is drawn, at most 64, of all anchors or of each (N,).
        share: the draws, uniform in [0, 1), shape (N,).
        apart: positives at most this many pixels from one's own are not negatives.
        image: image of each anchor, shape (N,), where there are several.

    Returns:
        Indices into ``second``, shape (N,). Where all others are too near, it is the anchor's own positive, whose
        triplet loss is the margin and has no gradient.

    """
    excluded = too_near(positions, apart, image)
    nearest = hardest(first, second, excluded, LARGEST_POOL)
    rank = torch.arange(nearest.shape[1], device=nearest.device)
    # those that are excluded come last; a pool that is larger than what is left must not reach them
    within = rank < (pool[:, None] if isinstance(pool, Tensor) else pool)
    left = (within & ~excluded.gather(1, nearest)).sum(1)
    drawn = (share * left).long().clamp(max=nearest.shape[1] - 1)
    own = torch.arange(len(nearest), device=nearest.device)
    return torch.where(left > 0, nearest.gather(1, drawn[:, None])[:, 0], own)


def too_near(positions: Tensor, apart: float, image: Tensor | None = None) -> Tensor:
    """Say which of N positions (N, 2) are at most ``apart`` from which, or in another image; booleans (N, N)."""
    near = torch.cdist(positions, positions) <= apart
    return near if image is None else near | (image[:, None] != image)


def hardest(first: Tensor, second: Tensor, excluded: Tensor, pool: int) -> Tensor:
    """Return the indices (N, pool) of the nearest descriptors, the ``excluded`` (N, N) after all others."""
    distance = torch.cdist(first.detach(), second.detach()).square()
    distance = distance + 1e5 * excluded
    return distance.topk(min(pool, len(second)), dim=1, largest=False).indices


def mean_over_images(values: Tensor, visible: Tensor, image: Tensor, count: int) -> Tensor:
    """Mean over the visible anchors of each image, then over the images with at least two anchors.

    The authors' code averages over all anchors, and lets the invisible ones push their negatives away.

    Args:
        values: of the anchors, shape (N,).
        visible: booleans (N,).
        image: image of each anchor, shape (N,).
        count: number of images.

    """
    each = torch.stack([torch.where(visible, values, 0), visible.to(values.dtype), torch.ones_like(values)], 1)
    total, seen, anchors = values.new_zeros(count, 3).index_add(0, image, each).unbind(1)
    used = anchors >= 2
    return torch.where(used, total / seen.clamp(min=1), 0).sum() / used.sum().clamp(min=1)


def triplet_hinge(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0) -> Tensor:
    """Hinge on squared distances, :math:`max(0, C + d_+ - d_-)`, of every anchor; descriptors (N, D) -> (N,)."""
    near, far = ((anchor - other).square().sum(1) for other in (positive, negative))
    return F.relu(margin + near - far)


def pair_loss(anchor: Tensor, positive: Tensor, visible: Tensor) -> Tensor:
    """Squared distance of descriptors to their positives, 0 for invisible anchors, averaged over all of them."""
    return torch.where(visible, (anchor - positive).square().sum(1), 0).mean()


def through_inputs(loss: Tensor, leaves: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """Return a loss whose gradient reaches the inputs of a network, not its weights, without a second forward pass.

    Args:
        loss: computed by the network from ``leaves``; its graph is kept.
        leaves: detached copies of the inputs, with gradients of their own.
        inputs: the same values, with the graph that made them.

    Returns:
        The value of ``loss``.

    """
    gradients = torch.autograd.grad(loss, leaves, retain_graph=True)
    linear = torch.stack([(g * x).sum() for g, x in zip(gradients, inputs, strict=True)]).sum()
    return loss.detach() + (linear - linear.detach())
