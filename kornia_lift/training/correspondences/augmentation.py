r"""Variation of matched pairs: other cameras, other shares of outliers.

Convention:
    A camera that is rotated, mirrored or has another focal length sees the point p = (x, y, 1) of the first image at
    :math:`A_1 p`. With :math:`p_2^T E p_1 = 0` the matrix of the new coordinates is :math:`A_2^{-T} E A_1^{-1}`, which
    stays one of rank 2, and an essential matrix unless focal lengths change apart from each other.
"""

from __future__ import annotations

import math

import torch
from kornia.geometry.conversions import axis_angle_to_rotation_matrix
from torch import Generator, Tensor

from kornia_lift.training.correspondences.config import AugmentationConfig
from kornia_lift.training.correspondences.losses import LABEL_THRESHOLD, epipolar_labels

FEWEST = 0.05  # share that is left at least where inliers or outliers are thinned out
KEPT_MATCHES = 16  # sets are not thinned out below this
IN_FRONT = 0.2  # points whose depth over their distance gets smaller do not stay in the image of a rotated camera


def move_cameras(
    matches: Tensor, essential: Tensor, generator: Generator, config: AugmentationConfig
) -> tuple[Tensor, Tensor]:
    """Rotate, mirror and zoom both cameras at random.

    Args:
        matches: normalised coordinates, shape (N, 4).
        essential: true essential matrix, shape (3, 3).
        generator: the only source of randomness.
        config: how much.

    Returns:
        The matches in the new coordinates, shape (N, 4), and their matrix of unit norm, shape (3, 3). Where a point
        would leave the field of view of a rotated camera, the cameras are not rotated.

    """
    normal = torch.randn(8, generator=generator)
    chance = torch.rand(4, generator=generator)
    any_roll = bool(chance[0] < config.any_roll)
    mirror = -1.0 if bool(chance[1] < config.mirror) else 1.0
    both = math.exp(config.focal * float(normal[0]))
    apart = math.exp(config.focal_apart * float(normal[1]) / 2)
    rotations, zooms = [], []
    for side in range(2):
        roll = 360 * float(chance[2 + side]) if any_roll else config.roll * float(normal[2 + side])
        tilt = config.tilt * normal[4 + 2 * side : 6 + 2 * side]
        about_axis, across = torch.zeros(2, 1, 3)
        about_axis[0, 2] = math.radians(roll)
        across[0, :2] = torch.deg2rad(tilt)
        rotations.append((axis_angle_to_rotation_matrix(about_axis) @ axis_angle_to_rotation_matrix(across))[0])
        zoom = both * (apart if side else 1 / apart)
        zooms.append(torch.tensor([mirror * zoom, zoom, 1.0]).diag())
    sides = matches.split(2, 1)
    maps = [z @ r for z, r in zip(zooms, rotations, strict=True)]
    moved = [_apply(m, p) for m, p in zip(maps, sides, strict=True)]
    if any(bool((m[:, 2] < IN_FRONT * m.norm(dim=1)).any()) for m in moved):
        maps, moved = zooms, [_apply(z, p) for z, p in zip(zooms, sides, strict=True)]
    first, second = (torch.linalg.inv(m) for m in maps)
    e = second.mT @ essential @ first
    return torch.cat([m[:, :2] / m[:, 2:] for m in moved], 1), e / e.norm()


def _apply(matrix: Tensor, points: Tensor) -> Tensor:
    """Map points (N, 2) by a homography to homogeneous coordinates (N, 3)."""
    return torch.cat([points, torch.ones_like(points[:, :1])], 1) @ matrix.mT


def choose_matches(
    matches: Tensor, side: Tensor, essential: Tensor, generator: Generator, config: AugmentationConfig
) -> Tensor:
    """Choose the matches to draw from: all, the mutual ones, fewer inliers or fewer outliers.

    Args:
        matches: normalised coordinates, shape (N, 4).
        side: their columns, the second one is 1 for mutual matches, shape (N, 2).
        essential: true essential matrix, shape (3, 3).
        generator: the only source of randomness.
        config: how often.

    Returns:
        Indices, at least 16 unless there are fewer matches.

    """
    chance, part = torch.rand(3, generator=generator), torch.rand(2, generator=generator)
    kept = torch.ones(len(matches), dtype=torch.bool)
    if bool(chance[0] < config.mutual_only):
        kept &= side[:, 1] > 0
    inlier = epipolar_labels(matches[None], essential[None], LABEL_THRESHOLD)[0]
    luck = torch.rand(len(matches), generator=generator)
    for which, often, share, group in (
        (1, config.fewer_inliers, part[0], inlier),
        (2, config.fewer_outliers, part[1], ~inlier),
    ):
        if bool(chance[which] < often):
            kept &= ~group | (luck < FEWEST + (1 - FEWEST) * share)
    if int(kept.sum()) < KEPT_MATCHES:
        kept = torch.ones_like(kept)
    return kept.nonzero()[:, 0]
