"""Errors of the homography or relative pose that a robust estimator finds from the matches of a pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from kornia_lift._extras import require
from kornia_lift.scenes.homographies import apply_homography
from kornia_lift.scenes.scene import FloatArray

#: Degrees at which the area under the curve of relative poses is taken.
POSE_AUC = (5, 10, 20)
#: Pixels at which the area under the curve of homographies is taken.
HOMOGRAPHY_AUC = (1, 3, 5)


@dataclass(frozen=True)
class Estimator:
    """The robust estimator: OpenCV USAC_MAGSAC on mutual nearest neighbours.

    Args:
        pose_threshold: pixels, for the essential matrix.
        homography_threshold: pixels, for the homography.
        confidence: probability at which sampling stops.
        iterations: most samples drawn.
        orders: in how many orders it is given the matches of a pair. Its samples depend on the order:
            shuffling the matches moves the area under the curve of 40 poses by .02 (standard deviation).

    Raises:
        TypeError: if the number of orders is not a whole number.
        ValueError: if it is not positive.
    """

    pose_threshold: float = 1.0
    homography_threshold: float = 3.0
    confidence: float = 0.9999
    iterations: int = 10_000
    orders: int = 5

    def __post_init__(self) -> None:
        if isinstance(self.orders, bool) or not isinstance(self.orders, SupportsIndex):
            raise TypeError(f"Estimator expects orders as a whole number, got {self.orders!r}")
        if self.orders < 1:
            raise ValueError(f"Estimator expects orders of at least 1, got {self.orders}")

    @property
    def label(self) -> str:
        """Text to print beside the numbers."""
        averaged = f", mean of {self.orders} orders of the matches" if self.orders > 1 else ""
        return (
            f"OpenCV USAC_MAGSAC on mutual nearest neighbours, {self.pose_threshold:g} px (essential matrix), "
            f"{self.homography_threshold:g} px (homography), confidence {self.confidence:g}, "
            f"{self.iterations} iterations{averaged}"
        )

    def errors(self, error: Callable[[FloatArray, FloatArray], float], matches: FloatArray) -> FloatArray:
        """Errors of what is estimated from the matches of a pair, in each of the orders.

        Args:
            error: takes the matched points of A and of B, (M, 2) each, and returns the error of the estimate.
            matches: (x1, y1, x2, y2), shape (M, 4). The first order is theirs, the others are the same in every call.

        Returns:
            The errors, shape (orders,); the area under the curve of a pair is :func:`auc` of all of them.
        """
        random = np.random.default_rng(0)
        chosen = [matches, *(random.permutation(matches) for _ in range(self.orders - 1))]
        return np.array([error(each[:, :2], each[:, 2:]) for each in chosen])


def pose_error(
    first: FloatArray,
    second: FloatArray,
    intrinsics: tuple[FloatArray, FloatArray],
    pose: tuple[FloatArray, FloatArray],
    estimator: Estimator,
) -> float:
    """Angular error of the relative pose found from matches: the larger of rotation and direction of translation.

    Args:
        first: matched points of image A, shape (M, 2).
        second: their partners in B, shape (M, 2).
        intrinsics: K of A and of B, each (3, 3).
        pose: true R (3, 3) and t (3,) with X_B = R X_A + t.
        estimator: robust estimator.

    Returns:
        Degrees; infinity if no pose was found.
    """
    if len(first) < 5:
        return float("inf")
    cv2 = require("cv2", extra="eval")
    k, k_second = intrinsics
    # The estimator takes one K; B's points are carried into A's camera.
    carried = apply_homography(k @ np.linalg.inv(k_second), second)
    try:
        essential, inliers = cv2.findEssentialMat(
            first,
            carried,
            k,
            method=cv2.USAC_MAGSAC,
            prob=estimator.confidence,
            threshold=estimator.pose_threshold,
            maxIters=estimator.iterations,
        )
    except cv2.error:
        return float("inf")
    if essential is None or inliers is None or essential.shape[0] < 3:
        return float("inf")
    best, best_votes = float("inf"), -1
    for start in range(0, essential.shape[0] - 2, 3):
        votes, rotation, translation, _ = cv2.recoverPose(
            essential[start : start + 3], first, carried, k, mask=inliers.copy()
        )
        if votes > best_votes:
            best, best_votes = angular_error(rotation, translation[:, 0], *pose), votes
    return best


def homography_error(
    first: FloatArray, second: FloatArray, truth: FloatArray, size: tuple[int, int], estimator: Estimator
) -> float:
    """Mean distance of the four corners of image A, mapped by the homography found from matches and by the true one.

    Args:
        first: matched points of image A, shape (M, 2).
        second: their partners in B, shape (M, 2).
        truth: homography from A to B, shape (3, 3).
        size: width and height of A.
        estimator: robust estimator.

    Returns:
        Pixels of B; infinity if no homography was found.
    """
    if len(first) < 4:
        return float("inf")
    cv2 = require("cv2", extra="eval")
    try:
        found, _ = cv2.findHomography(
            first,
            second,
            cv2.USAC_MAGSAC,
            estimator.homography_threshold,
            maxIters=estimator.iterations,
            confidence=estimator.confidence,
        )
    except cv2.error:
        return float("inf")
    if found is None or abs(found[2, 2]) < 1e-12:
        return float("inf")
    width, height = size
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], dtype=np.float64)
    offset = apply_homography(found, corners) - apply_homography(truth, corners)
    error = float(np.hypot(*offset.T).mean())
    return error if np.isfinite(error) else float("inf")


def auc(errors: NDArray[np.floating] | list[float], threshold: float) -> float:
    """Area under the recall curve up to a threshold, as a share of the whole: mean of max(0, 1 - error / threshold).

    This is the exact area under the step curve. It is a mean over pairs, so it can be bootstrapped like any other;
    the code of SuperGlue (Sarlin et al., CVPR 2020) draws straight lines between the errors instead, which makes the
    area slightly larger for few pairs.

    Args:
        errors: one per pair, infinity where nothing was found.
        threshold: in the unit of the errors.
    """
    values = np.asarray(errors, dtype=np.float64)
    if len(values) == 0:
        raise ValueError("the area under the curve needs at least one error")
    return float(np.maximum(0.0, 1.0 - values / threshold).mean())


def angular_error(
    rotation: FloatArray, translation: FloatArray, true_rotation: FloatArray, true_translation: FloatArray
) -> float:
    """Larger one of the angles between two rotations (3, 3) and between two translations (3,), degrees, 0 to 180."""
    cosine = (np.trace(rotation.T @ true_rotation) - 1) / 2
    rotated = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    cosine = translation @ true_translation / (np.linalg.norm(translation) * np.linalg.norm(true_translation))
    # Cheirality decides the sign of the direction, so the opposite direction counts as wrong.
    return float(max(rotated, np.degrees(np.arccos(np.clip(cosine, -1, 1)))))
