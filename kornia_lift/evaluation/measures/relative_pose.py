"""Relative pose from an essential matrix and the accuracy that papers on learned correspondences report.

Convention:
    As in Yi et al. (CVPR 2018), the sign of the translation does not count, and mAP at T is the mean of the shares of
    pairs below 5, 10, ..., T degrees: not the exact area under the curve of :func:`~kornia_lift.evaluation.measures.
    geometry.auc`, which is lower.
"""

from __future__ import annotations

import numpy as np
import torch
from kornia.geometry.epipolar import motion_from_essential_choose_solution
from numpy.typing import NDArray

from kornia_lift.scenes.scene import FloatArray

#: Error in degrees where no pose was found: the largest one.
NO_ROTATION = 180.0


def pose_from_essential(essential: FloatArray, matches: FloatArray) -> tuple[FloatArray, FloatArray, int] | None:
    """Choose the pose of an essential matrix with the most points in front of both cameras.

    Args:
        essential: any scale, singular values need not be (1, 1, 0); shape (3, 3).
        matches: normalised coordinates of inliers, shape (N, 4).

    Returns:
        R (3, 3), t (3,) of unit length, and the number of points in front; ``None`` if the matrix is zero or there are
        no matches.

    """
    if not np.any(essential) or not len(matches):
        return None
    e, m = torch.from_numpy(essential).double(), torch.from_numpy(matches).double()
    eye = torch.eye(3, dtype=torch.float64)
    rotation, translation, _, in_front = motion_from_essential_choose_solution(e, eye, eye, m[:, :2], m[:, 2:])
    return rotation.numpy(), translation[:, 0].numpy(), int(in_front)


def rotation_error(found: FloatArray, true: FloatArray) -> float:
    """Angle of the rotation between two rotations (3, 3), degrees, 0 to 180."""
    # from the chord: the arc cosine of the trace loses all precision at small angles
    half = np.linalg.norm(found - true) / np.sqrt(8)
    return float(np.degrees(2 * np.arcsin(np.clip(half, 0, 1))))


def translation_error(found: FloatArray, true: FloatArray) -> float:
    """Angle between two directions (3,) whose sign does not count, degrees, 0 to 90."""
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(found, true)), abs(found @ true))))


def accuracy(errors: NDArray[np.floating] | list[float], threshold: float) -> float:
    """Share of pairs whose error is below a threshold; failures stay in the denominator.

    Raises:
        ValueError: if there are no pairs.

    """
    values = np.asarray(errors, dtype=np.float64)
    if not len(values):
        raise ValueError("the accuracy needs at least one pair")
    return float((values < threshold).mean())


def mean_accuracy(errors: NDArray[np.floating] | list[float], threshold: int, step: int = 5) -> float:
    """Mean of :func:`accuracy` at ``step``, 2 ``step``, ..., ``threshold`` degrees: mAP of Yi et al. (CVPR 2018)."""
    return float(np.mean([accuracy(errors, t) for t in range(step, threshold + 1, step)]))
