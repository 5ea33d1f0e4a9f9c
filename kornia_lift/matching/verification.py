"""Which putative matches agree with one geometry."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kornia_lift._extras import require

Geometry = Literal["fundamental", "homography"]


def check_geometry(geometry: str) -> None:
    """Check the name of a geometry.

    Raises:
        ValueError: if it is not one of ``Geometry``.

    """
    if geometry not in get_args(Geometry):
        raise ValueError(f"geometry expects one of {', '.join(get_args(Geometry))}, got {geometry!r}")


def verify(
    first: NDArray[np.float32], second: NDArray[np.float32], geometry: Geometry, threshold: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64] | None]:
    """Estimate the geometry between matched points with OpenCV's USAC_MAGSAC and say which matches agree with it.

    Args:
        first: positions (x, y) in the first image, shape (M, 2).
        second: positions of the matches in the second image, shape (M, 2).
        geometry: ``"fundamental"`` for any static scene, ``"homography"`` for planes and pure rotations.
        threshold: largest error of a match that agrees, in pixels (epipolar or reprojection distance).

    Returns:
        Booleans of shape (M,), and the 3x3 matrix or ``None`` if there are too few matches to estimate one.

    Raises:
        ValueError: if the geometry is unknown.
    """
    check_geometry(geometry)
    cv2 = require("cv2", extra="cli")
    # The matches of a minimal model and one that can disagree: fewer verify nothing.
    needed, estimate = {"fundamental": (8, cv2.findFundamentalMat), "homography": (5, cv2.findHomography)}[geometry]
    nothing = np.zeros(len(first), dtype=bool)
    if len(first) < needed:
        return nothing, None
    model, agree = estimate(
        first, second, method=cv2.USAC_MAGSAC, ransacReprojThreshold=threshold, confidence=0.9999, maxIters=20000
    )
    if model is None or model.shape != (3, 3):
        return nothing, None
    return agree[:, 0].astype(bool), model
