"""Support of training patches, and regions without any keypoint: the fourth patch of a quadruplet (paper Sec. 3.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kornia_lift.geometry import DESCRIPTOR_HALF_SUPPORT, DETECTOR_HALF_SUPPORT
from kornia_lift.training.data.prepare.sift import Keypoints

#: Half side, in sigma, of what a detector patch may need at any rotation.
ROTATED_SUPPORT = DETECTOR_HALF_SUPPORT * 2**0.5
PERTURBATION = 0.2  # of the half side of P, uniform in x and y: 20 % of 24 sigma in all (paper Sec. 3.2)
#: Half side, in sigma, of what a training patch may need: rotated by any angle, and moved by the perturbation.
SUPPORT = ROTATED_SUPPORT * (1 + PERTURBATION)
MAX_OVERLAP = 0.1
COMPARED_AT_ONCE = 2**20  # candidates times keypoints; bounds the memory, some 60 MiB


def free_regions(
    size: tuple[int, int],
    keypoints: Keypoints,
    scales: NDArray[np.floating],
    count: int,
    rng: np.random.Generator,
    draws_per_region: int = 20,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw regions that no SIFT keypoint lies in, whether the reconstruction kept it or not.

    A region is free if no keypoint's centre lies in its descriptor support (+-6 sigma) and no keypoint's own support
    overlaps it, nor an accepted region, by more than 0.1 (intersection over union).

    Args:
        size: width and height of the image.
        keypoints: all of its SIFT keypoints.
        scales: scales of the positives; those of the regions are drawn from them.
        count: regions wanted; fewer are returned where the image is full of keypoints.
        rng: source of the draws.
        draws_per_region: candidates tried for each region wanted.

    Returns:
        Centres (N, 2) and scales (N,), whose whole rotated support lies in the image.

    """
    if not len(scales) or not count:
        return np.zeros((0, 2)), np.zeros(0)
    sigma = rng.choice(scales, count * draws_per_region).astype(np.float64)
    reach = (ROTATED_SUPPORT * sigma)[:, None]
    room = np.array(size) - 1 - 2 * reach
    xy = reach + rng.random((len(sigma), 2)) * room
    fits = (room > 0).all(axis=1)
    xy, sigma = xy[fits], sigma[fits]
    rows_at_once = max(1, COMPARED_AT_ONCE // max(1, len(keypoints)))
    clear = [
        row + _clear_of(xy[row : row + rows_at_once], sigma[row : row + rows_at_once], keypoints)
        for row in range(0, len(xy), rows_at_once)
    ]
    chosen = np.concatenate([np.zeros(0, dtype=np.int64), *clear])
    xy, sigma = xy[chosen], sigma[chosen]
    kept: list[int] = []
    for row in range(len(xy)):
        if len(kept) == count:
            break
        if (square_overlap(xy[row : row + 1], sigma[row : row + 1], xy[kept], sigma[kept]) <= MAX_OVERLAP).all():
            kept.append(row)
    return xy[kept], sigma[kept]


def _clear_of(xy: NDArray[np.float64], sigma: NDArray[np.float64], keypoints: Keypoints) -> NDArray[np.int64]:
    """Return the indices of the candidates in which no keypoint lies, and that none's support overlaps."""
    reach = DESCRIPTOR_HALF_SUPPORT * sigma[:, None]
    inside = (np.abs(xy[:, :1] - keypoints.xy[:, 0]) <= reach) & (np.abs(xy[:, 1:] - keypoints.xy[:, 1]) <= reach)
    clear = np.flatnonzero(~inside.any(axis=1))
    overlap = square_overlap(xy[clear], sigma[clear], keypoints.xy, keypoints.sigma)
    return clear[(overlap <= MAX_OVERLAP).all(axis=1)]


def square_overlap(
    xy_1: NDArray[np.float64], sigma_1: NDArray[np.float64], xy_2: NDArray[np.float64], sigma_2: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Intersection over union of upright squares of half side 6 sigma, all against all, shape (N, M)."""
    one, two = DESCRIPTOR_HALF_SUPPORT * sigma_1[:, None], DESCRIPTOR_HALF_SUPPORT * sigma_2[None]
    smaller = 2 * np.minimum(one, two)
    # axis by axis: a reduction over an axis of two numbers takes several times as long
    width, height = (np.clip(one + two - np.abs(xy_1[:, None, k] - xy_2[:, k]), 0, smaller) for k in (0, 1))
    intersection = width * height
    return intersection / (4 * one**2 + 4 * two**2 - intersection)
