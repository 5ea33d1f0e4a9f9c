"""Labels and losses of the correspondence network (Yi et al., CVPR 2018, Sec. 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from kornia.geometry.epipolar import symmetrical_epipolar_distance
from torch import Tensor

LABEL_THRESHOLD = 1e-4  # squared, normalised coordinates: 0.01 of the focal length


def epipolar_labels(matches: Tensor, essential: Tensor, threshold: float = LABEL_THRESHOLD) -> Tensor:
    """Label matches by their squared symmetric epipolar distance from the true essential matrix.

    The labels are noisy by design: a match near its epipolar line is positive, whatever its depth.

    Args:
        matches: normalised coordinates, shape (B, N, 4).
        essential: true essential matrices of any scale, shape (B, 3, 3).
        threshold: matches below it are positive.

    Returns:
        Booleans of shape (B, N).

    """
    distance: Tensor = symmetrical_epipolar_distance(matches[..., :2], matches[..., 2:], essential)
    return distance < threshold


def classification_loss(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Balanced cross-entropy: positives and negatives of a pair have half of its loss each.

    .. math:: \frac{1}{2 |P|} \sum_{i \in P} \log(1 + e^{-l_i}) + \frac{1}{2 |N|} \sum_{i \in N} \log(1 + e^{l_i})

    A class without matches contributes 0.

    Args:
        logits: l, shape (B, N).
        labels: True for inliers, shape (B, N).
        mask: False for padding, shape (B, N).

    Returns:
        One loss per pair, shape (B,).

    """
    kept = torch.ones_like(labels) if mask is None else mask

    def mean(terms: Tensor, chosen: Tensor) -> Tensor:
        return torch.where(chosen, terms, 0).sum(1) / chosen.sum(1).clamp(min=1)

    return (mean(F.softplus(-logits), labels & kept) + mean(F.softplus(logits), ~labels & kept)) / 2


def essential_loss(estimated: Tensor, true: Tensor) -> Tensor:
    r"""Squared distance of unit essential matrices up to their sign, :math:`\min(\|e - e^*\|^2, \|e + e^*\|^2)`.

    Args:
        estimated: shape (B, 3, 3), of unit norm.
        true: likewise.

    Returns:
        One loss per pair in [0, 2], shape (B,).

    """
    e, t = estimated.flatten(1), true.flatten(1)
    return torch.minimum((e - t).square().sum(1), (e + t).square().sum(1))
