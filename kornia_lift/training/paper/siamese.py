"""One branch of the Siamese training network: score map, soft location, crop, angle, rotated crop, descriptor.

It is made of the run-time networks (paper Fig. 2); nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from kornia_lift.evaluation.measures.precision import average_precision
from kornia_lift.geometry import (
    CROP_RATIO,
    DESCRIPTOR_HALF_SUPPORT,
    DESCRIPTOR_SIZE,
    DETECTOR_SIZE,
    LAF_SCALE_PER_SIGMA,
    crop_rotate,
    patch_score,
    rotation_matrix,
    softargmax,
)
from kornia_lift.networks.response import LIFTResponse


def score_map(response: LIFTResponse, patch: Tensor) -> Tensor:
    """Score the pixels of patches P.

    Args:
        response: the detector network.
        patch: shape (B, 1, 128, 128), or what the detector sees of it, (B, 1, 48, 48); values in [0, 1].

    Returns:
        Score maps, shape (B, 1, 24, 24).

    """
    if patch.shape[-1] == DETECTOR_SIZE:
        return response.valid(patch)
    centre = torch.zeros(len(patch), 2, device=patch.device, dtype=patch.dtype)
    upright = centre[:, 0]
    return response.valid(crop_rotate(patch, centre, upright, size=DETECTOR_SIZE, ratio=1.0))


def locate(response: LIFTResponse, patch: Tensor, beta: float = 10.0) -> tuple[Tensor, Tensor]:
    """Find the one feature point of each patch P, differentiably.

    Args:
        response: the detector network.
        patch: as in :func:`score_map`.
        beta: sharpness of the soft maximum.

    Returns:
        Position in patch units, shape (B, 2), and soft maximum of the score, shape (B,).

    """
    score = score_map(response, patch)
    return softargmax(score, beta), patch_score(score)


def orient(orientation: nn.Module, patch: Tensor, xy: Tensor) -> Tensor:
    """Angle of the feature at ``xy``: Crop, then the orientation network.

    Args:
        orientation: takes (B, 1, 64, 64), gives radians in kornia's sense, (B,).
        patch: shape (B, 1, 128, 128).
        xy: position in patch units, shape (B, 2).

    Returns:
        Angle in LIFT's sense (clockwise), shape (B,).

    """
    return -orientation(crop_rotate(patch, xy, torch.zeros_like(xy[:, 0])))


def describe(descriptor: Callable[[Tensor], Tensor], patch: Tensor, xy: Tensor, theta: Tensor) -> Tensor:
    """Descriptor of the feature at ``xy``: Rot, then the descriptor network.

    Args:
        descriptor: any patch descriptor; its ``patch_size`` attribute, 64 where absent, is the size it is given, over
            the same 12 sigma.
        patch: shape (B, 1, 128, 128).
        xy: position in patch units, shape (B, 2).
        theta: angle in LIFT's sense, shape (B,).

    Returns:
        Descriptors, shape (B, D).

    """
    size = getattr(descriptor, "patch_size", DESCRIPTOR_SIZE)
    # kornia's pixel cells tile the LAF; for 64 pixels the first pixel centre is where LIFT has it
    cells = LAF_SCALE_PER_SIGMA / DESCRIPTOR_HALF_SUPPORT * (size - 1) / size
    return descriptor(crop_rotate(patch, xy, theta, size=size, ratio=CROP_RATIO * cells))


def freeze(modules: Iterable[nn.Module]) -> None:
    """Switch networks to eval mode and record no gradient of their weights; gradients still pass through them."""
    for module in modules:
        module.eval().requires_grad_(False)


def rotate_offsets(offset: Tensor, angle: Tensor) -> Tensor:
    """Rotate offsets (B, 2) clockwise on screen by ``angle`` (B,), radians."""
    return (rotation_matrix(angle) @ offset[:, :, None])[:, :, 0]


def nearest_is_correct(first: Tensor, second: Tensor) -> Tensor:
    """Whether the nearest neighbour of each row of ``first`` among the rows of ``second`` is its own, (B,)."""
    return torch.cdist(first.float(), second.float()).argmin(dim=1) == torch.arange(len(first), device=first.device)


def precision_area(distance: Tensor, positive: Tensor) -> float:
    """Area under the precision-recall curve when pairs are accepted by increasing distance.

    Args:
        distance: shape (N,).
        positive: whether the pair is a true one, shape (N,).

    """
    return average_precision(distance.double().cpu().numpy(), positive.cpu().numpy(), int(positive.sum()))


def matching_precision(first: Tensor, second: Tensor) -> float:
    """PR-AUC of one true pair per row against all other rows as false pairs, as the authors' code validates."""
    distance = torch.cdist(first.float(), second.float())
    return precision_area(distance.flatten(), torch.eye(len(first), device=first.device).bool().flatten())
