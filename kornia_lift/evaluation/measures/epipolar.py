"""Distance of matches from their epipolar lines: the ground truth of scenes with cameras but without depth."""

from __future__ import annotations

import numpy as np

from kornia_lift.scenes.scene import FloatArray, HasPose

#: Distance from the epipolar lines up to which a match agrees with the cameras, pixels.
EPIPOLAR_THRESHOLD = 2.0


def fundamental_matrix(intrinsics: tuple[FloatArray, FloatArray], pose: tuple[FloatArray, FloatArray]) -> FloatArray:
    """F (3, 3) with x_B^T F x_A = 0 (Hartley and Zisserman, 2004, eq. 9.13).

    Args:
        intrinsics: K of A and of B, each (3, 3).
        pose: R (3, 3) and t (3,) with X_B = R X_A + t.
    """
    rotation, (x, y, z) = pose
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.linalg.inv(intrinsics[1]).T @ cross @ rotation @ np.linalg.inv(intrinsics[0]))


def epipolar_distance(fundamental: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray:
    """Distance of matched points from each other's epipolar lines, the larger of the two, shape (M,).

    Args:
        fundamental: F (3, 3) from A to B.
        first: points of A without lens distortion, shape (M, 2).
        second: their partners in B, shape (M, 2).
    """
    a, b = (np.concatenate([points, np.ones((len(points), 1))], axis=1) for points in (first, second))
    line_b, line_a = a @ fundamental.T, b @ fundamental
    product = np.abs((b * line_b).sum(axis=1))
    normal = np.minimum(np.hypot(*line_a[:, :2].T), np.hypot(*line_b[:, :2].T))
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = product / normal
    return np.where(np.isfinite(distance), distance, np.inf)


def scene_epipolar_distance(scene: HasPose, pair: tuple[int, int], first: FloatArray, second: FloatArray) -> FloatArray:
    """:func:`epipolar_distance` of matched points (M, 2) of two images of a scene, lens distortion removed."""
    i, j = pair
    intrinsics = scene.intrinsics[i], scene.intrinsics[j]
    fundamental = fundamental_matrix(intrinsics, scene.relative_pose(i, j))
    return epipolar_distance(fundamental, scene.undistort(i, first), scene.undistort(j, second))
