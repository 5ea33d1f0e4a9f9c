"""The losses of the LIFT paper, one free function per equation. All return one value per sample, shape (B,)."""

from __future__ import annotations

import torch
from torch import Tensor

#: Weights of P1..P4 in the classification loss: positives and negatives in balance (paper Eq. 9).
CLASS_WEIGHTS = (1 / 6, 1 / 6, 1 / 6, 3 / 6)
#: Signs of P1..P4: the first three show feature points, the last one does not.
CLASS_SIGNS = (1.0, 1.0, 1.0, -1.0)


def euclidean_distance(a: Tensor, b: Tensor, eps: float = 1e-12) -> Tensor:
    r"""Row-wise Euclidean distance with a finite gradient where the rows are equal.

    .. math:: \sqrt{\sum_k (a_k - b_k)^2 + \epsilon}

    Args:
        a: shape (B, D).
        b: shape (B, D).
        eps: added under the root.

    Raises:
        ValueError: if the shapes differ; a silent broadcast would train on wrong pairs.

    """
    if a.shape != b.shape or a.dim() != 2:
        raise ValueError(f"expected two tensors of one shape (B, D), got {tuple(a.shape)} and {tuple(b.shape)}")
    return ((a - b).square().sum(dim=1) + eps).sqrt()


def descriptor_loss(desc_1: Tensor, desc_2: Tensor, positive: Tensor, margin: float = 4.0) -> Tensor:
    r"""Hinge embedding loss of pairs of descriptors (paper Eq. 2).

    .. math::
        L = \begin{cases} \|d_1 - d_2\|_2 & \text{positive pairs} \\
        \max(0, C - \|d_1 - d_2\|_2) & \text{negative pairs} \end{cases}

    Args:
        desc_1: descriptors that are *not* normalised (the margin refers to the paper's norms of about 40), (B, D).
        desc_2: the same of the other patch, (B, D).
        positive: whether the two show one 3-D point, bool, shape (B,).
        margin: the paper's C = 4.

    Returns:
        Loss per pair, shape (B,).

    """
    distance = euclidean_distance(desc_1, desc_2)
    return torch.where(positive, distance, (margin - distance).clamp_min(0))


def orientation_loss(desc_1: Tensor, desc_2: Tensor) -> Tensor:
    r"""Distance of the descriptors of corresponding patches after orientation correction (paper Eq. 4).

    .. math:: L = \|h(G(P^1, x^1)) - h(G(P^2, x^2))\|_2, \quad G(P, x) = \text{Rot}(P, x, g(\text{Crop}(P, x)))

    Args:
        desc_1: descriptors of the patches G(P1, x1), shape (B, D).
        desc_2: descriptors of the patches G(P2, x2), shape (B, D).

    Returns:
        Loss per pair, shape (B,).

    """
    return euclidean_distance(desc_1, desc_2)


def classification_loss(scores: Tensor) -> Tensor:
    r"""Squared hinge on the soft maxima of the four score maps (paper Eq. 9).

    .. math:: L_\text{class} = \sum_{i=1}^{4} \alpha_i \max(0, 1 - y_i\, \operatorname{softmax}(f(P^i)))^2

    with :math:`y = (1, 1, 1, -1)`, :math:`\alpha = (1, 1, 1, 3)/6` and the log-mean-exponential soft maximum of
    :func:`kornia_lift.geometry.patch_score`.

    Args:
        scores: soft maxima of P1..P4, shape (B, 4).

    Returns:
        Loss per quadruplet, shape (B,).

    """
    if scores.dim() != 2 or scores.shape[1] != len(CLASS_SIGNS):
        raise ValueError(f"expected the scores of P1..P4, shape (B, 4), got {tuple(scores.shape)}")
    signs, weights = scores.new_tensor(CLASS_SIGNS), scores.new_tensor(CLASS_WEIGHTS)
    return ((1 - signs * scores).clamp_min(0).square() * weights).sum(dim=1)


def pair_loss(desc_1: Tensor, desc_2: Tensor) -> Tensor:
    r"""Distance of the descriptors at the positions that the detector finds (paper Eq. 10).

    .. math::
        L_\text{pair} = \|h(G(P^1, \operatorname{softargmax} f(P^1))) - h(G(P^2, \operatorname{softargmax} f(P^2)))\|_2

    Args:
        desc_1: descriptors of P1 at the detected position, shape (B, D).
        desc_2: descriptors of P2 at the detected position, shape (B, D).

    Returns:
        Loss per quadruplet, shape (B,).

    """
    return euclidean_distance(desc_1, desc_2)


def overlap_loss(offset_1: Tensor, offset_2: Tensor, half_size: float = 0.5) -> Tensor:
    r"""Error of the overlap of the proposals of two views of a point (paper Eq. 11, as the authors' code computes it).

    .. math:: L = 1 - \frac{I}{U} + \frac{\max(0, |\Delta x| - 2r) + \max(0, |\Delta y| - 2r)}{\sqrt U}

    for two support regions, squares of half side r, with I and U the areas of their intersection and union. 0 when
    they are equal; the second term has a gradient where they are apart. The paper's text has the l1 norm of the
    distance in the gap; the authors' code has the gap per axis, which is what is computed here.

    Args:
        offset_1: detected position minus true position in P1, in patch units (-1..1 spans 24 sigma), shape (B, 2).
        offset_2: the same in P2. Rotate the offsets into one frame first if the patches are rotated.
        half_size: r, half side of the proposal in patch units, 64/128.

    Returns:
        Loss per pair, shape (B,).

    """
    if offset_1.shape != offset_2.shape or offset_1.shape[-1] != 2:
        raise ValueError(f"expected two offsets (B, 2), got {tuple(offset_1.shape)} and {tuple(offset_2.shape)}")
    distance = (offset_1 - offset_2).abs()
    side = 2 * half_size
    intersection = (side - distance).clamp_min(0).prod(dim=1)
    union = 2 * side**2 - intersection
    gap = (distance - side).clamp_min(0).sum(dim=1)
    return 1 - intersection / union + gap / union.sqrt()


def detector_loss(scores: Tensor, pair: Tensor, gamma: float) -> Tensor:
    r"""Total loss of the detector (paper Eq. 8).

    .. math:: L_\text{detector} = \gamma L_\text{class} + L_\text{pair}

    Args:
        scores: soft maxima of P1..P4, shape (B, 4).
        pair: :func:`pair_loss`, or :func:`overlap_loss` in pre-training, shape (B,).
        gamma: weight of the classification. The paper gives no value; the authors' TensorFlow code has 1e-8.

    Returns:
        Loss per quadruplet, shape (B,).

    """
    return gamma * classification_loss(scores) + pair
