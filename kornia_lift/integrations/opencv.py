"""Features as OpenCV's keypoints and descriptors, and back.

Convention:
    Pixel centres at integers in both. ``KeyPoint.size`` is a diameter: 2 sigma, as OpenCV's SIFT counts it.
    ``KeyPoint.angle`` is in degrees, clockwise on screen, in [0, 360); -1 stands for none. Our angles are
    counter-clockwise. Other detectors of OpenCV have their own ``size`` (that of ORB is the side of its patch): scales
    that come from them are half of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_lift._extras import require
from kornia_lift.features import Features

_NO_ANGLE = -1.0


def to_opencv(features: Features) -> tuple[list[Any], NDArray[Any]]:
    """Return keypoints and descriptors as OpenCV's own features do.

    Args:
        features: as :func:`~kornia_lift.matching.extract_features` returns them.

    Returns:
        ``cv2.KeyPoint`` objects, and descriptors of shape (N, D), float32 (or uint8 for packed bits), as
        ``cv2.BFMatcher`` expects them.

    Raises:
        ValueError: if the features have no scales.
        MissingExtraError: if OpenCV is not installed.

    """
    cv2 = require("cv2", extra="cli")
    if features.scales is None:
        raise ValueError("to_opencv expects features with scales: cv2.KeyPoint has a size")
    count = len(features)
    angles = np.full(count, _NO_ANGLE) if features.angles is None else (-features.angles % 360).astype(np.float32) % 360
    scores = np.zeros(count) if features.scores is None else features.scores
    keypoints = [
        cv2.KeyPoint(x=float(x), y=float(y), size=2 * float(sigma), angle=float(angle), response=float(score))
        for (x, y), sigma, angle, score in zip(features.keypoints, features.scales, angles, scores, strict=True)
    ]
    dtype = np.uint8 if features.is_binary else np.float32
    return keypoints, np.ascontiguousarray(features.descriptors, dtype=dtype)


def from_opencv(
    keypoints: Sequence[Any], descriptors: NDArray[Any] | None, image_size: tuple[int, int] | None = None
) -> Features:
    """Convert the keypoints and descriptors of an OpenCV feature to the record of this package.

    Args:
        keypoints: ``cv2.KeyPoint`` objects.
        descriptors: shape (N, D); ``None``, as OpenCV returns it, is accepted only without keypoints.
        image_size: width and height of the image.

    Raises:
        ValueError: if the numbers of keypoints and descriptors differ.

    """
    if descriptors is None:
        descriptors = np.zeros((0, 0), dtype=np.float32)
    if len(descriptors) != len(keypoints):
        raise ValueError(
            f"from_opencv expects one descriptor per keypoint, got {len(keypoints)} keypoints and "
            f"{len(descriptors)} descriptors"
        )
    angles = np.array([k.angle for k in keypoints], dtype=np.float64)
    return Features(
        keypoints=np.array([k.pt for k in keypoints], dtype=np.float64).reshape(-1, 2),
        descriptors=np.asarray(descriptors),
        scores=np.array([k.response for k in keypoints], dtype=np.float64),
        scales=np.array([k.size for k in keypoints], dtype=np.float64) / 2,
        angles=None if len(angles) and bool((angles == _NO_ANGLE).all()) else (180 - angles) % 360 - 180,
        image_size=image_size,
    )
