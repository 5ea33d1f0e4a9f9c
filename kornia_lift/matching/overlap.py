"""Whether two images show the same scene: the number of verified matches compared with what chance gives.

A robust estimator finds a model for any matches: two unrelated images have a dozen "verified" ones. The number that
chance does not explain follows from the number of putative matches, the threshold and the size of the images (Moisan
and Stival, "A probabilistic criterion to detect rigid point matches between two images", IJCV 2004).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

#: log10 of the number of false alarms below which images are said to overlap; measured, see docs/cli.md.
MAX_LOG_FALSE_ALARMS = -4.0
#: Where an image has fewer keypoints, two thirds of the pairs of one scene have too few verified matches (docs/cli.md).
FEW_KEYPOINTS = 200


def log_false_alarms(
    matches: int,
    inliers: int,
    geometry: Literal["fundamental", "homography"],
    threshold: float,
    sizes: Sequence[tuple[int, int]],
) -> float:
    r"""Return log10 of the number of false alarms: how many models with so many inliers random matches would have.

    With n matches, k inliers and models that m matches determine (7 for a fundamental matrix, 4 for a homography) it is
    :math:`(n - m) \binom{n}{k} \binom{k}{m} \alpha^{k - m}`, where :math:`\alpha` is the share of the image that lies
    within the threshold: a band along the diagonal, or a disc.

    Args:
        matches: putative matches.
        inliers: verified ones.
        geometry: kind of the model.
        threshold: largest error of an inlier, pixels.
        sizes: width and height of both images; the smaller area counts.
    """
    minimal = {"fundamental": 7, "homography": 4}[geometry]
    if inliers <= minimal:
        return math.inf
    shares = []
    for width, height in sizes:
        near = 2 * threshold * math.hypot(width, height) if geometry == "fundamental" else math.pi * threshold**2
        shares.append(min(1.0, near / (width * height)))
    natural = (
        math.log(max(1, matches - minimal))
        + _log_binomial(matches, inliers)
        + _log_binomial(inliers, minimal)
        + (inliers - minimal) * math.log(max(shares))
    )
    return natural / math.log(10)


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
