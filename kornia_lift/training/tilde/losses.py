r"""TILDE's loss (Verdie et al., CVPR 2015, Sec. 4): classification, shape of the response, constancy over time.

The paper learns its filters greedily in a basis of principal components; here they are learned by gradient descent. The
constants of the terms are not published with the code, so that they are options.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def classification_loss(score: Tensor, positive: Tensor) -> Tensor:
    r"""Squared hinge, mean over the samples of :math:`\max(0, 1 - y F(x))^2`; both classes have half of the weight.

    Args:
        score: F at the centres, shape (N,).
        positive: whether y is 1 instead of -1, booleans of shape (N,).

    """
    hinge = F.relu(1 - torch.where(positive, score, -score)).square()
    return (
        sum((hinge[chosen].mean() for chosen in (positive, ~positive) if bool(chosen.any())), score.new_zeros(())) / 2
    )


def peak(size: int, sharpness: float, reach: float, like: Tensor) -> Tensor:
    r"""Return the shape that the response should have around a keypoint.

    .. math:: h(x, y) = e^{\alpha (1 - \sqrt{x^2 + y^2} / \beta)} - 1

    over its value at the centre, so that it is 1 there, 0 at the distance beta, and negative beyond.

    Args:
        size: side of the map, odd.
        sharpness: alpha.
        reach: beta, pixels.
        like: gives dtype and device.

    Returns:
        Shape (size, size).

    """
    at = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
    distance = (at[:, None].square() + at.square()).sqrt()
    return ((sharpness * (1 - distance / reach)).exp() - 1) / (math.exp(sharpness) - 1)


def shape_loss(score: Tensor, sharpness: float, reach: float) -> Tensor:
    r"""Mean squared distance of score maps of keypoints from the peak of their own height.

    .. math:: \frac{1}{n^2} \sum_{x, y} (F(x, y) - F(0, 0) h(x, y))^2

    Args:
        score: maps around positives, odd size n, shape (N, n, n).
        sharpness: see :func:`peak`.
        reach: see :func:`peak`.

    Returns:
        A scalar; 0 without maps.

    """
    if not len(score):
        return score.new_zeros(())
    middle = score.shape[-1] // 2
    height = score[:, middle, middle, None, None]
    return (score - height * peak(score.shape[-1], sharpness, reach, score)).square().mean()


def temporal_loss(score: Tensor, location: Tensor) -> Tensor:
    """Mean variance of the score of a location over the images of its stack.

    Args:
        score: shape (N,).
        location: number of the location of each sample, shape (N,).

    Returns:
        A scalar: half of the mean squared difference of two images of one location; 0 where no location has two.

    """
    _, index, count = torch.unique(location, return_inverse=True, return_counts=True)
    total = torch.zeros(len(count), dtype=score.dtype, device=score.device).index_add(0, index, score)
    offset = (score - (total / count)[index]).square()
    several = (count > 1)[index]
    return offset[several].mean() if bool(several.any()) else score.new_zeros(())
