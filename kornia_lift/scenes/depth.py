"""Depth maps, read between their pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kornia_lift.scenes.scene import FloatArray, inside

#: Inverse depth in any unit, 0 where it is unknown.
InverseDepth = NDArray[np.uint16] | NDArray[np.float32]
#: Two depths are of one surface if they differ by at most this fraction.
DEPTH_TOLERANCE = 0.02


def interpolate_inverse_depth(inverse: InverseDepth, points: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Look up an inverse depth map between pixels.

    Inverse depth is interpolated because it is linear in the pixel position on any plane. Where four neighbours differ
    by more than 2 %, there is a depth edge between them and the depth is unknown.

    Args:
        inverse: inverse z-depth in any unit, 0 = unknown, shape (H, W).
        points: (x, y) in pixels, shape (N, 2); they may lie outside.

    Returns:
        The values, shape (N,), NaN where unknown, and whether they are known, shape (N,).
    """
    height, width = inverse.shape
    usable = inside(points, (width, height))
    safe = np.where(usable[:, None], points, 0.0)
    x = np.clip(safe[:, 0], 0.0, width - 1)
    y = np.clip(safe[:, 1], 0.0, height - 1)
    x0 = np.minimum(x.astype(np.int64), width - 2)
    y0 = np.minimum(y.astype(np.int64), height - 2)
    fx, fy = x - x0, y - y0
    corners = np.stack([inverse[y0 + dy, x0 + dx] for dy in (0, 1) for dx in (0, 1)]).astype(np.float64)
    low, high = corners.min(axis=0), corners.max(axis=0)
    known = usable & (low > 0) & (high <= low * (1 + DEPTH_TOLERANCE))
    top = corners[0] * (1 - fx) + corners[1] * fx
    bottom = corners[2] * (1 - fx) + corners[3] * fx
    return np.where(known, top * (1 - fy) + bottom * fy, np.nan), known
